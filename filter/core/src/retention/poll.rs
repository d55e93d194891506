//! A poll: GetAccountDataRetention of a region, then GetProject of its default project and of each that the document lists.

use super::Place;
use super::setting::{DEFAULT_PROJECT, Setting, Settings};
use crate::operation::Operation;
use crate::policy::Policy;
use crate::poll_call::{PollCall, Question};
use crate::route::RouteClass;
use serde::Deserialize;

/// Longest answer that is read, in bytes. A project has a name of 127 characters and few other members.
pub const MAX_BODY: usize = 64 << 10;

/// The operations of a poll.
pub const OPERATIONS: [Operation; 2] = [Operation::GetAccountDataRetention, Operation::GetProject];

/// A poll in progress.
#[derive(Debug)]
pub struct RetentionPoll {
    place: Place,
    /// Absent until the account's mode is read.
    settings: Option<Settings>,
    /// The projects, in order; those before `next` were asked for.
    projects: Vec<String>,
    next: usize,
}

/// Why a poll failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetentionPollError {
    /// No answer in time.
    #[error("{0}: no answer")]
    NoAnswer(Operation),
    /// It was refused.
    #[error("{operation}{of}: answered {status}{hint}", hint = if *.status == 403 {
        format!(" (the credentials need the IAM action {})", operation.iam_action())
    } else {
        String::new()
    })]
    Status {
        /// The operation.
        operation: Operation,
        /// Of which project.
        of: String,
        /// The status.
        status: u16,
    },
    /// The answer is too long.
    #[error("{0}: the answer has {1} bytes, and {MAX_BODY} are read")]
    TooLong(Operation, usize),
    /// The answer is not what AWS documents.
    #[error("{0}: the answer has no data retention mode")]
    Unreadable(Operation),
}

/// botocore 1.44.8, `GetAccountDataRetentionResponse` and `ProjectDataRetention`.
#[derive(Deserialize)]
struct Mode {
    mode: String,
}

/// botocore 1.44.8, `GetProjectResponse`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Project {
    id: String,
    data_retention: Mode,
}

impl RetentionPoll {
    /// A poll of a place.
    pub fn new(place: Place, policy: &Policy) -> Self {
        let listed = policy.retention.as_ref().map_or(&[][..], |rules| rules.projects(&place.region));
        let projects = std::iter::once(DEFAULT_PROJECT.to_owned()).chain(listed.iter().cloned()).collect();
        Self { place, settings: None, projects, next: 0 }
    }

    /// The place.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn operation(&self) -> Operation {
        if self.settings.is_none() { Operation::GetAccountDataRetention } else { Operation::GetProject }
    }

    /// The call that the poll makes next, with an `id` of its own. `None`: the document has no polls of this place.
    pub fn call(&self, id: &str, policy: &Policy) -> Option<PollCall> {
        let rules = policy.retention.as_ref()?;
        let class = class_of(policy, &self.place)?;
        let labels = match self.settings {
            None => Vec::new(),
            Some(_) => vec![self.projects.get(self.next)?.clone()],
        };
        let question = Question { region: &self.place.region, operation: self.operation(), labels: &labels, query: "" };
        PollCall::new(class, question, &rules.cluster, id)
    }

    /// Takes the answer to the last call: its status, and its body or how long that is, if it was not read. Returns what AWS has set if
    /// the poll is over.
    ///
    /// # Errors
    /// [`RetentionPollError`]: the poll failed.
    pub fn answered(
        &mut self,
        answer: Option<(u16, Result<&[u8], usize>)>,
    ) -> Result<Option<Settings>, RetentionPollError> {
        let operation = self.operation();
        let (status, body) = answer.ok_or(RetentionPollError::NoAnswer(operation))?;
        let listed = self.settings.is_some() && self.next > 0;
        let asked = self.projects.get(self.next).filter(|_| self.settings.is_some()).cloned().unwrap_or_default();
        // A region may lack a project that the document lists. All have the default one.
        let missing = status == 404 && listed;
        if status != 200 && !missing {
            let of = if listed { format!(" of {asked}") } else { String::new() };
            return Err(RetentionPollError::Status { operation, of, status });
        }
        let body = body.map_err(|length| RetentionPollError::TooLong(operation, length))?;
        let unreadable = || RetentionPollError::Unreadable(operation);
        let Some(settings) = &mut self.settings else {
            let Mode { mode } = serde_json::from_slice(body).map_err(|_| unreadable())?;
            let account = possible(mode).ok_or_else(unreadable)?;
            self.settings = Some(Settings { account, ..Settings::default() });
            return Ok(None);
        };
        if !missing {
            let Project { id, data_retention } = serde_json::from_slice(body).map_err(|_| unreadable())?;
            let mode = possible(data_retention.mode).filter(|_| id == asked).ok_or_else(unreadable)?;
            settings.projects.insert(id, mode);
        }
        self.next += 1;
        Ok(if self.next < self.projects.len() { None } else { self.settings.take() })
    }
}

fn possible(mode: String) -> Option<String> {
    Setting::is_possible(&mode).then_some(mode)
}

/// The class whose paths the polls of a place take: the first with `retention` there. The settings are the same for all of its source.
pub(crate) fn class_of<'a>(policy: &'a Policy, place: &Place) -> Option<&'a RouteClass> {
    let demands = |class: &&RouteClass| {
        let has_place = class.credentials() == place.source && class.regions().contains(&place.region);
        has_place && class.retention().is_some() && !class.paths().is_empty()
    };
    policy.classes().iter().find(demands)
}
