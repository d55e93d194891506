//! Names of models from which only AWS knows the model: they must not lead around a rule for models.

use bedrock_double::PathFault;
use serde_json::{Value, json};

use super::{Case, MODEL, converse, path_of, try_all};
use crate::harness::{Harness, Keys};

const DENIED: &str = "AccessDeniedException";
const CLAUDE: &str = "anthropic.claude-3-haiku-20240307-v1:0";

/// Each kind of name that Bedrock takes and that does not say which model runs (botocore 1.44.5: `InvokeModelIdentifier`).
const UNRESOLVED: [&str; 16] = [
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.titan-text-express-v1/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ",
    "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1",
    "arn:aws:bedrock:us-east-1:123456789012:prompt-router/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/claude:1",
    "arn:aws:sagemaker:us-east-1:123456789012:endpoint/llama",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/sa.anthropic.claude-3-haiku-20240307-v1:0",
    "sa.anthropic.claude-3-haiku-20240307-v1:0",
    "xx-yy.anthropic.claude-3-haiku-20240307-v1:0",
    "a1b2c3d4e5f6",
    "my-model",
];

fn harness(models: &Value, classes: &Value, paths: &[&str]) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let document = json!({"regions": {"us-east-1": {}}, "models": models, "route_classes": classes});
    std::fs::write(&policy, document.to_string()).unwrap();
    Harness::new(Keys::LongLived, paths, |double| double, &["--policy", policy.to_str().unwrap()])
}

/// Every kind of name, as Converse and as ConverseStream.
fn cases(message: &'static str) -> Vec<Case> {
    let case = |id: &&str, operation: &str| {
        let path = path_of(id).replace("/converse", operation);
        Case::new(format!("{id}{operation}"), converse(&path, ""), 403, DENIED).says(message)
    };
    UNRESOLVED.iter().flat_map(|id| [case(id, "/converse"), case(id, "/invoke-with-response-stream")]).collect()
}

#[test]
fn no_name_leads_around_a_deny_list() {
    let any = json!([{"name": "any", "paths": ["internet"]}]);
    let harness = harness(&json!({"deny": ["anthropic.*"]}), &any, &["internet"]);
    let mut all = cases("cannot tell which model");
    let geography = |id: &str| Case::new(id, converse(&path_of(id), ""), 403, DENIED).says("does not allow model");
    all.extend(
        [CLAUDE, "us.anthropic.claude-3-haiku-20240307-v1:0", "in.anthropic.claude-3-haiku-20240307-v1:0"]
            .map(geography),
    );
    try_all(&harness, &all);
    assert!(harness.received().iter().all(|request| request.labels == [MODEL]));
}

#[test]
fn confined_models_never_reach_the_internet() {
    let classes = json!([
        {"name": "claude", "models": ["anthropic.*"], "paths": ["dx", "vpn"]},
        {"name": "any", "paths": ["dx", "vpn", "internet"]}
    ]);
    let harness = harness(&json!({}), &classes, &["dx", "vpn", "internet"]);
    for private in &harness.doubles[..2] {
        private.set_fault(PathFault::Refuse);
    }
    let mut all = cases("cannot tell which model");
    all.push(Case::new(CLAUDE, converse(&path_of(CLAUDE), ""), 503, "ServiceUnavailableException"));
    try_all(&harness, &all);
    assert!(harness.received().iter().all(|request| request.labels == [MODEL]));
}

#[test]
fn without_rules_for_models_every_name_crosses() {
    let any = json!([{"name": "any", "paths": ["internet"]}]);
    let harness = harness(&json!({}), &any, &["internet"]);
    for id in UNRESOLVED {
        let answer = super::send(&harness, &converse(&path_of(id), ""));
        assert_ne!(answer.status, 403, "{id} {answer:?}");
        assert_eq!(harness.received().pop().unwrap().labels, [id]);
    }
}
