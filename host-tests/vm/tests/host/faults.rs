//! Faults: what ends a VM, and how the error names it.

use proxy_wasm_vm::{Direction, Event, Fault, headers};

use crate::common::{GET, build, logged, plugin};

#[test]
fn a_trap_ends_the_vm_and_names_the_callback() {
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
fn limits_and_measures_memory() {
    let grow = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (call $say (i32.eq (memory.grow (i32.const 10)) (i32.const -1))) (i32.const 0))"#;
    for (limit, refused, pages) in [(12, "0", 12), (11, "1", 2)] {
        let vm = build(grow).memory_limit(limit << 16).start().unwrap();
        let plugin = vm.plugin("test").configure("").unwrap();
        assert_eq!(vm.memory_pages(), 2);
        plugin.stream().request_headers(GET, true);
        assert_eq!(logged(&vm), [refused]);
        assert_eq!(vm.memory_pages(), pages);
        assert_eq!(vm.memory().len() as u64, pages << 16);
    }
}

/// What Envoy would accept or answer quietly, and a test must not.
#[test]
fn misuse_is_a_fault_that_names_the_call() {
    let cases = [
        ("(call $log (i32.const 2) (i32.const 0x1ffff) (i32.const 2))", "proxy_log: message: 2 bytes at 0x1ffff"),
        ("(call $log (i32.const 9) (i32.const 0) (i32.const 0))", "proxy_log: log level 9"),
        ("(call $pairs (i32.const 2) (i32.const 0x10) (i32.const 0x14))", "cannot be read in this phase"),
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
        ("(call $close_file (i32.const 1))", "fd_close: files are not supported"),
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
fn refuses_events_out_of_order() {
    let plugin = plugin("");
    let exchange = plugin.stream();
    assert!(exchange.try_event(Event::Body(Direction::Request, Vec::new(), true)).is_err());
    exchange.request_headers(GET, true);
    assert!(exchange.try_event(Event::Headers(Direction::Request, headers(GET), true)).is_err());
    assert!(exchange.try_event(Event::Body(Direction::Request, Vec::new(), true)).is_err());
    exchange.done();
    assert!(exchange.try_event(Event::Headers(Direction::Response, headers(GET), true)).is_err());
}
