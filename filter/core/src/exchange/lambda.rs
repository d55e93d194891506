//! Calls of the Lambda-based proxy's API. Its InvokeModel names the model in the body, so that a call is held whole before anything
//! is decided about it.

use super::held::Edit;
use super::{Exchange, State};
use crate::caller::Address;
use crate::headers::Headers;
use crate::lambda_api::{self, Asked};
use crate::operation::{CallError, Operation};
use crate::pending::{content_length, unknown_path};
use crate::principal::PrincipalError;
use crate::reply::{Answer, Refusal, is_grpc, names_other_charset};
use crate::step::{Context, RequestStep};

/// Who calls, as Envoy proved it.
pub(super) type Caller = (Proved<Option<String>>, Proved<Vec<String>>, Option<Address>);
type Proved<T> = Result<T, PrincipalError>;

impl Exchange {
    /// Takes the headers of a call.
    pub(super) fn lambda_headers(
        &mut self,
        asked: Result<Asked, CallError>,
        headers: &Headers,
        caller: Caller,
        end_of_stream: bool,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        let policy = context.policy;
        self.facts.api = Some("lambda".to_owned());
        self.lambda = true;
        let asked = asked.inspect_err(|_| self.facts.unknown_path = Some(unknown_path(headers)))?;
        if asked == Asked::Models {
            self.edit = Some(Edit::LambdaModels);
            return self.request_headers(&lambda_api::list_models(headers), caller, end_of_stream, context);
        }
        self.facts.principal = caller.0.clone()?;
        if is_grpc(headers) {
            return Err(Refusal::Grpc);
        }
        policy.access.check(headers, self.facts.principal.as_deref())?;
        if asked == Asked::Route {
            let body = policy.lambda_api.as_ref().map(|api| api.route(&self.facts.id, context.now));
            return Ok(self.answer(Answer::json(body.unwrap_or_default())));
        }
        self.edit = Some(Edit::LambdaInvoke);
        self.operation = Some(Operation::InvokeModel);
        self.facts.operation = Some(Operation::InvokeModel.name().to_owned());
        if headers.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::EncodedBody);
        }
        if names_other_charset(headers) {
            return Err(Refusal::Charset);
        }
        if end_of_stream {
            lambda_api::invocation(headers, &[], str::to_owned)?;
        }
        let limit = policy.max_body_bytes;
        if content_length(headers)?.is_some_and(|length| length > limit) {
            let refusal = Refusal::BodyTooLong { limit };
            self.state = State::Discarding { refusal, length: 0, until: None, dropped: true };
        } else {
            self.state = State::Unwrapping { headers: headers.clone(), caller: Box::new(caller), length: 0 };
        }
        self.pass(end_of_stream)
    }

    /// Takes a call that is complete: from here on it is one of Bedrock's API.
    pub(super) fn unwrap_call(
        &mut self,
        (headers, caller): (&Headers, Caller),
        body: &mut Vec<u8>,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        let policy = context.policy;
        let resolve = |id: &str| policy.model_id(id).unwrap_or_default().to_owned();
        let (headers, inner) = lambda_api::invocation(headers, body, resolve)?;
        let limit = policy.max_body_bytes;
        if inner.len() as u64 > limit {
            return Err(Refusal::BodyTooLong { limit });
        }
        *body = inner;
        self.body_bytes = 0;
        match self.request_headers(&headers, caller, false, context)? {
            RequestStep::AwaitBody => self.request_body(body, true, context),
            RequestStep::AwaitResolution => {
                self.count(body.len(), policy)?;
                self.pass(true)
            }
            step => Ok(step),
        }
    }
}

#[cfg(test)]
#[path = "lambda_tests.rs"]
mod tests;
