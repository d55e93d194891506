//! Role `combined`: the whole gateway in the downstream chain, where no upstream chain can be had.

use std::path::Path;

use bedrock_double::PathFault;

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys};

/// `envoy/standalone.yaml` with the role changed, no relay, and no signer in the clusters.
fn configuration() -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/standalone.yaml")).unwrap();
    let text = text.replace(r#""role": "gateway""#, r#""role": "combined""#);
    let text = text.replace(r#""stream_relay": "bedrock-streams","#, "");
    let (before, rest) = text.split_once("            - name: bedrock.signer").unwrap();
    let (_, after) = rest.split_once("            - name: envoy.filters.http.upstream_codec").unwrap();
    format!("{before}            - name: envoy.filters.http.upstream_codec{after}")
}

#[test]
fn one_role_signs_for_every_path_of_its_region() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("combined.yaml");
    std::fs::write(&config, configuration()).unwrap();
    let arguments = ["--config", config.to_str().unwrap()];
    let harness = Harness::new(Keys::Temporary, &["dx", "vpn"], |double| double, &arguments);
    assert_all_answered(&python("operations", &harness.gateway.http));
    // Its one signature holds on the next path too: Host is the same on both.
    harness.doubles[0].set_fault(PathFault::Refuse);
    assert_all_answered(&python("operations", &harness.gateway.http));
    harness.assert_no_violation();
    assert!(harness.doubles.iter().all(|double| double.requests().iter().any(|request| request.operation.is_some())));
}
