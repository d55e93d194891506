//! Bodies: paused, limited, replaced.

use std::time::Duration;

use proxy_wasm_vm::{Outcome, values};

use crate::common::{GET, build, logged, plugin};

/// Holds the headers, collects the body, and lets go at its end with a header more.
const COLLECT: &str = r#"
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (drop (call $buffer (i32.const 0) (i32.const 0) (local.get 1) (i32.const 0x10) (i32.const 0x14)))
  (call $log_bytes)
  (if (result i32) (local.get 2)
    (then
      (call $say (call $add (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 0x108) (i32.const 3)))
      (i32.const 0))
    (else (i32.const 1))))
(func (export "proxy_on_tick") (param i32)
  (call $say (call $act_as (i32.const 2)))
  (call $say (call $resume (i32.const 0))))
(func (export "proxy_on_configure") (param i32 i32) (result i32)
  (call $say (call $ticks (i32.const 100))) (i32.const 1))
"#;

#[test]
fn a_paused_body_accumulates_until_it_resumes() {
    let plugin = plugin(COLLECT);
    let exchange = plugin.stream();
    assert_eq!(exchange.request_headers(GET, false), Outcome::Paused);
    assert_eq!(exchange.request_body("ab", false), Outcome::Paused);
    assert_eq!(exchange.request_body("cd", false), Outcome::Paused);
    assert!(!exchange.forwarded_request().headers);
    assert_eq!(exchange.request_body("e", true), Outcome::Continue);
    assert_eq!(logged(&plugin.vm()), ["0", "ab", "abcd", "abcde", "0"]);
    let forwarded = exchange.forwarded_request();
    assert_eq!(forwarded.body, "abcde");
    assert_eq!(forwarded.chunks, [5]);
    assert!(forwarded.headers && forwarded.end);
    assert_eq!(values(&exchange.request_map(), "x-a"), ["one"]);
}

#[test]
fn a_pause_in_headers_holds_the_body_by_default() {
    let vm = build(COLLECT).start().unwrap();
    let plugin = vm.plugin("test").configure("").unwrap();
    let exchange = plugin.stream();
    assert_eq!(exchange.request_headers(GET, false), Outcome::Paused);
    assert_eq!(exchange.request_body("ab", false), Outcome::Paused);
    assert_eq!(exchange.request_body("c", true), Outcome::Paused);
    assert_eq!(logged(&vm), ["0"], "the body callback ran");
    assert_eq!(plugin.tick_period(), Some(Duration::from_millis(100)));
    // Resumed, the body arrives in one piece; the headers have gone, so the module's addition is refused.
    plugin.tick().unwrap();
    assert_eq!(exchange.request_outcome(), Outcome::Continue);
    assert_eq!(logged(&vm), ["0", "0", "0", "abc", "2"]);
    assert_eq!(exchange.forwarded_request().body, "abc");
}

#[test]
fn answers_413_over_the_buffer_limit() {
    let vm = build(COLLECT).start().unwrap();
    let plugin = vm.plugin("test").allow_on_headers_stop_iteration(true).buffer_limit(4).configure("").unwrap();
    let exchange = plugin.stream();
    exchange.request_headers(GET, false);
    exchange.request_body("abc", false);
    assert_eq!(exchange.request_body("de", false), Outcome::LocalReply);
    assert_eq!(exchange.local_reply().unwrap().status, 413);
}

#[test]
fn replaces_a_body_chunk_by_chunk() {
    let plugin = plugin(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (drop (call $buffer (i32.const 1) (i32.const 0) (i32.const 0xffff) (i32.const 0x10) (i32.const 0x14)))
             (call $log_bytes)
             (drop (call $set_buffer (i32.const 1) (i32.const 0) (local.get 1) (i32.const 0x108) (i32.const 3)))
             (i32.const 0))"#,
    );
    let exchange = plugin.stream();
    exchange.request_headers(GET, true);
    exchange.response_headers([(":status", "200")], false);
    assert_eq!(exchange.response_body("ab", false), Outcome::Continue);
    assert_eq!(exchange.response_body("cd", false), Outcome::Continue);
    // With trailers to come the end of stream is never true in a body callback.
    assert_eq!(exchange.response_trailers([("t", "1")]), Outcome::Continue);
    assert_eq!(logged(&plugin.vm()), ["ab", "cd"]);
    let forwarded = exchange.forwarded_response();
    assert_eq!(forwarded.body, "oneone");
    assert!(forwarded.trailers && forwarded.end);
}
