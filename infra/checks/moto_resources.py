"""Resource types that moto's CloudFormation lacks or supports in part: created through the service's API if moto has the
service, else a placeholder.
"""

import functools
import ipaddress
import json
import random
import re
import string
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.cloudformation import parsing
from moto.ec2.models import ec2_backends
from moto.ec2.models.vpcs import VPCEndPoint
from moto.kms.models import Key
from resource_schemas import SCHEMAS


class HERE:
    """The partition that this process serves. Set before the server starts."""

    REGION = PARTITION = ACCOUNT = LIST_FILE = ""
    PORT = 0


# Marks the mock's own requests to itself (aws_mock.OneAtATime).
INNER = "bedrock-gateway-mock-inner"


def report(what, stack, logical_id, resource_type, properties=None):
    with open(HERE.LIST_FILE, "a", encoding="utf-8") as file:
        line = {"what": what, "stack": stack, "resource": logical_id, "type": resource_type, "properties": properties}
        file.write(json.dumps(line) + "\n")


def text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def replacement(old, new):
    """Whether an update replaces the resource, by its type's schema: `True`, `Conditional` or `False`."""
    if old["Type"] != new["Type"]:
        return "True"
    schema = SCHEMAS.get_resource_schema(HERE.REGION, new["Type"]).schema

    def differs(kind):
        names = {path.split("/")[2] for path in schema.get(kind, [])}
        return any(old["Properties"].get(name) != new["Properties"].get(name) for name in names)

    if differs("createOnlyProperties"):
        return "True"
    return "Conditional" if differs("conditionalCreateOnlyProperties") else "False"

# --- types that moto lacks -------------------------------------------------------------------------------------------


class Placeholder:
    """Takes the place of a resource of such a type. It keeps the properties."""

    def __init__(self, name, resource_json, account, region, logical_id):
        self.properties = resource_json.get("Properties", {})
        kind = resource_json["Type"].split("::")
        self.physical_resource_id = self.properties.get("Name") or f"{kind[2].lower()}-{uuid.uuid5(uuid.NAMESPACE_URL, name).hex[:17]}"
        self.arn = f"arn:{HERE.PARTITION}:{kind[1].lower()}:{region}:{account}:{kind[2].lower()}/{self.physical_resource_id}"
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
        report("placeholder for", stack, kwargs["LogicalId"], resource_type, resource_json.get("Properties"))
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


# --- types whose service moto has -------------------------------------------------------------------------------------

@functools.cache
def api(service):
    """A client of this mock's own API. moto wants keys, and does not check them: these are AWS's examples."""
    return boto3.client(
        service, region_name=HERE.REGION, endpoint_url=f"http://127.0.0.1:{HERE.PORT}", aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        config=Config(retries={"max_attempts": 0}, user_agent_extra=INNER))


def numbers(properties):
    """Converts the properties that an API wants as numbers: CloudFormation's parameters are strings."""
    kinds = {"Threshold": float, "Period": int, "EvaluationPeriods": int, "DatapointsToAlarm": int, "FromPort": int, "ToPort": int}
    if isinstance(properties, list):
        return [numbers(one) for one in properties]
    if not isinstance(properties, dict):
        return properties
    return {key: kinds[key](value) if key in kinds else numbers(value) for key, value in properties.items()}


def as_text(policy):
    return policy if isinstance(policy, str) else json.dumps(policy)


def create_secret(p, _name):
    client, value = api("secretsmanager"), {}
    if wanted := p.get("GenerateSecretString"):
        value["SecretString"] = client.get_random_password(
            PasswordLength=int(wanted["PasswordLength"]), ExcludePunctuation=bool(wanted.get("ExcludePunctuation")))["RandomPassword"]
    return client.create_secret(**{key: p[key] for key in ("Name", "Description", "KmsKeyId", "Tags") if key in p}, **value)["ARN"]


def create_connection(p, _name):
    """Adds what AWS adds to a VPN connection: outside addresses, and keys where the template has none."""
    created = api("ec2").create_vpn_connection(Type=p["Type"], CustomerGatewayId=p["CustomerGatewayId"], VpnGatewayId=p["VpnGatewayId"])
    found = created["VpnConnection"]["VpnConnectionId"]
    connections = ec2_backends[HERE.ACCOUNT][HERE.REGION].vpn_connections
    letters = string.ascii_letters + string.digits + "._"
    connections[found].options = {"StaticRoutesOnly": p.get("StaticRoutesOnly", False), "TunnelOptions": [
        {"OutsideIpAddress": f"203.0.113.{len(connections) * 2 + number}", "TunnelInsideCidr": tunnel["TunnelInsideCidr"],
         "PreSharedKey": tunnel.get("PreSharedKey") or "".join(random.choices(letters, k=32))}
        for number, tunnel in enumerate(p["VpnTunnelOptionsSpecifications"])]}
    # No tunnel of the mock is up.
    connections[found].vgw_telemetry = [
        {"OutsideIpAddress": tunnel["OutsideIpAddress"], "Status": "DOWN", "StatusMessage": "", "AcceptedRouteCount": 0}
        for tunnel in connections[found].options["TunnelOptions"]]
    return found


def create_instance(p, _name):
    template = {"LaunchTemplateId": p["LaunchTemplate"]["LaunchTemplateId"], "Version": str(p["LaunchTemplate"]["Version"])}
    found = api("ec2").run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    api("ec2").modify_instance_attribute(InstanceId=found, SourceDestCheck={"Value": p.get("SourceDestCheck", True)})
    return found


def create_table(p, _name):
    client, name = api("dynamodb"), p["TableName"]
    wanted = ("TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "Tags")
    encrypted = {"Enabled": p["SSESpecification"]["SSEEnabled"], "SSEType": p["SSESpecification"]["SSEType"],
                 "KMSMasterKeyId": p["SSESpecification"]["KMSMasterKeyId"]}
    created = client.create_table(**{key: p[key] for key in wanted}, SSESpecification=encrypted,
                               DeletionProtectionEnabled=text(p["DeletionProtectionEnabled"]) == "true")
    client.update_time_to_live(TableName=name, TimeToLiveSpecification=p["TimeToLiveSpecification"])
    client.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=p["PointInTimeRecoverySpecification"])
    return name, {"Arn": created["TableDescription"]["TableArn"]}


def create_log_group(p, _name):
    client, name = api("logs"), p["LogGroupName"]
    client.create_log_group(logGroupName=name, kmsKeyId=p["KmsKeyId"])
    client.put_retention_policy(logGroupName=name, retentionInDays=int(p["RetentionInDays"]))
    return name, {"Arn": f"arn:{HERE.PARTITION}:logs:{HERE.REGION}:{HERE.ACCOUNT}:log-group:{name}:*"}


def create_address(p, _name):
    created = api("ec2").allocate_address(Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": p["Tags"]}])
    return created["PublicIp"], {"AllocationId": created["AllocationId"]}


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
        # moto keeps the attachment, which prevents the removal of the VPC.
        ec2_backends[HERE.ACCOUNT][HERE.REGION].get_vpn_gateway(p["VpnGatewayId"]).attachments.pop(p["VpcId"], None)
    else:
        api("ec2").detach_internet_gateway(VpcId=p["VpcId"], InternetGatewayId=p["InternetGatewayId"])


def create_balancer(p, name):
    """The name has at most 32 characters."""
    created = api("elbv2").create_load_balancer(
        Name=name, Subnets=p["Subnets"], SecurityGroups=p["SecurityGroups"], Scheme=p["Scheme"], Type=p["Type"])["LoadBalancers"][0]
    found = created["LoadBalancerArn"]
    api("elbv2").modify_load_balancer_attributes(LoadBalancerArn=found, Attributes=p["LoadBalancerAttributes"])
    return found, {"DNSName": created["DNSName"], "LoadBalancerFullName": found.split("loadbalancer/")[1]}


def create_targets(p, name):
    wanted = ("Protocol", "VpcId", "TargetType", "HealthCheckProtocol", "HealthCheckPort", "HealthCheckPath")
    numbers_wanted = ("Port", "HealthCheckIntervalSeconds", "HealthyThresholdCount", "UnhealthyThresholdCount")
    found = api("elbv2").create_target_group(
        Name=name, **{key: p[key] for key in wanted}, **{key: int(p[key]) for key in numbers_wanted})["TargetGroups"][0]["TargetGroupArn"]
    api("elbv2").modify_target_group_attributes(TargetGroupArn=found, Attributes=p["TargetGroupAttributes"])
    return found, {"TargetGroupFullName": found.rsplit(":", 1)[1]}


def create_egress(p, _name):
    rule = {"IpProtocol": p["IpProtocol"], "FromPort": int(p["FromPort"]), "ToPort": int(p["ToPort"]),
            "UserIdGroupPairs": [{"GroupId": p["DestinationSecurityGroupId"]}]}
    created = api("ec2").authorize_security_group_egress(GroupId=p["GroupId"], IpPermissions=[rule])
    return created["SecurityGroupRules"][0]["SecurityGroupRuleId"]


def create_ingress(p, _name):
    """moto's own type does not know prefix lists."""
    rule = {"IpProtocol": p["IpProtocol"], "FromPort": int(p["FromPort"]), "ToPort": int(p["ToPort"])}
    if "SourcePrefixListId" in p:
        rule["PrefixListIds"] = [{"PrefixListId": p["SourcePrefixListId"]}]
    elif "CidrIp" in p:
        rule["IpRanges"] = [{"CidrIp": p["CidrIp"]}]
    else:
        rule["UserIdGroupPairs"] = [{"GroupId": p["SourceSecurityGroupId"]}]
    created = api("ec2").authorize_security_group_ingress(GroupId=p["GroupId"], IpPermissions=[rule])
    return created["SecurityGroupRules"][0]["SecurityGroupRuleId"]


DESTINATIONS = ("DestinationCidrBlock", "DestinationPrefixListId")


def create_route(p, _name):
    """moto's own type ignores prefix lists, and takes a transit gateway to which the VPC is not attached. EC2 does not:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-ec2-route.html
    """
    client, table = api("ec2"), p["RouteTableId"]
    if "TransitGatewayId" in p:
        vpc = client.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["VpcId"]
        attached = client.describe_transit_gateway_vpc_attachments()["TransitGatewayVpcAttachments"]
        if not any((one["VpcId"], one["TransitGatewayId"]) == (vpc, p["TransitGatewayId"]) for one in attached):
            raise ValueError(f"InvalidTransitGatewayID.NotFound: {p['TransitGatewayId']} is not attached to {vpc}")
    client.create_route(**p)
    return f"{table}|{next(p[key] for key in DESTINATIONS if key in p)}"


def put(call, found):
    """For an API whose call creates or updates; `found` gives the id."""
    return lambda p, name: call(p, name) and found(p, name) or found(p, name)


def transformed(p):
    one = p["MetricTransformations"][0]
    return [{"metricNamespace": one["MetricNamespace"], "metricName": one["MetricName"], "metricValue": one["MetricValue"],
             "defaultValue": float(one["DefaultValue"])}]


# Type: (create, which returns the physical id or a pair of it and the attributes; remove). Without bucket policies, since moto
# ignores the condition of a Deny.
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
    "AWS::DynamoDB::Table": (create_table, lambda found, _: api("dynamodb").delete_table(TableName=found)),
    "AWS::EC2::CustomerGateway": (
        lambda p, _: api("ec2").create_customer_gateway(
            Type=p["Type"], BgpAsn=int(p["BgpAsn"]), IpAddress=p["IpAddress"])["CustomerGateway"]["CustomerGatewayId"],
        lambda found, _: api("ec2").delete_customer_gateway(CustomerGatewayId=found)),
    "AWS::EC2::EIP": (create_address, remove_address),
    "AWS::EC2::EIPAssociation": (
        lambda p, _: api("ec2").associate_address(
            AllocationId=p["AllocationId"], InstanceId=p["InstanceId"], AllowReassociation=True)["AssociationId"],
        lambda found, _: api("ec2").disassociate_address(AssociationId=found)),
    "AWS::EC2::Instance": (create_instance, lambda found, _: api("ec2").terminate_instances(InstanceIds=[found])),
    "AWS::EC2::Route": (
        create_route,
        lambda _, p: api("ec2").delete_route(**{key: p[key] for key in ("RouteTableId", *DESTINATIONS) if key in p})),
    "AWS::EC2::RouteTable": (
        lambda p, _: api("ec2").create_route_table(
            VpcId=p["VpcId"], TagSpecifications=[{"ResourceType": "route-table", "Tags": p["Tags"]}])["RouteTable"]["RouteTableId"],
        lambda found, _: api("ec2").delete_route_table(RouteTableId=found)),
    "AWS::EC2::SecurityGroupEgress": (
        create_egress,
        lambda found, p: api("ec2").revoke_security_group_egress(GroupId=p["GroupId"], SecurityGroupRuleIds=[found])),
    "AWS::EC2::SecurityGroupIngress": (
        create_ingress,
        lambda found, p: api("ec2").revoke_security_group_ingress(GroupId=p["GroupId"], SecurityGroupRuleIds=[found])),
    "AWS::EC2::SubnetRouteTableAssociation": (
        lambda p, _: api("ec2").associate_route_table(SubnetId=p["SubnetId"], RouteTableId=p["RouteTableId"])["AssociationId"],
        lambda found, _: api("ec2").disassociate_route_table(AssociationId=found)),
    "AWS::EC2::TransitGatewayAttachment": (
        lambda p, _: api("ec2").create_transit_gateway_vpc_attachment(
            TransitGatewayId=p["TransitGatewayId"], VpcId=p["VpcId"], SubnetIds=p["SubnetIds"],
        )["TransitGatewayVpcAttachment"]["TransitGatewayAttachmentId"],
        lambda found, _: api("ec2").delete_transit_gateway_vpc_attachment(TransitGatewayAttachmentId=found)),
    "AWS::EC2::VPCGatewayAttachment": (attach, detach),
    "AWS::EC2::VPNConnection": (create_connection, lambda found, _: api("ec2").delete_vpn_connection(VpnConnectionId=found)),
    "AWS::ElasticLoadBalancingV2::Listener": (
        lambda p, _: api("elbv2").create_listener(
            LoadBalancerArn=p["LoadBalancerArn"], Protocol=p["Protocol"], Port=int(p["Port"]),
            DefaultActions=p["DefaultActions"])["Listeners"][0]["ListenerArn"],
        lambda found, _: api("elbv2").delete_listener(ListenerArn=found)),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": (
        create_balancer, lambda found, _: api("elbv2").delete_load_balancer(LoadBalancerArn=found)),
    "AWS::ElasticLoadBalancingV2::TargetGroup": (
        create_targets, lambda found, _: api("elbv2").delete_target_group(TargetGroupArn=found)),
    "AWS::IAM::OIDCProvider": (
        lambda p, _: api("iam").create_open_id_connect_provider(
            Url=p["Url"], ClientIDList=p["ClientIdList"])["OpenIDConnectProviderArn"],
        lambda found, _: api("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=found)),
    "AWS::IAM::RolePolicy": (
        put(lambda p, _: api("iam").put_role_policy(
            RoleName=p["RoleName"], PolicyName=p["PolicyName"], PolicyDocument=as_text(p["PolicyDocument"])), lambda p, _: p["PolicyName"]),
        lambda found, p: api("iam").delete_role_policy(RoleName=p["RoleName"], PolicyName=found)),
    "AWS::Logs::LogGroup": (create_log_group, lambda found, _: api("logs").delete_log_group(logGroupName=found)),
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
        create_secret, lambda found, _: api("secretsmanager").delete_secret(SecretId=found, ForceDeleteWithoutRecovery=True)),
}
# Types whose API creates and updates with the same call.
PUT = ("AWS::AutoScaling::ScalingPolicy", "AWS::CloudWatch::Alarm", "AWS::IAM::RolePolicy", "AWS::Logs::MetricFilter", "AWS::SSM::Parameter")


def through_api(resource_type):
    create_through_api, remove = THROUGH_API[resource_type]

    class ThroughApi(Placeholder):
        def __init__(self, name, resource_json, account, region, logical_id):
            super().__init__(name, resource_json, account, region, logical_id)
            self.name = name
            self.create()

        def create(self):
            created = create_through_api(self.properties, self.name)
            self.physical_resource_id, self.attributes = created if isinstance(created, tuple) else (created, {})
            if self.physical_resource_id.startswith("arn:"):
                self.arn = self.physical_resource_id

        def get_cfn_attribute(self, attribute):
            return self.attributes.get(attribute) or super().get_cfn_attribute(attribute)

        def delete(self, _account, _region):
            remove_if_present(self.physical_resource_id, self.properties)

    def remove_if_present(found, properties):
        try:
            remove(found, properties)
        except ClientError as error:
            # Removed together with another resource: a policy with its role, an association by a newer one.
            if "Not" not in error.response["Error"]["Code"] and "NoSuch" not in error.response["Error"]["Code"]:
                raise

    def create(name, resource_json, account, region, **kwargs):
        return ThroughApi(name, resource_json, account, region, kwargs["LogicalId"])

    def update(original_resource, cloudformation_json, **_):
        former = original_resource.physical_resource_id, original_resource.properties
        wanted = cloudformation_json.get("Properties", {})
        kept = replacement({"Type": resource_type, "Properties": former[1]}, {"Type": resource_type, "Properties": wanted}) == "False"
        if resource_type not in PUT and kept and wanted != former[1]:
            raise NotImplementedError  # update_named reports it
        original_resource.properties = wanted
        original_resource.create()
        if resource_type not in PUT or original_resource.physical_resource_id != former[0]:
            remove_if_present(*former)
        return original_resource

    return type(
        "ThroughApi" + resource_type.replace("::", ""),
        (),
        {
            "create_from_cloudformation_json": staticmethod(create),
            "update_from_cloudformation_json": staticmethod(update),
            "has_cfn_attr": staticmethod(lambda _attribute: True),
        },
    )


def class_of(resource_type):
    if resource_type in THROUGH_API:
        return through_api(resource_type)
    known = parsing.get_model_map().get(resource_type)
    if known is None:
        SCHEMAS.get_resource_schema(HERE.REGION, resource_type)  # raises where AWS has no such type there
        return placeholder_of(resource_type)
    return known


parsing.resource_class_from_type = class_of

create_resource = parsing.parse_and_create_resource
update_resource = parsing.parse_and_update_resource


def create_named(logical_id, resource_json, resources_map, **where):
    """As moto's, but an error names the resource."""
    try:
        found = create_resource(logical_id, resource_json, resources_map, **where)
        # A stack's tags are those of its resources, and moto's stacks tag moto's own types only:
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-resource-tags.html
        if found is not None and resource_json["Type"] in THROUGH_API and resource_json["Type"].startswith("AWS::EC2::"):
            ec2_backends[HERE.ACCOUNT][HERE.REGION].create_tags([found.physical_resource_id], dict(resources_map.tags))
        return found
    except Failure:
        raise
    except Exception as error:  # moto raises many types
        raise Failure(logical_id, resource_json["Type"], "CREATE_FAILED", error) from error


def update_named(logical_id, resource_json, resources_map, **where):
    """As moto's, but a resource that moto cannot update stays as it is and is reported."""
    if resource_json.get("Condition") and not resources_map.lazy_condition_map[resource_json["Condition"]]:
        return None
    original = resources_map[logical_id]
    try:
        changed = update_resource(logical_id, resource_json, resources_map, **where)
    except NotImplementedError:
        changed = None
    except Exception as error:
        raise Failure(logical_id, resource_json["Type"], "UPDATE_FAILED", error) from error
    if changed is None:
        report("no update of", resources_map["AWS::StackName"], logical_id, resource_json["Type"])
        return original
    return changed


parsing.parse_and_create_resource = create_named
parsing.parse_and_update_resource = update_named

new_map = parsing.ResourceMap.__init__


def map_of_partition(self, *arguments, **named):
    new_map(self, *arguments, **named)
    self._parsed_resources["AWS::Partition"] = HERE.PARTITION


parsing.ResourceMap.__init__ = map_of_partition


clean_most = parsing.clean_json


def clean(item, resources_map):
    """As moto's, with the functions that it lacks. A dynamic reference stays as it is, but must name a secret with a value."""
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


# AWS publishes image ids as public parameters; moto has those of Amazon in some regions only.
parse_parameter = parsing.ResourceMap.parse_ssm_parameter


def parse_public_parameter(self, value, value_type):
    return "ami-03cf127a" if value.startswith("/aws/service/") else parse_parameter(self, value, value_type)


parsing.ResourceMap.parse_ssm_parameter = parse_public_parameter


def endpoint_attribute(self, attribute):
    """Entries of DnsEntries are ZONE:NAME, the regional name first."""
    if attribute != "DnsEntries":
        return getattr(self, {"Id": "id"}[attribute])
    service = self.service_name.rsplit(".", 1)[1]
    return [f"Z7HUB22UULQXV:{self.id}-{self.id[-8:]}.{service}.{HERE.REGION}.vpce.amazonaws.com"]


VPCEndPoint.get_cfn_attribute = endpoint_attribute
VPCEndPoint.delete = lambda self, *_: self.ec2_backend.delete_vpc_endpoints([self.id])
VPCEndPoint.has_cfn_attr = classmethod(lambda _, attribute: attribute in ("DnsEntries", "Id"))

# moto's stacks leave these behind.
for resource_type, remove in {
    "AWS::EC2::FlowLog": lambda found: api("ec2").delete_flow_logs(FlowLogIds=[found]),
    "AWS::EC2::InternetGateway": lambda found: api("ec2").delete_internet_gateway(InternetGatewayId=found),
    "AWS::EC2::NatGateway": lambda found: api("ec2").delete_nat_gateway(NatGatewayId=found),
    "AWS::EC2::VPNGateway": lambda found: api("ec2").delete_vpn_gateway(VpnGatewayId=found),
    "AWS::IAM::ManagedPolicy": lambda found: api("iam").delete_policy(PolicyArn=found),
}.items():
    parsing.get_model_map()[resource_type].delete = lambda self, *_, remove=remove: remove(self.physical_resource_id)


# moto's key expects tags in the format of KMS's API, which differs from that of templates.
create_key = Key.create_from_cloudformation_json.__func__


def create_tagged_key(cls, name, resource_json, account, region, **named):
    tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in resource_json["Properties"].get("Tags", [])]
    resource_json["Properties"] = {**resource_json["Properties"], "Tags": tags}
    return create_key(cls, name, resource_json, account, region, **named)


Key.create_from_cloudformation_json = classmethod(create_tagged_key)


class Failure(Exception):
    """A resource of a stack that failed."""

    def __init__(self, logical_id, resource_type, status, error):
        super().__init__(str(getattr(error, "message", None) or error or type(error).__name__))
        self.logical_id, self.resource_type, self.status = logical_id, resource_type, status
