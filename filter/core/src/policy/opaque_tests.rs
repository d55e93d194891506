use super::*;
use serde_json::{Value, json};

const PROFILE: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";
const HUB: &str = "arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model/meta-llama/1";

fn policy(models: Value, classes: Value, rules: Value) -> Policy {
    let document = json!({
        "role": "gateway", "regions": {"us-east-1": {}, "us-west-2": {}}, "models": models, "route_classes": classes, "rules": rules,
        "audit": {"cluster": "audit"}, "resolve": {"cluster": "polls"},
    });
    Policy::parse(document.to_string().as_bytes(), None).unwrap()
}

fn any() -> Value {
    json!([{"name": "any", "paths": ["dx", "internet"]}])
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn every_model_that_runs_is_judged() {
    let (claude, nova) = ("us.anthropic.claude-opus-5", "amazon.nova-lite-v1:0");
    for (models, runs, wanted) in [
        (json!({"deny": ["anthropic.*"]}), vec![claude], false),
        (json!({"deny": ["anthropic.*"]}), vec![nova], true),
        (json!({"deny": ["anthropic.*"]}), vec![nova, claude], false),
        (json!({"deny": ["global.*"]}), vec!["global.anthropic.claude-opus-5"], false),
        (json!({"deny": ["global.*"]}), vec![claude], true),
        (json!({"allow": ["anthropic.*"]}), vec![claude], true),
        (json!({"allow": ["anthropic.*"]}), vec![claude, nova], false),
        (json!({"allow": ["us.*"]}), vec![claude], true),
        (json!({"allow": ["us.*"]}), vec!["anthropic.claude-opus-5"], false),
        // The operator names the resource itself.
        (json!({"allow": ["amazon.*", PROFILE]}), vec![claude], true),
        (json!({"deny": [PROFILE]}), vec![nova], false),
        (json!({"deny": ["*a1b2c3d4e5f6"]}), vec![nova], false),
        // Of the Marketplace, only what a pattern names on purpose.
        (json!({"deny": ["anthropic.*"]}), vec![HUB], false),
        (json!({"allow": ["*"]}), vec![HUB], true),
        (json!({"allow": ["*"], "deny": ["x.*"]}), vec![HUB], false),
        (json!({"allow": ["amazon.*", "arn:aws:sagemaker:*:hub-content/*/Model/meta-*"]}), vec![HUB], true),
        (json!({"allow": ["*", "arn:aws:sagemaker:*"], "deny": ["arn:aws:*/meta-llama/*"]}), vec![HUB], false),
    ] {
        let policy = policy(models.clone(), any(), json!([]));
        let judged = policy.check_model(PROFILE, Some(&texts(&runs)));
        assert_eq!(judged.is_ok(), wanted, "{models} {runs:?} {judged:?}");
    }
}

#[test]
fn a_refusal_names_the_model_that_runs() {
    let policy = policy(json!({"deny": ["anthropic.*"]}), any(), json!([]));
    let refusal = policy.check_model(PROFILE, Some(&texts(&["anthropic.claude-opus-5"]))).unwrap_err().to_string();
    assert!(refusal.contains("'anthropic.claude-opus-5', which 'arn:aws:"), "{refusal}");
}

#[test]
fn nothing_is_asked_where_nothing_depends() {
    let private = json!([{"name": "private", "models": ["anthropic.*"], "paths": ["dx"]}, {"name": "any", "paths": ["internet"]}]);
    let rule = |effect: &str| json!([{"id": "r", "effect": effect, "models": ["anthropic.*"]}]);
    let dependence = |rule, refuses| Some(Dependence { rule, refuses });
    for (models, classes, rules, wanted) in [
        (json!({}), any(), json!([]), None),
        (json!({}), any(), json!([{"id": "r", "effect": "deny", "principals": ["x"]}]), None),
        (json!({}), json!([{"name": "all", "models": ["*"], "paths": ["dx"]}]), json!([]), None),
        (json!({"allow": ["*", PROFILE], "deny": ["x"]}), any(), json!([]), None),
        (json!({"deny": [PROFILE]}), any(), json!([]), None),
        (json!({"deny": ["x"]}), any(), json!([]), dependence("`models.allow`", true)),
        (json!({"allow": ["x.*"]}), any(), json!([]), dependence("`models.allow`", true)),
        (json!({}), private.clone(), json!([]), dependence("`models` of a route class", true)),
        (json!({}), any(), rule("deny"), dependence("`models` of a rule", false)),
        (json!({}), any(), rule("allow"), dependence("`models` of a rule", false)),
        // A rule that is only tried makes no call wait.
        (json!({}), any(), json!([{"id": "r", "effect": "deny", "mode": "dry_run", "models": ["x.*"]}]), None),
    ] {
        let policy = policy(models.clone(), classes.clone(), rules.clone());
        assert_eq!(policy.depends_on(PROFILE), wanted, "{models} {classes} {rules}");
        assert_eq!(policy.depends_on("us.anthropic.claude-opus-5"), None);
    }
    let named = json!([{"name": "own", "models": [PROFILE, "x"], "paths": ["dx"]}]);
    assert_eq!(policy(json!({}), named, json!([])).depends_on(PROFILE), None);
}

#[test]
fn the_strictest_class_takes_a_router() {
    let class = |name: &str, models: Value, more: Value| {
        let mut class = json!({"name": name, "paths": ["dx", "vpn"]});
        let class_keys = class.as_object_mut().unwrap();
        if !models.is_null() {
            class_keys.insert("models".to_owned(), models);
        }
        class_keys.extend(more.as_object().unwrap().clone());
        class
    };
    let internet = json!({"paths": ["dx", "vpn", "internet"]});
    let private = || class("private", json!(["anthropic.*"]), json!({}));
    let others = || class("any", Value::Null, internet.clone());
    let required = || class("kept", json!(["amazon.*"]), json!({"paths": ["dx", "internet"], "audit": "required"}));
    let west = || class("west", json!(["amazon.*"]), json!({"paths": ["dx"], "regions": ["us-west-2"]}));
    for (classes, runs, wanted) in [
        (json!([private(), others()]), vec!["anthropic.claude-opus-5"], Some("private")),
        (json!([private(), others()]), vec!["amazon.nova-lite-v1:0"], Some("any")),
        (json!([private(), others()]), vec!["amazon.nova-lite-v1:0", "anthropic.claude-opus-5"], Some("private")),
        (json!([private(), others()]), vec!["anthropic.claude-opus-5", "meta.llama4"], Some("private")),
        (json!([private(), west(), others()]), vec!["anthropic.claude-opus-5", "amazon.nova-lite-v1:0"], Some("west")),
        // Neither has only paths of the other.
        (json!([private(), required(), others()]), vec!["anthropic.claude-opus-5", "amazon.nova-lite-v1:0"], None),
        // Fewer paths, and a weaker audit.
        (
            json!([class("a", json!(["anthropic.*"]), json!({"paths": ["dx"]})), required()]),
            vec!["anthropic.a", "amazon.a"],
            None,
        ),
        (json!([private()]), vec!["anthropic.claude-opus-5", "meta.llama4"], None),
    ] {
        let policy = policy(json!({}), classes.clone(), json!([]));
        let subject = Subject {
            operation: crate::operation::Operation::Converse,
            model: Some(PROFILE),
            principal: None,
            body_bytes: None,
        };
        let class = policy.class_of(subject, Some(&texts(&runs)));
        let name = class.as_ref().ok().and_then(|class| class.map(RouteClass::name));
        assert_eq!(name, wanted, "{classes} {runs:?} {class:?}");
    }
}

#[test]
fn refuses_a_hub_model_for_confined_classes() {
    let classes =
        json!([{"name": "private", "models": ["meta.*"], "paths": ["dx"]}, {"name": "any", "paths": ["internet"]}]);
    let runs = texts(&[HUB]);
    let refusal = policy(json!({}), classes.clone(), json!([])).check_model(PROFILE, Some(&runs));
    assert!(matches!(refusal, Err(ModelRefusal::Unresolved { rule: "`models` of a route class", .. })), "{refusal:?}");
    let mut named = classes;
    named[0]["models"] = json!(["meta.*", "arn:aws:sagemaker:*hub-content*"]);
    assert_eq!(policy(json!({}), named, json!([])).check_model(PROFILE, Some(&runs)), Ok(()));
}

#[test]
fn residency_holds_for_all_that_it_runs() {
    let mut document = json!({
        "role": "gateway", "regions": {"us-east-1": {}}, "route_classes": any(), "residency": ["us"], "resolve": {"cluster": "polls"},
        "aliases": {"own": PROFILE},
    });
    let load = |document: &Value| Policy::parse(document.to_string().as_bytes(), None).unwrap();
    let closed = load(&document);
    assert_eq!(closed.depends_on(PROFILE), Some(Dependence { rule: "`residency`", refuses: true }));
    for (runs, wanted) in [
        (&["anthropic.claude-v2"][..], None),
        (&["us.anthropic.claude-v2"], None),
        (&["global.anthropic.claude-v2"], Some("global")),
        (&["us.anthropic.claude-v2", "eu.anthropic.claude-v2"], Some("eu")),
    ] {
        match (closed.check_model(PROFILE, Some(&texts(runs))), wanted) {
            (Ok(()), None) => {}
            (Err(ModelRefusal::Residency(ResidencyRefusal::Geography { geography, .. })), Some(wanted)) => {
                assert_eq!(geography, wanted, "{runs:?}");
            }
            other => panic!("{runs:?}: {other:?}"),
        }
    }
    // The operator lists it, or where calls may run does not matter.
    document["models"] = json!({"allow": ["*", PROFILE]});
    assert_eq!(load(&document).depends_on(PROFILE), None);
    let all = document.as_object_mut().unwrap();
    all.remove("residency");
    all.remove("models");
    assert_eq!(load(&document).depends_on(PROFILE), None);
}

#[test]
fn entries_of_the_operator_win() {
    let mut document = json!({
        "role": "gateway", "regions": {"us-east-1": {}}, "models": {"deny": ["anthropic.*"]}, "route_classes": any(),
        "aliases": {"own": PROFILE},
        "resolve": {"refresh_seconds": 0, "runs": {PROFILE: ["amazon.nova-lite-v1:0"], "imported": ["anthropic.claude-opus-5"]}},
    });
    let load = |document: &Value| Policy::parse(document.to_string().as_bytes(), None);
    let policy = load(&document).unwrap();
    assert_eq!(policy.resolve_model("own").as_deref(), Ok(PROFILE));
    assert!(matches!(policy.resolve_model("imported"), Err(ModelRefusal::Runs { .. })));
    assert!(matches!(policy.resolve_model("other"), Err(ModelRefusal::Unresolved { .. })));
    // An alias of what is known later.
    document["aliases"]["own"] = json!(PROFILE.replace("a1b2", "c3d4"));
    assert_eq!(load(&document).unwrap_err().key, "aliases.own");
    document["resolve"] = json!({"cluster": "polls"});
    assert!(load(&document).is_ok());
    document["aliases"]["own"] = json!("arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3d4e5f6");
    assert_eq!(load(&document).unwrap_err().key, "aliases.own");
}

#[test]
fn refuses_entries_that_say_nothing() {
    for (resolve, key) in [
        (json!({}), "resolve.cluster"),
        (json!({"refresh_seconds": 0}), "resolve.refresh_seconds"),
        (json!({"refresh_seconds": 4, "cluster": "polls"}), "resolve.refresh_seconds"),
        (json!({"cluster": "bedrock.any"}), "resolve.cluster"),
        (json!({"cluster": "streams"}), "resolve.cluster"),
        (json!({"refresh_seconds": 0, "runs": {"us.anthropic.claude": ["a.b"]}}), "resolve.runs.us.anthropic.claude"),
        (json!({"refresh_seconds": 0, "runs": {"x": []}}), "resolve.runs.x"),
        (json!({"refresh_seconds": 0, "runs": {"x": ["a.b", "y"]}}), "resolve.runs.x[1]"),
    ] {
        let document = json!({
            "role": "gateway", "regions": {"us-east-1": {}}, "stream_relay": "streams", "route_classes": any(), "resolve": resolve,
        });
        let error = Policy::parse(document.to_string().as_bytes(), None).unwrap_err();
        assert_eq!(error.key, key, "{resolve}: {error}");
    }
    let combined = json!({"role": "combined", "regions": {"us-east-1": {}}, "route_classes": any(), "resolve": {"cluster": "polls"}});
    assert_eq!(Policy::parse(combined.to_string().as_bytes(), None).unwrap_err().key, "resolve.refresh_seconds");
}
