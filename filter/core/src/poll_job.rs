//! A poll of any kind, for the shell that makes its calls.

use crate::catalogue::lists;
use crate::catalogue::poll::Poll;
use crate::catalogue::{self, CatalogueStore};
use crate::metrics::{Sample, catalogue_polled, retention_polled};
use crate::policy::Policy;
use crate::poll_call::PollCall;
use crate::polls::Task;
use crate::region::Region;
use crate::retention::poll::{self as retention_poll, RetentionPoll};
use std::time::{Duration, SystemTime};

/// A poll.
#[derive(Debug)]
pub enum PollJob {
    /// Of a region's lists.
    Catalogue(Poll),
    /// Of a region's data retention.
    Retention(RetentionPoll),
}

impl PollJob {
    /// All that a document asks for.
    pub fn all(policy: &Policy) -> Vec<Self> {
        let mut all = Vec::new();
        if policy.catalogue.as_ref().is_some_and(|rules| rules.refresh.is_some()) {
            all.extend(policy.regions().map(Region::name).cloned().map(|region| Self::Catalogue(Poll::new(region))));
        }
        if let Some(rules) = &policy.retention {
            all.extend(rules.places().cloned().map(|place| Self::Retention(RetentionPoll::new(place, policy))));
        }
        all
    }

    /// Its part in shared data. `None`: the document has no such polls.
    pub fn task(&self, policy: &Policy) -> Option<Task> {
        match self {
            Self::Catalogue(poll) => Some(catalogue::task(poll.region(), policy.catalogue.as_ref()?.refresh?)),
            Self::Retention(poll) => Some(poll.place().task(policy.retention.as_ref()?.refresh)),
        }
    }

    /// The source of the credentials that its calls are signed with.
    pub fn source<'a>(&'a self, policy: &'a Policy) -> Option<&'a str> {
        match self {
            Self::Catalogue(poll) => Some(catalogue::poll::class_of(policy, poll.region())?.credentials()),
            Self::Retention(poll) => Some(retention_poll::class_of(policy, poll.place())?.credentials()),
        }
    }

    /// Longest answer that is read, in bytes.
    pub fn max_body(&self) -> usize {
        match self {
            Self::Catalogue(_) => lists::MAX_BODY,
            Self::Retention(_) => retention_poll::MAX_BODY,
        }
    }

    /// The call that it makes next, with an `id` of its own. `None`: no class has a path for it.
    pub fn call(&self, id: &str, policy: &Policy) -> Option<PollCall> {
        match self {
            Self::Catalogue(poll) => poll.call(id, policy),
            Self::Retention(poll) => poll.call(id, policy),
        }
    }

    /// Takes the answer to the last call: its status, and its body or how long that is, if it was not read. Returns what is to be
    /// shared if the poll is over.
    ///
    /// # Errors
    /// What is wrong with the answer. The poll failed.
    pub fn answered(&mut self, answer: Option<(u16, Result<&[u8], usize>)>) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Catalogue(poll) => {
                let offers = poll.answered(answer).map_err(|error| error.to_string())?;
                Ok(offers.map(|offers| offers.as_bytes().to_vec()))
            }
            Self::Retention(poll) => {
                let settings = poll.answered(answer).map_err(|error| error.to_string())?;
                Ok(settings.map(|settings| settings.write()))
            }
        }
    }

    /// The time that what it read is of, at least: lists are of its end, but a setting may change after it was read.
    pub fn read_at(&self, begun: SystemTime, now: SystemTime) -> SystemTime {
        match self {
            Self::Catalogue(_) => now,
            Self::Retention(_) => begun,
        }
    }

    /// What its end adds to the metrics.
    pub fn ended(&self, success: bool) -> Sample {
        match self {
            Self::Catalogue(poll) => catalogue_polled(poll.region().as_str(), success),
            Self::Retention(poll) => retention_polled(&poll.place().source, poll.place().region.as_str(), success),
        }
    }

    /// The age of what was read before.
    pub fn age(&self, known: &CatalogueStore, now: SystemTime) -> Option<Duration> {
        match self {
            Self::Catalogue(poll) => known.age(poll.region(), now),
            Self::Retention(poll) => known.retention.age(poll.place(), now),
        }
    }

    /// What it reads, for a log.
    pub fn subject(&self) -> String {
        match self {
            Self::Catalogue(poll) => format!("the lists of {}", poll.region()),
            Self::Retention(poll) => {
                format!("the data retention modes of {} (credentials `{}`)", poll.place().region, poll.place().source)
            }
        }
    }

    /// What follows from a failure, for a log. `age`: of what was read before.
    pub fn fallback(&self, age: Option<Duration>) -> String {
        match (self, age) {
            (_, None) => "there is nothing yet".to_owned(),
            (Self::Catalogue(_), Some(age)) => format!("the list of {} s ago stays in use", age.as_secs()),
            (Self::Retention(_), Some(age)) => {
                format!(
                    "what was set {} s ago counts until it is too old (`data_retention.max_age_seconds`)",
                    age.as_secs()
                )
            }
        }
    }
}
