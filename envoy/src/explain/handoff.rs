//! What the gateway role hands to the signer, read from core's JSON.

use filter_core::names::RegionName;
use filter_core::operation::Operation;
use serde::Deserialize;

/// The regions that have the data retention that the class demands.
#[derive(Debug, Deserialize)]
pub(super) struct Admitted {
    pub(super) regions: Vec<RegionName>,
}

/// The keys of [`filter_core::handoff::Handoff`] that `explain` shows.
#[derive(Debug, Deserialize)]
pub(super) struct Handoff {
    pub(super) class: String,
    /// Absent if every region of the class may serve the call.
    pub(super) only_region: Option<RegionName>,
    /// Absent if the class demands nothing of the regions' data retention.
    pub(super) retention: Option<Admitted>,
    pub(super) operation: Operation,
    pub(super) labels: Vec<String>,
    /// In hexadecimal; absent if the call is not signed, or if Envoy hashes its body.
    pub(super) body_sha256: Option<String>,
    #[serde(default)]
    pub(super) envoy_hashes: bool,
}
