//! Loading and configuring a module.

use proxy_wasm_vm::{LoadError, Vm};

use crate::common::build;

#[test]
fn refuses_modules_that_envoy_would_refuse() {
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
    assert!(absent.to_string().contains("/nowhere/filter.wasm"), "{absent}");
}

#[test]
fn a_module_can_refuse_its_configuration() {
    let vm = build(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (drop (call $buffer (i32.const 7) (i32.const 0) (local.get 1) (i32.const 0x10) (i32.const 0x14)))
             (call $log_bytes)
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
