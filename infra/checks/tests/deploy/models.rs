//! `SMOKE_MODEL` and `Regions` against the policy, before anything is made.

use filter_core::names::Partition::GovCloud;
use serde_json::{Value, json};

use crate::deployment::{Deployment, SETTINGS, TOPIC};

const MODEL: &str = "anthropic.claude-haiku-4-5-20251001-v1:0";
const IDENTITY: &str = "\
Parameters:
  Regions:
    Type: CommaDelimitedList
    Default: us-east-1
Resources:
  Topic: { Type: AWS::SNS::Topic }
Outputs:
  RoleArn:
    Value: arn:aws:iam::111122223333:role/a
";

fn environment(name: &'static str) -> Deployment {
    let deployment = Deployment::start(name);
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.environment("govcloud/topic.params", "Name=a\n");
    deployment.file("templates/commercial/identity.yaml", IDENTITY);
    // The last step is the next mistake, for a policy that passes.
    let plan = "commercial identity\nconfig policy.json internet\ngovcloud topic\nsmoke\nend\n";
    deployment.environment("1.plan", plan);
    deployment
}

/// A policy with references.
fn document(models: &Value, regions: &Value) -> Value {
    json!({
        "regions": regions,
        "models": models,
        "route_classes": [{ "name": "any", "paths": ["internet"] }],
        "credentials": {
            "source": "federation",
            "using": { "source": "imds", "cluster": "imds" },
            "govcloud": { "cluster": "sts-govcloud", "region": "us-gov-west-1" },
            "commercial": { "cluster": "sts-commercial", "region": "us-east-1" },
            "role_arn": "@{commercial/identity.RoleArn}",
            "audience": "bedrock-gateway",
            "tags": { "environment": "@{environment}" },
        },
    })
}

#[test]
fn refuses_a_smoke_model_that_the_policy_does() {
    let deployment = environment("smoke-model");
    let settings = |model: &str| {
        let more = "BUCKET=b\nGATEWAY=govcloud/topic\nSMOKE_URL=https://x.example.com\nSMOKE_MODEL=";
        deployment.environment("settings", &format!("{SETTINGS}{more}{model}\n"));
    };
    let one = json!({ "us-east-1": {} });
    for (model, models, part) in [
        (MODEL, json!({ "allow": ["anthropic.*"] }), "unknown step end"),
        (&format!("us.{MODEL}"), json!({ "allow": ["anthropic.*"] }), "unknown step end"),
        ("none", json!({ "allow": ["amazon.*"] }), "unknown step end"),
        (
            MODEL,
            json!({ "allow": ["amazon.*", "cohere.*"] }),
            "policy.json refuses: no pattern of `models.allow` matches anthropic.claude-haiku",
        ),
        (
            MODEL,
            json!({ "allow": ["*"], "deny": ["*haiku*"] }),
            "policy.json refuses: `models.deny[0]` (*haiku*) refuses",
        ),
    ] {
        settings(model);
        deployment.environment("policy.json", &document(&models, &one).to_string());
        let text = deployment.fails(&["1", "--yes"], part);
        if part.starts_with("policy.json") {
            assert!(text.contains(&format!("/settings: SMOKE_MODEL is {model}, which ")), "{text}");
        }
    }
    // The same before a deployment and in preflight.
    let text = deployment.fails(&["preflight", "1"], "policy.json refuses: `models.deny[0]` (*haiku*) refuses");
    assert!(text.contains("STOP  plan: "), "{text}");
    assert_eq!(deployment.stacks(GovCloud), [""; 0]);
}

#[test]
fn refuses_regions_that_the_role_does_not_allow() {
    let deployment = environment("regions");
    let more = "BUCKET=b\nGATEWAY=govcloud/topic\nSMOKE_URL=https://x.example.com\nSMOKE_MODEL=none\n";
    deployment.environment("settings", &format!("{SETTINGS}{more}"));
    let all = json!({ "allow": ["*"] });
    let profile = json!({ "inference_profiles": { "a.b": "us.a.b" }, "hosts": { "vpn": { "bedrock": "bedrock-fips.us-east-1.amazonaws.com" } } });
    let two = json!({ "us-east-1": profile, "us-west-2": { "inference_profiles": { "a.b": "us.a.b" } } });
    let missing = "identity.params: Regions is us-east-1, without us-west-2, which ";
    for (regions, given, part) in [
        (json!({ "us-east-1": profile }), "", "unknown step end"),
        (two.clone(), "", missing),
        (two.clone(), "Regions=us-east-1,us-west-2\n", "unknown step end"),
        (two.clone(), "Regions=us-west-2\n", "Regions is us-west-2, without us-east-1, which "),
    ] {
        deployment.environment("commercial/identity.params", given);
        deployment.environment("policy.json", &document(&all, &regions).to_string());
        deployment.fails(&["1", "--yes"], part);
        deployment.environment("policy.json", &format!("{:#}", document(&all, &regions)));
        deployment.fails(&["1", "--yes"], part);
    }
    // As YAML, with and without braces.
    deployment.environment("commercial/identity.params", "");
    let rest = document(&all, &json!({}));
    let rest: String = rest
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, _)| *key != "regions")
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    for regions in [
        "regions:\n  us-east-1:\n    inference_profiles: { a.b: us.a.b }\n  # more\n  us-west-2: { inference_profiles: { a.b: us.a.b } }\n",
        "regions: { us-east-1: { inference_profiles: { a.b: us.a.b } }, us-west-2: { inference_profiles: { a.b: us.a.b } } }\n",
    ] {
        deployment.environment("policy.json", &format!("{regions}{rest}"));
        deployment.fails(&["1", "--yes"], missing);
    }
}
