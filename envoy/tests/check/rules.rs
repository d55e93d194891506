//! Mistakes in rules.

use super::{Dir, faults};

const HEAD: &str =
    "regions: {us-east-1: {}}\nroute_classes: [{name: any, paths: [dx]}]\nprincipal: [{from: mtls}]\nrules:\n";

/// What `check` says of these rules, one a line.
fn found(rules: &str) -> Vec<String> {
    let dir = Dir::new();
    faults(&[dir.file("rules.yaml", &format!("{HEAD}{rules}"))], |_| ())
}

#[test]
fn every_mistake_in_rules_is_named() {
    let lines = found(
        "- {id: A, effect: allow}\n\
         - {id: b, effect: permit}\n\
         - {id: c, effect: allow, classes: [ani]}\n\
         - {id: d, effect: allow, regions: [us-east-2]}\n\
         - {id: e, effect: allow, operations: [Conversee]}\n\
         - {id: f, effect: allow, from: 2026-12-01T00:00:00Z, until: 2026-11-01T00:00:00Z}\n\
         - {id: g, effect: deny, max_tokens: 5}\n\
         - {id: h, effect: allow}\n\
         - {id: h, effect: deny}\n",
    );
    let wanted = [
        ("rules.yaml:5:", "rules[0].id: 'A' is not a rule's id"),
        ("rules.yaml:6:", "rules[1].effect: unknown value 'permit'; known: allow, deny"),
        ("rules.yaml:7:", "rules[2].classes[0]: unknown class 'ani'; known: any; did you mean `any`?"),
        ("rules.yaml:8:", "rules[3].regions[0]: unknown region 'us-east-2'"),
        ("rules.yaml:9:", "rules[4].operations[0]: unknown value 'Conversee'"),
        ("rules.yaml:10:", "rules[5].until: is not after `from`"),
        ("rules.yaml:11:", "rules[6].max_tokens: is a limit of a rule with `effect: allow`"),
        ("rules.yaml:13:", "rules[8].id: 'h' is there twice"),
    ];
    assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
    for (line, (place, says)) in lines.iter().zip(wanted) {
        assert!(line.starts_with(place) && line.contains(says), "{line}\n{says}");
    }
}

#[test]
fn rules_that_change_nothing_are_faults() {
    let lines = found(
        "- {id: a, effect: allow, principals: [alice], operations: [Converse]}\n\
         - {id: b, effect: deny, principals: [a*]}\n\
         - {id: c, effect: allow, groups: [staff]}\n\
         - {id: d, effect: allow, models: [x], operations: [ListFoundationModels]}\n\
         - {id: e, effect: allow, operations: [CreateModelInvocationJob]}\n\
         - {id: f, effect: allow, until: 2020-01-01T00:00:00Z}\n",
    );
    let wanted = [
        "rule 'a' allows nothing: rule 'b' denies each of its calls",
        "rules[2].groups: rule 'c' matches no call: without the key `groups`",
        "rules[3].models: rule 'd' matches no call: none of its `operations` runs a model",
        "rules[4].operations[0]: the gateway carries CreateModelInvocationJob only if",
        "rules[5].until: rule 'f' is over: remove it",
    ];
    assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
    for (line, says) in lines.iter().zip(wanted) {
        assert!(line.contains(says), "{line}\n{says}");
    }
    assert!(lines.iter().all(|line| line.starts_with("note: ") == line.contains("is over")), "{lines:#?}");
}
