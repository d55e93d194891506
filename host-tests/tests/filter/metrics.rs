//! What a call adds to Envoy's metrics.

use crate::common::{MODEL, call, converse, facts, gateway};
use std::time::Duration;

#[test]
fn counts_calls_by_class_path_region_model() {
    let gateway = gateway();
    let vm = gateway.vm();
    let exchange = gateway
        .stream()
        .property(&["upstream", "request_attempt_count"], 2_u64.to_le_bytes())
        .property(&["xds", "upstream_host_metadata", "filter_metadata", "bedrock", "path"], "vpn")
        .property(&["xds", "upstream_host_metadata", "filter_metadata", "bedrock", "region"], "us-east-1");
    exchange.request_headers(converse(&[]), false);
    exchange.request_body("{}", true);
    vm.advance(Duration::from_millis(40));
    exchange.response_headers([(":status", "200"), ("content-type", "application/json")], false);
    vm.advance(Duration::from_millis(2));
    exchange.response_body(r#"{"usage":{"inputTokens":30,"outputTokens":7}}"#, true);
    facts(&exchange);

    let labels = format!(";class=any;path=vpn;region=us-east-1;model={MODEL}");
    let metrics = vm.metrics();
    for (name, value) in [
        (format!("bedrock_requests{labels}"), 1),
        (format!("bedrock_failovers{labels}"), 1),
        (format!("bedrock_tokens{labels};kind=input"), 30),
        (format!("bedrock_tokens{labels};kind=output"), 7),
    ] {
        assert_eq!(metrics.get(&name), Some(&value), "{name} of {metrics:?}");
    }
    assert_eq!(vm.histogram(&format!("bedrock_latency_ms{labels}")), Some(vec![42]));
    assert_eq!(vm.histogram(&format!("bedrock_first_byte_ms{labels}")), Some(vec![40]));
    assert!(!metrics.keys().any(|name| name.starts_with("bedrock_errors")), "{metrics:?}");
}

#[test]
fn unknown_models_add_no_metric_series() {
    let gateway = gateway();
    for n in 0..50 {
        let exchange = gateway.stream();
        exchange.request_headers(call("POST", &format!("/model/made.up-{n}/converse"), &[]), true);
        facts(&exchange);
        let exchange = gateway.stream();
        exchange.request_headers(call("GET", &format!("/made-up-{n}"), &[]), true);
        facts(&exchange);
    }
    let metrics = gateway.vm().metrics();
    assert_eq!(metrics.get("bedrock_requests;class=any;path=none;region=none;model=other"), Some(&50), "{metrics:?}");
    let refused = "bedrock_errors;class=none;path=none;region=none;model=none;type=UnknownOperationException";
    assert_eq!(metrics.get(refused), Some(&50), "{metrics:?}");
    assert!(metrics.len() <= 6, "{metrics:?}");
}
