//! Role `combined`: the whole gateway in the downstream chain, where Envoy has no upstream filter chain.

use bedrock_double::PathFault;

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys, base};

#[test]
fn one_role_signs_for_every_path_of_its_region() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path(), r#"{"role": "gateway"}"#, r#"{"role": "combined"}"#);
    let arguments = ["--base", &base];
    let harness = Harness::new(Keys::Temporary, &["dx", "vpn"], |double| double, &arguments);
    assert_all_answered(&python("operations", &harness.gateway.http));
    // Its one signature holds on the next path too: Host is the same on both.
    harness.doubles[0].set_fault(PathFault::Refuse);
    assert_all_answered(&python("converse", &harness.gateway.http));
    harness.assert_no_violation();
    assert!(harness.doubles.iter().all(|double| double.requests().iter().any(|request| request.operation.is_some())));
}
