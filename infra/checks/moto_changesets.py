"""Makes moto's CloudFormation check parameters, list changes and replacements in change sets, and roll failed stacks back,
as AWS's does.
"""

import logging
import re

from moto_resources import HERE, THROUGH_API, Failure, replacement, report, text
from moto.cloudformation import models, parsing, responses
from moto.cloudformation.exceptions import ValidationError
from moto.iam.models import iam_backends
from resource_schemas import SCHEMAS


def check_parameters(template, given):
    """The parameters' values. Raises the errors that AWS raises when a change set is created."""
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


def conditions_of(template, values):
    """The conditions' values. They depend on parameters only."""
    known = {**values, "AWS::Region": HERE.REGION, "AWS::Partition": HERE.PARTITION}
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


class Change(models.Change):
    __module__ = models.__name__  # moto's base class reads the service from it

    def __init__(self, action, name, resource_type, replaced=None):
        super().__init__(action=action, logical_resource_id=name, resource_type=resource_type)
        self.replacement = replaced


def references(item):
    """The resources that a value refers to: (resource, attribute), with an empty attribute for a Ref."""
    if isinstance(item, list):
        return [found for one in item for found in references(one)]
    if not isinstance(item, dict):
        return []
    found = []
    for key, value in item.items():
        if key == "Ref":
            found.append((value, ""))
        elif key == "Fn::GetAtt":
            found.append(tuple(value.split(".", 1) if isinstance(value, str) else value))
        elif key == "Fn::Sub":
            text = value if isinstance(value, str) else value[0]
            found += [tuple(one.split(".", 1)) if "." in one else (one, "") for one in re.findall(r"\$\{([^!}]+)\}", text)]
            found += references(value)
        else:
            found += references(value)
    return found


def modified(old, new):
    """The changed resources, and whether each is replaced: for its own properties, or for a replaced resource that they name."""
    found = {name: replacement(old[name], new[name]) for name in new if name in old and old[name] != new[name]}
    while True:
        more = dict(found)
        for name in (one for one in new if one in old):
            schema = SCHEMAS.get_resource_schema(HERE.REGION, new[name]["Type"]).schema
            fixed = {path.split("/")[2] for path in schema.get("createOnlyProperties", [])}
            for key, value in new[name]["Properties"].items():
                for of, attribute in references(value):
                    if found.get(of) in ("True", "Conditional") or of in found and attribute == "LatestVersionNumber":
                        more[name] = more.get(name, "False") if key not in fixed else more.get(name) if more.get(name) == "True" else "Conditional"
        if more == found:
            return found
        found = more


def changes(old, new):
    found = [Change("Add", name, new[name]["Type"]) for name in new if name not in old]
    found += [Change("Modify", name, new[name]["Type"], replaced) for name, replaced in modified(old, new).items()]
    return found + [Change("Remove", name, old[name]["Type"]) for name in old if name not in new]


class ChangeSet(models.ChangeSet):
    __module__ = models.__name__

    def diff(self):
        self.values = check_parameters(self.template_dict, self.parameters)
        former = getattr(self.stack, "values", {})
        return changes(resources_of(self.stack.template_dict, former), resources_of(self.template_dict, self.values))


models.ChangeSet = ChangeSet
responses.CloudFormationResponse._validate_different_update = lambda *_: None
moto_create_change_set = models.CloudFormationBackend.create_change_set


def check_service_role(arn):
    """A role that CloudFormation cannot assume is refused:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-iam-servicerole.html"""
    roles = iam_backends[HERE.ACCOUNT][HERE.PARTITION].roles.values()
    trust = next((role.assume_role_policy_document for role in roles if role.arn == arn), None)
    if trust is None or "cloudformation.amazonaws.com" not in str(trust):
        raise ValidationError(message=f"Role {arn} is invalid or cannot be assumed")


def create_change_set(self, stack_name, change_set_name, template, parameters, change_set_type, **rest):
    if rest.get("role_arn"):
        check_service_role(rest["role_arn"])
    if change_set_type == "CREATE":
        # A stack in review is the one that this change set creates.
        for stack in [one for one in self.stacks.values() if one.name == stack_name]:
            if stack.status != "REVIEW_IN_PROGRESS":
                raise ValidationError(message=f"Stack [{stack_name}] already exists and cannot be created again")
            del self.stacks[stack.stack_id]
        check_parameters(models.Stack.parse_template(template), parameters)
    found = moto_create_change_set(self, stack_name=stack_name, change_set_name=change_set_name, template=template,
                            parameters=parameters, change_set_type=change_set_type, **rest)
    change_set = self.change_sets[found[0]]
    if change_set_type == "UPDATE":
        stack = change_set.stack
        if stack.status.endswith("ROLLBACK_COMPLETE") and not stack.status.startswith("UPDATE"):
            raise ValidationError(message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated.")
        same = not change_set.changes and stack.template_dict.get("Outputs") == change_set.template_dict.get("Outputs") and stack.values == change_set.values
        change_set.status, change_set.execution_status = ("FAILED", "UNAVAILABLE") if same else ("CREATE_COMPLETE", "AVAILABLE")
        change_set.status_reason = "The submitted information didn't contain changes." if same else None
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
                if one.replacement == "True" and one.resource_type not in THROUGH_API:
                    report("no replacement of", stack.name, one.logical_resource_id, one.resource_type)
            update_stack(stack, change_set.template, change_set.parameters)
        stack.output_map = stack._create_output_map()
        _ = stack.outputs  # resolved now, so that a wrong output fails the stack
        stack.values = change_set.values
        stack.status = f"{kind}_COMPLETE"
        event(stack, stack.status, token)
    except Failure as failure:
        event(stack, failure.status, token, str(failure), failure.logical_id, failure.resource_type)
        roll_back(stack, kind, former, token)
    except Exception as error:
        logging.exception("the stack fails")
        event(stack, f"{kind}_FAILED", token, repr(error))
        roll_back(stack, kind, former, token)
    change_set.execution_status = "EXECUTE_COMPLETE"


def update_stack(stack, template, parameters):
    """As moto's, but it also updates resources whose parameters changed, and fails at once."""
    old = resources_of(stack.template_dict, stack.values)
    stack.template = template
    stack._parse_template()
    new = resources_of(stack.template_dict, check_parameters(stack.template_dict, parameters))
    changed = modified(old, new)
    diff = {"Add": [n for n in new if n not in old], "Modify": [n for n in new if n in changed],
            "Remove": [n for n in old if n not in new]}
    stack.resource_map.build_resource_diff = lambda *_: {key: list(names) for key, names in diff.items()}
    stack.resource_map.update(stack.template_dict, parameters)
    stack.parameters = parameters


def roll_back(stack, kind, former, token):
    event(stack, "ROLLBACK_IN_PROGRESS" if kind == "CREATE" else "UPDATE_ROLLBACK_IN_PROGRESS", token)
    if kind == "CREATE":
        created = stack.resource_map._parsed_resources
        stack.resource_map._resource_json_map = {n: j for n, j in stack.resource_map._resource_json_map.items() if n in created}
        stack.resource_map.rolls_back = True
        stack.resource_map.delete()
        stack.status = "ROLLBACK_COMPLETE"
    else:
        update_stack(stack, former[0], former[1])
        stack.values = former[2]
        stack.output_map = stack._create_output_map()
        stack.status = "UPDATE_ROLLBACK_COMPLETE"
    event(stack, stack.status, token)


def delete_resources(resource_map):
    """As moto's, but it keeps what `RetainExceptOnCreate` keeps, and an error names the resource.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html"""
    # A failed first creation removes what was created.
    kept = ("Retain",) if resource_map.rolls_back else ("Retain", "RetainExceptOnCreate")
    left = {name: json for name, json in resource_map._resource_json_map.items() if json.get("DeletionPolicy") not in kept}
    failure = None
    # What others depend on is deleted in a later round.
    while left:
        before = len(left)
        for name, resource_json in list(left.items()):
            resource = resource_map._parsed_resources.get(name)
            try:
                if resource is not None and not isinstance(resource, str):
                    resource_map._delete_resource(resource, resource_json)
                    resource_map._parsed_resources.pop(name)
                del left[name]
            except Exception as error:  # moto raises many types
                failure = Failure(name, resource_json["Type"], "DELETE_FAILED", error)
        if len(left) == before:
            raise failure


def delete_stack(self, name_or_stack_id):
    """As moto's, but a stack of which a resource cannot be deleted stays, as `DELETE_FAILED`:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/troubleshooting.html"""
    for stack in [one for one in self.stacks.values() if name_or_stack_id in (one.name, one.stack_id)]:
        event(stack, "DELETE_IN_PROGRESS", None, "User Initiated")
        try:
            stack.resource_map.delete()
        except Failure as failure:
            event(stack, failure.status, None, str(failure), failure.logical_id, failure.resource_type)
            stack.status = failure.status
            event(stack, stack.status, None)
            continue
        stack.status = "DELETE_COMPLETE"
        event(stack, stack.status, None)
        del self.stacks[stack.stack_id]
        self.deleted_stacks[stack.stack_id] = stack
        for export in stack.exports:
            self.exports.pop(export.name, None)


parsing.ResourceMap.rolls_back = False
parsing.ResourceMap.delete = delete_resources
models.CloudFormationBackend.delete_stack = delete_stack
models.CloudFormationBackend.create_change_set = create_change_set
models.CloudFormationBackend.execute_change_set = execute_change_set
# moto repeats an update up to five times and drops the errors.
parsing.MAX_UPDATE_ATTEMPTS = 3


moto_create_response = responses.CloudFormationResponse.create_change_set


def create_response(self):
    """Former values are what the stack was given; moto takes lists as Python writes them. A former value that does not exist, or one
    next to a new value, is refused: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Parameter.html"""
    former = {}
    if self._get_param("ChangeSetType", "CREATE") == "UPDATE":
        former = self.cloudformation_backend.get_stack(self._get_param("StackName")).values
    for parameter in self._get_param("Parameters", []):
        if parameter.pop("UsePreviousValue", False) in (True, "true"):
            key = parameter["ParameterKey"]
            if parameter.get("ParameterValue"):
                raise ValidationError(message=f"Invalid input for parameter key {key}. Cannot specify usePreviousValue as true and non empty value for a parameter")
            if key not in former:
                raise ValidationError(message=f"Invalid input for parameter key {key}. Cannot specify usePreviousValue as true for a parameter key not in the previous template")
            parameter["ParameterValue"] = former[key]
    return moto_create_response(self)


responses.CloudFormationResponse.create_change_set = create_response


def execute_response(self):
    self.cloudformation_backend.execute_change_set(
        change_set_name=self._get_param("ChangeSetName"), stack_name=self._get_param("StackName"),
        token=self._get_param("ClientRequestToken"))
    return responses.EmptyResult()


responses.CloudFormationResponse.execute_change_set = execute_response
models.Stack.stack_resources = property(lambda self: [one for one in self.resource_map.values() if one is not None])
# What the stack was given, as text, of its present template's parameters: moto writes lists as Python does, and keeps the parameters
# of former templates. https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Stack.html
models.Stack.parameter_list = property(
    lambda self: [{"ParameterKey": key, "ParameterValue": value} for key, value in getattr(self, "values", {}).items()])
