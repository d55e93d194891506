use super::*;
use crate::config::{Config, ConfigError};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const NOW: SystemTime = SystemTime::UNIX_EPOCH;
pub(super) const CLAUDE: &str = "anthropic.claude-v2";
pub(super) const OPAQUE: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";

fn document(rules: &Value) -> Value {
    json!({
        "role": "gateway", "regions": {"us-east-1": {}, "us-west-2": {}},
        "principal": [{"from": "mtls"}], "groups": [{"from": "jwt", "payload": "p", "claim": "groups"}],
        "route_classes": [{"name": "private-only", "paths": ["dx"]}, {"name": "any", "paths": ["dx", "internet"]}],
        "rules": rules,
    })
}

pub(super) fn config(rules: &Value) -> Config {
    Config::parse(document(rules).to_string().as_bytes()).unwrap()
}

pub(super) fn load(rules: &Value) -> Result<Rules, ConfigError> {
    compile(&config(rules))
}

/// A call, with what a [`Subject`] borrows.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) operation: Operation,
    pub(super) principal: Option<&'static str>,
    pub(super) groups: Vec<String>,
    pub(super) models: Vec<&'static str>,
    pub(super) profiles: Vec<&'static str>,
    pub(super) hidden: bool,
    pub(super) class: &'static str,
    pub(super) regions: Vec<RegionName>,
    pub(super) body: Body,
    pub(super) now: SystemTime,
}

impl Case {
    pub(super) fn subject<T>(&self, then: impl FnOnce(&Subject<'_>) -> T) -> T {
        let named: Vec<_> = self.models.iter().map(|id| ModelId::new(id)).collect();
        then(&Subject {
            operation: self.operation,
            principal: self.principal,
            groups: &self.groups,
            models: Models { named: &named, profiles: &self.profiles, hidden: self.hidden },
            class: self.class,
            regions: &self.regions,
            body: self.body,
            now: self.now,
        })
    }

    /// The decision and its rule, as `denied by x`.
    pub(super) fn decide(&self, rules: &Rules) -> String {
        self.subject(|call| shown(&rules.decide(call)))
    }
}

fn shown(decision: &Decision<'_>) -> String {
    let denial = |denial: &Denial<'_>| match denial {
        Denial::Rule(id) => format!("by {id}"),
        Denial::Limit(id, _) => format!("by the limit of {id}"),
        Denial::NoAllow => "by none".to_owned(),
    };
    match decision {
        Decision::Allowed(rule) => format!("allowed by {}", rule.unwrap_or("none")),
        Decision::Denied(by) => format!("denied {}", denial(by)),
        Decision::WouldDeny(by) => format!("would deny {}", denial(by)),
        Decision::Later => "later".to_owned(),
    }
}

pub(super) fn regions(names: &[&str]) -> Vec<RegionName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A Converse call of alice's.
pub(super) fn alice() -> Case {
    Case {
        operation: Operation::Converse,
        principal: Some("spiffe://corp/analyst/alice"),
        groups: vec!["analysts".to_owned(), "Staff of 7".to_owned()],
        models: vec![CLAUDE],
        profiles: Vec::new(),
        hidden: false,
        class: "any",
        regions: regions(&["us-east-1"]),
        body: Body { bytes: Some(100), max_tokens: Some(50), images: Some(2), awaited: false },
        now: NOW,
    }
}

/// A call without a model.
fn list() -> Case {
    Case { operation: Operation::ListFoundationModels, models: Vec::new(), ..alice() }
}

#[test]
fn a_deny_wins_and_an_allow_is_needed() {
    let (allow, deny) = (json!({"id": "a", "effect": "allow"}), json!({"id": "d", "effect": "deny"}));
    let other = json!({"id": "o", "effect": "allow", "principals": ["bob"]});
    let not_her = json!({"id": "n", "effect": "deny", "principals": ["bob"]});
    for (rules, wanted) in [
        (json!([]), "allowed by none"),
        (json!([allow]), "allowed by a"),
        (json!([deny]), "denied by d"),
        (json!([allow, deny]), "denied by d"),
        (json!([not_her]), "allowed by none"),
        (json!([other]), "denied by none"),
        (json!([other, allow]), "allowed by a"),
        (json!([other, not_her]), "denied by none"),
    ] {
        assert_eq!(alice().decide(&load(&rules).unwrap()), wanted, "{rules}");
    }
}

#[test]
fn every_condition_has_to_be_met() {
    for (condition, met, others) in [
        (json!({"principals": ["spiffe://corp/analyst/*"]}), true, false),
        (json!({"principals": ["bob", "*/alice"]}), true, false),
        (json!({"principals": ["*"]}), true, false),
        (json!({"principals": ["spiffe://corp/analyst"]}), false, false),
        (json!({"groups": ["staff*", "analysts"]}), true, false),
        (json!({"groups": ["Staff of *"]}), true, false),
        (json!({"groups": ["analyst"]}), false, false),
        (json!({"operations": ["ConverseStream", "Converse"]}), true, false),
        (json!({"models": ["anthropic.*"]}), true, false),
        (json!({"models": ["us.anthropic.*"]}), false, false),
        (json!({"models": ["*"]}), true, false),
        (json!({"classes": ["private-only"]}), false, false),
        (json!({"classes": ["private-only", "any"]}), true, true),
        (json!({"regions": ["us-east-1"]}), true, true),
        (json!({"regions": ["us-west-2"]}), false, false),
        (json!({"operations": ["Converse"], "principals": ["bob"]}), false, false),
        (json!({"groups": ["analysts"], "principals": ["bob"]}), false, false),
    ] {
        // A caller without a name and groups, whose call runs no model.
        let nobody = Case { principal: None, groups: Vec::new(), ..list() };
        for (effect, case, matches) in [
            ("allow", alice(), met),
            ("deny", alice(), met),
            ("allow", nobody.clone(), others),
            ("deny", nobody, others),
        ] {
            let mut rule = condition.clone();
            (rule["id"], rule["effect"]) = (json!("x"), json!(effect));
            let wanted = match (effect, matches) {
                ("allow", true) => "allowed by x",
                ("allow", false) => "denied by none",
                (_, true) => "denied by x",
                (_, false) => "allowed by none",
            };
            assert_eq!(case.decide(&load(&json!([rule])).unwrap()), wanted, "{rule} {case:?}");
        }
    }
}

#[test]
fn refuses_models_that_are_not_known() {
    let rule = |effect: &str, models: Value| json!([{"id": "x", "effect": effect, "models": models}]);
    let of = |models: &[&'static str], hidden| Case { models: models.to_vec(), hidden, ..alice() };
    for (case, effect, models, wanted) in [
        // Only AWS knows what runs.
        (of(&[OPAQUE], false), "allow", json!(["anthropic.*"]), "denied by none"),
        (of(&[OPAQUE], false), "deny", json!(["meta.*"]), "denied by x"),
        (of(&[OPAQUE], false), "allow", json!([OPAQUE]), "allowed by x"),
        (
            of(&[OPAQUE], false),
            "allow",
            json!(["arn:aws:bedrock:*:123456789012:application-inference-profile/*"]),
            "allowed by x",
        ),
        (of(&[OPAQUE], false), "allow", json!(["*"]), "allowed by x"),
        (of(&[OPAQUE], false), "allow", json!(["*a1b2c3d4e5f6"]), "denied by none"),
        // Each of several models counts.
        (of(&[CLAUDE, "meta.llama"], false), "allow", json!(["anthropic.*"]), "denied by none"),
        (of(&[CLAUDE, "meta.llama"], false), "allow", json!(["anthropic.*", "meta.*"]), "allowed by x"),
        (of(&[CLAUDE, "meta.llama"], false), "deny", json!(["meta.*"]), "denied by x"),
        (of(&[CLAUDE, OPAQUE], false), "deny", json!(["meta.*"]), "denied by x"),
        // The body is not read, or names none.
        (of(&[], true), "allow", json!(["anthropic.*"]), "denied by none"),
        (of(&[], true), "deny", json!(["meta.*"]), "denied by x"),
        (of(&[], true), "allow", json!(["*"]), "allowed by x"),
        // A list runs none.
        (list(), "allow", json!(["*"]), "denied by none"),
        (list(), "deny", json!(["*"]), "allowed by none"),
    ] {
        let found = case.decide(&load(&rule(effect, models.clone())).unwrap());
        assert_eq!(found, wanted, "{effect} {models} {case:?}");
    }
    // What is sent in place of the model is not allowed either.
    let sent = Case { profiles: vec!["global.anthropic.claude-v2"], ..alice() };
    assert_eq!(sent.decide(&load(&rule("deny", json!(["global.*"]))).unwrap()), "denied by x");
    assert_eq!(alice().decide(&load(&rule("deny", json!(["global.*"]))).unwrap()), "allowed by none");
}

#[test]
fn a_call_may_go_to_listed_regions_only() {
    let rule = |effect: &str| load(&json!([{"id": "x", "effect": effect, "regions": ["us-east-1"]}])).unwrap();
    for (names, allow, deny) in [
        (&["us-east-1"][..], "allowed by x", "denied by x"),
        (&["us-west-2"], "denied by none", "allowed by none"),
        (&["us-east-1", "us-west-2"], "denied by none", "denied by x"),
    ] {
        let case = Case { regions: regions(names), ..alice() };
        assert_eq!(
            (case.decide(&rule("allow")).as_str(), case.decide(&rule("deny")).as_str()),
            (allow, deny),
            "{names:?}"
        );
        // The body may name a resource of one region.
        let awaited = Case { body: Body { awaited: true, ..case.body }, ..case };
        let later = names.len() > 1;
        assert_eq!(awaited.decide(&rule("deny")), if later { "later" } else { deny });
    }
}

#[test]
fn rules_begin_and_end() {
    let rules =
        json!([{"id": "x", "effect": "allow", "from": "1970-01-01T01:00:10+01:00", "until": "1970-01-01T00:00:20Z"}]);
    let rules = load(&rules).unwrap();
    for (second, wanted) in [(9, "denied by none"), (10, "allowed by x"), (19, "allowed by x"), (20, "denied by none")]
    {
        let case = Case { now: NOW + Duration::from_secs(second), ..alice() };
        assert_eq!(case.decide(&rules), wanted, "{second}");
    }
    assert_eq!(rules.expired(NOW + Duration::from_secs(19)), []);
    let expired = rules.expired(NOW + Duration::from_secs(20));
    assert_eq!(
        (expired[0].key.as_str(), expired[0].problem.as_str()),
        ("rules[0].until", "rule 'x' is over: remove it")
    );
}

#[test]
fn refuses_calls_over_a_limit() {
    let rules = json!([{"id": "small", "effect": "allow", "body_bytes": {"max": 100}, "max_tokens": 50}]);
    let rules = load(&rules).unwrap();
    let with =
        |bytes, max_tokens, awaited| Case { body: Body { bytes, max_tokens, awaited, ..Body::default() }, ..alice() };
    for (case, wanted) in [
        (with(Some(100), Some(50), false), "allowed by small"),
        (with(Some(101), Some(50), false), "denied by the limit of small"),
        (with(Some(100), Some(51), false), "denied by the limit of small"),
        (with(Some(100), None, false), "denied by the limit of small"),
        (with(None, Some(50), false), "denied by the limit of small"),
        (with(Some(100), None, true), "later"),
        (with(None, None, true), "later"),
        (with(Some(101), None, true), "denied by the limit of small"),
        (Case { body: Body { bytes: Some(0), ..Body::default() }, ..list() }, "allowed by small"),
        // It counts tokens, and asks for none.
        (Case { operation: Operation::CountTokens, ..with(Some(9), None, false) }, "allowed by small"),
        (Case { operation: Operation::StartAsyncInvoke, ..with(Some(9), None, false) }, "denied by the limit of small"),
    ] {
        assert_eq!(case.decide(&rules), wanted, "{case:?}");
    }
    let message = |case: Case| {
        case.subject(|call| match rules.decide(call) {
            Decision::Denied(denial) => denial.refusal(call).to_string(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(
        message(with(Some(101), Some(1), false)),
        "the gateway's rule 'small' allows this call only with a body of at most 100 bytes"
    );
    assert_eq!(
        message(with(Some(1), Some(51), false)),
        "the gateway's rule 'small' allows this call only with a body that asks for at most 50 tokens (`max_tokens` or its like)"
    );
}

#[test]
fn rules_that_are_only_tried_refuse_nothing() {
    let rule = |id: &str, effect: &str, mode: &str, principal: &str| json!({"id": id, "effect": effect, "mode": mode, "principals": [principal]});
    let tried_deny = rule("td", "deny", "dry_run", "*");
    let tried_other = rule("to", "allow", "dry_run", "bob");
    let tried_allow = rule("ta", "allow", "dry_run", "*");
    let allow = rule("a", "allow", "enforce", "*");
    let other = rule("o", "allow", "enforce", "bob");
    let deny = rule("d", "deny", "enforce", "*");
    for (rules, wanted) in [
        (json!([tried_deny]), "would deny by td"),
        (json!([tried_other]), "would deny by none"),
        (json!([tried_allow]), "allowed by ta"),
        (json!([tried_other, tried_allow]), "allowed by ta"),
        (json!([tried_other, allow]), "allowed by a"),
        (json!([tried_allow, allow]), "allowed by a"),
        (json!([tried_deny, allow]), "would deny by td"),
        (json!([tried_allow, other]), "denied by none"),
        (json!([tried_deny, deny]), "denied by d"),
        (json!([tried_deny, other]), "denied by none"),
    ] {
        assert_eq!(alice().decide(&load(&rules).unwrap()), wanted, "{rules}");
    }
}

#[test]
fn mistakes_name_their_key() {
    for (change, key, problem) in [
        (json!({"id": "A"}), "id", "'A' is not a rule's id"),
        (json!({"id": ""}), "id", "is not a rule's id"),
        (json!({"principals": []}), "principals", "an empty list matches no call"),
        (json!({"principals": ["a b"]}), "principals[0]", "is not a pattern"),
        (json!({"groups": ["g", ""]}), "groups[1]", "is not a pattern"),
        (json!({"groups": ["a\nb"]}), "groups[0]", "is not a pattern"),
        (json!({"models": [""]}), "models[0]", "is not a pattern"),
        (
            json!({"classes": ["any", "ani"]}),
            "classes[1]",
            "unknown class 'ani'; known: private-only, any; did you mean `any`?",
        ),
        (json!({"regions": ["us-east-2"]}), "regions[0]", "unknown region 'us-east-2'"),
        (json!({"from": "tomorrow"}), "from", "'tomorrow' is not a time"),
        (json!({"until": "2026-12-01"}), "until", "is not a time"),
        (json!({"from": "2026-12-01T00:00:00Z", "until": "2026-12-01T00:00:00Z"}), "until", "is not after `from`"),
        (json!({"effect": "deny", "max_tokens": 5}), "max_tokens", "is a limit of a rule with `effect: allow`"),
        (json!({"effect": "deny", "max_images": 5}), "max_images", "is a limit of a rule with `effect: allow`"),
        (json!({"effect": "deny", "body_bytes": {"max": 5}}), "body_bytes", "is a limit"),
        (json!({"body_bytes": {"min": 6, "max": 5}}), "body_bytes", "`max` is less than `min`"),
        (json!({"max_tokens": 0}), "max_tokens", "0 lets nothing through"),
    ] {
        let mut rule = json!({"id": "x", "effect": "allow"});
        rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = load(&json!([{"id": "first", "effect": "deny"}, rule])).unwrap_err();
        assert_eq!(error.key, format!("rules[1].{key}"), "{change}");
        assert!(error.detail().contains(problem), "{change}: {}", error.detail());
    }
    let twice = load(&json!([{"id": "x", "effect": "allow"}, {"id": "x", "effect": "deny"}])).unwrap_err();
    assert_eq!((twice.key.as_str(), twice.problem.as_str()), ("rules[1].id", "'x' is there twice"));
}

#[test]
fn rules_that_change_nothing_are_found() {
    let all = json!({"id": "all", "effect": "deny"});
    let allow = json!({"id": "a", "effect": "allow", "principals": ["p1"], "models": ["anthropic.*"], "regions": ["us-east-1"]});
    let deny = |more: Value| {
        let mut rule = json!({"id": "d", "effect": "deny"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    for (rules, key) in [
        (json!([allow]), None),
        (json!([allow, all]), Some("rules[0]")),
        (json!([allow, deny(json!({"principals": ["p*"]}))]), Some("rules[0]")),
        (json!([allow, deny(json!({"principals": ["q*"]}))]), None),
        (json!([allow, deny(json!({"groups": ["*"]}))]), None),
        (json!([allow, deny(json!({"models": ["*.*"]}))]), Some("rules[0]")),
        (json!([allow, deny(json!({"operations": ["Converse"]}))]), None),
        (json!([allow, deny(json!({"regions": ["us-east-1", "us-west-2"]}))]), Some("rules[0]")),
        (json!([allow, deny(json!({"regions": ["us-west-2"]}))]), None),
        (json!([allow, deny(json!({"until": "2027-01-01T00:00:00Z"}))]), None),
        (json!([allow, deny(json!({"mode": "dry_run"}))]), None),
        (
            json!([{"id": "a", "effect": "deny", "models": ["x"], "operations": ["ListFoundationModels"]}]),
            Some("rules[0].models"),
        ),
    ] {
        let rules = load(&rules).unwrap();
        let all = regions(&["us-east-1", "us-west-2"]);
        let found = rules.findings(true, true, &all.iter().collect::<Vec<_>>());
        assert_eq!(found.first().map(|finding| finding.key.as_str()), key, "{found:?}");
    }
    let rules = load(&json!([{"id": "a", "effect": "allow", "principals": ["p"], "groups": ["g"]}])).unwrap();
    let keys = |named, grouped| -> Vec<String> {
        rules.findings(named, grouped, &[]).into_iter().map(|finding| finding.key).collect()
    };
    assert_eq!(keys(false, true), ["rules[0].principals"]);
    assert_eq!(keys(true, false), ["rules[0].groups"]);
}

/// A caller in many groups comes to a rule by each of them.
#[test]
fn each_rule_is_looked_at_once() {
    let rule = |nth| json!({"id": format!("r{nth}"), "effect": "deny", "groups": ["team-*", "team-1*", "team-12"]});
    let rules = load(&(0..100).map(rule).collect()).unwrap();
    let groups = (0..128).map(|nth| format!("team-{nth}")).collect();
    let case = Case { groups, ..alice() };
    let mut looked = vec![0; 100];
    case.subject(|call| rules.index.candidates(call, |nth| looked[nth] += 1));
    assert_eq!(looked, vec![1; 100]);
}
