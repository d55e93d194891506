//! Streams: local replies, resets and ends.

use proxy_wasm_vm::{Direction, Event, Outcome, headers};

use crate::common::{GET, logged, plugin};

const REPLY: &str = r#"
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (call $say (call $reply (i32.const 418) (i32.const 0x118) (i32.const 4) (i32.const 0x108) (i32.const 3)
    (i32.const 0) (i32.const 0) (i32.const -1)))
  (i32.const 0))
(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
  (call $say (call $add (i32.const 2) (i32.const 0x100) (i32.const 3) (i32.const 0x108) (i32.const 3)))
  (i32.const 0))
(func (export "proxy_on_log") (param i32) (drop (call $log (i32.const 2) (i32.const 0x118) (i32.const 4))))
(func (export "proxy_on_done") (param i32) (result i32)
  (drop (call $log (i32.const 2) (i32.const 0x108) (i32.const 3))) (i32.const 1))
(func (export "proxy_on_delete") (param i32) (drop (call $log (i32.const 2) (i32.const 0x100) (i32.const 3))))
"#;

#[test]
fn a_local_reply_passes_response_callbacks() {
    let plugin = plugin(REPLY);
    let exchange = plugin.stream();
    // Whatever the callback answers, nothing goes on.
    assert_eq!(exchange.request_headers(GET, false), Outcome::LocalReply);
    assert_eq!(exchange.request_body("late", true), Outcome::LocalReply);
    assert!(!exchange.forwarded_request().headers);
    let reply = exchange.local_reply().unwrap();
    assert_eq!((reply.status, reply.details.as_str()), (418, "note"));
    assert_eq!(reply.body, "one");
    let sent = [(":status", "418"), ("content-length", "3"), ("content-type", "text/plain"), ("x-a", "one")];
    assert_eq!(exchange.response_map(), headers(sent));
    assert_eq!(exchange.forwarded_response().body, "one");
    assert!(exchange.try_event(Event::Body(Direction::Response, Vec::new(), true)).is_err());
}

#[test]
fn an_attempt_ends_without_a_log_callback() {
    let plugin = plugin(REPLY);
    let exchange = plugin.stream();
    exchange.request_headers(GET, true);
    exchange.done();
    let attempt = plugin.attempt(&exchange);
    attempt.request_headers(GET, true);
    attempt.done();
    assert_eq!(logged(&plugin.vm()), ["0", "0", "note", "one", "x-a", "0", "0", "one", "x-a"]);
    assert_eq!(exchange.local_reply().unwrap().status, 418, "an ended stream can still be read");
}

#[test]
fn a_reset_ends_the_stream() {
    let plugin = plugin(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say (call $close (i32.const 0))) (i32.const 1))"#,
    );
    assert_eq!(plugin.stream().request_headers(GET, true), Outcome::Reset);
}
