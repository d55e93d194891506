//! Configurations that are refused, and the key that the error names.

use crate::common::{KEY_ID, SECRET, configuration, converse, filter, plugin, refusal, with_keys};
use proxy_wasm_vm::{Outcome, Vm};
use serde_json::{Value, json};

fn refused(vm: &Vm, document: impl AsRef<[u8]>) -> String {
    let Err(refused) = vm.plugin("gateway").configure(document) else { panic!("accepted") };
    assert!(refused.fault.is_none(), "{refused}");
    assert_eq!(refused.log.len(), 1, "{refused}");
    refused.log[0].clone()
}

#[test]
fn refuses_by_the_name_of_the_key() {
    let vm = with_keys().start().unwrap();
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit); 12] = [
        ("`role`", |c| c["role"] = json!("boss")),
        ("`nonsense`", |c| c["nonsense"] = json!(1)),
        ("`regions.us-gov-west-1`", |c| c["regions"] = json!({"us-gov-west-1": {}})),
        ("`regions.us-east-1.profile`", |c| c["regions"] = json!({"us-east-1": {"profile": {}}})),
        ("`regions`", |c| c["regions"] = json!({})),
        ("`region`", |c| c["region"] = json!("eu-west-1")),
        ("`route_classes[0].paths[1]`", |c| c["route_classes"][0]["paths"] = json!(["dx", "radio"])),
        ("`route_classes[1].name`", |c| c["route_classes"][1]["name"] = json!("private-only")),
        ("`route_classes[0].operations", |c| c["route_classes"][0]["operations"] = json!(["Chat"])),
        ("`aliases.sonnet`", |c| c["aliases"]["sonnet"] = json!("global.anthropic.claude")),
        ("`max_body_bytes`", |c| c["max_body_bytes"] = json!(0)),
        ("`auth`", |c| c["auth"] = json!("none")),
    ];
    for (key, edit) in cases {
        let mut document = configuration("gateway");
        edit(&mut document);
        let log = refused(&vm, document.to_string());
        // For an unknown key, serde names the key in its text and its parent as the position.
        assert!(log.contains("configuration key") && log.contains(key), "{key}: {log}");
    }
    assert!(refused(&vm, "{").contains("configuration key"));
    assert!(refused(&vm, "").contains("configuration key"));
    // The VM still serves.
    plugin(&vm, &configuration("gateway"));
}

#[test]
fn refuses_bad_credentials_without_logging_them() {
    let document = configuration("gateway").to_string();
    for (secret, named) in [("", "AWS_SECRET_ACCESS_KEY"), ("with space", "AWS_SECRET_ACCESS_KEY")] {
        let vm = filter().env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", secret).start().unwrap();
        let log = refused(&vm, &document);
        assert!(log.contains("`credentials`") && log.contains(named), "{log}");
        assert!(!log.contains("with space"), "{log}");
    }
}

#[test]
fn refuses_every_call_without_credentials() {
    let vm = filter().start().unwrap();
    for role in ["gateway", "combined"] {
        let exchange = plugin(&vm, &configuration(role)).stream();
        assert_eq!(exchange.request_headers(converse(&[]), false), Outcome::LocalReply);
        let (status, error, _) = refusal(&exchange);
        assert_eq!((status, error.as_str()), (503, "ServiceUnavailableException"));
    }
    assert!(vm.logs().iter().any(|line| line.level == 3 && line.text.contains("credentials")));
}

#[test]
fn no_secret_is_ever_logged() {
    let vm = with_keys().env("AWS_SESSION_TOKEN", "the-token").start().unwrap();
    let combined = plugin(&vm, &configuration("combined"));
    let exchange = combined.stream();
    exchange.request_headers(converse(&[]), false);
    assert_eq!(exchange.request_body("{}", true), Outcome::Continue);
    exchange.done();
    let states =
        format!("{:?}", exchange.filter_states().values().map(|v| String::from_utf8_lossy(v)).collect::<Vec<_>>());
    let logs = format!("{:?}", vm.logs());
    for secret in [SECRET, "the-token"] {
        assert!(!states.contains(secret) && !logs.contains(secret));
    }
}
