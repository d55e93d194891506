//! Finds the example in the crate's source.

use std::process::Command;

fn main() {
    let cargo = std::env::var_os("CARGO").expect("Cargo sets CARGO");
    let arguments = ["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform=wasm32-wasip1"];
    let output = Command::new(cargo).args(arguments).output().expect("cargo metadata runs");
    let text = String::from_utf8(output.stdout).expect("cargo metadata prints UTF-8");
    let (before, _) = text.split_once("/proxy-wasm-0.2.0/Cargo.toml\"").expect("proxy-wasm 0.2.0 is a dependency");
    let (_, registry) = before.rsplit_once('"').expect("the path is a JSON string");
    println!("cargo::rustc-env=EXAMPLE={registry}/proxy-wasm-0.2.0/examples/http_auth_random.rs");
    println!("cargo::rerun-if-changed=build.rs");
}
