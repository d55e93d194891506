//! Calls of the gateway's own API, which it answers itself.

use super::{Exchange, lambda::Caller};
use crate::gateway_api::{self, Asked};
use crate::headers::Headers;
use crate::operation::CallError;
use crate::pending::unknown_path;
use crate::reply::{Refusal, is_grpc};
use crate::step::{Context, RequestStep};

impl Exchange {
    pub(super) fn own_api(
        &mut self,
        asked: Result<Asked, CallError>,
        headers: &Headers,
        (principal, groups, _): Caller,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        self.facts.api = Some("gateway".to_owned());
        let asked = asked.inspect_err(|_| self.facts.unknown_path = Some(unknown_path(headers)))?;
        self.facts.principal = principal?;
        self.groups = groups?;
        if is_grpc(headers) {
            return Err(Refusal::Grpc);
        }
        let principal = self.facts.principal.as_deref();
        context.policy.access.check(headers, principal)?;
        if !context.policy.api_readers.as_ref().is_some_and(|readers| readers.admit(principal)) {
            return Err(Refusal::GatewayApi);
        }
        let answer = gateway_api::answer(asked, headers, self.viewer(context.now), context);
        Ok(self.answer(answer))
    }
}
