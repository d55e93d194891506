//! The files that are rendered are current.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use bedrock_gateway::gateway::Options;
use bedrock_gateway::{installed, istio};

/// Compares, or writes where UPDATE_GOLDEN is set.
fn golden(file: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == rendered, "envoy/{file} is old: run UPDATE_GOLDEN=1 cargo test -p bedrock-gateway --test golden");
}

#[test]
fn the_standalone_file_is_current() {
    golden("standalone.yaml", &installed::standalone_yaml().unwrap());
}

#[test]
fn the_files_for_istio_are_current() {
    for (way, name) in istio::MADE {
        golden(&format!("istio/{name}"), &istio::render(way, &Options::default(), None).unwrap());
    }
}
