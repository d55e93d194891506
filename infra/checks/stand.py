"""Both partitions of AWS for the walk of `cargo xtask infra`: moto's server, with a CloudFormation nearer to AWS's own.

moto's change sets say nothing of parameters or replacement, its stacks do not roll back, and types that it lacks are passed over
in silence. Here, as at AWS:
- parameters that a template does not declare, lacks, or does not allow are refused when the change set is made;
- a change set says what changes, and what is replaced, by the resource schemas that cfn-lint carries; one without changes fails;
- a stack that fails is rolled back, with the cause among its events;
- `AWS::Partition` is the region's.
Types whose service moto has, and its CloudFormation not, are made through the service's own API. And a type that moto lacks becomes
a placeholder with an id and attributes, and is told as such: what could not be deployed is computed, and never silently taken for
deployed. Placeholders do what moto's models do not: they keep their properties.

    stand.py DIRECTORY NAME:REGION:ACCOUNT...

Serves each partition by a process of its own, forked when all is loaded, and ends when one of them does. Writes the port to NAME.port
in DIRECTORY when it serves, and a line of JSON to NAME.list for each resource it could only hold a place for, and
for each that moto made but could not update.
"""

import ctypes
import ipaddress
import json
import logging
import os
import random
import re
import signal
import string
import sys
import uuid
import warnings

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from moto.cloudformation import models, parsing, responses
from moto.cloudformation.exceptions import ValidationError
from moto.ec2.models import ec2_backends
from moto.ec2.models.vpcs import VPCEndPoint
from moto.kms.models import Key
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

# Linux, <sys/prctl.h>.
PR_SET_PDEATHSIG = 1
# Of the partition that this process serves.
REGION = PARTITION = ACCOUNT = LIST_FILE = ""
PORT = 0


def tell(what, stack, logical_id, resource_type, properties=None):
    with open(LIST_FILE, "a", encoding="utf-8") as file:
        line = {"what": what, "stack": stack, "resource": logical_id, "type": resource_type, "properties": properties}
        file.write(json.dumps(line) + "\n")


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
        tell("held a place", stack, kwargs["LogicalId"], resource_type, resource_json.get("Properties"))
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


# --- types that moto has the service of ------------------------------------------------------------------------------

def api(service):
    """This stand's own API of a service. AWS's example keys: moto asks for some, and looks at none."""
    return boto3.client(
        service, region_name=REGION, endpoint_url=f"http://127.0.0.1:{PORT}", aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", config=Config(retries={"max_attempts": 0}))


def numbers(properties):
    """CloudFormation's parameters are texts; what an API wants as a number is one."""
    kinds = {"Threshold": float, "Period": int, "EvaluationPeriods": int, "DatapointsToAlarm": int, "FromPort": int, "ToPort": int}
    if isinstance(properties, list):
        return [numbers(one) for one in properties]
    if not isinstance(properties, dict):
        return properties
    return {key: kinds[key](value) if key in kinds else numbers(value) for key, value in properties.items()}


def as_text(policy):
    return policy if isinstance(policy, str) else json.dumps(policy)


def make_secret(p, _name):
    client, value = api("secretsmanager"), {}
    if wanted := p.get("GenerateSecretString"):
        value["SecretString"] = client.get_random_password(**{
            "PasswordLength": int(wanted["PasswordLength"]), "ExcludePunctuation": bool(wanted.get("ExcludePunctuation"))})["RandomPassword"]
    return client.create_secret(**{key: p[key] for key in ("Name", "Description", "KmsKeyId", "Tags") if key in p}, **value)["ARN"]


def make_connection(p, _name):
    """As AWS tells of a VPN connection that it has made: addresses of its own, and keys where none were given."""
    made = api("ec2").create_vpn_connection(Type=p["Type"], CustomerGatewayId=p["CustomerGatewayId"], VpnGatewayId=p["VpnGatewayId"])
    found = made["VpnConnection"]["VpnConnectionId"]
    connections = ec2_backends[ACCOUNT][REGION].vpn_connections
    letters = string.ascii_letters + string.digits + "._"
    connections[found].options = {"StaticRoutesOnly": p.get("StaticRoutesOnly", False), "TunnelOptions": [
        {"OutsideIpAddress": f"203.0.113.{len(connections) * 2 + number}", "TunnelInsideCidr": tunnel["TunnelInsideCidr"],
         "PreSharedKey": tunnel.get("PreSharedKey") or "".join(random.choices(letters, k=32))}
        for number, tunnel in enumerate(p["VpnTunnelOptionsSpecifications"])]}
    return found


def make_instance(p, _name):
    template = {"LaunchTemplateId": p["LaunchTemplate"]["LaunchTemplateId"], "Version": str(p["LaunchTemplate"]["Version"])}
    found = api("ec2").run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    api("ec2").modify_instance_attribute(InstanceId=found, SourceDestCheck={"Value": p.get("SourceDestCheck", True)})
    return found


def make_table(p, _name):
    client, name = api("dynamodb"), p["TableName"]
    wanted = ("TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "Tags")
    encrypted = {"Enabled": p["SSESpecification"]["SSEEnabled"], "SSEType": p["SSESpecification"]["SSEType"],
                 "KMSMasterKeyId": p["SSESpecification"]["KMSMasterKeyId"]}
    made = client.create_table(**{key: p[key] for key in wanted}, SSESpecification=encrypted,
                               DeletionProtectionEnabled=text(p["DeletionProtectionEnabled"]) == "true")
    client.update_time_to_live(TableName=name, TimeToLiveSpecification=p["TimeToLiveSpecification"])
    client.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=p["PointInTimeRecoverySpecification"])
    return name, {"Arn": made["TableDescription"]["TableArn"]}


def make_log_group(p, _name):
    client, name = api("logs"), p["LogGroupName"]
    client.create_log_group(logGroupName=name, kmsKeyId=p["KmsKeyId"])
    client.put_retention_policy(logGroupName=name, retentionInDays=int(p["RetentionInDays"]))
    return name, {"Arn": f"arn:{PARTITION}:logs:{REGION}:{ACCOUNT}:log-group:{name}:*"}


def make_address(p, _name):
    made = api("ec2").allocate_address(Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": p["Tags"]}])
    return made["PublicIp"], {"AllocationId": made["AllocationId"]}


def remove_address(found, _p):
    known = api("ec2").describe_addresses(PublicIps=[found])["Addresses"][0]
    api("ec2").release_address(AllocationId=known["AllocationId"])


def attach(p, _name):
    if "VpnGatewayId" in p:
        api("ec2").attach_vpn_gateway(VpcId=p["VpcId"], VpnGatewayId=p["VpnGatewayId"])
    else:
        api("ec2").attach_internet_gateway(VpcId=p["VpcId"], InternetGatewayId=p["InternetGatewayId"])
    return f"{p.get('VpnGatewayId') or p['InternetGatewayId']}|{p['VpcId']}"


def detach(_found, p):
    if "VpnGatewayId" in p:
        api("ec2").detach_vpn_gateway(VpcId=p["VpcId"], VpnGatewayId=p["VpnGatewayId"])
        # moto keeps what is detached, and with it the VPC.
        ec2_backends[ACCOUNT][REGION].get_vpn_gateway(p["VpnGatewayId"]).attachments.pop(p["VpcId"], None)
    else:
        api("ec2").detach_internet_gateway(VpcId=p["VpcId"], InternetGatewayId=p["InternetGatewayId"])


def make_balancer(p, name):
    """The name of a stack's own balancer has 32 letters at most."""
    made = api("elbv2").create_load_balancer(
        Name=name, Subnets=p["Subnets"], SecurityGroups=p["SecurityGroups"], Scheme=p["Scheme"], Type=p["Type"])["LoadBalancers"][0]
    found = made["LoadBalancerArn"]
    api("elbv2").modify_load_balancer_attributes(LoadBalancerArn=found, Attributes=p["LoadBalancerAttributes"])
    return found, {"DNSName": made["DNSName"], "LoadBalancerFullName": found.split("loadbalancer/")[1]}


def make_targets(p, name):
    wanted = ("Protocol", "VpcId", "TargetType", "HealthCheckProtocol", "HealthCheckPort", "HealthCheckPath")
    numbers_wanted = ("Port", "HealthCheckIntervalSeconds", "HealthyThresholdCount", "UnhealthyThresholdCount")
    found = api("elbv2").create_target_group(
        Name=name, **{key: p[key] for key in wanted}, **{key: int(p[key]) for key in numbers_wanted})["TargetGroups"][0]["TargetGroupArn"]
    api("elbv2").modify_target_group_attributes(TargetGroupArn=found, Attributes=p["TargetGroupAttributes"])
    return found, {"TargetGroupFullName": found.rsplit(":", 1)[1]}


def make_egress(p, _name):
    rule = {"IpProtocol": p["IpProtocol"], "FromPort": int(p["FromPort"]), "ToPort": int(p["ToPort"]),
            "UserIdGroupPairs": [{"GroupId": p["DestinationSecurityGroupId"]}]}
    made = api("ec2").authorize_security_group_egress(GroupId=p["GroupId"], IpPermissions=[rule])
    return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]


def put(call, found):
    """A call that makes or changes; what it names is `found`."""
    return lambda p, name: call(p, name) and found(p, name) or found(p, name)


def transformed(p):
    one = p["MetricTransformations"][0]
    return [{"metricNamespace": one["MetricNamespace"], "metricName": one["MetricName"], "metricValue": one["MetricValue"],
             "defaultValue": float(one["DefaultValue"])}]


# Type: (make, which gives the physical id, or that and attributes, remove). No bucket policies: moto applies a Deny whatever its condition says.
THROUGH_API = {
    "AWS::AutoScaling::ScalingPolicy": (
        put(lambda p, name: api("autoscaling").put_scaling_policy(
            PolicyName=name, AutoScalingGroupName=p["AutoScalingGroupName"], PolicyType=p["PolicyType"], TargetTrackingConfiguration={
                **p["TargetTrackingConfiguration"], "TargetValue": float(p["TargetTrackingConfiguration"]["TargetValue"])}),
            lambda _, name: name),
        lambda found, p: api("autoscaling").delete_policy(PolicyName=found, AutoScalingGroupName=p["AutoScalingGroupName"])),
    "AWS::CloudWatch::Alarm": (
        put(lambda p, _: api("cloudwatch").put_metric_alarm(**numbers(p)), lambda p, _: p["AlarmName"]),
        lambda found, _: api("cloudwatch").delete_alarms(AlarmNames=[found])),
    "AWS::DirectConnect::Connection": (
        lambda p, _: api("directconnect").create_connection(
            connectionName=p["ConnectionName"], location=p["Location"], bandwidth=p["Bandwidth"])["connectionId"],
        lambda found, _: api("directconnect").delete_connection(connectionId=found)),
    "AWS::DynamoDB::Table": (make_table, lambda found, _: api("dynamodb").delete_table(TableName=found)),
    "AWS::EC2::CustomerGateway": (
        lambda p, _: api("ec2").create_customer_gateway(
            Type=p["Type"], BgpAsn=int(p["BgpAsn"]), IpAddress=p["IpAddress"])["CustomerGateway"]["CustomerGatewayId"],
        lambda found, _: api("ec2").delete_customer_gateway(CustomerGatewayId=found)),
    "AWS::EC2::EIP": (make_address, remove_address),
    "AWS::EC2::EIPAssociation": (
        lambda p, _: api("ec2").associate_address(
            AllocationId=p["AllocationId"], InstanceId=p["InstanceId"], AllowReassociation=True)["AssociationId"],
        lambda found, _: api("ec2").disassociate_address(AssociationId=found)),
    "AWS::EC2::Instance": (make_instance, lambda found, _: api("ec2").terminate_instances(InstanceIds=[found])),
    "AWS::EC2::RouteTable": (
        lambda p, _: api("ec2").create_route_table(
            VpcId=p["VpcId"], TagSpecifications=[{"ResourceType": "route-table", "Tags": p["Tags"]}])["RouteTable"]["RouteTableId"],
        lambda found, _: api("ec2").delete_route_table(RouteTableId=found)),
    "AWS::EC2::SecurityGroupEgress": (
        make_egress,
        lambda found, p: api("ec2").revoke_security_group_egress(GroupId=p["GroupId"], SecurityGroupRuleIds=[found])),
    "AWS::EC2::SubnetRouteTableAssociation": (
        lambda p, _: api("ec2").associate_route_table(SubnetId=p["SubnetId"], RouteTableId=p["RouteTableId"])["AssociationId"],
        lambda found, _: api("ec2").disassociate_route_table(AssociationId=found)),
    "AWS::EC2::VPCGatewayAttachment": (attach, detach),
    "AWS::EC2::VPNConnection": (make_connection, lambda found, _: api("ec2").delete_vpn_connection(VpnConnectionId=found)),
    "AWS::ElasticLoadBalancingV2::Listener": (
        lambda p, _: api("elbv2").create_listener(
            LoadBalancerArn=p["LoadBalancerArn"], Protocol=p["Protocol"], Port=int(p["Port"]),
            DefaultActions=p["DefaultActions"])["Listeners"][0]["ListenerArn"],
        lambda found, _: api("elbv2").delete_listener(ListenerArn=found)),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": (
        make_balancer, lambda found, _: api("elbv2").delete_load_balancer(LoadBalancerArn=found)),
    "AWS::ElasticLoadBalancingV2::TargetGroup": (
        make_targets, lambda found, _: api("elbv2").delete_target_group(TargetGroupArn=found)),
    "AWS::IAM::OIDCProvider": (
        lambda p, _: api("iam").create_open_id_connect_provider(
            Url=p["Url"], ClientIDList=p["ClientIdList"])["OpenIDConnectProviderArn"],
        lambda found, _: api("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=found)),
    "AWS::IAM::RolePolicy": (
        put(lambda p, _: api("iam").put_role_policy(
            RoleName=p["RoleName"], PolicyName=p["PolicyName"], PolicyDocument=as_text(p["PolicyDocument"])), lambda p, _: p["PolicyName"]),
        lambda found, p: api("iam").delete_role_policy(RoleName=p["RoleName"], PolicyName=found)),
    "AWS::Logs::LogGroup": (make_log_group, lambda found, _: api("logs").delete_log_group(logGroupName=found)),
    "AWS::Logs::MetricFilter": (
        put(lambda p, name: api("logs").put_metric_filter(
            logGroupName=p["LogGroupName"], filterName=name, filterPattern=p["FilterPattern"],
            metricTransformations=transformed(p)), lambda _, name: name),
        lambda found, p: api("logs").delete_metric_filter(logGroupName=p["LogGroupName"], filterName=found)),
    "AWS::SNS::Subscription": (
        lambda p, _: api("sns").subscribe(
            TopicArn=p["TopicArn"], Protocol=p["Protocol"], Endpoint=p["Endpoint"], ReturnSubscriptionArn=True)["SubscriptionArn"],
        lambda found, _: api("sns").unsubscribe(SubscriptionArn=found)),
    "AWS::SSM::Parameter": (
        put(lambda p, _: api("ssm").put_parameter(
            **{key: p[key] for key in ("Name", "Description", "Type", "Value") if key in p}, Overwrite=True), lambda p, _: p["Name"]),
        lambda found, _: api("ssm").delete_parameter(Name=found)),
    "AWS::SecretsManager::Secret": (
        make_secret, lambda found, _: api("secretsmanager").delete_secret(SecretId=found, ForceDeleteWithoutRecovery=True)),
}
# What is put, and not made: the same call changes it.
PUT = ("AWS::AutoScaling::ScalingPolicy", "AWS::CloudWatch::Alarm", "AWS::IAM::RolePolicy", "AWS::Logs::MetricFilter", "AWS::SSM::Parameter")


def made_through_api(resource_type):
    make, remove = THROUGH_API[resource_type]

    class Made(Placeholder):
        def __init__(self, name, resource_json, account, region, logical_id):
            super().__init__(name, resource_json, account, region, logical_id)
            self.name = name
            self.make()

        def make(self):
            made = make(self.properties, self.name)
            self.physical_resource_id, self.attributes = made if isinstance(made, tuple) else (made, {})
            if self.physical_resource_id.startswith("arn:"):
                self.arn = self.physical_resource_id

        def get_cfn_attribute(self, attribute):
            return self.attributes.get(attribute) or super().get_cfn_attribute(attribute)

        def delete(self, _account, _region):
            gone(self.physical_resource_id, self.properties)

    def gone(found, properties):
        try:
            remove(found, properties)
        except ClientError as error:
            # It went with what it was of: a policy with its role, an association with a newer one.
            if "Not" not in error.response["Error"]["Code"] and "NoSuch" not in error.response["Error"]["Code"]:
                raise

    def create(name, resource_json, account, region, **kwargs):
        return Made(name, resource_json, account, region, kwargs["LogicalId"])

    def update(original_resource, cloudformation_json, **_):
        former = original_resource.physical_resource_id, original_resource.properties
        wanted = cloudformation_json.get("Properties", {})
        kept = replacement({"Type": resource_type, "Properties": former[1]}, {"Type": resource_type, "Properties": wanted}) == "False"
        if resource_type not in PUT and kept and wanted != former[1]:
            raise NotImplementedError  # which is told
        original_resource.properties = wanted
        original_resource.make()
        if resource_type not in PUT or original_resource.physical_resource_id != former[0]:
            gone(*former)
        return original_resource

    return type(
        "Made" + resource_type.replace("::", ""),
        (),
        {
            "create_from_cloudformation_json": staticmethod(create),
            "update_from_cloudformation_json": staticmethod(update),
            "has_cfn_attr": staticmethod(lambda _attribute: True),
        },
    )


def class_of(resource_type):
    if resource_type in THROUGH_API:
        return made_through_api(resource_type)
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


clean_most = parsing.clean_json


def clean(item, resources_map):
    """As moto's, with the functions that it lacks; a dynamic reference must name a secret that has a value, and stays as it is."""
    if isinstance(item, dict) and "Fn::Cidr" in item:
        block, count, bits = (clean(one, resources_map) for one in item["Fn::Cidr"])
        network = ipaddress.ip_network(block)
        return [str(one) for one, _ in zip(network.subnets(new_prefix=32 - int(bits)), range(int(count)), strict=False)]
    if isinstance(item, dict) and "Fn::GetAZs" in item:
        return [zone["ZoneName"] for zone in api("ec2").describe_availability_zones()["AvailabilityZones"]]
    cleaned = clean_most(item, resources_map)
    if isinstance(cleaned, list):
        return [one for one in cleaned if one is not None]  # AWS::NoValue
    if isinstance(cleaned, str) and (found := re.search(r"\{\{resolve:secretsmanager:(arn:[^{}]+):SecretString\}\}", cleaned)):
        api("secretsmanager").get_secret_value(SecretId=found[1])
    return cleaned


parsing.clean_json = clean


# Images are public parameters of AWS's; moto has Amazon's own in some regions.
parse_parameter = parsing.ResourceMap.parse_ssm_parameter


def parse_public_parameter(self, value, value_type):
    return "ami-03cf127a" if value.startswith("/aws/service/") else parse_parameter(self, value, value_type)


parsing.ResourceMap.parse_ssm_parameter = parse_public_parameter


def endpoint_attribute(self, attribute):
    """Each entry is ZONE:NAME, the regional name first."""
    if attribute != "DnsEntries":
        return getattr(self, {"Id": "id"}[attribute])
    service = self.service_name.rsplit(".", 1)[1]
    return [f"Z7HUB22UULQXV:{self.id}-{self.id[-8:]}.{service}.{REGION}.vpce.amazonaws.com"]


VPCEndPoint.get_cfn_attribute = endpoint_attribute
VPCEndPoint.delete = lambda self, *_: self.ec2_backend.delete_vpc_endpoints([self.id])
VPCEndPoint.has_cfn_attr = classmethod(lambda _, attribute: attribute in ("DnsEntries", "Id"))


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


def references(item):
    """What a value refers to: (resource, attribute), the attribute empty for a Ref."""
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
    """What changes, and whether it is replaced: by its own properties, and by what these refer to that is replaced."""
    found = {name: replacement(old[name], new[name]) for name in new if name in old and old[name] != new[name]}
    while True:
        more = dict(found)
        for name in (one for one in new if one in old):
            schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, new[name]["Type"]).schema
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
                if one.replacement == "True" and one.resource_type not in THROUGH_API:
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
    changed = modified(old, new)
    diff = {"Add": [n for n in new if n not in old], "Modify": [n for n in new if n in changed],
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


def serve(port_file):
    global PORT  # noqa: PLW0603
    open(LIST_FILE, "w", encoding="utf-8").close()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, request_handler=MotoRequestHandler)
    PORT = server.server_port
    with open(port_file + ".new", "w", encoding="utf-8") as file:
        file.write(str(PORT))
    os.rename(port_file + ".new", port_file)
    server.serve_forever()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    parent = os.getpid()
    for partition in sys.argv[2:]:
        name, REGION, ACCOUNT = partition.split(":")
        if os.fork() == 0:
            # It ends with its parent, however that ends.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                sys.exit(1)
            PARTITION = "aws-us-gov" if REGION.startswith("us-gov-") else "aws"
            LIST_FILE = os.path.join(sys.argv[1], name + ".list")
            os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT
            serve(os.path.join(sys.argv[1], name + ".port"))
    os.wait()
    sys.exit("a partition has ended")
