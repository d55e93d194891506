//! A filter of another project (`../foreign`), which asks a service whether a request may pass.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proxy_wasm_vm::{Exchange, Outcome, Vm, headers, values};

fn asked() -> (Vm, Exchange) {
    let module = std::env::var("FOREIGN_FILTER_WASM").expect("run this test by `cargo xtask test -- foreign`");
    let vm = Vm::load(module).cluster("httpbin").start().unwrap();
    let exchange = vm.plugin("").configure("").unwrap().stream();
    assert_eq!(exchange.request_headers([(":method", "GET"), (":path", "/")], true), Outcome::Paused);
    (vm, exchange)
}

#[test]
fn lets_a_granted_request_pass() {
    let (vm, exchange) = asked();
    let call = vm.out_calls().remove(0);
    assert_eq!(values(&call.headers, ":path"), ["/bytes/1"]);
    vm.answer(call.token, headers([(":status", "200")]), &[2]).unwrap();
    assert_eq!(exchange.request_outcome(), Outcome::Continue);
}

#[test]
fn refuses_when_its_service_fails() {
    let (vm, exchange) = asked();
    vm.fail_call(vm.out_calls().remove(0).token).unwrap();
    assert_eq!(exchange.local_reply().unwrap().status, 403);
    assert_eq!(values(&exchange.response_map(), "powered-by"), ["proxy-wasm"]);
}
