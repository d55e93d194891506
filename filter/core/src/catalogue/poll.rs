//! Polls: one worker of an Envoy asks each region what it offers, and shares the answer with all.

use super::lists::{ListError, Lists};
use super::{GENERATION, lists_key, work_key};
use crate::catalogue::offers::Offers;
use crate::credentials::call::Call;
use crate::encoding::encode;
use crate::envoy_names::RELAY_HEADER;
use crate::handoff::{Handoff, to_json};
use crate::headers::Headers;
use crate::lease::{Handover, Lease};
use crate::names::RegionName;
use crate::operation::Operation;
use crate::policy::{CatalogueRules, Policy};
use crate::query;
use crate::route::{RegionChoice, RouteClass, Subject};
use crate::shared::{Shared, millis, update};
use crate::step::RelayedCall;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// How long one call of a poll may take, with all its attempts.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lease lasts: longer than one call.
const LEASE_MS: u64 = 12_000;
/// The first wait after a failure. The longest is the time between two polls.
const FIRST_WAIT_MS: u64 = 1000;
/// Most pages of a list.
const MAX_PAGES: usize = 16;
/// The most that AWS takes for `maxResults` of ListInferenceProfiles.
const PAGE: usize = 1000;
/// SHA-256 of an empty body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The operations of a poll.
pub const OPERATIONS: [Operation; 2] = [Operation::ListFoundationModels, Operation::ListInferenceProfiles];

/// A poll in progress.
#[derive(Debug)]
pub struct Poll {
    region: RegionName,
    /// What was read; absent until the models are.
    lists: Option<Lists>,
    /// The token of the page that is asked for.
    token: Option<String>,
    /// Pages read.
    pages: usize,
}

/// A call of a poll.
#[derive(Debug)]
pub struct PollCall {
    /// The call to the relay's cluster. It carries only an id.
    pub call: Call,
    /// What the relay finds under the id.
    pub relayed: RelayedCall,
}

/// Why a poll failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PollError {
    /// The relay's cluster does not lead to the relay, or not on this thread.
    #[error("this thread does not reach the gateway's relay by the cluster that `catalogue.cluster` names")]
    NotReached,
    /// No answer within [`CALL_TIMEOUT`].
    #[error("{0}: no answer")]
    NoAnswer(Operation),
    /// It was refused.
    #[error("{operation}: answered {status}{}", hint(*status, *operation))]
    Status {
        /// The operation.
        operation: Operation,
        /// The status.
        status: u16,
    },
    /// The answer cannot be used.
    #[error("{operation}: {problem}")]
    List {
        /// The operation.
        operation: Operation,
        /// What is wrong with it.
        problem: ListError,
    },
    /// The pages do not end.
    #[error("ListInferenceProfiles: the list does not end within {MAX_PAGES} pages, or a page leads to itself")]
    Pages,
}

fn hint(status: u16, operation: Operation) -> String {
    if status == 403 {
        format!(" (the credentials need the IAM action {})", operation.iam_action())
    } else {
        String::new()
    }
}

/// This worker's part in the polls.
#[derive(Debug)]
pub struct Polls {
    worker: u64,
    handovers: RefCell<BTreeMap<RegionName, Rc<Handover>>>,
}

/// When a region was polled, and which worker does.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Work {
    #[serde(flatten)]
    lease: Lease,
    /// The last success, in milliseconds since 1970; 0: none.
    pub(super) polled_at: u64,
}

// === impl Poll ===

impl Poll {
    /// A poll of a region.
    pub fn new(region: RegionName) -> Self {
        Self { region, lists: None, token: None, pages: 0 }
    }

    /// The region.
    pub fn region(&self) -> &RegionName {
        &self.region
    }

    fn operation(&self) -> Operation {
        if self.lists.is_none() { Operation::ListFoundationModels } else { Operation::ListInferenceProfiles }
    }

    fn query(&self) -> String {
        if self.lists.is_none() {
            return String::new();
        }
        let token = self.token.as_ref().map(|token| format!("&nextToken={}", encode(token))).unwrap_or_default();
        let query = format!("maxResults={PAGE}{token}&type=SYSTEM_DEFINED");
        // Its names are the operation's, and the token's length was checked.
        query::canonical(&query, self.operation().parameters()).unwrap_or_default()
    }

    /// The call that the poll makes next, with an `id` of its own. `None`: the document has no polls of this region.
    pub fn call(&self, id: &str, policy: &Policy) -> Option<PollCall> {
        let rules = policy.catalogue.as_ref()?;
        let class = class_of(policy, &self.region)?;
        let (operation, query) = (self.operation(), self.query());
        let first = class.first_path(id)?;
        let cluster = class.cluster(operation.service(), first, RegionChoice::Only(&self.region));
        let mut headers = Headers::default();
        headers.push(":method", operation.method().as_str());
        headers.push(":path", operation.path(&[], &query));
        headers.push(":authority", operation.service().name());
        headers.push("accept", "application/json");
        headers.push(RELAY_HEADER, id);
        let handoff = Handoff {
            session: None,
            class: class.name().to_owned(),
            only_region: Some(self.region.clone()),
            operation,
            labels: Vec::new(),
            query,
            body_sha256: Some(EMPTY_SHA256.to_owned()),
            content_length: None,
            relayed: None,
            profiles: None,
        };
        let relayed = RelayedCall { cluster, class: class.name().to_owned(), handoff: to_json(&handoff) };
        let call = Call { cluster: rules.cluster.clone(), headers, body: Vec::new() };
        Some(PollCall { call, relayed })
    }

    /// Takes the answer to the last call: its status, and its body or how long that is, if it was not read. Returns what the region
    /// offers if the poll is over.
    ///
    /// # Errors
    /// [`PollError`]: the poll failed.
    pub fn answered(&mut self, answer: Option<(u16, Result<&[u8], usize>)>) -> Result<Option<Offers>, PollError> {
        let operation = self.operation();
        let (status, body) = answer.ok_or(PollError::NoAnswer(operation))?;
        if status != 200 {
            return Err(PollError::Status { operation, status });
        }
        let list = |problem| PollError::List { operation, problem };
        let body = body.map_err(|length| list(ListError::TooLong(length)))?;
        let Some(lists) = &mut self.lists else {
            self.lists = Some(Lists::of_models(body).map_err(list)?);
            return Ok(None);
        };
        let next = lists.add_profiles(body).map_err(list)?;
        self.pages += 1;
        if next.is_none() {
            let lists = self.lists.take().unwrap_or_default();
            return if lists.lacks_profiles() { Err(list(ListError::Empty)) } else { Ok(Some(lists.offers())) };
        }
        if self.pages >= MAX_PAGES || next == self.token {
            return Err(PollError::Pages);
        }
        self.token = next;
        Ok(None)
    }
}

/// The class whose paths and credentials the polls of a region take: the first that takes such calls of a caller without a name,
/// else the first of the region. The lists are the same for all.
pub fn class_of<'a>(policy: &'a Policy, region: &RegionName) -> Option<&'a RouteClass> {
    let subject = |operation| Subject { operation, model: None, principal: None, body_bytes: Some(0) };
    let of_region = || policy.classes().iter().filter(|class| class.regions().contains(region));
    let takes = |class: &&RouteClass| OPERATIONS.iter().all(|operation| class.matches(subject(*operation)));
    of_region().find(takes).or_else(|| of_region().next())
}

fn refresh_ms(rules: &CatalogueRules) -> Option<u64> {
    rules.refresh.map(|refresh| u64::try_from(refresh.as_millis()).unwrap_or(u64::MAX))
}

// === impl Polls ===

impl Polls {
    /// The part of a worker, whose number differs from that of any other.
    pub fn new(worker: u64) -> Self {
        Self { worker, handovers: RefCell::default() }
    }

    fn handover(&self, region: &RegionName) -> Rc<Handover> {
        Rc::clone(self.handovers.borrow_mut().entry(region.clone()).or_default())
    }

    /// Whether this worker is to poll a region now. It holds the lease then, until the poll is over.
    pub fn due(&self, region: &RegionName, rules: &CatalogueRules, shared: &dyn Shared, now: SystemTime) -> bool {
        let now = millis(now);
        let Some(refresh) = refresh_ms(rules) else { return false };
        // A clock that was set back counts as late.
        let due = |work: Work| {
            let late = now < work.polled_at || now >= work.polled_at.saturating_add(refresh);
            late && work.lease.is_free(now)
        };
        // The common case, which writes nothing.
        if !due(Work::of(region, shared)) {
            self.handover(region).rest();
            return false;
        }
        if self.handover(region).waits(now) {
            return false;
        }
        let claim = |value: Option<&[u8]>| {
            let work = Work::read(value);
            if !due(work) {
                return (None, false);
            }
            (Some(Work { lease: work.lease.taken(self.worker, now, LEASE_MS), ..work }.write()), true)
        };
        update(shared, &work_key(region), claim).unwrap_or(false)
    }

    /// Extends the lease for one more call.
    pub fn extend(&self, region: &RegionName, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        self.change(region, shared, |work| Work { lease: work.lease.extended(now, LEASE_MS), ..work });
    }

    /// Shares what a region offers.
    pub fn publish(&self, region: &RegionName, offers: &Offers, shared: &dyn Shared, now: SystemTime) {
        // A worker that was held up for long may have been overtaken.
        if !Work::of(region, shared).lease.is_of(self.worker) {
            return;
        }
        let key = lists_key(region);
        if shared.get(&key).is_none_or(|(known, _)| known != offers.as_bytes()) {
            shared.set(&key, offers.as_bytes(), None);
            let count = |value: Option<&[u8]>| (Some(super::next_generation(value)), ());
            // If other workers win every race, theirs is new too.
            let _ = update(shared, GENERATION, count);
        }
        let polled_at = millis(now);
        self.change(region, shared, |work| Work { lease: work.lease.succeeded(), polled_at });
    }

    /// Leaves a poll to another worker, if that may reach what this one does not: Envoy's main thread has a VM, too, and cannot
    /// connect to an internal listener (`source/extensions/bootstrap/internal_listener`). `false`: the poll has failed.
    pub fn hand_over(&self, region: &RegionName, shared: &dyn Shared) -> bool {
        if !self.handover(region).begin() {
            return false;
        }
        self.change(region, shared, |work| Work { lease: work.lease.released(), ..work });
        true
    }

    /// Ends a poll that failed. What was read before stays.
    pub fn failed(&self, region: &RegionName, rules: &CatalogueRules, shared: &dyn Shared, now: SystemTime) {
        let longest = refresh_ms(rules).unwrap_or(FIRST_WAIT_MS);
        let now = millis(now);
        self.change(region, shared, |work| Work { lease: work.lease.failed(now, (FIRST_WAIT_MS, longest)), ..work });
    }

    /// Changes the work, if this worker still holds its lease.
    fn change(&self, region: &RegionName, shared: &dyn Shared, change: impl Fn(Work) -> Work) {
        let end = |value: Option<&[u8]>| {
            let work = Work::read(value);
            (work.lease.is_of(self.worker).then(|| change(work).write()), ())
        };
        let _ = update(shared, &work_key(region), end);
    }
}

// === impl Work ===

impl Work {
    pub(super) fn of(region: &RegionName, shared: &dyn Shared) -> Self {
        Self::read(shared.get(&work_key(region)).map(|(value, _)| value).as_deref())
    }

    fn read(value: Option<&[u8]>) -> Self {
        value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
    }

    fn write(self) -> Vec<u8> {
        // A struct of numbers: serialising it cannot fail.
        serde_json::to_vec(&self).unwrap_or_default()
    }
}
