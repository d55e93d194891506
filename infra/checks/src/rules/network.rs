//! Networks: no ingress from everywhere, VPC endpoints of the partition's services, flow logs, and IMDSv2.

use serde_json::Value;

use super::{Report, given, is_true, texts};
use filter_core::names::Partition;

const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Services of interface and gateway endpoints, by partition. Bedrock is reached in the Commercial one only.
/// Source: AWS PrivateLink guide, "AWS services that integrate with AWS PrivateLink".
const fn services(partition: Partition) -> &'static [&'static str] {
    match partition {
        Partition::Commercial => &["bedrock-runtime", "bedrock", "bedrock-agent-runtime", "sts"],
        Partition::GovCloud => &[
            "autoscaling",
            "cloudformation",
            "dynamodb",
            "ec2",
            "ec2messages",
            "kms",
            "logs",
            "monitoring",
            "s3",
            "secretsmanager",
            "sns",
            "ssm",
            "ssmmessages",
            "sts",
        ],
    }
}

pub(super) fn check(report: &mut Report<'_>) {
    match report.resource.kind {
        "AWS::EC2::SecurityGroup" => {
            description(report, "/GroupDescription");
            for way in ["SecurityGroupIngress", "SecurityGroupEgress"] {
                let rules = report.resource.property(&format!("/{way}")).as_array().map_or(0, Vec::len);
                (0..rules).for_each(|index| description(report, &format!("/{way}/{index}/Description")));
            }
            let rules = report.resource.property("/SecurityGroupIngress").as_array();
            for (index, rule) in rules.into_iter().flatten().enumerate() {
                ingress(report, rule, &format!("/Properties/SecurityGroupIngress/{index}"));
            }
        }
        "AWS::EC2::SecurityGroupIngress" => {
            description(report, "/Description");
            ingress(report, report.resource.property(""), "/Properties");
        }
        "AWS::EC2::SecurityGroupEgress" => description(report, "/Description"),
        "AWS::EC2::Subnet" if is_true(report.resource.property("/MapPublicIpOnLaunch")) => {
            let place = "/Properties/MapPublicIpOnLaunch";
            report.fault("ingress", place, "MapPublicIpOnLaunch", "gives each machine a public address");
        }
        "AWS::ElasticLoadBalancingV2::LoadBalancer"
            if report.resource.property("/Scheme").as_str() != Some("internal") =>
        {
            let place = "/Properties/Scheme";
            report.fault("ingress", place, "Scheme", "want \"internal\"; the default is public");
        }
        "AWS::EC2::VPCEndpoint" => endpoint(report),
        "AWS::EC2::VPC" => flow_log(report),
        "AWS::EC2::LaunchTemplate" => metadata(report, "/LaunchTemplateData/MetadataOptions"),
        // An instance has no MetadataOptions of its own.
        "AWS::EC2::Instance" if !given(report.resource.property("/LaunchTemplate")) => {
            report.fault("imds", "/Properties", "LaunchTemplate", "no launch template; only one can require IMDSv2");
        }
        _ => {}
    }
}

/// The characters that EC2 accepts in a description. `cfn-lint` checks the group's description only.
/// Source: Amazon EC2 API Reference, "IpRange".
fn description(report: &mut Report<'_>, pointer: &str) {
    let Some(text) = report.resource.property(pointer).as_str() else { return };
    let accepted = |letter: char| letter.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(letter);
    if let Some(letter) = text.chars().find(|letter| !accepted(*letter)) {
        let problem = "EC2 refuses this character in a description of a security group";
        report.fault("description", &format!("/Properties{pointer}"), letter.to_string(), problem);
    }
}

fn ingress(report: &mut Report<'_>, rule: &Value, place: &str) {
    for key in ["CidrIp", "CidrIpv6"] {
        let Some(range) = rule.get(key) else { continue };
        let parameter = range.get("Ref").and_then(Value::as_str);
        let default = parameter.and_then(|name| report.template.default(name)).unwrap_or(range);
        for text in texts(default) {
            if ANYWHERE.contains(&text) {
                report.fault("ingress", place, text, "ingress from everywhere; name the range");
            }
        }
    }
    if rule.get("IpProtocol").is_some_and(|protocol| protocol.as_str() == Some("-1") || protocol.as_i64() == Some(-1)) {
        report.fault("ingress", place, "IpProtocol -1", "every protocol; name the protocol and its ports");
    }
}

fn endpoint(report: &mut Report<'_>) {
    let name = report.resource.property("/ServiceName");
    let known = services(report.template.partition);
    let place = "/Properties/ServiceName";
    match texts(name).as_slice() {
        [text] => {
            let service = text.strip_prefix("com.amazonaws.${AWS::Region}.");
            if !service.is_some_and(|service| known.contains(&service)) {
                let problem = format!(
                    "not a service of this partition; want com.amazonaws.${{AWS::Region}}. and one of {known:?}"
                );
                report.fault("endpoint", place, *text, problem);
            }
        }
        _ => report.fault("endpoint", place, "ServiceName", "not a !Sub of com.amazonaws.${AWS::Region}.SERVICE"),
    }
    if !given(report.resource.property("/PolicyDocument")) {
        let problem = "no endpoint policy: the default allows any credentials and any account";
        report.fault("endpoint", "/Properties", "PolicyDocument", problem);
    } else if texts(name).iter().any(|name| name.ends_with(".s3")) {
        packages(report);
    }
}

/// Amazon Linux 2023's package repositories, in either partition: the machines' `dnf` reads them without credentials, so a
/// condition on the principal denies them. Source: aws-samples/data-perimeter-policy-examples, "service_owned_resources.md"
/// (Amazon EC2, Amazon Linux 2023), and the repositories' own address in Amazon Linux's `amazonlinux.repo`,
/// `al2023-repos-$awsregion-de612dc2.s3$dualstack.$awsregion.$awsdomain`. Never run in GovCloud.
const PACKAGES: &str = "arn:${AWS::Partition}:s3:::al2023-repos-${AWS::Region}-de612dc2/*";

/// The policy of an S3 endpoint must let machines read their packages.
fn packages(report: &mut Report<'_>) {
    let place = "/Properties/PolicyDocument/Statement";
    let statements = report.resource.property("/PolicyDocument/Statement").as_array();
    let part = |statement: &Value, key: &str| statement.get(key).cloned().unwrap_or_default();
    let found = statements.into_iter().flatten().find(|statement| {
        texts(&part(statement, "Resource")).contains(&PACKAGES)
            && texts(&part(statement, "Action")).contains(&"s3:GetObject")
            && part(statement, "Effect").as_str() == Some("Allow")
    });
    match found {
        None => report.fault("packages", place, PACKAGES, "not readable: no package of Amazon Linux can be installed"),
        Some(statement)
            if part(statement, "Principal").as_str() != Some("*") || statement.get("Condition").is_some() =>
        {
            report.fault("packages", place, PACKAGES, "want principal \"*\" and no condition: dnf has no credentials");
        }
        Some(_) => {}
    }
}

fn flow_log(report: &mut Report<'_>) {
    let id = report.resource.id;
    let logged = report
        .template
        .of_type("AWS::EC2::FlowLog")
        .any(|log| log.property("/ResourceId").get("Ref").and_then(Value::as_str) == Some(id));
    if !logged {
        report.fault("flow-log", "", "AWS::EC2::FlowLog", "no flow log of this VPC in its template");
    }
}

fn metadata(report: &mut Report<'_>, pointer: &str) {
    let options = report.resource.property(pointer);
    let place = format!("/Properties{pointer}");
    if options.get("HttpTokens").and_then(Value::as_str) != Some("required") {
        report.fault("imds", &place, "HttpTokens", "want \"required\", for IMDSv2 only");
    }
    if options.get("HttpPutResponseHopLimit").and_then(Value::as_i64) != Some(1) {
        report.fault("imds", &place, "HttpPutResponseHopLimit", "want 1, so that tokens stay on the machine");
    }
}
