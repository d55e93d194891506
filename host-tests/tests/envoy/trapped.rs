//! A VM that failed: its calls are refused, and each has its record, though the filter leaves no facts of it.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Harness, Keys, eventually, required};

/// A module that fails in the request's headers. Envoy's stream id is the header `x-request-id`, which the filter, too, removes.
const TRAP: &str = r#"(module
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-request-id")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 4096)
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $remove (i32.const 0) (i32.const 16) (i32.const 12)))
    unreachable))"#;
const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[test]
fn a_call_whose_module_trapped_has_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let (module, sqlite) = (dir.path().join("trap.wasm"), dir.path().join("audit.db"));
    std::fs::write(&module, wat::parse_str(TRAP).unwrap()).unwrap();
    let arguments = ["--module", module.to_str().unwrap(), "--audit", sqlite.to_str().unwrap()];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);
    // Envoy resets the call whose callback failed, and closes connections until it has a new VM.
    assert_eq!(harness.gateway.answer(GET), "");
    let records = || {
        let mut query = Command::new(required("AUDIT_COLLECTOR_BIN"));
        let output = query.args(["query", "--json", "--kind", "calls", "--sqlite"]).arg(&sqlite).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (!all.is_empty()).then_some(all)
    };
    let records = eventually("a record", records);
    for record in &records {
        assert_eq!((&record["kind"], &record["status"]), (&Value::Null, &503.into()), "{record}");
    }
    assert!(harness.received().is_empty());
}
