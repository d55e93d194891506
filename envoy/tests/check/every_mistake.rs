//! A document with many mistakes: each is named, at its place in the file.

use super::{Dir, POLICY, faults, planted, repository, shipped};

#[test]
fn every_mistake_of_a_document_is_named() {
    let dir = Dir::new();
    let text = planted(POLICY, r#""aliases""#, r#""alias""#);
    let text = planted(&text, r#""dscp": 10"#, r#""dscp": 64"#);
    let text = planted(&text, r#"["dx", "vpn"]"#, r#"["dx", "vpm"]"#);
    let text = planted(&text, "26214400", "0");
    let text = planted(&text, r#""us-west-2": {}"#, r#""us-weast-2": {}"#);
    let found = faults(&[dir.file("rules.json", &text)], |_| {});
    let keys = [
        "regions.us-weast-2: ",
        "alias: ",
        "route_classes[0].dscp: ",
        "route_classes[1].paths[1]: ",
        "max_body_bytes: ",
    ];
    for (line, key) in [2, 4, 7, 8, 18].into_iter().zip(keys) {
        let named = |said: &&String| said.starts_with(&format!("rules.json:{line}:")) && said.contains(key);
        assert!(found.iter().any(|said| named(&said)), "{key}: {found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}

/// Several elements of a list, and keys after an object that lacks a key.
#[test]
fn every_wrong_element_of_a_list_is_named() {
    let dir = Dir::new();
    let text = planted(POLICY, r#"["dx", "vpn"]"#, r#"["dxx", "dx", "vpm", "vpn", "intrnet"]"#);
    let text = planted(&text, r#"["StartAsyncInvoke"]"#, r#"["Convers", "ConverseStrea"]"#);
    let text = planted(&text, r#""allow": ["*"]"#, r#""allow": ["a b", "", "*"]"#);
    let text =
        planted(&text, r#"[{ "from": "mtls" }]"#, r#"[{ "from": "mtl" }, { "from": "mtls" }, { "form": "jwt" }, 7]"#);
    let found = faults(&[dir.file("rules.json", &text)], |_| {});
    let keys = [
        ":3:25: models.allow[0]: ",
        ": models.allow[1]: ",
        ": principal[0].from: ",
        ": principal[2].from: is missing",
        ": principal[3]: ",
        ": route_classes[0].operations[0]: ",
        ": route_classes[0].operations[1]: ",
        ": route_classes[1].paths[0]: unknown value 'dxx'",
        ": route_classes[1].paths[2]: unknown value 'vpm'",
        ":8:59: route_classes[1].paths[4]: unknown value 'intrnet'",
    ];
    assert_eq!(found.len(), keys.len(), "{found:#?}");
    for (said, key) in found.iter().zip(keys) {
        assert!(said.contains(key), "{key}: {said}");
    }
}

/// A key that a document needs does not hide the others where it is wrong or missing.
#[test]
fn a_missing_key_hides_no_other_mistake() {
    let dir = Dir::new();
    for (from, to, key) in [
        (r#""regions": { "us-east-1": {}, "us-west-2": {} },"#, "", "regions: is missing"),
        (
            r#""regions": { "us-east-1": {}, "us-west-2": {} },"#,
            r#""regions": { "us_east_1": {} },"#,
            "such as us-east-1",
        ),
        (r#""name": "bulk", "#, "", "route_classes[0].name: is missing"),
        (r#""paths": ["internet"], "#, "", "route_classes[0].paths: is missing"),
        (r#"["dx", "vpn"]"#, r#"["dxx"]"#, "route_classes[1].paths[0]: "),
        (r#""cluster": "sts-govcloud", "#, "", "credentials.govcloud.cluster: is missing"),
        (r#""models": {"#, r#""fips": true, "fips": true, "models": {"#, "is there twice"),
        (r#""name": "any""#, r#""name": "bulk""#, "route_classes[1].name: "),
    ] {
        let text = planted(POLICY, from, to);
        let text = planted(&text, r#""dscp": 10"#, r#""dscp": 64"#);
        let text = planted(&text, "26214400", "0");
        let found = faults(&[dir.file("rules.json", &text)], |_| {});
        assert_eq!(found.len(), 3, "{to}: {found:#?}");
        for says in [key, "dscp: ", "max_body_bytes: "] {
            assert!(found.iter().any(|said| said.contains(says)), "{to}: {says}: {found:#?}");
        }
    }
}

/// Documents in a bootstrap and in objects for Istio are read in the same way.
#[test]
fn every_mistake_of_a_document_inside_is_named() {
    let dir = Dir::new();
    let text = shipped("envoy/standalone.yaml").replace("\"dx\",\n", "\"dxx\", \"vpm\",\n");
    let found = faults(&[dir.file("standalone.yaml", &text)], |_| {});
    for says in ["paths[0]: unknown value 'dxx'", "paths[1]: unknown value 'vpm'"] {
        assert!(found.iter().any(|said| said.contains(says)), "{says}: {found:#?}");
    }
    let plugin = std::fs::read_to_string(repository().join("envoy/istio/sidecar/plugin.yaml")).unwrap();
    let text = planted(&plugin, "paths: [internet]", "paths: [intrnet], dscp: 99");
    let text = planted(&text, "max_body_bytes: 1073741824", "max_body_byte: 1");
    let found = faults(&[dir.file("plugin.yaml", &text)], |_| {});
    for says in ["`max_body_byte`: unknown key", "did you mean `internet`?", "dscp`: want"] {
        assert!(found.iter().any(|said| said.contains(says)), "{says}: {found:#?}");
    }
}
