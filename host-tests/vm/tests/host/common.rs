//! Small modules, written as text.

use proxy_wasm_vm::{Plugin, Vm, VmBuilder};

/// Imports every host function that the modules need, and exports an allocator.
///
/// Calls that return bytes put a pointer at 0x10 and a size at 0x14. `$say` logs a status as a digit; `$log_bytes` logs
/// the bytes that the last call returned.
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
(func $log_bytes (drop (call $log (i32.const 2) (i32.load (i32.const 0x10)) (i32.load (i32.const 0x14)))))
(data (i32.const 0x100) "x-a")
(data (i32.const 0x108) "one")
(data (i32.const 0x110) "node\00id")
(data (i32.const 0x118) "note")
(data (i32.const 0x120) "cluster")
(data (i32.const 0x200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00"
  ":method\00GET\00:path\00/\00:authority\00h\00")
"#;

pub(crate) const GET: [(&str, &str); 2] = [(":method", "GET"), (":path", "/")];

pub(crate) fn build(body: &str) -> VmBuilder {
    Vm::from_wat(&format!("(module {PRELUDE} {body})"))
}

pub(crate) fn plugin(body: &str) -> Plugin {
    build(body).start().unwrap().plugin("test").allow_on_headers_stop_iteration(true).configure("").unwrap()
}

pub(crate) fn logged(vm: &Vm) -> Vec<String> {
    vm.logs().into_iter().map(|line| line.text).collect()
}
