//! The templates of `infra/templates` pass every rule, and a template with a planted fault does not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod metrics;
mod planted;
mod settings;
mod small;

use std::collections::BTreeMap;
use std::path::Path;

use filter_core::names::Partition;
use infra_checks::rules;
use infra_checks::template::{PARTITIONS, Template, directory};
use infra_checks::templates;
use serde_json::{Map, Value, json};

fn partition(file: &str) -> Partition {
    PARTITIONS.into_iter().find(|partition| file.starts_with(directory(*partition))).unwrap()
}

fn text(file: &str) -> String {
    std::fs::read_to_string(templates().join(file)).unwrap()
}

#[test]
fn the_templates_pass_every_rule() {
    let found = rules::check(&Template::all(&templates()).unwrap());
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", lines.join("\n"));
}

/// Debian's regular support of 12 ended in June 2026 (https://wiki.debian.org/DebianReleases).
#[test]
fn the_vpns_debian_is_supported() {
    let file = "govcloud/vpn.yaml";
    let template = Template::parse(file.to_owned(), partition(file), &text(file)).unwrap();
    let image = template.default("ImageId").and_then(Value::as_str).unwrap();
    let release: u32 = image.split('/').nth(5).unwrap().parse().unwrap();
    assert!(image.starts_with("/aws/service/debian/release/") && release >= 13, "{image}");
    let page = std::fs::read_to_string(templates().join("../../docs/deployment.md")).unwrap();
    assert!(page.contains(&format!("--name {image}`")), "docs/deployment.md does not name {image}");
    for file in ["docs/vpn.md", "infra/vpn/user-data"] {
        let text = std::fs::read_to_string(templates().join("../..").join(file)).unwrap();
        assert!(text.contains(&format!("Debian {release}")), "{file} does not say Debian {release}");
    }
}

#[test]
fn the_idle_rule_has_envoys_time_out() {
    let base = std::fs::read_to_string(templates().join("../../envoy/base.yaml")).unwrap();
    assert!(base.contains(&format!("\n                  idle_timeout: {}s\n", rules::balancer::ENVOY_IDLE)));
}

/// A policy of `infra/policies`.
fn policy(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").join(name);
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn the_commercial_role_matches_the_policies() {
    let file = "commercial/identity.yaml";
    let template = Template::parse(file.to_owned(), partition(file), &text(file)).unwrap();
    let resources: BTreeMap<&str, Value> =
        template.resources().map(|resource| (resource.id, resource.property("").clone())).collect();

    let trust = resources["Role"]["AssumeRolePolicyDocument"]["Fn::Sub"].as_str().unwrap();
    let values = [
        ("${Provider}", "arn:aws:iam::111122223333:oidc-provider/ISSUER"),
        ("${Issuer}", "ISSUER"),
        ("${Audience}", template.default("Audience").unwrap().as_str().unwrap()),
        ("${GatewayRoleArn}", "arn:aws-us-gov:iam::444455556666:role/bedrock-gateway"),
    ];
    let trust = values.iter().fold(trust.to_owned(), |text, (name, value)| text.replace(name, value));
    assert_eq!(serde_json::from_str::<Value>(&trust).unwrap(), policy("commercial-trust.json"));

    let mut shown = policy("commercial-bedrock.json");
    let more = policy("commercial-operations.json")["Statement"].as_array().unwrap().clone();
    let models = shown["Statement"][0]["Resource"].clone();
    shown["Statement"].as_array_mut().unwrap().extend(more);
    let calls = filled(&resources["CallBedrock"]["PolicyDocument"], &models);
    assert_eq!(calls, shown);

    for (id, name) in [("BatchJobs", "commercial-batch-jobs.json"), ("KnowledgeBases", "commercial-agent-runtime.json")]
    {
        assert_eq!(filled(&resources[id]["PolicyDocument"], &models), policy(name), "{id}");
    }

    // A parameter has at most 4,096 bytes, and a managed policy 6,144 characters: every list of models fits.
    // https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
    let arn = format!("arn:aws:bedrock:us-east-1::foundation-model/{}", "x".repeat(16));
    let models: Vec<&str> = vec![&arn; 4096 / (arn.len() + 1)];
    let longest = filled(&resources["CallBedrock"]["PolicyDocument"], &json!(models));
    assert!(longest.to_string().len() <= 6144, "{}", longest.to_string().len());
}

/// A policy of a template with the values of `infra/policies` in the place of its functions.
fn filled(value: &Value, models: &Value) -> Value {
    let ref_of = |object: &Map<String, Value>| object.get("Ref").and_then(Value::as_str).map(str::to_owned);
    match value {
        Value::Object(object) => match (ref_of(object).as_deref(), object.get("Fn::Sub").and_then(Value::as_str)) {
            (Some("ModelArns"), _) => models.clone(),
            (Some("Regions"), _) => json!(["us-east-1"]),
            (_, Some(text)) => {
                json!(text.replace("${AWS::Partition}", "aws").replace("${AWS::AccountId}", "111122223333"))
            }
            _ if object.contains_key("Fn::Split") => json!(["arn:aws:iam::111122223333:role/batch"]),
            _ => object.iter().map(|(key, inner)| (key.clone(), filled(inner, models))).collect(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, models)).collect(),
        _ => value.clone(),
    }
}
