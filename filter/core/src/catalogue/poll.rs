//! Polls: one worker of an Envoy asks each region what it offers, and shares the answer with all.

use super::lists::{ListError, Lists};
use crate::catalogue::offers::Offers;
use crate::encoding::encode;
use crate::names::RegionName;
use crate::operation::Operation;
use crate::policy::Policy;
use crate::poll_call::{PollCall, Question};
use crate::query;
use crate::route::{RouteClass, Subject};

/// Most pages of a list.
const MAX_PAGES: usize = 16;
/// The most that AWS takes for `maxResults` of ListInferenceProfiles.
const PAGE: usize = 1000;

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

/// Why a poll failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PollError {
    /// No answer in time.
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
        let question = Question { region: &self.region, operation, labels: &[], query: &query };
        PollCall::new(class, question, &rules.cluster, id)
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
    let has_way = |class: &&RouteClass| class.regions().contains(region) && !class.paths().is_empty();
    let of_region = || policy.classes().iter().filter(has_way);
    let takes = |class: &&RouteClass| OPERATIONS.iter().all(|operation| class.matches(subject(*operation)));
    of_region().find(takes).or_else(|| of_region().next())
}
