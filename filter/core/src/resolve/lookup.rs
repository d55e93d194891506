//! A lookup: the calls by which Bedrock says what a resource runs.

use super::answer;
pub use super::answer::MAX_BODY;
use super::kind::{Steps, Unresolvable};
use super::rules::MAX_MODELS;
use super::table::{Answer, Outcome, Problem, Want};
use crate::names::RegionName;
use crate::operation::{Operation, arn_region};
use crate::policy::Policy;
use crate::poll_call::{PollCall, Question};
use crate::route::{RouteClass, Subject};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How long one call of a lookup may take, with all its attempts.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// Most calls of a lookup. A deployment takes two: itself and its custom model.
const MAX_CALLS: usize = 8;

/// What a lookup has found, or why it has failed.
type Found = Result<Answer, Problem>;

/// A lookup in progress.
#[derive(Debug)]
pub struct Lookup {
    want: Want,
    /// The next calls; the first is under way.
    todo: VecDeque<(Operation, String)>,
    models: BTreeSet<String>,
    /// Resources that were asked about.
    known: BTreeSet<String>,
    calls: usize,
    /// Whether any call found the resource.
    found: bool,
    /// The last refusal of a kind that the id may not be of.
    not_found: Option<Problem>,
    /// How many sources of credentials have not found it, and what they got.
    tried: usize,
    missed: Option<Found>,
}

impl Lookup {
    /// A lookup of a resource.
    pub fn new(want: Want) -> Self {
        let steps = Steps::of(&want.id).ok();
        let todo = steps.iter().flat_map(Steps::operations).map(|operation| (*operation, want.id.clone())).collect();
        Self {
            known: BTreeSet::from([want.id.clone()]),
            want,
            todo,
            models: BTreeSet::new(),
            calls: 0,
            found: false,
            not_found: None,
            tried: 0,
            missed: None,
        }
    }

    /// What it looks for.
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// The call that the lookup makes next, with an `id` of its own. `None`: the document has no class for it.
    pub fn call(&self, id: &str, policy: &Policy) -> Option<PollCall> {
        let rules = policy.resolve.as_ref()?;
        let (operation, resource) = self.todo.front()?;
        let class = class_of(policy, self.want.sources().nth(self.tried)?, &self.want.region, *operation)?;
        let labels = std::slice::from_ref(resource);
        let question = Question { region: &self.want.region, operation: *operation, labels, query: "" };
        PollCall::new(class, question, &rules.cluster, id)
    }

    /// Takes the answer to the last call: its status, and its body or how long that is, if it was not read. `None`: the lookup makes
    /// another call.
    pub fn answered(&mut self, answer: Option<(u16, Result<&[u8], usize>)>) -> Option<Outcome> {
        let (operation, resource) = self.todo.pop_front()?;
        self.calls += 1;
        let found = match self.read(operation, &resource, answer) {
            Ok(()) if self.todo.is_empty() => self.end(),
            Ok(()) => return None,
            Err(found) => found,
        };
        let missed = !self.found
            && match &found {
                Ok(Answer::Refused(problem)) => matches!(problem.status, 400 | 403 | 404),
                Ok(Answer::Runs(_)) => false,
                Err(_) => true,
            };
        if !missed {
            return Some(Outcome(found));
        }
        let missed = match self.missed.take() {
            Some(before) => both(before, found),
            None => found,
        };
        let tried = self.tried + 1;
        if self.want.sources().nth(tried).is_none() {
            return Some(Outcome(missed));
        }
        *self = Self { tried, missed: Some(missed), ..Self::new(self.want.clone()) };
        None
    }

    /// A lookup that could not be made.
    pub fn failed(&self, problem: &str) -> Outcome {
        Outcome(Err(Problem { status: 503, text: problem.to_owned() }))
    }

    fn end(&mut self) -> Found {
        if let Some(problem) = self.not_found.take().filter(|_| !self.found) {
            return Ok(Answer::Refused(problem));
        }
        // Resources that lead to one another, and to no model.
        if self.models.is_empty() {
            return Ok(Answer::Refused(Problem::new(0, "it leads to no model")));
        }
        Ok(Answer::Runs(std::mem::take(&mut self.models).into_iter().collect()))
    }

    /// Takes an answer. `Err`: the lookup is over.
    fn read(
        &mut self,
        operation: Operation,
        resource: &str,
        answer: Option<(u16, Result<&[u8], usize>)>,
    ) -> Result<(), Found> {
        let failed = |text: String| Err(Err(Problem { status: 503, text }));
        let refused = |status: u16, text: String| Err(Ok(Answer::Refused(Problem { status, text })));
        let Some((status, body)) = answer else {
            return failed(format!("{operation} was not answered"));
        };
        match status {
            200 => {}
            // Another kind may have this name.
            400 | 404 if self.known.len() == 1 && (self.found || !self.todo.is_empty() || self.not_found.is_some()) => {
                let text = format!("{operation} answered {status}");
                self.not_found = Some(match self.not_found.take() {
                    Some(first) => {
                        Problem { status: first.status.max(status), text: format!("{}, {text}", first.text) }
                    }
                    None => Problem { status, text },
                });
                return Ok(());
            }
            400 | 404 => return refused(status, format!("{operation} answered {status}")),
            403 => {
                let action = operation.iam_action();
                return refused(403, format!("{operation} answered 403: the gateway's credentials may lack {action}"));
            }
            other => return failed(format!("{operation} answered {other}")),
        }
        let body = match body {
            Ok(body) => body,
            Err(length) => return failed(format!("{operation}: {}", answer::AnswerError::TooLong(length))),
        };
        let named = match answer::read(operation, body) {
            Ok(named) => named,
            // A truncated answer may be whole the next time.
            Err(error @ (answer::AnswerError::Form { .. } | answer::AnswerError::TooLong(_))) => {
                return failed(format!("{operation}: {error}"));
            }
            Err(error) => return refused(0, format!("{operation}: {error}")),
        };
        self.found = true;
        self.models.extend(named.models);
        for next in named.resources {
            if !self.known.insert(next.clone()) {
                continue;
            }
            let steps = Steps::of(&next).and_then(|steps| match arn_region(&next) {
                Some(region) if region == self.want.region.as_str() => Ok(steps),
                _ => Err(Unresolvable::Unknown),
            });
            match steps {
                Ok(steps) => self.todo.extend(steps.operations().iter().map(|operation| (*operation, next.clone()))),
                Err(problem) => return refused(0, format!("{resource} runs '{next}': {problem}")),
            }
        }
        if self.calls + self.todo.len() > MAX_CALLS || self.models.len() > MAX_MODELS {
            return refused(
                0,
                format!("it runs more than {MAX_MODELS} models, or leads through more than {MAX_CALLS} resources"),
            );
        }
        Ok(())
    }
}

/// What two sources of credentials got that did not find a resource.
fn both(first: Found, second: Found) -> Found {
    let (Ok(Answer::Refused(one)) | Err(one), Ok(Answer::Refused(other)) | Err(other)) = (&first, &second) else {
        return second;
    };
    let text = format!("{}; with other credentials: {}", one.text, other.text);
    // Without an answer of one, the resource may be in its account.
    if first.is_err() || second.is_err() {
        return Err(Problem { status: 503, text });
    }
    let forbidden = one.status == 403 || other.status == 403;
    Ok(Answer::Refused(Problem { status: if forbidden { 403 } else { one.status.max(other.status) }, text }))
}

/// Whether a lookup can be made by this policy. In a change of the document, it may be for the other one.
pub fn serves(policy: &Policy, want: &Want) -> bool {
    digest(policy, want.sources()) == want.digest
        && want.sources().all(|source| class_of(policy, source, &want.region, Operation::GetInferenceProfile).is_some())
}

fn digest<'a>(policy: &Policy, sources: impl Iterator<Item = &'a str>) -> [u8; 8] {
    let mut hasher = Sha256::new();
    for source in sources {
        hasher.update((source.len() as u64).to_le_bytes());
        hasher.update(source.as_bytes());
        hasher.update(policy.credential_sources.digest(source).unwrap_or_default());
    }
    hasher.finalize().first_chunk().copied().unwrap_or_default()
}

/// The class whose paths and credentials a lookup takes: of those with the credentials and the region, the first that takes such a
/// call of a caller without a name, else the first.
fn class_of<'a>(policy: &'a Policy, source: &str, region: &RegionName, operation: Operation) -> Option<&'a RouteClass> {
    let subject = Subject { operation, model: None, principal: None, body_bytes: Some(0) };
    let own = || {
        let classes = policy.classes().iter();
        classes.filter(|class| class.credentials() == source && class.regions().contains(region))
    };
    own().find(|class| class.matches(subject)).or_else(|| own().next())
}

/// How an id that does not name its model is looked up for a call, by the classes that take it, whatever its model unless that is
/// certain: an ARN in its region, with the credentials of each class that has the region; an id without an ARN in the first region of
/// the first class, with its credentials. `Err`: the ARN's region is not one of the document's, or of these classes. `Ok(None)`: no
/// class takes the call.
pub(crate) fn want_of(policy: &Policy, subject: Subject<'_>, id: &str) -> Result<Option<Want>, String> {
    let certain = subject.model.is_some_and(|model| !policy.classes_ask(model));
    let classes: Vec<&RouteClass> = if certain {
        policy.route_class(subject).into_iter().collect()
    } else {
        policy.classes().iter().filter(|class| class.matches_whatever_model(subject)).collect()
    };
    let want = |sources: &[&str], region: &RegionName| {
        let (source, others) = sources.split_first()?;
        Some(Want {
            id: id.to_owned(),
            region: region.clone(),
            source: (*source).to_owned(),
            others: others.iter().map(|source| (*source).to_owned()).collect(),
            digest: digest(policy, sources.iter().copied()),
        })
    };
    let Some(first) = classes.first() else { return Ok(None) };
    let Some(name) = arn_region(id) else {
        return Ok(first.regions().first().and_then(|region| want(&[first.credentials()], region)));
    };
    let Some(region) = policy.region(name).map(crate::region::Region::name) else {
        return Err(format!("its region {name} is not one of the gateway's"));
    };
    let mut sources: Vec<&str> = Vec::new();
    for class in classes.iter().filter(|class| class.regions().contains(region)) {
        if !sources.contains(&class.credentials()) {
            sources.push(class.credentials());
        }
    }
    want(&sources, region).map(Some).ok_or_else(|| format!("no route class of the caller has its region {name}"))
}
