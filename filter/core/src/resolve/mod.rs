//! What an id runs that does not name its model: application inference profiles, prompt routers, provisioned and custom models,
//! deployments, Marketplace endpoints.
//!
//! A call that names one waits, if something depends on the model, until Bedrock has said what it runs ([`lookup`]). One worker asks
//! for all ([`asked`]); the answers are in shared data, in a table of fixed size ([`table`]).

pub(crate) mod answer;
pub mod asked;
pub(crate) mod kind;
pub mod lookup;
pub(crate) mod rules;
pub mod table;

pub use rules::ResolveRules;

#[cfg(test)]
mod asked_tests;
#[cfg(test)]
mod tests;
