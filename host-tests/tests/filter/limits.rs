//! Constant memory, and few host calls: what keeps the filter cheap.

use crate::common::{MODEL, attempt, both_roles, call, configuration, converse, gateway, plugin, with_keys};
use proxy_wasm_vm::{Outcome, Plugin};
use serde_json::json;

const PIECE: usize = 64 << 10;

/// Sends `request` bytes up and `response` bytes down.
fn exchange(gateway: &Plugin, request: usize, operation: &str, content_type: &str, response: &[u8], times: usize) {
    let exchange = gateway.stream();
    exchange.request_headers(call("POST", &format!("/model/{MODEL}/{operation}"), &[]), false);
    // A long number.
    let piece = vec![b'7'; PIECE];
    for _ in 0..request / PIECE {
        assert_eq!(exchange.request_body(&piece, false), Outcome::Paused);
    }
    assert_eq!(exchange.request_body("", true), Outcome::Continue);
    exchange.response_headers([(":status", "200"), ("content-type", content_type)], false);
    for _ in 0..times {
        assert_eq!(exchange.response_body(response, false), Outcome::Continue);
    }
    exchange.response_body("", true);
    assert_eq!(exchange.forwarded_request().body.len(), request / PIECE * PIECE);
    exchange.done();
}

#[test]
fn memory_is_constant_from_200_kb_to_20_mb() {
    let gateway = gateway();
    let json = vec![b'7'; PIECE];
    let frame = bedrock_double::eventstream::event("contentBlockDelta", &vec![b'x'; 60_000]);
    let stream = "application/vnd.amazon.eventstream";
    let run = |bytes: usize| {
        exchange(&gateway, bytes, "converse", "application/json", &json, bytes / PIECE);
        exchange(&gateway, PIECE, "converse-stream", stream, &frame, bytes / PIECE);
    };
    // The second run may take a page more than the first, because memory is divided by then. No later one does, whatever its size.
    run(200 << 10);
    run(200 << 10);
    let pages = gateway.vm().memory_pages();
    run(20 << 20);
    assert_eq!(gateway.vm().memory_pages(), pages, "memory grew");
}

#[test]
fn many_exchanges_leave_nothing_behind() {
    let (gateway, signer) = both_roles();
    let run = |times: usize| {
        for _ in 0..times {
            let exchange = gateway.stream();
            exchange.request_headers(converse(&[]), false);
            exchange.request_body("{}", true);
            let attempt = attempt(&signer, &exchange, "us-east-1");
            attempt.request_headers(exchange.request_map(), false);
            attempt.done();
            exchange.done();
        }
    };
    run(50);
    let pages = gateway.vm().memory_pages();
    run(2000);
    assert_eq!(gateway.vm().memory_pages(), pages, "memory grew");
}

/// Both roles with 500 models after some calls, without bodies that are held: what each worker of Envoy has at rest.
#[test]
fn a_worker_at_rest_takes_eight_megabytes() {
    const MODELS: usize = 500;
    let document = |role| {
        let mut document = configuration(role);
        let names = || (0..MODELS).map(|number| format!("vendor.model-{number}-v1:0"));
        let profiles = document["inference_profiles"].as_object_mut().unwrap();
        profiles.extend(names().map(|name| (name.clone(), json!(format!("us.{name}")))));
        let aliases = document["aliases"].as_object_mut().unwrap();
        aliases.extend(names().enumerate().map(|(number, name)| (format!("alias-{number}"), json!(name))));
        document
    };
    let vm = with_keys().start().unwrap();
    let (gateway, signer) = (plugin(&vm, &document("gateway")), plugin(&vm, &document("signer")));
    for number in 0..MODELS {
        let exchange = gateway.stream();
        let path = format!("/model/vendor.model-{number}-v1%3A0/converse");
        exchange.request_headers(call("POST", &path, &[]), false);
        exchange.request_body("{}", true);
        let attempt = attempt(&signer, &exchange, "us-east-1");
        assert_eq!(attempt.request_headers(exchange.request_map(), false), Outcome::Continue);
        attempt.done();
        exchange.done();
    }
    let pages = vm.memory_pages();
    assert!(pages * 64 <= 8 << 10, "{} KiB", pages * 64);
    println!("{} KiB with {MODELS} models", pages * 64);
}

#[test]
fn a_call_costs_few_host_calls() {
    let (gateway, signer) = both_roles();
    let vm = gateway.vm();
    vm.reset_host_calls();
    let exchange = gateway.stream();
    exchange.request_headers(converse(&[("authorization", "x"), ("cookie", "y"), ("user-agent", "z")]), false);
    exchange.request_body("{}", true);
    let downstream: u64 = vm.host_calls().values().sum();
    vm.reset_host_calls();
    let attempt = attempt(&signer, &exchange, "us-east-1");
    attempt.request_headers(exchange.request_map(), false);
    let upstream: u64 = vm.host_calls().values().sum();
    let headers = vm.host_calls();
    // Read all headers in one call, write them in one: each costs Envoy some 3 µs.
    assert_eq!((headers["proxy_get_header_map_pairs"], headers["proxy_set_header_map_pairs"]), (1, 1));
    // One of them asks the breaker, since there is a second region.
    assert!(downstream <= 10, "{downstream} host calls in the gateway role");
    // Four properties: what the gateway passed, what the attempt before left, and the endpoint's two labels; and what is known
    // of the clock and of the region's breaker.
    assert!(upstream <= 10, "{upstream} host calls in the signer role");
}
