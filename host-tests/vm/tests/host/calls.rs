//! HTTP calls that a module sends.

use proxy_wasm_vm::{Outcome, headers};

use crate::common::{GET, build, logged};

#[test]
fn an_answered_call_resumes_its_stream() {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
         (call $say (call $call (i32.const 0x120) (i32.const 7) (i32.const 0x200) (i32.const 61)
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 500) (i32.const 0x30)))
         (i32.const 1))
       (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
         (call $say (i32.eq (local.get 1) (i32.load (i32.const 0x30))))
         (call $say (local.get 2))
         (if (local.get 3) (then
           (drop (call $buffer (i32.const 4) (i32.const 0) (local.get 3) (i32.const 0x10) (i32.const 0x14)))
           (call $log_bytes)))
         (call $say (call $act_as (i32.const 2)))
         (call $say (call $resume (i32.const 0))))"#;
    for fails in [false, true] {
        let vm = build(body).cluster("cluster").start().unwrap();
        let plugin = vm.plugin("test").configure("").unwrap();
        let exchange = plugin.stream();
        assert_eq!(exchange.request_headers(GET, true), Outcome::Paused);
        let call = vm.out_calls().remove(0);
        assert_eq!((call.cluster.as_str(), call.timeout_ms), ("cluster", 500));
        assert_eq!(call.headers, headers([(":method", "GET"), (":path", "/"), (":authority", "h")]));
        if fails {
            vm.fail_call(call.token).unwrap();
            assert_eq!(logged(&vm), ["0", "1", "0", "0", "0"]);
        } else {
            vm.answer(call.token, headers([(":status", "200")]), b"hello").unwrap();
            assert_eq!(logged(&vm), ["0", "1", "1", "hello", "0", "0"]);
        }
        assert_eq!(exchange.request_outcome(), Outcome::Continue);
        assert!(vm.out_calls().is_empty());
    }
    let vm = build(body).start().unwrap();
    vm.plugin("test").configure("").unwrap().stream().request_headers(GET, true);
    assert_eq!(logged(&vm), ["2"], "a cluster that does not exist is a bad argument");
}

#[test]
fn a_failed_call_has_no_body_to_read() {
    let vm = build(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (call $call (i32.const 0x120) (i32.const 7) (i32.const 0x200) (i32.const 61)
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 500) (i32.const 0x30))
             (i32.eqz))
           (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
             (call $say (call $buffer (i32.const 4) (i32.const 0) (i32.const 9) (i32.const 0x10) (i32.const 0x14))))"#,
    )
    .cluster("cluster")
    .start()
    .unwrap();
    vm.plugin("test").configure("").unwrap();
    vm.fail_call(vm.out_calls()[0].token).unwrap();
    // Not found, as in Envoy: SDKs turn it into "no body".
    assert_eq!(logged(&vm), ["1"]);
}
