//! A call of a poll: the relay finds it in the VM's memory, and sends it on as any call.

use crate::credentials::call::Call;
use crate::envoy_names::RELAY_HEADER;
use crate::handoff::{Handoff, to_json};
use crate::headers::Headers;
use crate::names::RegionName;
use crate::operation::Operation;
use crate::route::{RegionChoice, RouteClass};
use crate::step::RelayedCall;

/// SHA-256 of an empty body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A call of a poll.
#[derive(Debug)]
pub struct PollCall {
    /// The call to the relay's cluster. It carries only an id.
    pub call: Call,
    /// What the relay finds under the id.
    pub relayed: RelayedCall,
}

/// What a call of a poll asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) region: &'a RegionName,
    pub(crate) operation: Operation,
    pub(crate) labels: &'a [String],
    /// In canonical form.
    pub(crate) query: &'a str,
}

impl PollCall {
    /// A call with an `id` of its own, over the paths and with the credentials of a class. `cluster` leads to the relay. `None`: the
    /// class has no path.
    pub(crate) fn new(class: &RouteClass, question: Question<'_>, cluster: &str, id: &str) -> Option<Self> {
        let Question { region, operation, labels, query } = question;
        let first = class.first_path(id)?;
        let mut headers = Headers::default();
        headers.push(":method", operation.method().as_str());
        headers.push(":path", operation.path(labels, query));
        headers.push(":authority", operation.service().name());
        headers.push("accept", "application/json");
        headers.push(RELAY_HEADER, id);
        let handoff = Handoff {
            session: None,
            class: class.name().to_owned(),
            only_region: Some(region.clone()),
            operation,
            labels: labels.to_vec(),
            query: query.to_owned(),
            body_sha256: Some(EMPTY_SHA256.to_owned()),
            envoy_hashes: false,
            content_length: None,
            relayed: None,
            profiles: None,
            retention: None,
        };
        let relayed = RelayedCall {
            cluster: class.cluster(operation.service(), first, RegionChoice::Only(region)),
            class: class.name().to_owned(),
            handoff: to_json(&handoff),
        };
        Some(Self { call: Call { cluster: cluster.to_owned(), headers, body: Vec::new() }, relayed })
    }
}
