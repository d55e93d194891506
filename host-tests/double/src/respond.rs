//! Answers an admitted call: resolves the model and applies the fault.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::agent;
use super::answer::{Answer, Step};
use super::catalogue::{Catalogue, Target};
use super::context::{Context, parameter};
use super::control;
use super::converse::{Invalid, Question};
use super::eventstream::{exception, with_bad_crc};
use super::fault::ModelFault;
use super::invoke::{Prompt, count_tokens};
use super::operation::{Call, Operation, Service};
use super::patterns::{is_guardrail, is_guardrail_version, is_project};
use super::resources::invalid as malformed;
use super::retention::Retention;

/// Time for sent bytes to arrive before a reset discards them.
const BEFORE_RESET: Duration = Duration::from_millis(50);

/// A call and everything that its answer depends on.
#[derive(Debug)]
pub struct Asked<'a> {
    pub call: &'a Call,
    pub region: &'a str,
    pub query: &'a str,
    pub accept: Option<&'a str>,
    /// The body, `null` if there is none.
    pub body: Result<Value, serde_json::Error>,
    pub catalogue: &'a Catalogue,
    pub retention: &'a Retention,
    /// The guardrail, its version and the project of headers.
    pub guardrail: Option<&'a str>,
    pub guardrail_version: Option<&'a str>,
    pub project: Option<&'a str>,
    /// Ids of the account, each with its region.
    pub resources: &'a [(String, String)],
    /// The time taken so far, which becomes the latency.
    pub elapsed: Duration,
}

/// How to answer a call.
#[derive(Debug)]
pub enum Outcome {
    /// An answer after a delay.
    Answer(Duration, Answer),
    /// Reset instead of answering.
    Reset,
    /// Never an answer.
    Silence,
}

impl Outcome {
    #[must_use]
    pub fn now(answer: Answer) -> Self {
        Self::Answer(Duration::ZERO, answer)
    }
}

/// The project that a call names.
#[must_use]
pub fn named_project(asked: &Asked<'_>) -> Option<String> {
    let body = asked.body.as_ref().unwrap_or(&Value::Null);
    Resources::of(asked, body).project.map(Cow::into_owned)
}

/// Answers a call, with Bedrock's errors.
#[must_use]
pub fn respond(asked: &Asked<'_>) -> Outcome {
    let body = match &asked.body {
        Ok(body) => body,
        Err(error) => return invalid(&format!("The request body is not valid JSON: {error}")),
    };
    let resources = Resources::of(asked, body);
    if let Some(member) = resources.malformed() {
        return invalid(&malformed(member));
    }
    if let Some(answer) = resources.missing(asked) {
        return Outcome::now(answer);
    }
    let (model, fault) = match target(asked, body) {
        Ok((model, fault)) => (model, fault),
        Err(outcome) => return outcome,
    };
    let mut latency = asked.elapsed;
    let mut wait = Duration::ZERO;
    match &fault {
        Some(ModelFault::Status(status, error_type)) => {
            return Outcome::now(Answer::error(
                *status,
                error_type,
                &format!("The model's name asked for status {status}."),
            ));
        }
        Some(ModelFault::Reset) => return Outcome::Reset,
        Some(ModelFault::Silent) => return Outcome::Silence,
        Some(ModelFault::Slow(time)) => (wait, latency) = (*time, latency + *time),
        _ => {}
    }
    let with_usage = fault != Some(ModelFault::NoUsage);
    match answer(asked, body, &model, latency, with_usage) {
        Err(message) => invalid(&message),
        Ok(answer) => Outcome::Answer(
            wait,
            fault.map_or(answer.clone(), |fault| spoil(answer, &fault, asked.call.operation.streams())),
        ),
    }
}

fn invalid(message: &str) -> Outcome {
    Outcome::now(Answer::error(400, "ValidationException", message))
}

/// The guardrail and the project that a call names.
struct Resources<'a> {
    guardrail: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
    project: Option<Cow<'a, str>>,
}

impl<'a> Resources<'a> {
    /// Those of headers, of the query (`projectIdentifier` of bedrock's operations), of Converse's body and of ApplyGuardrail's path.
    fn of(asked: &'a Asked<'_>, body: &'a Value) -> Self {
        let converses = matches!(asked.call.operation, Operation::Converse | Operation::ConverseStream);
        let member = |pointer| body.pointer(pointer).and_then(Value::as_str).filter(|_| converses).map(Cow::Borrowed);
        let applies = asked.call.operation == Operation::ApplyGuardrail;
        let label = |index: usize| asked.call.labels.get(index).filter(|_| applies).map(|label| label.as_str().into());
        let header = |header: Option<&'a str>| header.map(Cow::Borrowed);
        let parameter = || parameter(asked.query, "projectIdentifier").map(Cow::Owned);
        Self {
            guardrail: header(asked.guardrail)
                .or_else(|| member("/guardrailConfig/guardrailIdentifier"))
                .or_else(|| label(0)),
            version: header(asked.guardrail_version)
                .or_else(|| member("/guardrailConfig/guardrailVersion"))
                .or_else(|| label(1)),
            project: header(asked.project).or_else(|| member("/projectIdentifier")).or_else(parameter),
        }
    }

    /// The member whose value has another form than AWS documents.
    fn malformed(&self) -> Option<&'static str> {
        // A guardrail and its version may be empty.
        let fits = |value: &Option<Cow<'_, str>>, form: fn(&str) -> bool| {
            value.as_deref().is_none_or(|value| value.is_empty() || form(value))
        };
        if !fits(&self.guardrail, is_guardrail) {
            return Some("guardrailIdentifier");
        }
        if !fits(&self.version, is_guardrail_version) {
            return Some("guardrailVersion");
        }
        (!self.project.as_deref().is_none_or(is_project)).then_some("projectIdentifier")
    }

    /// Refuses a guardrail or project that the region does not have. The errors are among those of
    /// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>; which of them Bedrock gives, and in which
    /// words, was not tried.
    fn missing(&self, asked: &Asked<'_>) -> Option<Answer> {
        let elsewhere = |id: &str| {
            let own = id.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2));
            let listed = || asked.resources.iter().find(|(known, _)| known == id).map(|(_, region)| region.as_str());
            own.or_else(listed).is_some_and(|region| region != asked.region)
        };
        if self.guardrail.as_deref().is_some_and(elsewhere) {
            let message = "The guardrail identifier or version provided in the request does not exist.";
            return Some(Answer::error(400, "ValidationException", message));
        }
        let lacks = self.project.as_deref().is_some_and(elsewhere);
        lacks.then(|| Answer::error(404, "ResourceNotFoundException", "The specified project was not found."))
    }
}

/// The model's id and its fault; empty for operations that name none.
fn target(asked: &Asked<'_>, body: &Value) -> Result<(String, Option<ModelFault>), Outcome> {
    let label = asked.call.labels.first().map(String::as_str);
    let model_id = match asked.call.operation {
        Operation::InvokeModel
        | Operation::InvokeModelWithResponseStream
        | Operation::Converse
        | Operation::ConverseStream
        | Operation::CountTokens => label,
        Operation::StartAsyncInvoke | Operation::CreateModelInvocationJob => {
            body.get("modelId").and_then(Value::as_str)
        }
        operation if operation.service() == Service::BedrockAgentRuntime => agent::model(body),
        _ => None,
    };
    let Some(model_id) = model_id else {
        return Ok((String::new(), None));
    };
    match asked.catalogue.resolve(model_id, asked.region, asked.call.operation == Operation::CountTokens) {
        Ok(Target::Model(id)) => Ok((id, None)),
        Ok(Target::Fault(fault)) => Ok((String::new(), Some(fault))),
        Err(refusal) => {
            let (status, error_type) = refusal.answer();
            Err(Outcome::now(Answer::error(status, error_type, &refusal.to_string())))
        }
    }
}

fn answer(
    asked: &Asked<'_>,
    body: &Value,
    model: &str,
    latency: Duration,
    with_usage: bool,
) -> Result<Answer, Invalid> {
    let needs_messages = !model.contains(":prompt/");
    let event_stream = || ("content-type", "application/vnd.amazon.eventstream".to_owned());
    Ok(match asked.call.operation {
        Operation::Converse => Question::read(body, needs_messages)?.answer(latency, with_usage),
        Operation::ConverseStream => {
            Answer::stream(vec![event_stream()], Question::read(body, needs_messages)?.frames(latency, with_usage))
        }
        Operation::InvokeModel => {
            let mut answer = Prompt::read(model, body)?.answer(latency, with_usage);
            if let Some(accept) = asked.accept {
                answer.headers.retain(|(name, _)| *name != "content-type");
                answer.headers.push(("content-type", accept.to_owned()));
            }
            answer
        }
        Operation::InvokeModelWithResponseStream => {
            let inner = ("x-amzn-bedrock-content-type", "application/json".to_owned());
            Answer::stream(vec![event_stream(), inner], Prompt::read(model, body)?.frames(latency, with_usage))
        }
        Operation::CountTokens if !counts_tokens(label_of(asked)) => {
            return Err("The provided model doesn't support counting tokens.".to_owned());
        }
        Operation::CountTokens => count_tokens(model, body)?,
        operation if operation.service() == Service::BedrockAgentRuntime => {
            agent::answer(asked.call, &context(asked, body))?
        }
        _ => control::answer(asked.call, &context(asked, body))?,
    })
}

fn context<'a>(asked: &Asked<'a>, body: &'a Value) -> Context<'a> {
    let Asked { catalogue, retention, region, query, .. } = *asked;
    Context { catalogue, retention, region, query, body }
}

fn label_of<'a>(asked: &'a Asked<'_>) -> &'a str {
    asked.call.labels.first().map_or("", String::as_str)
}

/// Whether CountTokens knows a model: those of <https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html>, not by a profile.
/// Models with profiles only are not among them.
fn counts_tokens(model_id: &str) -> bool {
    let model = model_id.rsplit("foundation-model/").next().unwrap_or_default();
    ["claude-3-5-haiku-", "claude-3-5-sonnet-", "claude-3-7-sonnet-", "claude-opus-4-2025", "claude-sonnet-4-2025"]
        .iter()
        .any(|known| model.strip_prefix("anthropic.").is_some_and(|name| name.starts_with(known)))
        || model.starts_with(crate::catalogue::FAULT)
}

/// Applies a fault to an answer. The first half of a stream's frames stays valid.
fn spoil(mut answer: Answer, fault: &ModelFault, streams: bool) -> Answer {
    let half = if streams { answer.body.len() / 2 } else { 0 };
    match fault {
        ModelFault::Drip(time) => {
            answer.body = answer.body.into_iter().flat_map(|step| [Step::Pause(*time), step]).collect();
        }
        ModelFault::StreamException(name) if streams => {
            answer.body.truncate(half);
            let payload = serde_json::json!({ "message": "The model's name asked for this exception." }).to_string();
            answer.body.push(Step::Send(exception(name, payload.as_bytes()).into()));
        }
        ModelFault::BadCrc if streams => {
            if let Some(Step::Send(frame)) = answer.body.get_mut(half) {
                *frame = with_bad_crc(frame.to_vec()).into();
            }
        }
        ModelFault::Large(size) => {
            let filler = match answer.body.get(half) {
                Some(Step::Send(frame)) if streams => frame.clone(),
                _ => vec![b' '; (*size).min(64 << 10)].into(),
            };
            let at = if streams { half } else { answer.body.len() };
            let times = size.div_ceil(filler.len());
            answer.body.splice(at..at, std::iter::repeat_n(Step::Send(filler), times));
        }
        ModelFault::Truncate | ModelFault::ResetMidstream => {
            answer.body.truncate(half + 1);
            if let Some(Step::Send(last)) = answer.body.last_mut() {
                last.truncate(last.len() / 2);
            }
            if *fault == ModelFault::ResetMidstream {
                answer.body.extend([Step::Pause(BEFORE_RESET), Step::Reset]);
            }
        }
        _ => {}
    }
    answer
}
