//! Texts that are not YAML or JSON, or hardly so, are answered in plain words.

use super::{Dir, POLICY, faults, planted, shipped};

/// Texts that are not YAML, where, and what is said: the parser's own words are for programmers.
const NOT_YAML: [(&str, &str, &str); 8] = [
    ("auth: sigv4\nauth: bearer\n", "rules.yaml:2:1: ", "the key `auth` is there twice"),
    ("auth: sigv4\n---\nauth: bearer\n", "rules.yaml:", "a second YAML document"),
    ("models:\n  allow: [anthropic.*, *meta]\n", "rules.yaml:2:24: ", "put the value in quotes"),
    ("auth: sigv4\n\tregions: {}\n", "rules.yaml:2:1: ", "a tab in the indentation"),
    ("models: [\n", "rules.yaml:", "not YAML: "),
    ("fips:false\nauth: sigv4\n", "rules.yaml:1:1: ", "no space after `fips:`"),
    ("models:\n  allow:[meta.*]\n  deny: []\n", "rules.yaml:2:3: ", "no space after `allow:`"),
    ("route_classes:\n  - name:any\n    paths: [dx]\n", "rules.yaml:2:5: ", "no space after `name:`"),
];

#[test]
fn names_what_is_not_yaml_in_plain_words() {
    let dir = Dir::new();
    for (text, start, says) in NOT_YAML {
        let found = faults(&[dir.file("rules.yaml", text)], |_| {});
        let [fault] = found.as_slice() else { panic!("{text:?}: {found:?}") };
        assert!(fault.contains(start) && fault.contains(says) && !fault.contains('\n'), "{text:?}: {fault}");
    }
}

/// What is there, what is planted in JSON, and the fault's line.
const JSON: [(&str, &str, &str); 6] = [
    (r#""dscp": 10 }"#, r#""dscp": 10 ]"#, "rules.json:7:93: the document is not JSON: expected `,` or `}`"),
    (
        r#""aliases""#,
        "\u{201c}aliases\u{201d}",
        "rules.json:4:3: the document is not JSON: typographic quotes (\u{201c} \u{201d}); write straight ones (\")",
    ),
    (
        r#"["internet"]"#,
        "[\u{201c}internet\u{201d}]",
        "rules.json:7:69: the document is not JSON: typographic quotes (\u{201c} \u{201d}); write straight ones (\")",
    ),
    (r#"["internet"]"#, "null", "rules.json:7:59: route_classes[0].paths: has no value (null); want a list"),
    (
        r#"["internet"]"#,
        r#""internet""#,
        "rules.json:7:59: route_classes[0].paths: want a list, not the string 'internet': write it in brackets, [ ]",
    ),
    (
        r#""us-west-2": {}"#,
        r#""us-west-2": null"#,
        "rules.json:2:33: regions.us-west-2: has no value (null); want an object, `{}` for an empty one",
    ),
];

#[test]
fn mistakes_in_json_are_named_in_plain_words() {
    let dir = Dir::new();
    for (from, to, line) in JSON {
        let found = faults(&[dir.file("rules.json", &planted(POLICY, from, to))], |_| {});
        assert_eq!(found, [line], "{to}");
    }
    let found = faults(&[dir.file("rules.json", "[]")], |_| {});
    assert_eq!(found, ["rules.json:1:1: want an object, not a list"]);
}

/// What is there, what is planted in the example, and what is said after the line's number.
const YAML: [(&str, &str, &str); 6] = [
    (
        "fips: false",
        "\u{201c}fips\u{201d}: false",
        ":1: \u{201c}fips\u{201d}: `\u{201c}fips\u{201d}` has typographic quotes",
    ),
    (
        "paths: [dx, vpn]",
        "paths: [dx, \u{201c}vpn\u{201d}]",
        ":17: route_classes[0].paths[1]: `\u{201c}vpn\u{201d}` has typographic quotes",
    ),
    (
        "allow: [\"*\"]",
        "allow: [\u{2018}*\u{2019}]",
        ":11: models.allow[0]: `\u{2018}*\u{2019}` has typographic quotes",
    ),
    (
        "    paths: [dx, vpn]",
        "    paths: [dx, vpn]\n    weights:{ dx: 50 }",
        ":5: route_classes[0].weights:{ dx: no space after `weights:`; write `weights: ` before the value",
    ),
    (
        "    paths: [dx, vpn]",
        "    paths: [dx, vpn]\n    weights: {dx:50}",
        "route_classes[0].weights.dx:50: no space after `dx:`; write `dx: ` before the value",
    ),
    (
        "  us-east-1: {}",
        "  us-east-1:",
        ":3: regions.us-east-1: has no value (null); want an object, `{}` for an empty one",
    ),
];

#[test]
fn slips_in_yaml_are_named_in_plain_words() {
    let dir = Dir::new();
    let example = shipped("envoy/example.yaml");
    for (from, to, says) in YAML {
        let text = planted(&example, from, to);
        let last = to.lines().last().unwrap();
        let line = text.lines().position(|line| line.contains(last)).unwrap() + 1;
        let found = faults(&[dir.file("rules.yaml", &text)], |_| {});
        let [fault] = found.as_slice() else { panic!("{to}: {found:?}") };
        assert!(fault.starts_with(&format!("rules.yaml:{line}:")) && fault.contains(says), "{to}: {fault}");
    }
}

#[test]
fn quotes_in_bootstraps_and_objects_are_named() {
    let dir = Dir::new();
    let text = planted(&shipped("envoy/standalone.yaml"), "name: plain\n", "name: \u{201c}plain\u{201d}\n");
    let found = faults(&[dir.file("standalone.yaml", &text)], |_| {});
    let key = "static_resources.listeners[0].name: `\u{201c}plain\u{201d}` has typographic quotes";
    assert!(found.iter().any(|said| said.contains(key)), "{found:#?}");
    let text = planted(&shipped("envoy/istio/egress/mesh.yaml"), "mode: STRICT", "mode: \u{2018}STRICT\u{2019}");
    let found = faults(&[dir.file("mesh.yaml", &text)], |_| {});
    assert!(
        found.iter().any(|said| said.contains("spec.mtls.mode: `\u{2018}STRICT\u{2019}` has typographic")),
        "{found:#?}"
    );
    let (rules, envoy) = (dir.file("rules.json", POLICY), dir.file("envoy.json", "{ \"static_resources\" 1 }"));
    let found = faults(&[rules], |options| options.envoy = Some(envoy));
    assert_eq!(found, ["envoy.json:1:22: the document is not JSON: expected `:`"]);
}
