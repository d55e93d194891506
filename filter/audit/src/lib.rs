//! The audit trail's data: the facts that the filter hands to Envoy's access log, and the record that the collector
//! makes of an access log entry.
//!
//! The filter writes two filter-state objects, each as one line of compact JSON: `wasm.bedrock.exchange`
//! ([`ExchangeFacts`], role `gateway` or `combined`) and `wasm.bedrock.attempt` ([`AttemptFacts`], role `signer` or
//! `combined`, overwritten by each attempt). Envoy adds the rest ([`EnvoyEntry`]). [`AuditRecord::FIELDS`] lists the
//! record's fields; the stores and `docs/audit.md` follow it.
#![warn(missing_docs)]

mod entry;
mod facts;
mod field;
pub mod notice;
mod record;
pub mod table;
pub mod text;

pub use entry::{EnvoyEntry, ExchangeKey, RecordKind};
pub use facts::{
    ATTEMPT_STATE, AttemptFacts, AuditMode, EXCHANGE_STATE, Estimate, ExchangeFacts, GuardrailUnits, Relayed, Resigned,
    RuleDecision, Serving, StreamOutcome, Usage, VmFacts,
};
pub use field::{Field, FieldValue, Kind, Source};
pub use record::{AuditRecord, RETENTION_DAYS};
