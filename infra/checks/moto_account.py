"""What an account may do and have, which moto lacks: the caller's identity as IAM has it, policy simulation, access to Bedrock's
models, and quotas of EC2.

A test sets the account's state in NAME.state.json, next to NAME.list. All keys are optional:

    policy           the caller's policy, of Allow statements; all is allowed without one
    denied_actions   actions that the caller's policies do not allow
    denied_regions   regions that a service control policy denies
    models           model id -> {"access": false, "profile_only": true, "regions": [of its inference profile]}
    quotas           quota code -> value
    no_images        true: AWS publishes no images in the region
    unhealthy        true: the load balancers find no target healthy
"""

import fnmatch
import json
import os
import re
from urllib.parse import unquote

from moto.bedrock.responses import BedrockResponse
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.core.responses import ActionResult
from moto.elbv2.models import FakeTargetGroup
from moto.iam.responses import IamResponse
from moto.servicequotas.models import ServiceQuotasBackend
from moto.ssm.models import SimpleSystemManagerBackend
from moto.sts.models import STSBackend
from moto_resources import HERE

# https://docs.aws.amazon.com/general/latest/gr/ec2-service.html: EC2-VPC Elastic IPs.
EC2_QUOTAS = {"L-0263D0A3": 5.0}
DEFAULT_REGIONS = ["us-east-1", "us-east-2", "us-west-2"]


def state():
    path = HERE.LIST_FILE.removesuffix(".list") + ".state.json"
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


# --- STS: moto's default caller has an ARN that AWS never gives. ---------------------------------------------------------

caller_of = STSBackend.get_caller_identity


class InvalidClientTokenId(ServiceException):
    __module__ = "moto.sts.exceptions"
    code = "InvalidClientTokenId"
    message = "The security token included in the request is invalid."


def caller(self, access_key_id, region):
    """Credentials of one partition are not valid in another: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html"""
    if region.startswith("us-gov-") != (HERE.PARTITION == "aws-us-gov"):
        raise InvalidClientTokenId
    user_id, arn, account = caller_of(self, access_key_id, region)
    return user_id, arn.replace(":sts::", ":iam::").replace(":user/moto", ":user/deployer"), account


STSBackend.get_caller_identity = caller


# --- IAM -----------------------------------------------------------------------------------------------------------------


class InvalidInput(ServiceException):
    __module__ = "moto.iam.exceptions"
    code = "InvalidInput"


class NoSuchEntity(ServiceException):
    __module__ = "moto.iam.exceptions"
    code = "NoSuchEntity"


def simulate(self):
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html"""
    source = self._get_param("PolicySourceArn")
    kind = re.fullmatch(rf"arn:{HERE.PARTITION}:iam::(\d+):(user|group|role)/.+", source)
    if not kind:
        raise InvalidInput(f"Invalid Entity Arn: {source} does not clearly define entity type and name.")
    if kind[1] != HERE.ACCOUNT:
        raise NoSuchEntity(f"The principal {source} cannot be found.")
    context = {entry["ContextKeyName"]: entry["ContextKeyValues"] for entry in self._get_param("ContextEntries") or []}
    regions = context.get("aws:RequestedRegion", [])
    arns = self._get_param("ResourceArns") or ["*"]
    results = []
    for action in self._get_param("ActionNames"):
        region_denied = any(region in state().get("denied_regions", []) for region in regions)
        decisions = {arn: "explicitDeny" if region_denied else "allowed" if permitted(action, arn) else "implicitDeny" for arn in arns}
        denied = [arn for arn in arns if decisions[arn] != "allowed"]
        results.append({
            "EvalActionName": action,
            "EvalResourceName": (denied or arns)[0],
            "EvalDecision": decisions[(denied or arns)[0]],
            "OrganizationsDecisionDetail": {"AllowedByOrganizations": not region_denied},
            "ResourceSpecificResults": [{"EvalResourceName": arn, "EvalResourceDecision": decisions[arn]} for arn in arns],
        })
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def permitted(action, arn):
    """A resource that is not given is `*`, which only `*` in a policy matches:
    https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html"""
    def matches(patterns, text):
        return any(fnmatch.fnmatchcase(text, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns))

    if action in state().get("denied_actions", []):
        return False
    statements = state().get("policy", {"Statement": [{"Action": "*", "Resource": "*"}]})["Statement"]
    return any(matches(one["Action"], action) and matches(one["Resource"], arn) for one in statements)


IamResponse.simulate_principal_policy = simulate


# --- Bedrock -------------------------------------------------------------------------------------------------------------


class BedrockError(JsonRESTError):
    def __init__(self, status, name, message):
        super().__init__(name, message)
        self.code = status


def allowed(self, action):
    """The words of AWS where a service control policy denies a call:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html"""
    if self.region in state().get("denied_regions", []):
        raise BedrockError(403, "AccessDeniedException",
                           f"User: arn:{HERE.PARTITION}:iam::{HERE.ACCOUNT}:user/deployer is not authorized to perform: bedrock:{action} "
                           "with an explicit deny in a service control policy")


def last_segment(self):
    return unquote(self.path.rsplit("/", 1)[1])


def availability(self):
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetFoundationModelAvailability.html"""
    allowed(self, "GetFoundationModelAvailability")
    model = last_segment(self)
    if not re.fullmatch(r"[a-z0-9-]{1,63}[.][a-z0-9-]{1,63}([a-z0-9-]{1,63}[.]){0,2}[a-z0-9-]{1,63}([:][a-z0-9-]{1,63}){0,2}", model):
        raise BedrockError(400, "ValidationException", "The provided model identifier is invalid.")
    known = state().get("models", {}).get(model, {})
    access = known.get("access", True)
    return json.dumps({
        "modelId": model,
        "agreementAvailability": {"status": "AVAILABLE" if access else "NOT_AVAILABLE"},
        "authorizationStatus": "AUTHORIZED",
        "entitlementAvailability": "AVAILABLE" if access else "NOT_AVAILABLE",
        "regionAvailability": "AVAILABLE" if self.region in known.get("regions", DEFAULT_REGIONS) else "NOT_AVAILABLE",
    })


def profile(self):
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetInferenceProfile.html"""
    allowed(self, "GetInferenceProfile")
    name = last_segment(self)
    prefix, _, model = name.partition(".")
    if prefix != "us" or not model:
        raise BedrockError(404, "ResourceNotFoundException", "The specified inference profile could not be found.")
    regions = state().get("models", {}).get(model, {}).get("regions", DEFAULT_REGIONS)
    return json.dumps({
        "inferenceProfileId": name,
        "inferenceProfileName": name,
        "inferenceProfileArn": f"arn:{HERE.PARTITION}:bedrock:{self.region}:{HERE.ACCOUNT}:inference-profile/{name}",
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
        "models": [{"modelArn": f"arn:{HERE.PARTITION}:bedrock:{region}::foundation-model/{model}"} for region in regions],
    })


BedrockResponse.get_foundation_model_availability = availability
BedrockResponse.get_inference_profile = profile


# --- Service Quotas ------------------------------------------------------------------------------------------------------

quota_of = ServiceQuotasBackend.get_service_quota


def quota(self, service_code, quota_code):
    value = state().get("quotas", {}).get(quota_code, EC2_QUOTAS.get(quota_code) if service_code == "ec2" else None)
    if value is None:
        return quota_of(self, service_code, quota_code)
    return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": value}


ServiceQuotasBackend.get_service_quota = quota


# --- SSM: names of images that AWS and Debian publish. ---------------------------------------------------------------------

parameters_of = SimpleSystemManagerBackend.get_parameters
PUBLISHED = re.compile(r"/aws/service/(ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64|debian/release/1[23]/latest/amd64)")


class Published:
    def __init__(self, name):
        self.name = name

    def response_object(self, decrypt=False, region=None):
        return {"Name": self.name, "Type": "String", "Value": "ami-0abcdef1234567890", "Version": 1}


def parameters(self, names):
    found = parameters_of(self, names)
    found.update({name: published(name) for name in names if name not in found and published(name)})
    return found


def published(name):
    return None if state().get("no_images") or not PUBLISHED.fullmatch(name) else Published(name)


parameter_of = SimpleSystemManagerBackend.get_parameter
SimpleSystemManagerBackend.get_parameters = parameters
SimpleSystemManagerBackend.get_parameter = lambda self, name: parameter_of(self, name) or published(name)


# --- Elastic Load Balancing ------------------------------------------------------------------------------------------------

health_of = FakeTargetGroup.health_for


def health(self, target, ec2_backend):
    found = health_of(self, target, ec2_backend)
    if state().get("unhealthy"):
        found.status, found.reason = "unhealthy", "Target.FailedHealthChecks"
    return found


FakeTargetGroup.health_for = health


# --- CloudWatch ------------------------------------------------------------------------------------------------------------


def alarm_history(self):
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarmHistory.html, of state updates."""
    items = []
    for alarm in self.cloudwatch_backend.alarms.values():
        states = [state for _, _, _, state, _ in alarm.history] + [alarm.state_value]
        times = [time for _, _, _, _, time in alarm.history[1:]] + [alarm.state_updated_timestamp]
        for before, after, time in zip(states, states[1:], times):
            items.append({"AlarmName": alarm.name, "AlarmType": "MetricAlarm", "Timestamp": time, "HistoryItemType": "StateUpdate",
                          "HistorySummary": f"Alarm updated from {before} to {after}"})
    return ActionResult({"AlarmHistoryItems": items})


CloudWatchResponse.describe_alarm_history = alarm_history
