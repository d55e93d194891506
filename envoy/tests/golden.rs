//! Checks that the generated files are current.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use bedrock_gateway::gateway::Options;
use bedrock_gateway::{installed, istio};

/// Compares the file, and writes it first if UPDATE_GOLDEN is set.
fn golden(file: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == rendered, "envoy/{file} is old: run UPDATE_GOLDEN=1 cargo test -p bedrock-gateway --test golden");
}

#[test]
fn standalone_yaml_is_current() {
    golden("standalone.yaml", &installed::standalone_yaml().unwrap());
}

#[test]
fn generated_istio_files_are_current() {
    for (target, name) in istio::GENERATED {
        golden(&format!("istio/{name}"), &istio::render(target, &Options::default(), None).unwrap());
    }
}
