//! Reads the deployed resources back through AWS's APIs, and compares them with what the version should have.

use std::collections::BTreeSet;

use audit::table;
use serde_json::{Value, json};

use crate::Error;
use crate::aws_mock::Aws;
use crate::template::{PARTITIONS, directory};
use filter_core::names::Partition::{self, Commercial, GovCloud};

const TABLE: &str = "bedrock-gateway-example-audit";
/// The range of the gateway's VPC.
const GOVCLOUD_CIDR: &str = "10.64.0.0/20";

/// Metrics that must have an alarm in versions with the path.
const WATCHED: &[(&str, Partition, &str, &str)] = &[
    ("internet", GovCloud, "AWS/NetworkELB", "HealthyHostCount"),
    ("internet", GovCloud, "BedrockGateway/example", "NoPath"),
    ("internet", GovCloud, "BedrockGateway/example", "CredentialFailures"),
    ("internet", GovCloud, "BedrockGateway/example", "CertificateEnding"),
    ("internet", GovCloud, "BedrockGateway/example", "CollectorProblems"),
    ("internet", GovCloud, "AWS/DynamoDB", "WriteThrottleEvents"),
    ("vpn", Commercial, "AWS/VPN", "TunnelState"),
    ("vpn", GovCloud, "BedrockGateway", "TunnelUp"),
    ("vpn", GovCloud, "BedrockGateway", "BgpUp"),
    ("vpn", GovCloud, "AWS/EC2", "StatusCheckFailed_System"),
    ("dx", Commercial, "AWS/DX", "ConnectionState"),
    ("dx", Commercial, "AWS/DX", "VirtualInterfaceBgpStatus"),
    ("dx", GovCloud, "AWS/DX", "ConnectionState"),
    ("dx", GovCloud, "AWS/DX", "VirtualInterfaceBgpStatus"),
];

/// The faults of the resources of a version with these paths.
pub(super) fn faults(aws: &Aws, paths: &[&str]) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    audit(aws, &mut faults)?;
    trust(aws, &mut faults)?;
    for partition in PARTITIONS {
        ingress(aws, partition, &mut faults)?;
        logs(aws, partition, &mut faults)?;
        alarms(aws, partition, paths, &mut faults)?;
        dashboards(aws, partition, &mut faults)?;
    }
    for path in paths.iter().filter(|path| **path != "internet") {
        endpoints(aws, path, &mut faults)?;
    }
    if paths.contains(&"dx") {
        virtual_interfaces(aws, &mut faults)?;
    }
    if paths.contains(&"vpn") {
        tunnels(aws, &mut faults)?;
        machines(aws, &mut faults)?;
    }
    Ok(faults)
}

/// Puts a record with the collector's key into the audit table.
pub(super) fn leave_a_record(aws: &Aws) -> Result<(), Error> {
    let item = json!({ table::KEY: { "S": "upgrade-test" }, table::TTL: { "N": "4102444800" } }).to_string();
    aws.raw(GovCloud, &["dynamodb", "put-item", "--table-name", TABLE, "--item", &item])?;
    Ok(())
}

/// Checks that the record is still there.
pub(super) fn find_the_record(aws: &Aws) -> Result<Vec<String>, Error> {
    let key = json!({ table::KEY: { "S": "upgrade-test" } }).to_string();
    let output = aws.raw(GovCloud, &["dynamodb", "get-item", "--table-name", TABLE, "--key", &key])?;
    let found = String::from_utf8_lossy(&output.stdout).contains("4102444800");
    Ok(if found { Vec::new() } else { vec!["the audit table has lost its record".to_owned()] })
}

fn same(faults: &mut Vec<String>, what: &str, found: &Value, wanted: &Value) {
    if found != wanted {
        faults.push(format!("{what} is {found}; want {wanted}"));
    }
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_default()
}

fn audit(aws: &Aws, faults: &mut Vec<String>) -> Result<(), Error> {
    let name = ["--table-name", TABLE];
    let found = aws.call(GovCloud, &[&["dynamodb", "describe-table"], &name[..]].concat())?;
    let key = |name: &str, kind: &str| json!({ "AttributeName": name, "KeyType": kind });
    same(faults, "the table's key", at(&found, "/Table/KeySchema"), &json!([key(table::KEY, "HASH")]));
    let index = at(&found, "/Table/GlobalSecondaryIndexes/0");
    same(faults, "the table's index", at(index, "/IndexName"), &json!(table::INDEX));
    let wanted = json!([key(table::INDEX_HASH, "HASH"), key(table::INDEX_RANGE, "RANGE")]);
    same(faults, "the index's key", at(index, "/KeySchema"), &wanted);
    same(faults, "the table's encryption", at(&found, "/Table/SSEDescription/SSEType"), &json!("KMS"));
    let found = aws.call(GovCloud, &[&["dynamodb", "describe-time-to-live"], &name[..]].concat())?;
    let wanted = json!({ "AttributeName": table::TTL, "TimeToLiveStatus": "ENABLED" });
    same(faults, "the table's time to live", at(&found, "/TimeToLiveDescription"), &wanted);
    let found = aws.call(GovCloud, &[&["dynamodb", "describe-continuous-backups"], &name[..]].concat())?;
    let pointer = "/ContinuousBackupsDescription/PointInTimeRecoveryDescription/PointInTimeRecoveryStatus";
    same(faults, "point-in-time recovery", at(&found, pointer), &json!("ENABLED"));
    Ok(())
}

/// The Commercial role must trust the deployed GovCloud role and issuer.
fn trust(aws: &Aws, faults: &mut Vec<String>) -> Result<(), Error> {
    let role = ["iam", "get-role", "--role-name", "bedrock-gateway-example", "--query"];
    let trust = aws.call(Commercial, &[&role[..], &["Role.AssumeRolePolicyDocument.Statement[0]"]].concat())?;
    let trusted = aws.call(GovCloud, &[&role[..], &["Role.Arn"]].concat())?;
    let providers = aws.call(Commercial, &["iam", "list-open-id-connect-providers"])?;
    same(faults, "the issuer", at(&trust, "/Principal/Federated"), at(&providers, "/OpenIDConnectProviderList/0/Arn"));
    let equal = at(&trust, "/Condition/StringEquals").as_object();
    let value = |suffix: &str| {
        let found = equal.into_iter().flatten().find(|(key, _)| key.ends_with(suffix));
        found.map_or(Value::Null, |(_, value)| value.clone())
    };
    same(faults, "the trusted role", &value(":sub"), &trusted);
    let info = ["iam", "get-outbound-web-identity-federation-info", "--query", "IssuerIdentifier"];
    let issuer = aws.call(GovCloud, &info)?;
    let provider = at(&providers, "/OpenIDConnectProviderList/0/Arn").as_str().unwrap_or_default();
    let host = issuer.as_str().and_then(|issuer| issuer.strip_prefix("https://")).unwrap_or_default();
    same(
        faults,
        "the provider's issuer",
        &json!(provider.rsplit_once("oidc-provider/").map(|(_, url)| url)),
        &json!(host),
    );
    same(faults, "the trusted audience", &value(":aud"), &json!("bedrock-gateway"));
    Ok(())
}

fn ingress(aws: &Aws, partition: Partition, faults: &mut Vec<String>) -> Result<(), Error> {
    let found = aws.call(partition, &["ec2", "describe-security-groups"])?;
    for group in items(at(&found, "/SecurityGroups")) {
        for rule in items(at(group, "/IpPermissions")) {
            if items(at(rule, "/IpRanges")).any(|range| text(range, "/CidrIp") == "0.0.0.0/0") {
                faults.push(format!("{} allows ingress from everywhere", text(group, "/Description")));
            }
        }
    }
    Ok(())
}

fn logs(aws: &Aws, partition: Partition, faults: &mut Vec<String>) -> Result<(), Error> {
    let found =
        aws.call(partition, &["logs", "describe-log-groups", "--log-group-name-prefix", "/bedrock-gateway/"])?;
    for group in items(at(&found, "/logGroups")) {
        if !text(group, "/kmsKeyId").starts_with("arn:") || at(group, "/retentionInDays").as_i64().is_none() {
            faults.push(format!("{} has no customer-managed key, or no retention", text(group, "/logGroupName")));
        }
    }
    Ok(())
}

fn alarms(aws: &Aws, partition: Partition, paths: &[&str], faults: &mut Vec<String>) -> Result<(), Error> {
    let found = aws.call(partition, &["cloudwatch", "describe-alarms"])?;
    let mut watched = BTreeSet::new();
    for alarm in items(at(&found, "/MetricAlarms")) {
        let notifies = items(at(alarm, "/AlarmActions"))
            .filter_map(Value::as_str)
            .any(|action| action.ends_with(":bedrock-gateway-example-alarms"));
        if !notifies {
            faults.push(format!("{}: no alarm action", text(alarm, "/AlarmName")));
        }
        let metrics = items(at(alarm, "/Metrics")).map(|metric| at(metric, "/MetricStat/Metric"));
        for metric in std::iter::once(alarm).chain(metrics) {
            watched.insert((text(metric, "/Namespace").to_owned(), text(metric, "/MetricName").to_owned()));
        }
    }
    for (path, of, namespace, metric) in WATCHED {
        let wanted = *of == partition && paths.contains(path);
        if wanted && !watched.contains(&((*namespace).to_owned(), (*metric).to_owned())) {
            faults.push(format!("no alarm on {namespace} {metric} in {}", directory(partition)));
        }
    }
    Ok(())
}

/// A dashboard must be JSON whose widgets name metrics.
fn dashboards(aws: &Aws, partition: Partition, faults: &mut Vec<String>) -> Result<(), Error> {
    let found =
        aws.call(partition, &["cloudwatch", "list-dashboards", "--query", "DashboardEntries[].DashboardName"])?;
    for name in items(&found).filter_map(Value::as_str) {
        let query = ["cloudwatch", "get-dashboard", "--dashboard-name", name, "--query", "DashboardBody"];
        let body = aws.call(partition, &query)?;
        let body: Value = serde_json::from_str(body.as_str().unwrap_or_default()).unwrap_or_default();
        let widgets: Vec<&Value> = items(at(&body, "/widgets")).collect();
        let named = |widget: &&Value| items(at(widget, "/properties/metrics")).any(Value::is_array);
        if widgets.is_empty() || !widgets.iter().all(named) || body.to_string().contains("${") {
            faults.push(format!("dashboard {name} is not JSON of widgets with metrics"));
        }
    }
    Ok(())
}

/// A path's endpoints must be in its VPC, with private DNS and a policy, open to GovCloud's range only.
fn endpoints(aws: &Aws, path: &str, faults: &mut Vec<String>) -> Result<(), Error> {
    let stack = format!("bedrock-gateway-example-{path}-network");
    let query = "Stacks[0].Outputs[?OutputKey=='VpcId'].OutputValue | [0]";
    let vpc = aws.call(Commercial, &["cloudformation", "describe-stacks", "--stack-name", &stack, "--query", query])?;
    let filter = format!("Name=vpc-id,Values={}", vpc.as_str().unwrap_or_default());
    let found = aws.call(Commercial, &["ec2", "describe-vpc-endpoints"])?;
    let mut services = Vec::new();
    for endpoint in items(at(&found, "/VpcEndpoints")).filter(|endpoint| at(endpoint, "/VpcId") == &vpc) {
        let service = text(endpoint, "/ServiceName");
        services.push(service.to_owned());
        let has_policy = at(endpoint, "/PolicyDocument").to_string().contains("Statement");
        if at(endpoint, "/PrivateDnsEnabled") != true || !has_policy {
            faults.push(format!("{stack}: {service} has no private DNS, or no policy"));
        }
        for group in items(at(endpoint, "/Groups")) {
            let group =
                aws.call(Commercial, &["ec2", "describe-security-groups", "--group-ids", text(group, "/GroupId")])?;
            let rules = at(&group, "/SecurityGroups/0/IpPermissions");
            let from = at(rules, "/0/IpRanges/0/CidrIp");
            same(faults, &format!("{stack}: who may call {service}"), from, &json!(GOVCLOUD_CIDR));
            same(faults, "the port", at(rules, "/0/FromPort"), &json!(443));
            if items(rules).count() != 1 || items(at(rules, "/0/IpRanges")).count() != 1 {
                faults.push(format!("{stack}: {service} is open to others: {rules}"));
            }
        }
    }
    services.sort();
    let wanted = ["bedrock", "bedrock-runtime", "sts"].map(|name| format!("com.amazonaws.us-east-1.{name}"));
    same(faults, &format!("{stack}: endpoints"), &json!(services), &json!(wanted));
    let tables = aws.call(Commercial, &["ec2", "describe-route-tables", "--filters", &filter])?;
    for route in items(at(&tables, "/RouteTables")).flat_map(|table| items(at(table, "/Routes"))) {
        if text(route, "/GatewayId") != "local" {
            faults.push(format!("{stack}: a route that does not come from its VPN gateway: {route}"));
        }
    }
    let gateways = aws.call(Commercial, &["ec2", "describe-vpn-gateways"])?;
    let attached = items(at(&gateways, "/VpnGateways"))
        .filter(|gateway| items(at(gateway, "/VpcAttachments")).any(|one| at(one, "/VpcId") == &vpc))
        .count();
    same(faults, &format!("{stack}: VPN gateways"), &json!(attached), &json!(1));
    Ok(())
}

/// The tunnels' secret must match the VPN connections.
fn tunnels(aws: &Aws, faults: &mut Vec<String>) -> Result<(), Error> {
    let stack = ["cloudformation", "describe-stacks", "--stack-name"];
    let outputs = |partition, name: &str| {
        let query = "Stacks[0].Outputs[].[OutputKey, OutputValue]";
        let found = aws.call(partition, &[&stack[..], &[name, "--query", query]].concat())?;
        let pairs = items(&found).map(|pair| (text(pair, "/0").to_owned(), at(pair, "/1").clone()));
        Ok::<Value, Error>(Value::Object(pairs.collect()))
    };
    let connections = outputs(Commercial, "bedrock-gateway-example-vpn")?;
    let addresses = outputs(GovCloud, "bedrock-gateway-example-vpn-addresses")?;
    let secret = outputs(GovCloud, "bedrock-gateway-example-vpn-secret")?;
    let value = ["secretsmanager", "get-secret-value", "--secret-id", text(&secret, "/SecretArn"), "--query"];
    let value = aws.call(GovCloud, &[&value[..], &["SecretString"]].concat())?;
    let value: Value = serde_json::from_str(value.as_str().unwrap_or_default())
        .map_err(|error| Error::Failed(format!("the tunnels' secret is not JSON: {error}")))?;
    let mut gateways = json!({});
    for (name, connection, address) in [("a", "/ConnectionA", "/AddressA"), ("b", "/ConnectionB", "/AddressB")] {
        let id = text(&connections, connection);
        let found = aws.call(Commercial, &["ec2", "describe-vpn-connections", "--vpn-connection-ids", id])?;
        let connection = at(&found, "/VpnConnections/0");
        same(faults, &format!("{id}: static routes"), at(connection, "/Options/StaticRoutesOnly"), &json!(false));
        let options = items(at(connection, "/Options/TunnelOptions"));
        let tunnels: Vec<Value> = options
            .map(|one| {
                let (outside, inside) = (at(one, "/OutsideIpAddress"), at(one, "/TunnelInsideCidr"));
                json!({ "outside": outside, "inside": inside, "psk": at(one, "/PreSharedKey") })
            })
            .collect();
        if let Some(gateways) = gateways.as_object_mut() {
            gateways.insert(name.to_owned(), json!({ "outside": at(&addresses, address), "tunnels": tunnels }));
        }
    }
    let wanted = json!({ "local_asn": 65010, "remote_asn": 64512, "gateways": gateways });
    // `same` would print the keys.
    if value != wanted || items(at(&wanted, "/gateways/a/tunnels")).count() != 2 {
        faults.push("the tunnels' secret differs from Commercial's VPN connections".to_owned());
    }
    Ok(())
}

/// The properties of the Direct Connect resources, with their references resolved: moto supports only the connection. The BGP
/// key is a reference to a secret, which the mock has resolved once; each side announces its own range.
fn virtual_interfaces(aws: &Aws, faults: &mut Vec<String>) -> Result<(), Error> {
    let query = "connections[].[connectionId, bandwidth]";
    let ordered = aws.call(GovCloud, &["directconnect", "describe-connections", "--query", query])?;
    let mut numbers = BTreeSet::new();
    for (partition, range) in [(Commercial, "10.100.1.0/24"), (GovCloud, GOVCLOUD_CIDR)] {
        let what = directory(partition);
        let last = |kind: &str| -> Result<Value, Error> {
            Ok(aws.placeholders(partition, &format!("AWS::DirectConnect::{kind}"))?.pop().unwrap_or_default())
        };
        let association = last("DirectConnectGatewayAssociation")?;
        let announced = at(&association, "/AllowedPrefixesToDirectConnectGateway");
        same(faults, &format!("{what}: what Direct Connect announces"), announced, &json!([range]));
        if !text(&association, "/AssociatedGatewayId").starts_with("vgw-") {
            faults.push(format!("{what}: the association {association} has no VPN gateway"));
        }
        let interface = last("PrivateVirtualInterface")?;
        // The example uses an existing connection in Commercial and orders one in GovCloud.
        let line = if partition == GovCloud { at(&ordered, "/0/0").clone() } else { json!("dxcon-fexample") };
        same(faults, &format!("{what}: the virtual interface's connection"), at(&interface, "/ConnectionId"), &line);
        let key = text(&interface, "/BgpPeers/0/AuthKey");
        if !key.starts_with("{{resolve:secretsmanager:arn:") || !key.contains(":secret:bedrock/example/direct-connect-")
        {
            faults.push(format!("{what}: the BGP key is not read from its secret"));
        }
        numbers.insert(text(&last("DirectConnectGateway")?, "/AmazonSideAsn").to_owned());
    }
    if numbers.len() != 2 || numbers.contains("") {
        faults.push(format!("the partitions' AS numbers are {numbers:?}; want two"));
    }
    same(faults, "the ordered bandwidth", at(&ordered, "/0/1"), &json!("1Gbps"));
    Ok(())
}

/// Both VPN machines: each has its address and its settings, and may forward packets.
fn machines(aws: &Aws, faults: &mut Vec<String>) -> Result<(), Error> {
    let addresses = aws.call(GovCloud, &["ec2", "describe-addresses"])?;
    for (name, logical) in [("a", "GatewayA"), ("b", "GatewayB")] {
        let what = format!("VPN gateway {name}");
        let tag = format!("bedrock-gateway-example-vpn-{name}");
        let filters = format!("Name=tag:Name,Values={tag}");
        let running = ["Name=instance-state-name,Values=running"];
        let query = [&["ec2", "describe-instances", "--filters", &filters][..], &running[..]].concat();
        let found = aws.call(GovCloud, &[&query[..], &["--query", "Reservations[].Instances[]"]].concat())?;
        if items(&found).count() != 1 {
            faults.push(format!("{what}: {} machines run", items(&found).count()));
            continue;
        }
        let machine = at(&found, "/0");
        same(
            faults,
            &format!("{what}: the check of source and destination"),
            at(machine, "/SourceDestCheck"),
            &json!(false),
        );
        let address =
            items(at(&addresses, "/Addresses")).find(|one| at(one, "/InstanceId") == at(machine, "/InstanceId"));
        let named = address.and_then(|one| items(at(one, "/Tags")).find(|tag| text(tag, "/Key") == "Name"));
        same(faults, &format!("{what}: its elastic address"), at(named.unwrap_or(&Value::Null), "/Value"), &json!(tag));
        let settings = items(at(machine, "/Tags")).find(|tag| text(tag, "/Key") == "bedrock-gateway:settings");
        let settings = text(settings.unwrap_or(&Value::Null), "/Value");
        let query = ["ssm", "get-parameter", "--name", settings, "--query", "Parameter.Value"];
        let settings = aws.call(GovCloud, &query)?;
        let settings: Value = serde_json::from_str(settings.as_str().unwrap_or_default())
            .map_err(|error| Error::Failed(format!("{what}: settings are not JSON: {error}")))?;
        same(faults, &format!("{what}: its name"), at(&settings, "/name"), &json!(name));
        same(faults, &format!("{what}: its resource"), at(&settings, "/resource"), &json!(logical));
        same(faults, &format!("{what}: what it announces"), at(&settings, "/local_cidr"), &json!(GOVCLOUD_CIDR));
        if items(at(&settings, "/route_tables")).count() != 3 || text(&settings, "/other").is_empty() {
            faults.push(format!("{what}: its settings lack route tables or the other gateway"));
        }
        let template = items(at(machine, "/Tags")).find(|tag| text(tag, "/Key") == "aws:ec2launchtemplate:id");
        let template = text(template.unwrap_or(&Value::Null), "/Value");
        let query =
            ["ec2", "describe-launch-template-versions", "--launch-template-id", template, "--versions", "$Latest"];
        let data = aws.call(GovCloud, &query)?;
        let data = at(&data, "/LaunchTemplateVersions/0/LaunchTemplateData");
        same(faults, &format!("{what}: IMDSv2"), at(data, "/MetadataOptions/HttpTokens"), &json!("required"));
        same(
            faults,
            &format!("{what}: its disk's encryption"),
            at(data, "/BlockDeviceMappings/0/Ebs/Encrypted"),
            &json!(true),
        );
    }
    Ok(())
}
