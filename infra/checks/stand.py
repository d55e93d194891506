"""One partition of AWS for the walk of `cargo xtask infra`: moto's server, with a CloudFormation nearer to AWS's own.

moto's change sets say nothing of parameters or replacement, its stacks do not roll back, and types that it lacks are passed over
in silence. Here, as at AWS:
- parameters that a template does not declare, lacks, or does not allow are refused when the change set is made;
- a change set says what changes, and what is replaced, by the resource schemas that cfn-lint carries; one without changes fails;
- a stack that fails is rolled back, with the cause among its events;
- `AWS::Partition` is the region's.
And a type that moto lacks becomes a placeholder with an id and attributes, and is told as such: what could not be deployed is
computed, and never silently taken for deployed. Placeholders do what moto's models do not: they keep their properties.

    stand.py PORT-FILE LIST-FILE REGION

Writes the port to PORT-FILE when it serves, and a line of JSON to LIST-FILE for each resource it could only hold a place for, and
for each that moto made but could not update.
"""

import json
import logging
import re
import sys
import uuid
import warnings

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from moto.cloudformation import models, parsing, responses
from moto.cloudformation.exceptions import ValidationError
from moto.kms.models import Key
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

PORT_FILE, LIST_FILE, REGION = sys.argv[1:4]
PARTITION = "aws-us-gov" if REGION.startswith("us-gov-") else "aws"


def tell(what, stack, logical_id, resource_type):
    with open(LIST_FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, "stack": stack, "resource": logical_id, "type": resource_type}) + "\n")


# --- types that moto lacks -------------------------------------------------------------------------------------------


class Placeholder:
    """What stands in the place of a resource of such a type."""

    def __init__(self, name, resource_json, account, region, logical_id):
        self.properties = resource_json.get("Properties", {})
        kind = resource_json["Type"].split("::")
        self.physical_resource_id = self.properties.get("Name") or f"{kind[2].lower()}-{uuid.uuid5(uuid.NAMESPACE_URL, name).hex[:17]}"
        self.arn = f"arn:{PARTITION}:{kind[1].lower()}:{region}:{account}:{kind[2].lower()}/{self.physical_resource_id}"
        self.cf_resource_type = resource_json["Type"]
        self.logical_resource_id = logical_id

    def get_cfn_attribute(self, attribute):
        return self.arn if attribute.endswith("Arn") else f"{self.physical_resource_id}-{attribute}"

    def delete(self, _account, _region):
        pass

    def is_created(self):
        return True


def placeholder_of(resource_type):
    def create(name, resource_json, account, region, **kwargs):
        stack = kwargs["StackId"].split("/")[1]
        tell("held a place", stack, kwargs["LogicalId"], resource_type)
        return Placeholder(f"{stack}/{kwargs['LogicalId']}", resource_json, account, region, kwargs["LogicalId"])

    def update(original_resource, cloudformation_json, **_):
        original_resource.properties = cloudformation_json.get("Properties", {})
        return original_resource

    return type(
        "PlaceholderOf" + resource_type.replace("::", ""),
        (),
        {
            "create_from_cloudformation_json": staticmethod(create),
            "update_from_cloudformation_json": staticmethod(update),
            "has_cfn_attr": staticmethod(lambda _attribute: True),
        },
    )


def class_of(resource_type):
    known = parsing.get_model_map().get(resource_type)
    if known is None:
        PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource_type)  # raises where AWS has no such type there
        return placeholder_of(resource_type)
    return known


parsing.resource_class_from_type = class_of

create_resource = parsing.parse_and_create_resource
update_resource = parsing.parse_and_update_resource


def create_named(logical_id, resource_json, resources_map, **where):
    """As moto's, and an error names the resource."""
    try:
        return create_resource(logical_id, resource_json, resources_map, **where)
    except Failure:
        raise
    except Exception as error:  # noqa: BLE001 whatever moto raises is what failed
        raise Failure(logical_id, resource_json["Type"], "CREATE_FAILED", error) from error


def update_named(logical_id, resource_json, resources_map, **where):
    """As moto's; a resource that moto cannot update stays as it was, and is told."""
    if resource_json.get("Condition") and not resources_map.lazy_condition_map[resource_json["Condition"]]:
        return None
    original = resources_map[logical_id]
    try:
        changed = update_resource(logical_id, resource_json, resources_map, **where)
    except NotImplementedError:
        changed = None
    except Exception as error:  # noqa: BLE001
        raise Failure(logical_id, resource_json["Type"], "UPDATE_FAILED", error) from error
    if changed is None:
        tell("not updated", resources_map["AWS::StackName"], logical_id, resource_json["Type"])
        return original
    return changed


parsing.parse_and_create_resource = create_named
parsing.parse_and_update_resource = update_named

new_map = parsing.ResourceMap.__init__


def map_of_partition(self, *arguments, **named):
    new_map(self, *arguments, **named)
    self._parsed_resources["AWS::Partition"] = PARTITION


parsing.ResourceMap.__init__ = map_of_partition


# moto's key takes tags in the form of KMS's own API, which is not that of templates.
make_key = Key.create_from_cloudformation_json.__func__


def make_tagged_key(cls, name, resource_json, account, region, **named):
    tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in resource_json["Properties"].get("Tags", [])]
    resource_json["Properties"] = {**resource_json["Properties"], "Tags": tags}
    return make_key(cls, name, resource_json, account, region, **named)


Key.create_from_cloudformation_json = classmethod(make_tagged_key)


class Failure(Exception):
    """What failed of a stack."""

    def __init__(self, logical_id, resource_type, status, error):
        super().__init__(str(getattr(error, "message", None) or error or type(error).__name__))
        self.logical_id, self.resource_type, self.status = logical_id, resource_type, status


# --- change sets -----------------------------------------------------------------------------------------------------


def check_parameters(template, given):
    """As AWS does when a change set is made."""
    declared = template.get("Parameters", {})
    unknown = [key for key in given if key not in declared]
    if unknown:
        raise ValidationError(message=f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    missing = [key for key, slot in declared.items() if key not in given and "Default" not in slot]
    if missing:
        raise ValidationError(message=f"Parameters: [{', '.join(missing)}] must have values")
    for key, slot in declared.items():
        value = str(given.get(key, slot.get("Default", "")))
        why = slot.get("ConstraintDescription")
        pattern, allowed = slot.get("AllowedPattern"), slot.get("AllowedValues")
        if allowed and value not in [text(one) for one in allowed]:
            raise ValidationError(message=f"Parameter '{key}' must be one of AllowedValues: {why or allowed}")
        values = value.split(",") if slot["Type"] in ("CommaDelimitedList",) or slot["Type"].startswith("List<") else [value]
        if pattern and not all(re.fullmatch(pattern, one.strip()) for one in values):
            raise ValidationError(message=f"Parameter {key} failed to satisfy constraint: {why or pattern}")
        if slot["Type"] == "Number":
            number = float(value)
            if number < float(slot.get("MinValue", number)) or number > float(slot.get("MaxValue", number)):
                raise ValidationError(message=f"Parameter {key} failed to satisfy constraint: {why or 'out of its range'}")
        if len(value) > min(int(slot.get("MaxLength", 4096)), 4096) or len(value) < int(slot.get("MinLength", 0)):
            raise ValidationError(message=f"Parameter {key} failed to satisfy constraint: {why or 'its length'}")
    return {key: text(given.get(key, slot.get("Default", ""))) for key, slot in declared.items()}


def text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def conditions_of(template, values):
    """The conditions' truth, of parameters alone."""
    known = {**values, "AWS::Region": REGION, "AWS::Partition": PARTITION}
    written, found = template.get("Conditions", {}), {}

    def value(item):
        return known.get(item["Ref"]) if isinstance(item, dict) and "Ref" in item else text(item)

    def truth(item):
        if isinstance(item, str):
            if item not in found:
                found[item] = truth(written[item])
            return found[item]
        (operator, operands), = item.items()
        if operator == "Condition":
            return truth(operands)
        if operator == "Fn::Equals":
            return value(operands[0]) == value(operands[1])
        return {"Fn::Not": lambda: not truth(operands[0]), "Fn::And": lambda: all(map(truth, operands)),
                "Fn::Or": lambda: any(map(truth, operands))}[operator]()

    return {name: truth(name) for name in written}


def expanded(item, values, truths):
    """With parameters and conditions resolved; references to resources stay."""
    if isinstance(item, list):
        return [expanded(one, values, truths) for one in item]
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        return item
    if len(item) == 1:
        (operator, operand), = item.items()
        if operator == "Ref" and operand in values:
            return values[operand]
        if operator == "Fn::If":
            return expanded(operand[1] if truths[operand[0]] else operand[2], values, truths)
        if operator == "Fn::Sub" and isinstance(operand, str):
            return {operator: re.sub(r"\$\{(\w+)\}", lambda m: values.get(m[1], m[0]), operand)}
    return {key: expanded(one, values, truths) for key, one in item.items()}


def resources_of(template, values):
    truths = conditions_of(template, values)
    return {
        name: {"Type": resource["Type"], "Properties": expanded(resource.get("Properties", {}), values, truths)}
        for name, resource in template.get("Resources", {}).items()
        if "Condition" not in resource or truths[resource["Condition"]]
    }


def replacement(old, new):
    """`True`, `Conditional` or `False`, by the schema of the type."""
    if old["Type"] != new["Type"]:
        return "True"
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, new["Type"]).schema

    def differs(kind):
        names = {path.split("/")[2] for path in schema.get(kind, [])}
        return any(old["Properties"].get(name) != new["Properties"].get(name) for name in names)

    if differs("createOnlyProperties"):
        return "True"
    return "Conditional" if differs("conditionalCreateOnlyProperties") else "False"


class Change(models.Change):
    __module__ = models.__name__  # moto's base class reads its service from it

    def __init__(self, action, name, resource_type, replaced=None):
        super().__init__(action=action, logical_resource_id=name, resource_type=resource_type)
        self.replacement = replaced


def changes(old, new):
    found = [Change("Add", name, new[name]["Type"]) for name in new if name not in old]
    found += [Change("Modify", name, new[name]["Type"], replacement(old[name], new[name]))
              for name in new if name in old and old[name] != new[name]]
    return found + [Change("Remove", name, old[name]["Type"]) for name in old if name not in new]


class ChangeSet(models.ChangeSet):
    __module__ = models.__name__

    def diff(self):
        self.values = check_parameters(self.template_dict, self.parameters)
        former = getattr(self.stack, "values", {})
        return changes(resources_of(self.stack.template_dict, former), resources_of(self.template_dict, self.values))


models.ChangeSet = ChangeSet
responses.CloudFormationResponse._validate_different_update = lambda *_: None
make_change_set = models.CloudFormationBackend.create_change_set


def create_change_set(self, stack_name, change_set_name, template, parameters, change_set_type, **rest):
    if change_set_type == "CREATE":
        # A stack that waits for its first change set is the same stack.
        for stack in [one for one in self.stacks.values() if one.name == stack_name]:
            if stack.status != "REVIEW_IN_PROGRESS":
                raise ValidationError(message=f"Stack [{stack_name}] already exists and cannot be created again")
            del self.stacks[stack.stack_id]
        check_parameters(models.Stack.parse_template(template), parameters)
    found = make_change_set(self, stack_name=stack_name, change_set_name=change_set_name, template=template,
                            parameters=parameters, change_set_type=change_set_type, **rest)
    made = self.change_sets[found[0]]
    outputs = lambda of: of.get("Outputs", {})  # noqa: E731
    if change_set_type == "UPDATE":
        stack = made.stack
        if stack.status.endswith("ROLLBACK_COMPLETE") and not stack.status.startswith("UPDATE"):
            raise ValidationError(message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated.")
        same = not made.changes and outputs(stack.template_dict) == outputs(made.template_dict) and stack.values == made.values
        made.status, made.execution_status = ("FAILED", "UNAVAILABLE") if same else ("CREATE_COMPLETE", "AVAILABLE")
        made.status_reason = "The submitted information didn't contain changes." if same else None
    return found


def event(stack, status, token, reason=None, logical_id=None, resource_type=None):
    stack._add_stack_event(status, resource_status_reason=reason)
    last = stack.events[-1]
    last.client_request_token = token
    if logical_id:
        last.logical_resource_id, last.resource_type = logical_id, resource_type


def execute_change_set(self, change_set_name, stack_name=None, token=None):
    change_set = self.describe_change_set(change_set_name)
    stack = change_set.stack
    kind = change_set.change_set_type
    former = (stack.template, getattr(stack, "parameters", {}), getattr(stack, "values", {}))
    event(stack, f"{kind}_IN_PROGRESS", token, "User Initiated")
    try:
        if kind == "CREATE":
            stack.template = change_set.template
            stack._parse_template()
            stack.resource_map = stack._create_resource_map()
            stack.create_resources()
        else:
            for one in change_set.changes:
                if one.replacement == "True":
                    tell("would be replaced", stack.name, one.logical_resource_id, one.resource_type)
            update_stack(stack, change_set.template, change_set.parameters)
        stack.output_map = stack._create_output_map()
        _ = stack.outputs  # resolved now, so that a wrong one fails the stack
        stack.values = change_set.values
        stack.status = f"{kind}_COMPLETE"
        event(stack, stack.status, token)
    except Failure as failure:
        event(stack, failure.status, token, str(failure), failure.logical_id, failure.resource_type)
        roll_back(stack, kind, former, token)
    except Exception as error:  # noqa: BLE001
        logging.exception("the stack fails")
        event(stack, f"{kind}_FAILED", token, repr(error))
        roll_back(stack, kind, former, token)
    change_set.execution_status = "EXECUTE_COMPLETE"


def update_stack(stack, template, parameters):
    """As moto's, but what is to be changed is what the parameters change, too, and a failure is said at once."""
    old = resources_of(stack.template_dict, stack.values)
    stack.template = template
    stack._parse_template()
    new = resources_of(stack.template_dict, check_parameters(stack.template_dict, parameters))
    diff = {"Add": [n for n in new if n not in old], "Modify": [n for n in new if n in old and old[n] != new[n]],
            "Remove": [n for n in old if n not in new]}
    stack.resource_map.build_resource_diff = lambda *_: {key: list(names) for key, names in diff.items()}
    stack.resource_map.update(stack.template_dict, parameters)
    stack.parameters = parameters


def roll_back(stack, kind, former, token):
    event(stack, "ROLLBACK_IN_PROGRESS" if kind == "CREATE" else "UPDATE_ROLLBACK_IN_PROGRESS", token)
    if kind == "CREATE":
        made = stack.resource_map._parsed_resources
        stack.resource_map._resource_json_map = {n: j for n, j in stack.resource_map._resource_json_map.items() if n in made}
        stack.resource_map.delete()
        stack.status = "ROLLBACK_COMPLETE"
    else:
        update_stack(stack, former[0], former[1])
        stack.values = former[2]
        stack.output_map = stack._create_output_map()
        stack.status = "UPDATE_ROLLBACK_COMPLETE"
    event(stack, stack.status, token)


models.CloudFormationBackend.create_change_set = create_change_set
models.CloudFormationBackend.execute_change_set = execute_change_set
# moto goes over an update five times and drops what each says; one more than once is enough.
parsing.MAX_UPDATE_ATTEMPTS = 3


def execute_response(self):
    self.cloudformation_backend.execute_change_set(
        change_set_name=self._get_param("ChangeSetName"), stack_name=self._get_param("StackName"),
        token=self._get_param("ClientRequestToken"))
    return responses.EmptyResult()


responses.CloudFormationResponse.execute_change_set = execute_response
models.Stack.stack_resources = property(lambda self: [one for one in self.resource_map.values() if one is not None])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    open(LIST_FILE, "w", encoding="utf-8").close()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, request_handler=MotoRequestHandler)
    with open(PORT_FILE, "w", encoding="utf-8") as file:
        file.write(str(server.server_port))
    server.serve_forever()
