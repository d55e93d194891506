//! WASI: environment, clocks, randomness, output.

use std::time::{Duration, UNIX_EPOCH};

use crate::common::{GET, build, logged, plugin};

#[test]
fn wasi_gives_environment_and_clock() {
    let vm = build(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (drop (call $env_sizes (i32.const 0x20) (i32.const 0x14)))
             (call $say (i32.load (i32.const 0x20)))
             (drop (call $env (i32.const 0x30) (i32.const 0x400)))
             (i32.store (i32.const 0x10) (i32.load (i32.const 0x30)))
             (call $log_bytes)
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
    assert_eq!(logged(&vm), ["2", "A=1\0BC=\0", "7"]);
}

#[test]
fn the_clock_moves_by_hand_and_random_repeats() {
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
        logged(&vm)
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
fn wasi_output_goes_to_the_log() {
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
