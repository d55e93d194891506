//! What the templates allow: endpoints' policies, the role's, and the security group of the machines.
//!
//! Values are those that a deployment of the environment `prod` would have. An element or operator that is not known here panics, so
//! that no condition is passed over.
//! Source: IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".

use infra_checks::template::Template;
use serde_json::Value;

pub(crate) const ACCOUNT: &str = "444455556666";
pub(crate) const REGION: &str = "us-gov-west-1";
pub(crate) const TABLE: &str = "bedrock-gateway-prod-audit";
pub(crate) const BUCKET: &str = "bedrock-gateway-prod-artifacts";
pub(crate) const SETTINGS: &str = "/bedrock-gateway/prod/gateway/settings";

/// The values of parameters and pseudo parameters.
const VALUES: [(&str, &str); 14] = [
    ("AWS::AccountId", ACCOUNT),
    ("AWS::Partition", "aws-us-gov"),
    ("AWS::Region", REGION),
    (
        "AWS::StackId",
        "arn:aws-us-gov:cloudformation:us-gov-west-1:444455556666:stack/bedrock-gateway-prod-gateway/4f7b6b0e",
    ),
    ("AWS::StackName", "bedrock-gateway-prod-gateway"),
    ("ArtifactBucket", BUCKET),
    ("ArtifactKey", "release/release.tar.gz"),
    ("CertificateSecretArn", "arn:aws-us-gov:secretsmanager:us-gov-west-1:444455556666:secret:bedrock/prod/tls-AbCdEf"),
    ("ConfigKey", "config/config.tar.gz"),
    ("Environment", "prod"),
    ("Internet", "path"),
    ("TableArn", "arn:aws-us-gov:dynamodb:us-gov-west-1:444455556666:table/bedrock-gateway-prod-audit"),
    ("TableName", TABLE),
    ("VpcCidr", "10.64.0.0/20"),
];

fn known(name: &str) -> Option<String> {
    VALUES.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

/// The value of a parameter that the test sets.
pub(crate) fn value(name: &str) -> String {
    known(name).unwrap()
}

/// A request, as policies see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) action: &'a str,
    pub(crate) resource: &'a str,
    /// Whether it is signed by the machine's role. `aws:PrincipalAccount` is not in the context of an anonymous request (IAM User Guide,
    /// "AWS global condition context keys").
    pub(crate) signed: bool,
}

/// The templates of the network and of the machines, with their values.
#[derive(Debug)]
pub(crate) struct Templates {
    network: Template,
    gateway: Template,
}

impl Templates {
    pub(crate) fn read() -> Templates {
        let mut all = Template::all(&infra_checks::templates()).unwrap();
        let mut take = |file: &str| all.remove(all.iter().position(|template| template.file == file).unwrap());
        Templates { network: take("govcloud/network.yaml"), gateway: take("govcloud/gateway.yaml") }
    }

    /// Whether the VPC has an endpoint of the service, its type, and its policy.
    pub(crate) fn endpoint(&self, service: &str) -> Option<(String, Value)> {
        let endpoints = self.network.of_type("AWS::EC2::VPCEndpoint");
        let mut found = endpoints.filter(|endpoint| {
            resolve(&self.network, endpoint.property("/ServiceName")) == format!("com.amazonaws.{REGION}.{service}")
        });
        let endpoint = found.next()?;
        let kind = endpoint.property("/VpcEndpointType").as_str().unwrap_or("Interface").to_owned();
        Some((kind, resolved(&self.network, endpoint.property("/PolicyDocument"))))
    }

    /// The ids of the log groups of that name.
    pub(crate) fn log_group(&self, name: &str) -> Vec<&str> {
        let groups = self.gateway.of_type("AWS::Logs::LogGroup");
        let named = groups.filter(|group| resolve(&self.gateway, group.property("/LogGroupName")) == name);
        named.map(|group| group.id).collect()
    }

    /// Whether the role of the machines allows it.
    pub(crate) fn role_allows(&self, request: Request<'_>) -> bool {
        let role = self.gateway.of_type("AWS::IAM::Role").find(|role| role.id == "Role").unwrap();
        let inline = role.property("/Policies").as_array().unwrap().iter().map(|policy| &policy["PolicyDocument"]);
        let more = self.gateway.of_type("AWS::IAM::RolePolicy");
        let more = more.filter(|policy| policy.body["Condition"].is_null() || holds_in(&self.gateway, policy.body));
        let more = more.map(|policy| policy.property("/PolicyDocument"));
        let mut policies = inline.chain(more).map(|policy| resolved(&self.gateway, policy));
        policies.any(|policy| allows(&policy, request))
    }

    /// What nft lets a machine send and receive. Security groups keep state; they do not filter the metadata service, DNS and time
    /// (Amazon VPC User Guide, "Control traffic to your AWS resources using security groups").
    pub(crate) fn rules(&self, balancer: &str) -> String {
        let group =
            self.gateway.of_type("AWS::EC2::SecurityGroup").find(|group| group.id == "InstanceSecurityGroup").unwrap();
        let rule = |rule: &Value, direction: &str| {
            let protocol = rule["IpProtocol"].as_str().unwrap();
            let who = match rule["CidrIp"].as_str() {
                Some(range) => range.to_owned(),
                None if resolve(&self.gateway, &rule["SourceSecurityGroupId"]) == "value-of-BalancerSecurityGroup" => {
                    balancer.to_owned()
                }
                None => panic!("a rule of another group: {rule}"),
            };
            format!("    ip {direction} {who} {protocol} dport {}-{} accept\n", rule["FromPort"], rule["ToPort"])
        };
        let list = |name: &str, direction: &str| -> String {
            let rules = group.property(name).as_array().unwrap();
            rules.iter().map(|each| rule(each, direction)).collect()
        };
        // The templates give no IPv6. `counter` without a verdict counts what the policy then drops.
        format!(
            "table inet groups {{\n  chain output {{\n    type filter hook output priority 0; policy drop;\n    oif lo accept\n    \
             meta nfproto ipv6 drop\n    ct state established,related accept\n    ip daddr 169.254.169.254 tcp dport 80 accept\n{}    counter\n  }}\n  \
             chain input {{\n    type filter hook input priority 0; policy drop;\n    iif lo accept\n    \
             meta nfproto ipv6 drop\n    ct state established,related accept\n{}    counter\n  }}\n}}\n",
            list("/SecurityGroupEgress", "daddr"),
            list("/SecurityGroupIngress", "saddr"),
        )
    }
}

/// The value of a parameter: the test's, else its default, else a text that no policy of the test depends on.
fn reference(template: &Template, name: &str) -> String {
    let default =
        || template.default(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    // A reference to a log group is its name.
    let group = || {
        let mut groups = template.of_type("AWS::Logs::LogGroup").filter(|group| group.id == name);
        groups.next().map(|group| resolve(template, group.property("/LogGroupName")))
    };
    known(name).or_else(default).or_else(group).unwrap_or_else(|| format!("value-of-{name}"))
}

/// A value with its functions replaced; `null` for `AWS::NoValue`.
fn resolved(template: &Template, document: &Value) -> Value {
    let all = |items: &[Value]| {
        let items = items.iter().map(|item| resolved(template, item));
        Value::Array(items.filter(|item| !item.is_null()).collect())
    };
    match document {
        Value::Object(object)
            if object.len() == 1 && object.keys().all(|key| key == "Ref" || key.starts_with("Fn::")) =>
        {
            if let Some([condition, then, other]) = document["Fn::If"].as_array().map(Vec::as_slice) {
                let holds = holds_in(template, &serde_json::json!({"Condition": condition}));
                return resolved(template, if holds { then } else { other });
            }
            if document["Ref"] == "AWS::NoValue" {
                return Value::Null;
            }
            Value::from(resolve(template, document))
        }
        Value::Object(object) => {
            let members = object.iter().map(|(key, value)| (key.clone(), resolved(template, value)));
            Value::Object(members.filter(|(_, value)| !value.is_null()).collect())
        }
        Value::Array(items) => all(items),
        other => other.clone(),
    }
}

/// A condition of the template.
fn holds_in(template: &Template, condition: &Value) -> bool {
    let of = |name: &str| condition[name].as_array();
    let each = |value: &Value| holds_in(template, value);
    if let Some(name) = condition["Condition"].as_str() {
        return holds_in(template, &template.document["Conditions"][name]);
    }
    if let Some([left, right]) = of("Fn::Equals").map(Vec::as_slice) {
        return resolve(template, left) == resolve(template, right);
    }
    match (of("Fn::Not"), of("Fn::And"), of("Fn::Or")) {
        (Some(one), None, None) => !one.iter().all(each),
        (None, Some(all), None) => all.iter().all(each),
        (None, None, Some(any)) => any.iter().any(each),
        _ => panic!("condition {condition}"),
    }
}

fn resolve(template: &Template, text: &Value) -> String {
    if let Some(text) = text.as_str() {
        return text.to_owned();
    }
    if let Some(name) = text["Ref"].as_str() {
        return reference(template, name);
    }
    if let Some(parts) = text["Fn::GetAtt"].as_array() {
        return format!("value-of-{}", parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("."));
    }
    if let Some(text) = text["Fn::Sub"].as_str() {
        let mut parts = text.split("${");
        let mut out = parts.next().unwrap().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap();
            out += &(reference(template, name) + rest);
        }
        return out;
    }
    panic!("{text}: a function that this test does not know")
}

/// Whether a policy of an endpoint or of a role allows a request.
pub(crate) fn allows(policy: &Value, request: Request<'_>) -> bool {
    let mut allowed = false;
    for statement in policy["Statement"].as_array().unwrap() {
        for element in statement.as_object().unwrap().keys() {
            let known = ["Sid", "Effect", "Principal", "Action", "Resource", "Condition"];
            assert!(known.contains(&element.as_str()), "a policy has {element}, which this test does not know");
        }
        let principal = &statement["Principal"];
        assert!(principal.is_null() || *principal == "*" || principal["AWS"] == "*", "principal {principal}");
        let acts =
            texts(&statement["Action"]).any(|pattern| like(&pattern.to_lowercase(), &request.action.to_lowercase()));
        let concerns = texts(&statement["Resource"]).any(|pattern| like(pattern, request.resource));
        if acts && concerns && holds(&statement["Condition"], request) {
            match statement["Effect"].as_str() {
                Some("Allow") => allowed = true,
                Some("Deny") => return false,
                other => panic!("effect {other:?}"),
            }
        }
    }
    allowed
}

fn holds(condition: &Value, request: Request<'_>) -> bool {
    let operators = condition.as_object().into_iter().flatten();
    operators.flat_map(|(operator, keys)| keys.as_object().unwrap().iter().map(move |key| (operator, key))).all(
        |(operator, (key, wanted))| {
            let given = match key.to_lowercase().as_str() {
                "aws:principalaccount" | "aws:resourceaccount" if !request.signed => None,
                "aws:principalaccount" | "aws:resourceaccount" => Some(ACCOUNT),
                // Conditions of calls that do not pass these endpoints.
                _ => None,
            };
            match operator.as_str() {
                "StringEquals" | "StringLike" | "ArnLike" => {
                    given.is_some_and(|given| texts(wanted).any(|wanted| like(wanted, given)))
                }
                "StringEqualsIfExists" => given.is_none_or(|given| texts(wanted).any(|wanted| wanted == given)),
                "ForAllValues:StringEquals" | "NumericLessThanEquals" => false,
                other => panic!("a policy has the condition {other}, which this test does not know"),
            }
        },
    )
}

/// Whether a text matches a pattern with `*`.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            rest.is_empty() || text.char_indices().any(|(at, _)| like(rest, &text[at..])) || like(rest, "")
        }),
    }
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let one = value.as_str().into_iter();
    one.chain(value.as_array().into_iter().flatten().filter_map(Value::as_str))
}

#[test]
fn policies_are_read_as_iam_reads_them() {
    let statement = |more: &str| {
        let text = format!(
            r#"{{"Statement":[{{"Effect":"Allow","Principal":"*","Action":"s3:Get*","Resource":"arn:aws-us-gov:s3:::b/*"{more}}}]}}"#
        );
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let request = |signed| Request { action: "s3:GetObject", resource: "arn:aws-us-gov:s3:::b/a/b", signed };
    let account = r#","Condition":{"StringEquals":{"aws:PrincipalAccount":"444455556666"}}"#;
    assert!(allows(&statement(""), request(false)) && allows(&statement(account), request(true)));
    assert!(!allows(&statement(account), request(false)), "an anonymous request has no account");
    assert!(!allows(&statement(""), Request { resource: "arn:aws-us-gov:s3:::other/a", ..request(true) }));
    assert!(!allows(&statement(""), Request { action: "s3:PutObject", ..request(true) }));
}
