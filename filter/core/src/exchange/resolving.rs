//! A call whose model is known only when Bedrock has said what a resource runs. It is held until then, and begins again.

use super::lambda::Caller;
use super::{Exchange, State};
use crate::caller::Address;
use crate::headers::Headers;
use crate::model::{is_name, is_resolved};
use crate::operation::Call;
use crate::pins::Pins;
use crate::policy::Dependence;
use crate::reply::Refusal;
use crate::resolve::asked::{Status, WAIT};
use crate::resolve::kind::Steps;
use crate::resolve::lookup::want_of;
use crate::resolve::table::{Problem, Want};
use crate::route::{RouteClass, Subject};
use crate::step::{Context, RequestStep};
use std::time::SystemTime;

/// What a call has learnt of the resource that it names.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    /// What it runs.
    pub(super) runs: Option<Vec<String>>,
    /// Where it was looked up.
    want: Option<Want>,
    /// Since when the call waits.
    since: Option<SystemTime>,
    /// Why nothing is known, if the rules decide all the same.
    unknown: Option<Refusal>,
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    headers: Headers,
    caller: Caller,
    want: Want,
    /// Whether the body has ended.
    pub(super) complete: bool,
}

/// What a call gets to know.
enum Looked {
    /// What the resource runs, and where it was looked up; nowhere if the document says it.
    Known(Vec<String>, Option<Want>),
    /// Nothing, and the rules decide.
    Unknown(Refusal),
    /// Nothing yet.
    Wait(Want),
}

/// The call's headers, the client's address, and whether the call has no body.
pub(super) type Whole<'a> = (&'a Headers, Option<Address>, bool);

impl Resolution {
    /// The refusal of a call that the rules refuse because nothing is known of its model.
    pub(super) fn take_unknown(&mut self) -> Option<Refusal> {
        self.unknown.take()
    }

    /// Whether the call has waited. Then its body is held, whatever else would be done with it.
    pub(super) fn has_waited(&self) -> bool {
        self.since.is_some()
    }
}

impl Exchange {
    /// Finds out what the call's model runs, if its id does not say that and something depends on it. Returns a step if the call has
    /// to wait.
    pub(super) fn look_up(
        &mut self,
        call: &Call,
        (headers, address, end_of_stream): Whole<'_>,
        body_bytes: Option<u64>,
        context: Context<'_>,
    ) -> Result<Option<RequestStep>, Refusal> {
        let policy = context.policy;
        let asked = call.model().filter(|id| policy.resolve.is_some() && !is_resolved(id));
        let Some(id) = asked else { return Ok(None) };
        let Some(dependence) = policy.depends_on(id) else { return Ok(None) };
        self.judge_caller(call.operation, context)?;
        let principal = self.facts.principal.as_deref();
        let subject = Subject { operation: call.operation, model: Some(id), principal, body_bytes };
        let want = match self.ask(id, dependence, subject, address, context)? {
            Looked::Known(runs, want) => {
                self.facts.resolved_models = Some(runs.join(","));
                policy.check_model(id, Some(&runs))?;
                (self.resolution.runs, self.resolution.want) = (Some(runs), want);
                return Ok(None);
            }
            Looked::Unknown(refusal) => {
                self.resolution.unknown = Some(refusal);
                return Ok(None);
            }
            Looked::Wait(want) => want,
        };
        let limit = policy.max_body_bytes;
        if body_bytes.is_some_and(|length| length > limit) {
            let refusal = Refusal::BodyTooLong { limit };
            self.state = State::Discarding { refusal, length: 0, until: None, dropped: true };
            return self.pass(end_of_stream).map(Some);
        }
        self.resolution.since.get_or_insert(context.now);
        let caller = (Ok(self.facts.principal.clone()), Ok(self.groups.clone()), address);
        let waiting = Waiting { headers: headers.clone(), caller, want, complete: end_of_stream };
        self.state = State::Resolving { waiting: Box::new(waiting), length: 0 };
        Ok(Some(RequestStep::AwaitResolution))
    }

    fn ask(
        &self,
        id: &str,
        dependence: Dependence,
        subject: Subject<'_>,
        address: Option<Address>,
        context: Context<'_>,
    ) -> Result<Looked, Refusal> {
        let policy = context.policy;
        if let Some(runs) = policy.entry(id) {
            return Ok(Looked::Known(runs.to_vec(), None));
        }
        let undecided = |refusal| if dependence.refuses { Err(refusal) } else { Ok(Looked::Unknown(refusal)) };
        let unknown = |problem| undecided(Refusal::Lookup { id: id.to_owned(), rule: dependence.rule, problem });
        let Some(rules) = policy.resolve.as_ref().filter(|rules| rules.refresh.is_some()) else {
            policy.check_model(id, None)?;
            return unknown(Problem::new(0, "no entry of `resolve.runs` names it"));
        };
        if let Err(problem) = Steps::of(id) {
            return unknown(Problem::new(0, problem));
        }
        let want = match want_of(policy, subject, id) {
            Ok(want) => want.ok_or(Refusal::NoRouteClass)?,
            Err(problem) => return unknown(Problem::new(0, problem)),
        };
        let caller = self.caller(|| address);
        match context.catalogue.resources.ask(&want, &caller, rules, context.shared, context.now) {
            Status::Runs(models) => Ok(Looked::Known(models, Some(want))),
            Status::Unknown(problem) => unknown(problem),
            Status::Full => undecided(Refusal::LookupQueue(id.to_owned())),
            Status::Pending if self.waits_too_long(context.now) => {
                unknown(Problem::new(503, "nothing was answered in time"))
            }
            Status::Pending => Ok(Looked::Wait(want)),
        }
    }

    fn waits_too_long(&self, now: SystemTime) -> bool {
        self.resolution.since.is_some_and(|since| now.duration_since(since).unwrap_or_default() >= WAIT)
    }

    /// Looks again for what a waiting call needs. When it is known, the call begins again, and its body is read from its beginning.
    pub(super) fn resume(
        &mut self,
        waiting: Box<Waiting>,
        length: u64,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        if let Some(rules) = &context.policy.resolve {
            let caller = self.caller(|| waiting.caller.2);
            let (resources, now) = (&context.catalogue.resources, context.now);
            let status = resources.ask(&waiting.want, &caller, rules, context.shared, now);
            if status == Status::Pending && !self.waits_too_long(now) {
                self.state = State::Resolving { waiting, length };
                return Ok(RequestStep::AwaitResolution);
            }
        }
        let Waiting { headers, caller, complete, .. } = *waiting;
        self.body_bytes = 0;
        let step = self.request_headers(&headers, caller, complete && length == 0, context)?;
        match &mut self.state {
            // Its answer has gone again meanwhile.
            State::Resolving { waiting, length: counted } => {
                (waiting.complete, *counted, self.body_bytes) = (complete, length, length);
                Ok(step)
            }
            State::Reading { .. } if length > 0 || complete => Ok(RequestStep::ReadBody { length, complete }),
            _ => Ok(step),
        }
    }

    /// Refuses a call that was looked up elsewhere than where it would be sent: an id without an ARN is another resource there. What
    /// the document says of such a name holds in the first region.
    pub(super) fn check_place(&mut self, id: &str, class: &RouteClass, pins: &mut Pins) -> Result<(), Refusal> {
        let want = self.resolution.want.take();
        if id.starts_with("arn:") || self.resolution.runs.is_none() {
            return Ok(());
        }
        let Some(first) = class.regions().first() else { return Ok(()) };
        match want {
            Some(want) if want.source != class.credentials() || want.region != *first => {
                let region = want.region.to_string();
                Err(Refusal::LookedUpElsewhere { id: id.to_owned(), region, class: class.name().to_owned() })
            }
            None if !is_name(id) => Ok(()),
            _ => pins.own_region("path", first.as_str()),
        }
    }
}

#[cfg(test)]
#[path = "resolving_tests.rs"]
mod tests;
