//! Carries out what core decides about a request.

use crate::host::{self, HostError};
use crate::relay_state;
use filter_core::headers::Headers;
use filter_core::reply::{Refusal, Reply};
use filter_core::step::RequestStep;
use proxy_wasm::types::{Action, LogLevel};

/// Carries out a step. A failure of the host becomes a reply: see [`fail`].
pub(crate) fn apply(step: RequestStep, request_id: &str) -> Result<Action, HostError> {
    match step {
        RequestStep::Continue => Ok(Action::Continue),
        RequestStep::AwaitBody
        | RequestStep::AwaitCredentials
        | RequestStep::AwaitResolution
        | RequestStep::RecordIntent(_)
        | RequestStep::AwaitIntent
        | RequestStep::DiscardBody => Ok(Action::Pause),
        // The stream of the downstream chain does these before.
        RequestStep::EditBody | RequestStep::ReadBody { .. } => {
            Ok(send_reply(&Refusal::NotConfigured.reply(), request_id))
        }
        RequestStep::Reply(reply) => Ok(send_reply(&reply, request_id)),
        RequestStep::Answer(answer) => {
            let id = ("x-amzn-requestid", request_id.as_bytes().to_vec());
            let headers: Vec<_> = answer.headers.into_iter().chain([id]).collect();
            host::send_reply(answer.status, "bedrock_gateway", &headers, &answer.body)?;
            Ok(Action::Pause)
        }
        RequestStep::Forward(forward) => {
            // The headers last: a failure after them would leave the request ready to go.
            for (name, value) in &forward.states {
                host::set_property(name, value)?;
            }
            host::set_request_headers(&forward.headers)?;
            if let Some(relayed) = forward.relayed {
                relay_state::send(request_id, relayed);
            }
            Ok(Action::Continue)
        }
    }
}

/// Carries out the step of a stream that was woken. Returns whether it still waits.
pub(crate) fn apply_woken(
    step: RequestStep,
    apply: impl FnOnce(RequestStep) -> Action,
    fail: impl FnOnce(HostError) -> Action,
) -> bool {
    if matches!(step, RequestStep::AwaitCredentials | RequestStep::AwaitResolution | RequestStep::DiscardBody) {
        return true;
    }
    if apply(step) == Action::Continue
        && let Err(error) = host::continue_request()
    {
        fail(error);
    }
    false
}

/// Refuses a request because the host failed.
pub(crate) fn fail(error: HostError, request_id: &str) -> Action {
    send_reply(&Refusal::Host(error.to_string()).reply(), request_id)
}

/// Replies to the client, or resets its stream if the host cannot reply. Either way nothing goes upstream.
pub(crate) fn send_reply(reply: &Reply, request_id: &str) -> Action {
    if let Err(error) =
        host::send_reply(reply.status, "bedrock_gateway", &reply.headers(request_id), &reply.body(request_id))
    {
        host::log(LogLevel::Error, &format!("request {request_id} is reset, because its reply failed: {error}"));
        host::reset_request();
    }
    Action::Pause
}

/// Sends a response in place of one that has no body.
pub(crate) fn send_response(headers: &Headers, body: &[u8]) -> Action {
    let status = headers.get_str(":status").and_then(|status| status.parse().ok()).unwrap_or(502);
    let own = |name: &str| name.starts_with(':') || name == "content-length";
    let others = headers.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name, value.to_vec()));
    if let Err(error) = host::send_reply(status, "bedrock_gateway", &others.collect::<Vec<_>>(), body) {
        host::log(LogLevel::Error, &format!("a response is reset, because another cannot be sent: {error}"));
        host::reset_response();
    }
    Action::Pause
}

/// Resets the client's response, so that the client does not see a clean end.
pub(crate) fn reset_response() -> Action {
    host::reset_response();
    Action::Pause
}
