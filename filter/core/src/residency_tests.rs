use super::*;
use crate::policy::Policy;
use serde_json::{Value, json};

const APPLICATION: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";

fn residency(listed: &[&str]) -> Residency {
    let listed: Vec<String> = listed.iter().map(|geography| (*geography).to_owned()).collect();
    Residency::compile(Some(&listed)).unwrap()
}

fn policy(extra: Value) -> Result<Policy, ConfigError> {
    let mut document = json!({
        "role": "gateway", "regions": {"us-east-1": {}},
        "route_classes": [{"name": "any", "paths": ["dx"], "regions": ["us-east-1"]}],
    });
    document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Policy::parse(document.to_string().as_bytes(), None)
}

#[test]
fn an_id_says_where_it_runs() {
    let arn = |resource: &str| format!("arn:aws:bedrock:us-east-1:123456789012:{resource}");
    for (id, wanted) in [
        ("anthropic.claude-v2".to_owned(), ""),
        ("us.anthropic.claude-v2".to_owned(), "us"),
        ("global.anthropic.claude-v2".to_owned(), "global"),
        ("apac.anthropic.claude-v2".to_owned(), "apac"),
        ("jp.anthropic.claude-v2".to_owned(), "jp"),
        ("openai.gpt-5.4".to_owned(), ""),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-v2".to_owned(), ""),
        ("arn:aws:bedrock:::foundation-model/anthropic.claude-v2".to_owned(), "global"),
        (arn("inference-profile/us.anthropic.claude-v2"), "us"),
        (arn("inference-profile/global.anthropic.claude-v2"), "global"),
        (arn("provisioned-model/abc"), ""),
        (arn("custom-model/amazon.nova/abc"), ""),
        (arn("custom-model-deployment/abc"), ""),
        (arn("imported-model/abc"), ""),
        ("arn:aws:sagemaker:us-east-1:123456789012:endpoint/abc".to_owned(), ""),
        // Only AWS knows.
        (APPLICATION.to_owned(), "?"),
        (arn("prompt-router/abc"), "?"),
        (arn("default-prompt-router/meta.llama:1"), "?"),
        (arn("prompt/ABCDEFGHIJ:1"), "?"),
        (arn("inference-profile/abc"), "?"),
        (arn("inference-profile/sa.anthropic.claude-v2"), "?"),
        ("sa.anthropic.claude-v2".to_owned(), "?"),
        ("us.global.anthropic.claude-v2".to_owned(), "?"),
        ("a1b2c3d4e5f6".to_owned(), "?"),
        ("arn:aws:bedrock:us-east-1".to_owned(), "?"),
        (String::new(), "?"),
    ] {
        assert_eq!(Residency::default().check(&id), Ok(()), "{id}");
        for listed in [&[][..], &["us"], &["us", "global"], &["apac", "jp"]] {
            let refused = residency(listed).check(&id);
            let passes = wanted.is_empty() || listed.contains(&wanted);
            assert_eq!(refused.is_ok(), passes, "{id} {listed:?}");
            match refused {
                Err(ResidencyRefusal::Hidden(hidden)) => assert!(wanted == "?" && hidden == id, "{id}"),
                Err(ResidencyRefusal::Geography { geography, .. }) => assert_eq!(geography, wanted, "{id}"),
                Ok(()) => {}
            }
        }
    }
}

#[test]
fn refuses_by_name_with_the_id_to_use() {
    let entries = json!({"residency": ["us"], "inference_profiles": {"a.b": "us.a.b"}});
    for (extra, id, says) in [
        (json!({"residency": ["us"]}), "global.a.b", "'global.a.b' may run in global, which `residency` of"),
        (json!({"residency": ["us"]}), "eu.a.b", "'eu.a.b' may run in eu, which"),
        (json!({"residency": []}), "us.a.b", "'us.a.b' may run in us, which"),
        (entries.clone(), "global.a.b", "does not list: write 'a.b' instead"),
        (entries, "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.a.b", ": write 'a.b' instead"),
        (json!({"residency": ["us"]}), APPLICATION, "does not say in which regions it runs"),
    ] {
        let message = policy(extra).unwrap().resolve_model(id).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
    let message = policy(json!({"residency": ["us"]})).unwrap().resolve_model("global.c.d").unwrap_err().to_string();
    assert!(message.ends_with("does not list"), "{message}");
    // Left out, it refuses nothing. A name that hides where it runs passes where the operator lists it.
    assert!(policy(json!({})).unwrap().resolve_model("global.a.b").is_ok());
    let vouched = json!({"residency": ["us"], "models": {"allow": ["*", APPLICATION]}});
    assert!(policy(vouched).unwrap().resolve_model(APPLICATION).is_ok());
    let vouched = json!({"residency": ["us"], "models": {"allow": ["*", "global.a.b"]}});
    assert!(policy(vouched).unwrap().resolve_model("global.a.b").is_err(), "its name says where it runs");
}

#[test]
fn refuses_entries_that_could_never_be_used() {
    for (extra, key, says) in [
        (
            json!({"inference_profiles": {"a.b": "global.a.b"}}),
            "inference_profiles.a.b",
            "'global.a.b' may run in global",
        ),
        (
            json!({"regions": {"us-east-1": {"inference_profiles": {"a.b": "global.a.b"}}}}),
            "regions.us-east-1.inference_profiles.a.b",
            "'global.a.b' may run in global",
        ),
        (json!({"inference_profiles": {"a.b": APPLICATION}}), "inference_profiles.a.b", "list"),
        (json!({"aliases": {"nick": "eu.a.b"}}), "aliases.nick", "'eu.a.b' may run in eu"),
    ] {
        let mut extra = extra;
        extra["residency"] = json!(["us"]);
        let error = policy(extra).unwrap_err();
        assert!(error.key == key && error.problem.contains(says), "{error}");
    }
    let findings = |listed: Value| {
        let extra = json!({"residency": listed, "catalogue": {"cluster": "polls", "global": true}});
        policy(extra).unwrap().findings().into_iter().map(|found| found.key).collect::<Vec<_>>()
    };
    assert_eq!(findings(json!(["us"])), ["catalogue.global"]);
    assert_eq!(findings(json!(["us", "global"])), [""; 0]);
}
