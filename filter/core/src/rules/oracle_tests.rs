//! Rules against a naive evaluation, and how long 5,000 of them take.

use super::tests::{Case, NOW, OPAQUE, config, load, regions};
use super::*;
use serde_json::{Value, json};
use std::time::Duration;

/// Numbers that look random (Knuth's linear congruential generator), the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        (0..=self.below(2)).map(|_| self.one(of)).collect()
    }
}

const NAMES: &[&str] = &["a", "ab", "abc", "abd", "b", "ba", "", "spiffe://x/y", "spiffe://x/yz", "ä"];
const PATTERNS: &[&str] =
    &["a", "ab", "a*", "ab*", "abc*", "*", "*b", "a*c", "b*", "spiffe://x/*", "spiffe://x/y", "z"];
const MODELS: &[&str] = &["anthropic.x", "us.anthropic.x", "meta.y", "anthropic.xy", OPAQUE, "global.meta.y"];
const MODEL_PATTERNS: &[&str] = &["anthropic.*", "anthropic.x", "*", "*.y", "us.*", "global.*", "arn:aws:*", OPAQUE];

fn random_rule(random: &mut Random, nth: usize) -> Value {
    let mut rule = json!({"id": format!("r{nth}"), "effect": random.one(&["allow", "deny", "allow"])});
    if random.below(4) == 0 {
        rule["mode"] = json!("dry_run");
    }
    for (key, of) in [("principals", PATTERNS), ("groups", PATTERNS), ("models", MODEL_PATTERNS)] {
        if random.below(2) == 0 {
            rule[key] = json!(random.some(of));
        }
    }
    if random.below(4) == 0 {
        rule["operations"] = json!(random.some(&["Converse", "InvokeModel", "StartAsyncInvoke"]));
    }
    if random.below(4) == 0 {
        rule["regions"] = json!([random.one(&["us-east-1", "us-west-2"])]);
    }
    if random.below(6) == 0 {
        rule["classes"] = json!([random.one(&["any", "private-only"])]);
    }
    if rule["effect"] == "allow" && random.below(4) == 0 {
        rule["max_tokens"] = json!(10);
    }
    if rule["effect"] == "allow" && random.below(6) == 0 {
        rule["max_images"] = json!(10);
    }
    if rule["effect"] == "allow" && random.below(6) == 0 {
        rule["body_bytes"] = json!({"max": 10});
    }
    if random.below(6) == 0 {
        rule["until"] = json!("1970-01-01T00:00:05Z");
    }
    rule
}

fn random_case(random: &mut Random) -> Case {
    let operation =
        [Operation::Converse, Operation::InvokeModel, Operation::StartAsyncInvoke, Operation::ListFoundationModels];
    let operation = operation[random.below(4)];
    let models = match operation {
        Operation::ListFoundationModels => Vec::new(),
        Operation::StartAsyncInvoke if random.below(2) == 0 => Vec::new(),
        _ => vec![random.one(MODELS)],
    };
    let hidden = operation == Operation::StartAsyncInvoke && models.is_empty();
    let number = |random: &mut Random| (random.below(3) > 0).then(|| random.below(20) as u64);
    Case {
        operation,
        principal: (random.below(4) > 0).then(|| random.one(NAMES)),
        groups: (0..random.below(3)).map(|_| random.one(NAMES).to_owned()).collect(),
        profiles: if operation.takes_profile() && random.below(3) == 0 {
            vec!["global.anthropic.x"]
        } else {
            Vec::new()
        },
        models,
        hidden,
        class: random.one(&["any", "private-only"]),
        regions: regions([&["us-east-1"][..], &["us-west-2"], &["us-east-1", "us-west-2"]][random.below(3)]),
        body: Body {
            bytes: number(random),
            max_tokens: number(random),
            images: number(random).map(|images| images as u32),
            awaited: false,
        },
        now: NOW + Duration::from_secs(random.below(10) as u64),
    }
}

/// What the rules say of a call whose body is complete, by the words of docs/configuration.md.
fn oracle(rules: &[crate::config::Rule], case: &Case) -> String {
    let matches =
        |patterns: &[String], name: &str| patterns.iter().any(|text| Pattern::new(text.as_str()).matches(name));
    let meets = |rule: &crate::config::Rule| {
        let allows = rule.effect == Effect::Allow;
        let model = |patterns: &Vec<String>| {
            let knows = |id: &str| model::names(id).any(|name| matches(patterns, name));
            let vouches = |id: &str| patterns.iter().any(|text| model::vouches(&Pattern::new(text.as_str()), id));
            let runs = case.hidden || !case.models.is_empty();
            let any = patterns.iter().any(|text| text == "*");
            let of = |id: &str| if model::is_resolved(id) { knows(id) } else { !allows || vouches(id) };
            let named = if allows {
                !case.hidden && case.models.iter().all(|id| of(id))
            } else {
                case.hidden || case.models.iter().any(|id| of(id)) || case.profiles.iter().any(|id| knows(id))
            };
            runs && (any || named)
        };
        let region = |own: &Vec<RegionName>| {
            if allows {
                case.regions.iter().all(|region| own.contains(region))
            } else {
                case.regions.iter().any(|region| own.contains(region))
            }
        };
        rule.principals.as_ref().is_none_or(|own| case.principal.is_some_and(|name| matches(own, name)))
            && rule.groups.as_ref().is_none_or(|own| case.groups.iter().any(|name| matches(own, name)))
            && rule.operations.as_ref().is_none_or(|own| own.contains(&case.operation))
            && rule.models.as_ref().is_none_or(model)
            && rule.regions.as_ref().is_none_or(region)
            && rule.classes.as_ref().is_none_or(|own| own.iter().any(|class| class == case.class))
            && (rule.until.is_none() || case.now < NOW + Duration::from_secs(5))
    };
    let asks = case.operation != Operation::ListFoundationModels;
    let within = |rule: &&crate::config::Rule| {
        rule.max_tokens.is_none_or(|max| !asks || case.body.max_tokens.is_some_and(|tokens| tokens <= max))
            && rule.max_images.is_none_or(|max| !asks || case.body.images.is_some_and(|images| images <= max))
            && rule.body_bytes.is_none_or(|bounds| case.body.bytes.is_some_and(|bytes| Some(bytes) <= bounds.max))
    };
    let judge = |tried: bool| {
        let counts = |rule: &&crate::config::Rule| tried || rule.mode == RuleMode::Enforce;
        let of = |effect| rules.iter().filter(counts).filter(move |rule| rule.effect == effect);
        let met = |effect| of(effect).filter(|rule| meets(rule));
        if let Some(rule) = met(Effect::Deny).next() {
            return Err(format!("by {}", rule.id));
        }
        if let Some(rule) = met(Effect::Allow).find(within) {
            return Ok(Some(rule.id.clone()));
        }
        match met(Effect::Allow).next() {
            _ if of(Effect::Allow).next().is_none() => Ok(None),
            Some(rule) => Err(format!("by the limit of {}", rule.id)),
            None => Err("by none".to_owned()),
        }
    };
    match (judge(false), judge(true)) {
        (Err(by), _) => format!("denied {by}"),
        (Ok(_), Err(by)) => format!("would deny {by}"),
        (Ok(enforced), Ok(tried)) => format!("allowed by {}", enforced.or(tried).unwrap_or_else(|| "none".to_owned())),
    }
}

#[test]
fn the_index_finds_what_a_search_finds() {
    let mut random = Random(7);
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..1500 {
        let rules: Vec<Value> = (0..random.below(8)).map(|nth| random_rule(&mut random, nth)).collect();
        let config = config(&json!(rules));
        let compiled = compile(&config).unwrap();
        for _ in 0..20 {
            let case = random_case(&mut random);
            let found = case.decide(&compiled);
            assert_eq!(found, oracle(&config.rules, &case), "{case:?} {rules:#?}");
            *seen.entry(found.split(" by").next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    assert!(seen.len() == 3 && seen.values().all(|times| *times > 1000), "{seen:?}");
}

/// What is decided before the body is complete holds whatever the body says.
#[test]
fn no_body_changes_a_decision() {
    let mut random = Random(11);
    let (mut later, mut sooner) = (0, 0);
    for _ in 0..1500 {
        let rules: Vec<Value> = (0..random.below(8)).map(|nth| random_rule(&mut random, nth)).collect();
        let compiled = load(&json!(rules)).unwrap();
        for _ in 0..20 {
            let complete = random_case(&mut random);
            let mut early = complete.clone();
            early.body = Body { max_tokens: None, images: None, awaited: true, ..complete.body };
            if random.below(2) == 0 {
                early.body.bytes = None;
            }
            if complete.operation == Operation::StartAsyncInvoke {
                (early.models, early.hidden) = (Vec::new(), true);
            }
            if random.below(2) == 0 {
                early.regions = regions(&["us-east-1", "us-west-2"]);
            }
            // An announced length is the body's, so that one without is known in the end.
            let mut complete = complete;
            complete.body.bytes = complete.body.bytes.or(Some(3));
            if early.body.bytes.is_some() {
                early.body.bytes = complete.body.bytes;
            }
            let (early_says, in_the_end) = (early.decide(&compiled), complete.decide(&compiled));
            if early_says == "later" {
                later += 1;
                continue;
            }
            sooner += 1;
            let kind = |text: &str| text.split(" by").next().map(str::to_owned);
            assert_eq!(kind(&early_says), kind(&in_the_end), "{early:?} {complete:?} {rules:#?}");
        }
    }
    assert!(later > 1000 && sooner > 1000, "{later} {sooner}");
}
