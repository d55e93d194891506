//! `render.py` names what is wrong in the secret and the settings.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Scratch, infra, render, secret, settings, text};

#[test]
fn names_each_wrong_field_and_no_key() {
    let scratch = Scratch::new("faults");
    let faults: [(&str, Value, &str); 18] = [
        ("/local_asn", json!("65010"), "secret: local_asn: is not an AS number"),
        ("/remote_asn", json!(65010), "secret: remote_asn: is the same as local_asn"),
        ("/gateways/c", json!({}), "secret: gateways.c: is unknown"),
        ("/gateways/a/outside", json!("198.51.100.300"), "secret: gateways.a.outside: is not an IPv4 address"),
        ("/gateways/b/tunnels", json!([]), "secret: gateways.b.tunnels: is not a list of two tunnels"),
        ("/gateways/b/tunnels/0/outside", json!("203.0.113.1"), "is the same as gateways.a.tunnels[0].outside"),
        (
            "/gateways/a/tunnels/1/inside",
            json!("169.254.101.6/30"),
            "secret: gateways.a.tunnels[1].inside: is not an IPv4 network",
        ),
        (
            "/gateways/a/tunnels/1/inside",
            json!("10.0.0.0/30"),
            "gateways.a.tunnels[1].inside: is not a /30 of 169.254.0.0/16",
        ),
        ("/gateways/a/tunnels/1/inside", json!("169.254.5.0/30"), "is reserved by AWS"),
        ("/gateways/a/tunnels/1/inside", json!("169.254.101.4/30"), "is the same as gateways.a.tunnels[0].inside"),
        (
            "/gateways/b/tunnels/1/psk",
            json!("0secret\"key}"),
            "secret: gateways.b.tunnels[1].psk: is not a key in the format of AWS",
        ),
        ("/gateways/b/tunnels/1/key", json!("secret"), "secret: gateways.b.tunnels[1].key: is unknown"),
        ("settings/name", json!("c"), "settings: name: is not a gateway (a or b)"),
        ("settings/other", json!("gateway-b"), "settings: other: is not an IPv4 address"),
        ("settings/local_cidr", json!("10.20.0.1/16"), "settings: local_cidr: is not an IPv4 network"),
        ("settings/remote_cidr", json!("10.20.128.0/17"), "settings: remote_cidr: overlaps local_cidr"),
        ("settings/route_tables", json!(["rtb-1", "x"]), "settings: route_tables[1]: is not a route table's id"),
        ("settings/environment", json!("Prod;"), "settings: environment: is not an environment's name"),
    ];
    for (place, value, wanted) in faults {
        let (mut secret, mut settings) = (secret(), settings("a"));
        let (document, pointer) = match place.strip_prefix("settings") {
            Some(pointer) => (&mut settings, pointer),
            None => (&mut secret, place),
        };
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        let refused = render(&scratch, &secret, &settings);
        let said = text(&refused);
        assert!(!refused.status.success() && said.contains(wanted), "{place}: {said}");
        assert!(
            !said.contains("secret\"key") && !said.contains("example_key") && !said.contains("Traceback"),
            "{said}"
        );
    }
    // Each missing field of every object, one by one.
    fn fields(value: &Value, at: &str, all: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                all.push(format!("{at}/{key}"));
                fields(value, &format!("{at}/{key}"), all);
            }),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(nth, value)| fields(value, &format!("{at}/{nth}"), all));
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    fields(&secret(), "", &mut all);
    assert_eq!(all.len(), 2 + 1 + 2 + 2 * 2 + 4 * 3);
    for pointer in all {
        let mut secret = secret();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        secret.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        let refused = render(&scratch, &secret, &settings("a"));
        let field = pointer.replace("/0", "[0]").replace("/1", "[1]").trim_start_matches('/').replace('/', ".");
        let wanted = format!("render: secret: {field}: is missing");
        assert!(
            !refused.status.success() && text(&refused).lines().any(|line| line == wanted),
            "{wanted}: {}",
            text(&refused)
        );
    }
    let broken = Command::new(infra("render.py"))
        .arg("--secret")
        .arg(scratch.write("broken", "{\"psk\": \"example_key\", }"))
        .arg("--settings")
        .arg(scratch.write("settings.json", &settings("a").to_string()))
        .arg("--out")
        .arg(scratch.0.join("out"))
        .output()
        .unwrap();
    assert!(!broken.status.success());
    assert_eq!(text(&broken), "render: secret: is not JSON (line 1)\n");
}
