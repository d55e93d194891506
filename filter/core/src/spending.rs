//! What a call takes of its caller's allowance, from its headers to its end.

use crate::caller::Caller;
use crate::config::Limits;
use crate::limits::{Allowance, Exhausted};
use crate::operation::Operation;
use crate::quota::{self, Demand};
use crate::reply::Refusal;
use crate::route::RouteClass;
use crate::step::Context;
use audit::ExchangeFacts;

/// What the call has taken; nothing where its class has no limits.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    account: Option<Account>,
    /// Tokens.
    reserved: u64,
    /// What the call asks for, if its class limits tokens and not all is reserved.
    demand: Option<Box<Demand>>,
}

/// Whose allowance it is.
#[derive(Debug)]
struct Account {
    limits: Limits,
    class: String,
    caller: Caller,
    /// How often an output token counts.
    output_rate: u32,
}

impl Spending {
    /// Takes a call.
    pub(crate) fn take(
        &mut self,
        class: &RouteClass,
        caller: Caller,
        operation: Operation,
        output_rate: u32,
        context: Context<'_>,
    ) -> Result<(), Refusal> {
        let account = Account { limits: class.limits(), class: class.name().to_owned(), caller, output_rate };
        let Some(allowance) = account.allowance(context) else { return Ok(()) };
        allowance.take().map_err(|exhausted| account.refusal(exhausted))?;
        let runs = account.limits.tokens_per_minute.is_some() && operation.uses_tokens();
        self.demand = runs.then(Box::default);
        self.account = Some(account);
        Ok(())
    }

    /// Whether the body has to be read.
    pub(crate) fn reads_body(&self) -> bool {
        self.demand.is_some()
    }

    /// The body passes while it is read. Its length is given if it is known; a call without a body is `complete`.
    pub(crate) fn stream(&mut self, length: Option<u64>, complete: bool, context: Context<'_>) -> Result<(), Refusal> {
        if let Some(demand) = &mut self.demand {
            **demand = Demand::streaming(length);
        }
        self.reserve(complete, context)
    }

    /// Reads a part of a body that is held. All is reserved when it is `complete`.
    pub(crate) fn read_held(&mut self, chunk: &[u8], complete: bool, context: Context<'_>) -> Result<(), Refusal> {
        if let Some(demand) = &mut self.demand {
            demand.feed(chunk);
        }
        if complete { self.reserve(true, context) } else { Ok(()) }
    }

    /// Reads a part of a body before it passes. Its last bytes do not pass before all is reserved.
    pub(crate) fn read_passing(&mut self, chunk: &[u8], complete: bool, context: Context<'_>) -> Result<(), Refusal> {
        let more = self.demand.as_mut().is_some_and(|demand| demand.feed(chunk));
        if more || complete { self.reserve(complete, context) } else { Ok(()) }
    }

    /// Reserves the tokens that the call may use, as far as its body is known.
    fn reserve(&mut self, complete: bool, context: Context<'_>) -> Result<(), Refusal> {
        let (Some(mut demand), Some(account)) = (self.demand.take(), &self.account) else { return Ok(()) };
        if complete {
            demand.end();
        }
        if let Some(allowance) = account.allowance(context) {
            let reserved = allowance.reserve(self.reserved, demand.tokens(account.output_rate));
            self.reserved = reserved.map_err(|exhausted| account.refusal(exhausted))?;
        }
        self.demand = Some(demand).filter(|_| !complete);
        Ok(())
    }

    /// The call is over. If it is `abandoned`, nobody knows what the model wrote, so the reservation is used up.
    pub(crate) fn settle(&self, facts: &ExchangeFacts, abandoned: bool, context: Context<'_>) {
        let Some(account) = &self.account else { return };
        let used = quota::charge(facts.usage, facts.estimate, account.output_rate);
        let used = if abandoned { used.max(self.reserved) } else { used };
        if let Some(allowance) = account.allowance(context) {
            allowance.settle(true, self.reserved, used);
        }
    }
}

impl Account {
    fn allowance<'a>(&self, context: Context<'a>) -> Option<Allowance<'a>> {
        Allowance::new((context.shared, context.worker), self.limits, &self.class, &self.caller, context.now)
    }

    fn refusal(&self, exhausted: Exhausted) -> Refusal {
        Refusal::exhausted(&self.class, exhausted)
    }
}

#[cfg(test)]
#[path = "spending_tests.rs"]
mod tests;
