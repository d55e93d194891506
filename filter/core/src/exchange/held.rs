//! Responses that are held whole and edited. Nothing of one passes before its sender has ended it: where a connection breaks,
//! Envoy resets the client's stream.

use super::Exchange;
use crate::answer_problem::{AnswerProblem, MAX_HELD};
use crate::headers::Headers;
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
            Ok(Some(body)) => ResponseStep::Edit { headers: with_length(response.headers, body.len()), body },
            Err(problem) => self.refuse_response(&Refusal::Answer(problem)),
        }
    }

    fn edited(&self, response: WholeResponse<'_>, now: SystemTime) -> Result<Option<Vec<u8>>, AnswerProblem> {
        let WholeResponse { headers, body, policy } = response;
        if headers.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(AnswerProblem::Encoded);
        }
        let viewer = self.viewer(now);
        match self.edit {
            None => Ok(None),
            Some(Edit::List(list)) => Ok(list.cut(body, |id| policy.may_use(viewer, id))?),
        }
    }
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
