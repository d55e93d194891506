//! Header maps: what a module reads and changes, and when.

use proxy_wasm_vm::{Direction, Event, Outcome, Refused, Status, headers};

use crate::common::{GET, logged, plugin};

#[test]
fn header_maps_survive_a_round_trip() {
    let plugin = plugin(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say (call $pairs (i32.const 0) (i32.const 0x10) (i32.const 0x14)))
             (call $say (call $set_pairs (i32.const 0) (i32.load (i32.const 0x10)) (i32.load (i32.const 0x14))))
             (i32.const 0))"#,
    );
    let map: [(&str, &[u8]); 5] =
        [(":path", b"/"), ("x-a", b"1"), ("x-b", b"\xff\x00\xfe"), ("x-a", b"2"), ("x-c", b"")];
    let exchange = plugin.stream();
    assert_eq!(exchange.request_headers(map, true), Outcome::Continue);
    assert_eq!(exchange.request_map(), headers(map));
    assert_eq!(logged(&plugin.vm()), ["0", "0"]);
    assert_eq!(plugin.vm().host_calls()["proxy_get_header_map_pairs"], 1);
}

#[test]
fn reads_replaces_adds_and_removes_one_header() {
    let plugin = plugin(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say (call $header (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 0x10) (i32.const 0x14)))
             (call $log_bytes)
             (call $say (call $replace (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 0x108) (i32.const 3)))
             (call $say (call $add (i32.const 0) (i32.const 0x118) (i32.const 4) (i32.const 0x108) (i32.const 3)))
             (call $say (call $remove (i32.const 0) (i32.const 0x120) (i32.const 7)))
             (call $say (call $header (i32.const 0) (i32.const 0x120) (i32.const 7) (i32.const 0x10) (i32.const 0x14)))
             (i32.const 0))"#,
    );
    let exchange = plugin.stream();
    exchange.request_headers([("X-A", "first"), ("x-a", "second"), ("cluster", "c")], true);
    // The first of two values, as Envoy gives it; afterwards the name that is not there is NotFound.
    assert_eq!(logged(&plugin.vm()), ["0", "first", "0", "0", "0", "1"]);
    assert_eq!(exchange.request_map(), headers([("x-a", "one"), ("note", "one")]));
}

#[test]
fn refuses_header_changes_after_continue() {
    let plugin = plugin(
        r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
             (call $say (call $add (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 0x108) (i32.const 3)))
             (i32.const 0))"#,
    );
    let exchange = plugin.stream();
    exchange.request_headers(GET, false);
    assert_eq!(exchange.request_body("abc", true), Outcome::Continue);
    let refused = Refused { call: "proxy_add_header_map_value", status: Status::BadArgument };
    assert_eq!(plugin.vm().refused(), [refused]);
    assert_eq!(exchange.request_map(), headers(GET));
}

#[test]
fn refuses_header_changes_after_forwarding() {
    let plugin = plugin(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $say (call $pairs (i32.const 0) (i32.const 0x10) (i32.const 0x14)))
             (drop (call $add (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 0x108) (i32.const 3)))
             (i32.const 0))"#,
    );
    let exchange = plugin.stream();
    exchange.request_headers(GET, false);
    exchange.request_body("", true);
    let result = exchange.try_event(Event::Headers(Direction::Response, headers([(":status", "200")]), true));
    // Envoy still shows them, so reading is fine; writing would change nothing on the wire.
    assert_eq!(logged(&plugin.vm()), ["0"]);
    assert!(result.unwrap_err().to_string().contains("was sent already"));
}
