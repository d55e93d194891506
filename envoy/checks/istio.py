"""Validates YAML files against the schemas of Istio and Kubernetes, as an API server does.

    istio.py FILE …

Prints a JSON object for each fault: {"file", "object", "at", "what"}. The schemas are the generated models of cloudcoil. They import
three modules of its library, which this script replaces. So it runs with Python 3.10 or later, and it refuses a field that a schema
does not have, as `kubectl apply --validate=strict` does.
"""

import importlib
import importlib.util
import json
import pathlib
import sys
import types
import typing

import pydantic
import pydantic_core
import yaml

# Module of each API group's models: Istio's, then Kubernetes'.
GROUPS = {
    "extensions.istio.io": "istio.extensions",
    "networking.istio.io": "istio.networking",
    "security.istio.io": "istio.security",
    "telemetry.istio.io": "istio.telemetry",
    "": "kubernetes.core",
    "apps": "kubernetes.apps",
    "policy": "kubernetes.policy",
}


class Builder:
    """Replaces the models' builders, which this script does not use."""

    def __class_getitem__(cls, _):
        return cls


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    Builder: typing.ClassVar = Builder


class ObjectMeta(Model):
    """The metadata that users write."""

    name: typing.Optional[
        typing.Annotated[str, pydantic.Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    ] = None
    namespace: typing.Optional[
        typing.Annotated[str, pydantic.Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    ] = None
    labels: typing.Dict[str, pydantic.StrictStr] = {}
    annotations: typing.Dict[str, pydantic.StrictStr] = {}


class LabelSelectorRequirement(Model):
    key: str
    operator: typing.Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: typing.Optional[typing.List[str]] = None


class LabelSelector(Model):
    match_labels: typing.Annotated[typing.Dict[str, str], pydantic.Field(alias="matchLabels")] = {}
    match_expressions: typing.Annotated[
        typing.List[LabelSelectorRequirement], pydantic.Field(alias="matchExpressions")
    ] = []


class NumberOrText:
    """A quantity, or a port as number or name."""

    Builder = Builder

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return handler.generate_schema(typing.Union[pydantic.StrictInt, pydantic.StrictStr])


class ServerType:
    """Types that only an API server writes."""

    Builder = Builder

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return pydantic_core.core_schema.any_schema()


def module(name, contents=None, path=None):
    made = types.ModuleType(name)
    vars(made).update(contents or {})
    if path is not None:
        made.__path__ = [str(path)]
    sys.modules[name] = made


def library():
    """Registers the model packages without their __init__ code, which imports all models, and replaces the three modules."""
    found = importlib.util.find_spec("cloudcoil.models")
    if found is None:
        sys.exit("istio.py: no models; install istio.txt next to it")
    place = pathlib.Path(list(found.submodule_search_locations)[0])
    for package in ["", *sorted({f".{path.split('.')[0]}" for path in GROUPS.values()})]:
        module(f"cloudcoil.models{package}", path=place.joinpath(*package.split(".")[1:]))
    for below in place.glob("*/*/"):
        module(f"cloudcoil.models.{below.parent.name}.{below.name}", path=below)
    builders = ["BaseBuilder", "BaseModelBuilder", "BuilderContextBase", "GenericListBuilder", "ListBuilderContext"]
    any_type = {"UNSET": None, "Never": typing.Any, "Self": typing.Any}
    module("cloudcoil.pydantic", {"BaseModel": Model, **any_type, **dict.fromkeys(builders, Builder)})
    module("cloudcoil.resources", {"Resource": Model, "ResourceList": Builder})
    server_types = ["Condition", "DeleteOptions", "MicroTime", "Time", "ListMeta", "Status", "WatchEvent", "RawExtension"]
    common = {"ObjectMeta": ObjectMeta, "LabelSelector": LabelSelector, **dict.fromkeys(server_types, ServerType)}
    module("cloudcoil.apimachinery", {**common, "IntOrString": NumberOrText, "Quantity": NumberOrText})


def model(api_version, kind):
    """The model of a kind, or None."""
    group, _, version = api_version.rpartition("/")
    if group not in GROUPS:
        return None
    name = f"cloudcoil.models.{GROUPS[group]}.{version}"
    try:
        made = getattr(importlib.import_module(name), kind, None)
    except ModuleNotFoundError:
        return None
    return made if isinstance(made, type) and "metadata" in made.model_fields else None


def faults(found):
    """Faults of an object, as pairs of place and message."""
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("apiVersion", "kind")):
        return [("", "no object with apiVersion and kind")]
    made = model(found["apiVersion"], found["kind"])
    if made is None:
        return [("", f"no kind {found['kind']} in {found['apiVersion']}")]
    if not isinstance(found.get("metadata"), dict) or "name" not in found["metadata"]:
        return [("metadata.name", "Field required")]
    try:
        made.model_validate(found)
    except pydantic.ValidationError as error:
        # For unions, pydantic adds class names to the location.
        places = [[str(part) for part in fault["loc"] if not str(part)[:1].isupper()] for fault in error.errors()]
        found = zip(places, error.errors())
        return list(dict.fromkeys((".".join(place), fault["msg"]) for place, fault in found))
    return []


def main(files):
    library()
    for file in files:
        with open(file, encoding="utf-8") as text:
            try:
                objects = [found for found in yaml.safe_load_all(text) if found is not None]
            except yaml.YAMLError as error:
                print(json.dumps({"file": file, "object": "", "at": "", "what": str(error)}))
                continue
        if not objects:
            print(json.dumps({"file": file, "object": "", "at": "", "what": "no object"}))
        for found in objects:
            known = found if isinstance(found, dict) else {}
            metadata = known.get("metadata")
            name = f"{known.get('kind')}/{metadata.get('name') if isinstance(metadata, dict) else None}"
            for at, what in faults(found):
                print(json.dumps({"file": file, "object": name, "at": at, "what": what}))


if __name__ == "__main__":
    main(sys.argv[1:])
