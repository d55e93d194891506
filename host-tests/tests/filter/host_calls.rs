//! How many calls of the host a call takes, by name: each crosses from the module into Envoy and back.

use std::collections::BTreeMap;

use crate::common::{attempt, both_roles, converse};
use proxy_wasm_vm::{Plugin, headers};

const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#;
const ANSWER: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},"usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2}}"#;

/// What each part of the call takes, in order.
const EXPECTED: &[(&str, &[(&str, u64)])] = &[
    ("gateway: headers", &[(TIME, 1), (GET_HEADERS, 1), (GET_PROPERTY, 2)]),
    ("gateway: body", &[(GET_BODY, 1), (TIME, 1), (GET_SHARED, 1), (SET_HEADERS, 1), (SET_PROPERTY, 2)]),
    (
        "signer: headers",
        &[(TIME, 1), (GET_HEADERS, 1), (GET_PROPERTY, 4), (GET_SHARED, 2), (SET_HEADERS, 1), (SET_PROPERTY, 1)],
    ),
    ("signer: body", &[]),
    ("signer: response", &[(TIME, 1), (GET_HEADERS, 1), (GET_SHARED, 1)]),
    ("gateway: response's headers", &[(TIME, 1), (GET_HEADERS, 1)]),
    ("gateway: response's body", &[(GET_BODY, 1), (TIME, 1)]),
    ("the end", &[(TIME, 1), (GET_PROPERTY, 1), (COUNT, 3), (RECORD, 1), (SET_PROPERTY, 1)]),
];

const TIME: &str = "proxy_get_current_time_nanoseconds";
const GET_HEADERS: &str = "proxy_get_header_map_pairs";
const SET_HEADERS: &str = "proxy_set_header_map_pairs";
const GET_BODY: &str = "proxy_get_buffer_bytes";
const GET_PROPERTY: &str = "proxy_get_property";
const SET_PROPERTY: &str = "proxy_set_property";
const GET_SHARED: &str = "proxy_get_shared_data";
const COUNT: &str = "proxy_increment_metric";
const RECORD: &str = "proxy_record_metric";

#[test]
fn a_call_takes_so_many_host_calls() {
    let (gateway, signer) = both_roles();
    // The first defines the metrics.
    one(&gateway, &signer);
    let expected: Vec<_> =
        EXPECTED.iter().map(|(part, counts)| (*part, counts.iter().copied().collect::<BTreeMap<_, _>>())).collect();
    assert_eq!(one(&gateway, &signer), expected);
}

/// What each part of a call takes.
fn one(gateway: &Plugin, signer: &Plugin) -> Vec<(&'static str, BTreeMap<&'static str, u64>)> {
    let vm = gateway.vm();
    let mut parts = Vec::new();
    let mut end = |part| {
        parts.push((part, vm.host_calls()));
        vm.reset_host_calls();
    };
    vm.reset_host_calls();
    let exchange = gateway.stream();
    exchange.request_headers(converse(&[]), false);
    end("gateway: headers");
    exchange.request_body(BODY, true);
    end("gateway: body");
    let sent = attempt(signer, &exchange, "us-east-1");
    sent.request_headers(exchange.request_map(), false);
    end("signer: headers");
    sent.request_body(BODY, true);
    end("signer: body");
    let headers = headers([(":status", "200"), ("content-type", "application/json"), ("x-amzn-requestid", "r")]);
    sent.response_headers(headers.clone(), false);
    sent.response_body(ANSWER, true);
    end("signer: response");
    exchange.response_headers(headers, false);
    end("gateway: response's headers");
    exchange.response_body(ANSWER, true);
    end("gateway: response's body");
    exchange.done();
    sent.done();
    end("the end");
    parts
}
