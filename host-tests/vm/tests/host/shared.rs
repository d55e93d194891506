//! State that outlives a callback: filter state, shared data, queues, metrics.

use proxy_wasm_vm::Status;

use crate::common::{GET, logged, plugin};

#[test]
fn attempts_share_filter_state() {
    let plugin = plugin(
        r#"(func $get (param i32 i32)
             (call $say (call $property (local.get 0) (local.get 1) (i32.const 0x10) (i32.const 0x14))))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $get (i32.const 0x110) (i32.const 7))
             (call $get (i32.const 0x118) (i32.const 4))
             (call $say (call $set_property (i32.const 0x118) (i32.const 4) (i32.const 0x108) (i32.const 3)))
             (call $get (i32.const 0x118) (i32.const 4))
             (call $log_bytes)
             (i32.const 0))"#,
    );
    let exchange = plugin.stream().property_status(&["node", "id"], Status::SerializationFailure);
    exchange.request_headers(GET, true);
    assert_eq!(logged(&plugin.vm()), ["3", "1", "0", "0", "one"]);
    assert_eq!(exchange.filter_state("wasm.note").unwrap(), b"one");

    // An attempt of the same exchange sees it, another exchange does not.
    let attempt = plugin.attempt(&exchange).property(&["node", "id"], "n");
    attempt.request_headers(GET, true);
    plugin.stream().request_headers(GET, true);
    assert_eq!(logged(&plugin.vm())[5..], ["0", "0", "0", "0", "one", "1", "1", "0", "0", "one"]);
}

#[test]
fn shared_data_is_compared_and_set() {
    let plugin = plugin(
        r#"(func $get
             (call $say (call $shared (i32.const 0x118) (i32.const 4) (i32.const 0x10) (i32.const 0x14) (i32.const 0x18))))
           (func $set (param i32)
             (call $say
               (call $set_shared (i32.const 0x118) (i32.const 4) (i32.const 0x108) (i32.const 3) (local.get 0))))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $get)
             (call $set (i32.const 0))
             (call $get) (call $log_bytes)
             (call $set (i32.load (i32.const 0x18)))
             (call $set (i32.load (i32.const 0x18)))
             (i32.const 0))"#,
    );
    plugin.stream().request_headers(GET, true);
    // Not there; set; read with its cas; set with that cas; refused with the same cas, which is old by then.
    assert_eq!(logged(&plugin.vm()), ["1", "0", "0", "one", "0", "8"]);
    assert_eq!(plugin.vm().shared_data("note").unwrap(), b"one");
}

#[test]
fn queues_and_metrics_keep_their_values() {
    let plugin = plugin(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (call $say (call $queue (i32.const 0x118) (i32.const 4) (i32.const 0x20)))
             (call $say (call $pop (i32.load (i32.const 0x20)) (i32.const 0x10) (i32.const 0x14)))
             (call $say (call $push (i32.load (i32.const 0x20)) (i32.const 0x108) (i32.const 3)))
             (call $say (call $pop (i32.load (i32.const 0x20)) (i32.const 0x10) (i32.const 0x14)))
             (call $log_bytes)
             (call $say (call $push (i32.const 77) (i32.const 0x108) (i32.const 3)))
             (call $say (call $metric (i32.const 0) (i32.const 0x118) (i32.const 4) (i32.const 0x20)))
             (call $say (call $increment (i32.load (i32.const 0x20)) (i64.const 3)))
             (call $say (call $increment (i32.load (i32.const 0x20)) (i64.const -1)))
             (call $say (call $metric (i32.const 2) (i32.const 0x120) (i32.const 7) (i32.const 0x20)))
             (call $say (call $record (i32.load (i32.const 0x20)) (i64.const 9)))
             (call $say (call $record (i32.const 0xff) (i64.const 9)))
             (i32.const 1))"#,
    );
    assert_eq!(logged(&plugin.vm()), ["0", "7", "0", "0", "one", "1", "0", "0", "2", "0", "0", "1"]);
    assert_eq!(plugin.vm().metric("note"), Some(3));
    assert_eq!(plugin.vm().histogram("cluster"), Some(vec![9]));
}
