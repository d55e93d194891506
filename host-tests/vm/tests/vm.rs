//! The host itself, on small modules written as text.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm_vm::{
    Direction, Event, Fault, LoadError, Outcome, Plugin, Refused, Status, Vm, VmBuilder, headers, values,
};

/// Every host function the modules below use, an allocator, and words to say what a call answered.
///
/// Results of calls that hand something over arrive at 0x10 (pointer) and 0x14 (size). `$say` logs a status as a
/// digit, `$told` logs what was handed over.
const PRELUDE: &str = r#"
(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
(import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_shared_data" (func $shared (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_continue_stream" (func $resume (param i32) (result i32)))
(import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
(import "env" "proxy_set_effective_context" (func $act_as (param i32) (result i32)))
(import "env" "proxy_set_tick_period_milliseconds" (func $ticks (param i32) (result i32)))
(import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_define_metric" (func $metric (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
(import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
(import "env" "proxy_register_shared_queue" (func $queue (param i32 i32 i32) (result i32)))
(import "env" "proxy_enqueue_shared_queue" (func $push (param i32 i32 i32) (result i32)))
(import "env" "proxy_dequeue_shared_queue" (func $pop (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_prestat_get" (func $directory (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_close" (func $close_file (param i32) (result i32)))
(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
(memory (export "memory") 2)
(global $top (mut i32) (i32.const 0x4000))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (global.get $top)
  (global.set $top (i32.add (global.get $top) (local.get $size))))
(func $say (param $status i32)
  (i32.store8 (i32.const 8) (i32.add (local.get $status) (i32.const 48)))
  (drop (call $log (i32.const 2) (i32.const 8) (i32.const 1))))
(func $told (drop (call $log (i32.const 2) (i32.load (i32.const 0x10)) (i32.load (i32.const 0x14)))))
(data (i32.const 0x100) "x-a")
(data (i32.const 0x108) "one")
(data (i32.const 0x110) "node\00id")
(data (i32.const 0x118) "note")
(data (i32.const 0x120) "cluster")
(data (i32.const 0x200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00"
  ":method\00GET\00:path\00/\00:authority\00h\00")
"#;

fn build(body: &str) -> VmBuilder {
    Vm::from_wat(&format!("(module {PRELUDE} {body})"))
}

fn plugin(body: &str) -> Plugin {
    build(body).start().unwrap().plugin("test").allow_on_headers_stop_iteration(true).configure("").unwrap()
}

fn told(vm: &Vm) -> Vec<String> {
    vm.logs().into_iter().map(|line| line.text).collect()
}

const GET: [(&str, &str); 2] = [(":method", "GET"), (":path", "/")];

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
    assert_eq!(told(&plugin.vm()), ["0", "0"]);
    assert_eq!(plugin.vm().host_calls()["proxy_get_header_map_pairs"], 1);
}

#[test]
fn single_headers_are_read_replaced_added_and_removed() {
    let plugin = plugin(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say (call $header (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 0x10) (i32.const 0x14)))
             (call $told)
             (call $say (call $replace (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 0x108) (i32.const 3)))
             (call $say (call $add (i32.const 0) (i32.const 0x118) (i32.const 4) (i32.const 0x108) (i32.const 3)))
             (call $say (call $remove (i32.const 0) (i32.const 0x120) (i32.const 7)))
             (call $say (call $header (i32.const 0) (i32.const 0x120) (i32.const 7) (i32.const 0x10) (i32.const 0x14)))
             (i32.const 0))"#,
    );
    let exchange = plugin.stream();
    exchange.request_headers([("X-A", "first"), ("x-a", "second"), ("cluster", "c")], true);
    // The first of two values, as Envoy gives it; afterwards the name that is not there is NotFound.
    assert_eq!(told(&plugin.vm()), ["0", "first", "0", "0", "0", "1"]);
    assert_eq!(exchange.request_map(), headers([("x-a", "one"), ("note", "one")]));
}

#[test]
fn headers_are_closed_after_continue() {
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

/// Holds the headers, collects the body, and lets go at its end with a header more.
const COLLECT: &str = r#"
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
  (drop (call $buffer (i32.const 0) (i32.const 0) (local.get 1) (i32.const 0x10) (i32.const 0x14)))
  (call $told)
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
fn a_held_body_is_cumulative_and_goes_on_at_once() {
    let plugin = plugin(COLLECT);
    let exchange = plugin.stream();
    assert_eq!(exchange.request_headers(GET, false), Outcome::Paused);
    assert_eq!(exchange.request_body("ab", false), Outcome::Paused);
    assert_eq!(exchange.request_body("cd", false), Outcome::Paused);
    assert!(!exchange.forwarded_request().headers);
    assert_eq!(exchange.request_body("e", true), Outcome::Continue);
    assert_eq!(told(&plugin.vm()), ["0", "ab", "abcd", "abcde", "0"]);
    let forwarded = exchange.forwarded_request();
    assert_eq!((forwarded.body.as_slice(), forwarded.chunks.as_slice()), (b"abcde".as_slice(), [5].as_slice()));
    assert!(forwarded.headers && forwarded.end);
    assert_eq!(values(&exchange.request_map(), "x-a"), ["one"]);
}

#[test]
fn without_stop_iteration_a_pause_in_headers_stops_everything() {
    let vm = build(COLLECT).start().unwrap();
    let plugin = vm.plugin("test").configure("").unwrap();
    let exchange = plugin.stream();
    assert_eq!(exchange.request_headers(GET, false), Outcome::Paused);
    assert_eq!(exchange.request_body("ab", false), Outcome::Paused);
    assert_eq!(exchange.request_body("c", true), Outcome::Paused);
    assert_eq!(told(&vm), ["0"], "the body callback ran");
    assert_eq!(plugin.tick_period(), Some(Duration::from_millis(100)));
    // Resumed, the body arrives in one piece; the headers have gone, so the module's addition is refused.
    plugin.tick().unwrap();
    assert_eq!(exchange.request_outcome(), Outcome::Continue);
    assert_eq!(told(&vm), ["0", "0", "0", "abc", "2"]);
    assert_eq!(exchange.forwarded_request().body, b"abc");
}

#[test]
fn what_is_held_back_has_a_limit() {
    let vm = build(COLLECT).start().unwrap();
    let plugin = vm.plugin("test").allow_on_headers_stop_iteration(true).buffer_limit(4).configure("").unwrap();
    let exchange = plugin.stream();
    exchange.request_headers(GET, false);
    exchange.request_body("abc", false);
    assert_eq!(exchange.request_body("de", false), Outcome::LocalReply);
    assert_eq!(exchange.local_reply().unwrap().status, 413);
}

#[test]
fn a_flowing_body_is_seen_chunk_by_chunk_and_can_be_replaced() {
    let plugin = plugin(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (drop (call $buffer (i32.const 1) (i32.const 0) (i32.const 0xffff) (i32.const 0x10) (i32.const 0x14)))
             (call $told)
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
    assert_eq!(told(&plugin.vm()), ["ab", "cd"]);
    let forwarded = exchange.forwarded_response();
    assert_eq!(forwarded.body, b"oneone");
    assert!(forwarded.trailers && forwarded.end);
}

#[test]
fn properties_and_filter_state() {
    let plugin = plugin(
        r#"(func $get (param i32 i32)
             (call $say (call $property (local.get 0) (local.get 1) (i32.const 0x10) (i32.const 0x14))))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $get (i32.const 0x110) (i32.const 7))
             (call $get (i32.const 0x118) (i32.const 4))
             (call $say (call $set_property (i32.const 0x118) (i32.const 4) (i32.const 0x108) (i32.const 3)))
             (call $get (i32.const 0x118) (i32.const 4))
             (call $told)
             (i32.const 0))"#,
    );
    let exchange = plugin.stream().property_status(&["node", "id"], Status::SerializationFailure);
    exchange.request_headers(GET, true);
    assert_eq!(told(&plugin.vm()), ["3", "1", "0", "0", "one"]);
    assert_eq!(exchange.filter_state("wasm.note").unwrap(), b"one");

    // An attempt of the same exchange sees it, another exchange does not.
    let attempt = plugin.attempt(&exchange).property(&["node", "id"], "n");
    attempt.request_headers(GET, true);
    plugin.stream().request_headers(GET, true);
    assert_eq!(told(&plugin.vm())[5..], ["0", "0", "0", "0", "one", "1", "1", "0", "0", "one"]);
}

#[test]
fn a_trap_ends_the_vm_and_says_where() {
    let plugin = plugin(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (drop (call $log (i32.const 5) (i32.const 0x108) (i32.const 3)))
             unreachable)"#,
    );
    let exchange = plugin.stream();
    exchange.request_headers(GET, true);
    let event = Event::Headers(Direction::Response, headers([(":status", "200")]), true);
    let Err(Fault::Trap { callback, text }) = exchange.try_event(event) else { panic!("no trap") };
    assert_eq!(callback, "proxy_on_response_headers");
    assert!(text.contains("unreachable") && text.contains("it logged: one"), "{text}");
    assert!(plugin.vm().fault().is_some());
    let other = plugin.stream().try_event(Event::Headers(Direction::Request, headers(GET), true));
    assert!(matches!(other, Err(Fault::Poisoned(_))), "{other:?}");
}

#[test]
fn an_endless_loop_ends_as_a_trap() {
    let endless =
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (loop (br 0)) unreachable)"#;
    let vm = build(endless).callback_limit(0).start().unwrap();
    let exchange = vm.plugin("test").configure("").unwrap().stream();
    let result = exchange.try_event(Event::Headers(Direction::Request, headers(GET), true));
    let Err(Fault::Trap { text, .. }) = result else { panic!("{result:?}") };
    assert!(text.contains("interrupt"), "{text}");
}

#[test]
fn memory_has_a_limit_and_is_measured() {
    let grow = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (call $say (i32.eq (memory.grow (i32.const 10)) (i32.const -1))) (i32.const 0))"#;
    for (limit, refused, pages) in [(12, "0", 12), (11, "1", 2)] {
        let vm = build(grow).memory_limit(limit << 16).start().unwrap();
        let plugin = vm.plugin("test").configure("").unwrap();
        assert_eq!(vm.memory_pages(), 2);
        plugin.stream().request_headers(GET, true);
        assert_eq!(told(&vm), [refused]);
        assert_eq!(vm.memory_pages(), pages);
    }
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
             (call $get) (call $told)
             (call $set (i32.load (i32.const 0x18)))
             (call $set (i32.load (i32.const 0x18)))
             (i32.const 0))"#,
    );
    plugin.stream().request_headers(GET, true);
    // Not there; set; read with its cas; set with that cas; refused with the same cas, which is old by then.
    assert_eq!(told(&plugin.vm()), ["1", "0", "0", "one", "0", "8"]);
    assert_eq!(plugin.vm().shared_data("note").unwrap(), b"one");
}

#[test]
fn queues_and_metrics() {
    let plugin = plugin(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (call $say (call $queue (i32.const 0x118) (i32.const 4) (i32.const 0x20)))
             (call $say (call $pop (i32.load (i32.const 0x20)) (i32.const 0x10) (i32.const 0x14)))
             (call $say (call $push (i32.load (i32.const 0x20)) (i32.const 0x108) (i32.const 3)))
             (call $say (call $pop (i32.load (i32.const 0x20)) (i32.const 0x10) (i32.const 0x14)))
             (call $told)
             (call $say (call $push (i32.const 77) (i32.const 0x108) (i32.const 3)))
             (call $say (call $metric (i32.const 0) (i32.const 0x118) (i32.const 4) (i32.const 0x20)))
             (call $say (call $increment (i32.load (i32.const 0x20)) (i64.const 3)))
             (call $say (call $increment (i32.load (i32.const 0x20)) (i64.const -1)))
             (call $say (call $metric (i32.const 2) (i32.const 0x120) (i32.const 7) (i32.const 0x20)))
             (call $say (call $record (i32.load (i32.const 0x20)) (i64.const 9)))
             (call $say (call $record (i32.const 0xff) (i64.const 9)))
             (i32.const 1))"#,
    );
    assert_eq!(told(&plugin.vm()), ["0", "7", "0", "0", "one", "1", "0", "0", "2", "0", "0", "1"]);
    assert_eq!(plugin.vm().metric("note"), Some(3));
    assert_eq!(plugin.vm().histogram("cluster"), Some(vec![9]));
}

#[test]
fn a_call_goes_out_and_its_answer_resumes_the_stream() {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
         (call $say (call $call (i32.const 0x120) (i32.const 7) (i32.const 0x200) (i32.const 61)
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 500) (i32.const 0x30)))
         (i32.const 1))
       (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
         (call $say (i32.eq (local.get 1) (i32.load (i32.const 0x30))))
         (call $say (local.get 2))
         (if (local.get 3) (then
           (drop (call $buffer (i32.const 4) (i32.const 0) (local.get 3) (i32.const 0x10) (i32.const 0x14)))
           (call $told)))
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
            assert_eq!(told(&vm), ["0", "1", "0", "0", "0"]);
        } else {
            vm.answer(call.token, headers([(":status", "200")]), b"hello").unwrap();
            assert_eq!(told(&vm), ["0", "1", "1", "hello", "0", "0"]);
        }
        assert_eq!(exchange.request_outcome(), Outcome::Continue);
        assert!(vm.out_calls().is_empty());
    }
    let vm = build(body).start().unwrap();
    vm.plugin("test").configure("").unwrap().stream().request_headers(GET, true);
    assert_eq!(told(&vm), ["2"], "a cluster that does not exist is a bad argument");
}

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
fn a_local_reply_passes_the_response_callbacks() {
    let plugin = plugin(REPLY);
    let exchange = plugin.stream();
    // Whatever the callback answers, nothing goes on.
    assert_eq!(exchange.request_headers(GET, false), Outcome::LocalReply);
    assert_eq!(exchange.request_body("late", true), Outcome::LocalReply);
    assert!(!exchange.forwarded_request().headers);
    let reply = exchange.local_reply().unwrap();
    assert_eq!((reply.status, reply.body.as_slice(), reply.details.as_str()), (418, b"one".as_slice(), "note"));
    let sent = [(":status", "418"), ("content-length", "3"), ("content-type", "text/plain"), ("x-a", "one")];
    assert_eq!(exchange.response_map(), headers(sent));
    assert_eq!(exchange.forwarded_response().body, b"one");
    assert!(exchange.try_event(Event::Body(Direction::Response, Vec::new(), true)).is_err());
}

#[test]
fn a_stream_ends_with_log_done_and_delete_and_an_attempt_without_log() {
    let plugin = plugin(REPLY);
    let exchange = plugin.stream();
    exchange.request_headers(GET, true);
    exchange.done();
    let attempt = plugin.attempt(&exchange);
    attempt.request_headers(GET, true);
    attempt.done();
    assert_eq!(told(&plugin.vm()), ["0", "0", "note", "one", "x-a", "0", "0", "one", "x-a"]);
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

#[test]
fn configuration_reaches_the_module_and_can_be_refused() {
    let vm = build(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (drop (call $buffer (i32.const 7) (i32.const 0) (local.get 1) (i32.const 0x10) (i32.const 0x14)))
             (call $told)
             (i32.eq (local.get 1) (i32.const 4)))"#,
    )
    .start()
    .unwrap();
    // Two plugins in one VM.
    vm.plugin("a").configure("good").unwrap();
    vm.plugin("b").configure("fine").unwrap();
    let Err(refused) = vm.plugin("c").configure("broken") else { panic!("accepted") };
    assert_eq!(refused.log, ["broken"]);
    assert!(refused.fault.is_none());
}

#[test]
fn wasi_gives_environment_and_clock() {
    let vm = build(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (drop (call $env_sizes (i32.const 0x20) (i32.const 0x14)))
             (call $say (i32.load (i32.const 0x20)))
             (drop (call $env (i32.const 0x30) (i32.const 0x400)))
             (i32.store (i32.const 0x10) (i32.load (i32.const 0x30)))
             (call $told)
             (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 0x40)))
             (call $say (i32.wrap_i64 (i64.div_u (i64.load (i32.const 0x40)) (i64.const 1000000000))))
             (i32.const 1))"#,
    )
    .env("A", "1")
    .env("BC", "")
    .clock(UNIX_EPOCH + Duration::from_secs(7))
    .start()
    .unwrap();
    vm.plugin("test").configure("").unwrap();
    assert_eq!(told(&vm), ["2", "A=1\0BC=\0", "7"]);
}

#[test]
fn wasi_clocks_move_with_the_vm_and_randomness_repeats() {
    let body = r#"
        (func $seconds (param i32)
          (drop (call $clock (local.get 0) (i64.const 1) (i32.const 0x40)))
          (call $say (i32.wrap_i64 (i64.div_u (i64.load (i32.const 0x40)) (i64.const 1000000000)))))
        (func $any (local $at i32)
          (drop (call $random (i32.const 0x40) (i32.const 8)))
          (loop $next
            (call $say (i32.rem_u (i32.load8_u (i32.add (i32.const 0x40) (local.get $at))) (i32.const 10)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 8)))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $seconds (i32.const 0)) (call $seconds (i32.const 1)) (call $any) (i32.const 0))"#;
    let run = || {
        let vm = build(body).clock(UNIX_EPOCH + Duration::from_secs(2)).start().unwrap();
        let plugin = vm.plugin("test").configure("").unwrap();
        plugin.stream().request_headers(GET, true);
        vm.advance(Duration::from_secs(3));
        plugin.stream().request_headers(GET, true);
        assert_eq!(vm.host_calls()["wasi_snapshot_preview1"], 6);
        told(&vm)
    };
    let first = run();
    assert_eq!(
        (&first[..2], &first[10..12]),
        (["2", "2"].map(String::from).as_slice(), ["5", "5"].map(String::from).as_slice())
    );
    assert_ne!(first[2..10], first[12..], "new bytes at each call");
    assert_eq!(first, run());
}

#[test]
fn wasi_output_ends_in_the_log_and_there_are_no_directories() {
    // Vectors at 0x40 and 0x48: «one» and the two lines.
    let plugin = plugin(
        r#"(data (i32.const 0x130) "two\nlines\n")
           (data (i32.const 0x40) "\08\01\00\00\03\00\00\00\30\01\00\00\0a\00\00\00")
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say (call $write (i32.const 1) (i32.const 0x40) (i32.const 1) (i32.const 0x20)))
             (call $say (i32.load (i32.const 0x20)))
             (call $say (i32.eq (call $write (i32.const 3) (i32.const 0x40) (i32.const 1) (i32.const 0x20)) (i32.const 8)))
             (call $say (i32.eq (call $directory (i32.const 3) (i32.const 0x50)) (i32.const 8)))
             (call $say (call $write (i32.const 2) (i32.const 0x48) (i32.const 1) (i32.const 0x20)))
             (i32.const 0))"#,
    );
    plugin.stream().request_headers(GET, true);
    let logs: Vec<_> = plugin.vm().logs().into_iter().map(|line| (line.level, line.text)).collect();
    let expected = [(2, "one"), (2, "0"), (2, "3"), (2, "1"), (2, "1"), (4, "two"), (4, "lines"), (2, "0")];
    assert_eq!(logs, expected.map(|(level, text)| (level, text.to_owned())));
}

#[test]
fn a_module_that_asks_for_more_does_not_load() {
    let more = r#"(module (import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))
                    (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#;
    let Err(LoadError::Module(text)) = Vm::from_wat(more).start() else { panic!("loaded") };
    // wasmtime-wasi has it.
    assert!(text.contains("sock_accept, which Envoy's host does not offer"), "{text}");
    let unknown = r#"(module (import "env" "proxy_sing" (func)) (memory (export "memory") 1)
                       (func (export "proxy_abi_version_0_2_1")))"#;
    let Err(LoadError::Module(text)) = Vm::from_wat(unknown).start() else { panic!("loaded") };
    assert!(text.contains("proxy_sing"), "{text}");
    let Err(old) = Vm::from_wat(r#"(module (memory (export "memory") 1))"#).start() else { panic!("loaded") };
    assert!(matches!(old, LoadError::Export("proxy_abi_version_0_2_1")), "{old}");
    let Err(absent) = Vm::load("/nowhere/filter.wasm").start() else { panic!("loaded") };
    assert!(absent.to_string().contains("cargo xtask test"), "{absent}");
}

/// What Envoy would accept or answer quietly, and a test must not.
#[test]
fn misuse_is_a_fault_that_names_the_call() {
    let cases = [
        ("(call $log (i32.const 2) (i32.const 0x1ffff) (i32.const 2))", "proxy_log: message: 2 bytes at 0x1ffff"),
        ("(call $log (i32.const 9) (i32.const 0) (i32.const 0))", "proxy_log: log level 9"),
        ("(call $pairs (i32.const 2) (i32.const 0x10) (i32.const 0x14))", "not to be read in this phase"),
        ("(call $pairs (i32.const 0) (i32.const 0) (i32.const 0x14))", "null pointer"),
        ("(call $pairs (i32.const 9) (i32.const 0x10) (i32.const 0x14))", "map type 9"),
        (
            "(call $set_pairs (i32.const 0) (i32.const 0x200) (i32.const 60))",
            "proxy_set_header_map_pairs: header pairs",
        ),
        (
            "(call $buffer (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 0x10) (i32.const 0x14))",
            "no Request body",
        ),
        ("(call $set_property (i32.const 0x110) (i32.const 7) (i32.const 0) (i32.const 0))", "more than one segment"),
        ("(call $resume (i32.const 0))", "not paused"),
        ("(call $ticks (i32.const 5))", "no ticks"),
        ("(call $close_file (i32.const 1))", "fd_close: there are no files"),
        ("(block (result i32) (call $exit (i32.const 3)) (i32.const 0))", "proc_exit: the module exits with 3"),
    ];
    for (call, expected) in cases {
        let body = format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (drop {call}) (i32.const 0))"#
        );
        let result = plugin(&body).stream().try_event(Event::Headers(Direction::Request, headers(GET), true));
        let Err(Fault::Misuse { text, .. }) = result else { panic!("{call}: {result:?}") };
        assert!(text.contains(expected), "{call}: {text}");
    }
    let answer = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 2))"#;
    let result = plugin(answer).stream().try_event(Event::Headers(Direction::Request, headers(GET), true));
    assert!(result.unwrap_err().to_string().contains("neither Continue nor Pause"));
}

#[test]
fn headers_that_went_on_from_the_body_cannot_be_changed() {
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
    assert_eq!(told(&plugin.vm()), ["0"]);
    assert!(result.unwrap_err().to_string().contains("has gone on already"));
}

#[test]
fn events_out_of_order_are_the_tests_fault() {
    let plugin = plugin("");
    let exchange = plugin.stream();
    assert!(exchange.try_event(Event::Body(Direction::Request, Vec::new(), true)).is_err());
    exchange.request_headers(GET, true);
    assert!(exchange.try_event(Event::Headers(Direction::Request, headers(GET), true)).is_err());
    assert!(exchange.try_event(Event::Body(Direction::Request, Vec::new(), true)).is_err());
    exchange.done();
    assert!(exchange.try_event(Event::Headers(Direction::Response, headers(GET), true)).is_err());
}
