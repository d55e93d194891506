//! Bedrock's refusal of a model that it does not run on demand. The call is sent once more, by an inference profile, and the next
//! calls go by the profile at once.

use super::{Attempt, RetryDecision, Sent};
use crate::catalogue::choice;
use crate::handoff::to_json;
use crate::headers::Headers;
use crate::step::Context;
use audit::AttemptFacts;
use serde::Deserialize;

/// Longest body that may be the refusal, in bytes. Bedrock's has some 160, and the model id.
pub const MAX_REFUSAL: usize = 4096;

#[derive(Deserialize)]
struct Refused {
    #[serde(alias = "Message")]
    message: String,
}

/// Whether a body is the refusal of this id. The words are Bedrock's, with an apostrophe of either kind
/// (<https://github.com/anthropics/anthropic-sdk-python/issues/894>). Other messages may repeat what a client has sent, so they have to
/// begin as Bedrock's does.
fn is_refusal(body: &[u8], id: &str) -> bool {
    let message = serde_json::from_slice(body).map(|Refused { message }| message).unwrap_or_default();
    let rest = message.strip_prefix("Invocation of model ID ").and_then(|rest| rest.strip_prefix(id));
    rest.is_some_and(|rest| {
        ["\u{2019}", "'"]
            .iter()
            .any(|mark| rest.starts_with(&format!(" with on-demand throughput isn{mark}t supported")))
    })
}

impl Attempt {
    /// Whether a response may be the refusal, and a profile is known by which the call can be sent again. Then headers and body are
    /// held until the body is complete or longer than [`MAX_REFUSAL`].
    pub fn reads_refusal(&self, headers: &Headers, context: Context<'_>) -> bool {
        let Some(sent) = self.sent.as_ref().filter(|_| headers.get(":status") == Some(b"400")) else { return false };
        let is_short = headers
            .get_str("content-length")
            .is_none_or(|length| length.parse().is_ok_and(|length: usize| length <= MAX_REFUSAL));
        let error = headers.get_str("x-amzn-errortype").and_then(|error| error.split(':').next());
        is_short
            && error == Some("ValidationException")
            && headers.get("content-encoding").is_none()
            && sent.facts.refused_on_demand.is_none()
            && sent.profile(context).is_some()
    }

    /// Takes the complete body of such a response.
    pub fn refusal(&self, body: &[u8], context: Context<'_>) -> RetryDecision {
        let Some(sent) = &self.sent else { return RetryDecision::default() };
        let (Some(id), Some(profile)) = (&sent.facts.model, sent.profile(context)) else {
            return RetryDecision::default();
        };
        if !is_refusal(body, id) {
            return RetryDecision::default();
        }
        let learnt = choice::learn(id, &sent.region, context).then(|| {
            format!("{} does not run '{id}' on demand, though it lists that: calls go by '{profile}'", sent.region)
        });
        let refused_on_demand = u32::try_from(sent.facts.tried.len()).ok();
        let state = to_json(&AttemptFacts { refused_on_demand, ..sent.facts.clone() });
        RetryDecision { retry: true, state: Some(state), learnt, ..RetryDecision::default() }
    }
}

impl Sent {
    /// The profile by which the same region can be called in place of the id that was sent.
    fn profile(&self, context: Context<'_>) -> Option<String> {
        let region = context.policy.region(self.region.as_str())?;
        let profile = choice::by_profile(self.handoff.operation, self.facts.model.as_deref()?, region, context);
        profile.filter(|profile| self.handoff.permits(profile))
    }
}
