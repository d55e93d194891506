//! Lists show what policy allows.

use serde_json::Value;

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, Keys, policy};
use crate::pool::pooled;

fn ids(calls: &[Value], name: &str) -> Vec<String> {
    let ids = call(calls, name)["ids"].as_array().unwrap_or_else(|| panic!("{calls:#?}")).clone();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[test]
fn boto3_lists_what_policy_allows() {
    let all = python("lists", &pooled().gateway.http);
    assert_all_answered(&all);

    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "  deny: []", "  deny: [anthropic.*, global.*]");
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--policy", &policy]);
    let calls = python("lists", &harness.gateway.http);
    for (name, pages) in [("ListFoundationModels", 1), ("ListInferenceProfiles", 5)] {
        let (all, shown) = (ids(&all, name), ids(&calls, name));
        let denied = |id: &str| id.starts_with("anthropic.") || id.contains(".anthropic.") || id.starts_with("global.");
        // The double's list has some ids without a provider, or with a text before it: which models they are is not known.
        let allowed = |id: &&String| {
            let provider = id.split_once('.').map(|(provider, _)| provider);
            provider.is_some_and(|provider| !provider.contains(':')) && !denied(id)
        };
        let wanted: Vec<&String> = all.iter().filter(allowed).collect();
        assert_eq!(shown.iter().collect::<Vec<_>>(), wanted, "{name}");
        assert!(shown.len() > 10 && shown.len() < all.len(), "{name}: {} of {}", shown.len(), all.len());
        let asked = harness.received().iter().filter(|request| request.operation.as_deref() == Some(name)).count();
        assert!(asked >= pages, "{name}: {asked}");
    }
    for name in ["GetFoundationModel", "GetInferenceProfile"] {
        assert_eq!(call(&calls, name)["error"]["class"], "AccessDeniedException", "{calls:#?}");
    }
    assert_eq!(call(&calls, "GetFoundationModel of another")["status"], 200);
    harness.assert_no_violation();
}
