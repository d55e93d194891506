//! Responses that are held whole and edited. Nothing of one passes before its sender has ended it: where a connection breaks,
//! Envoy answers 503 itself, past the filter (seen on Envoy 1.40).

use super::Exchange;
use crate::answer_problem::{AnswerProblem, MAX_HELD};
use crate::headers::Headers;
use crate::lambda_api;
use crate::model_lists::ModelList;
use crate::operation::Operation;
use crate::policy::Policy;
use crate::reply::Refusal;
use crate::step::{ResponseStep, WholeResponse};
use std::time::SystemTime;

/// What is changed in a response.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    /// It shows what its caller may use.
    List(ModelList),
    /// A model's answer gets the form of the Lambda-based proxy's API. Failures do too.
    LambdaInvoke,
    /// The same of the list of models.
    LambdaModels,
}

impl Edit {
    /// What is changed in the response to an operation.
    pub(super) fn of(operation: Operation, policy: &Policy) -> Option<Self> {
        ModelList::of(operation, policy).map(Self::List)
    }

    /// Whether a response of this status is changed.
    pub(super) fn applies(self, status: u16) -> bool {
        match self {
            Self::List(_) => status == 200,
            Self::LambdaInvoke | Self::LambdaModels => true,
        }
    }
}

impl Exchange {
    /// Takes the next bytes of a body, which is held if it is edited.
    pub(super) fn hold(&mut self, length: usize) -> ResponseStep {
        if self.edit.is_none() {
            return ResponseStep::Continue;
        }
        self.held = self.held.saturating_add(length);
        if self.held <= MAX_HELD {
            ResponseStep::Continue
        } else {
            self.refuse_response(&AnswerProblem::TooLong.into())
        }
    }

    /// Edits a response that is complete.
    pub(super) fn edit_response(&mut self, response: WholeResponse<'_>, now: SystemTime) -> ResponseStep {
        match self.edited(response, now) {
            Ok(None) => ResponseStep::Continue,
            Ok(Some(body)) => ResponseStep::Edit { headers: self.edited_headers(response.headers, body.len()), body },
            Err(problem) => self.refuse_response(&Refusal::Answer(problem)),
        }
    }

    fn edited(&self, response: WholeResponse<'_>, now: SystemTime) -> Result<Option<Vec<u8>>, AnswerProblem> {
        let WholeResponse { headers, body, region, policy } = response;
        if headers.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(AnswerProblem::Encoded);
        }
        let viewer = self.viewer(now);
        let cut = |list: ModelList| list.cut(body, |names| policy.may_use_by(viewer, names));
        let (edit, status) = match self.edit {
            None => return Ok(None),
            Some(Edit::List(list)) => return Ok(cut(list)?),
            Some(edit @ (Edit::LambdaInvoke | Edit::LambdaModels)) => (edit, status_of(headers)),
        };
        if status != 200 {
            let code = self.facts.error.as_deref().unwrap_or("InternalError");
            return Ok(Some(lambda_api::failure(code, &lambda_api::message(body, status), &self.facts.id)));
        }
        let Some(api) = policy.lambda_api.as_ref().filter(|_| matches!(edit, Edit::LambdaModels)) else {
            return Ok(Some(lambda_api::invoked(body, headers.get_str("content-type"))?));
        };
        let cut = ModelList::of(Operation::ListFoundationModels, policy).map(cut).transpose()?.flatten();
        let region = region.or_else(|| Some(policy.own_region()?.name().as_str())).unwrap_or_default();
        Ok(Some(api.models(cut.as_deref().unwrap_or(body), region, &self.facts.id, now)?))
    }

    fn edited_headers(&self, headers: &Headers, length: usize) -> Headers {
        let mut headers = with_length(headers, length);
        if self.lambda {
            headers.set("content-type", "application/json");
            headers.set("x-request-id", self.facts.id.as_str());
            if status_of(&headers) == 200 {
                lambda_api::PARTITIONS.iter().for_each(|(name, value)| headers.set(name, *value));
            }
        }
        headers
    }
}

pub(super) fn status_of(headers: &Headers) -> u16 {
    headers.get_str(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The headers of a body of another length.
fn with_length(headers: &Headers, length: usize) -> Headers {
    let others = headers.iter().filter(|(name, _)| *name != "transfer-encoding");
    let mut headers: Headers = others.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    headers.set("content-length", length.to_string());
    headers
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
