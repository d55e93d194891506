//! Turns Envoy's access logs into audit records: sources (gRPC access log service, JSON log file) → [`decode`] →
//! [`store`] (SQLite, DynamoDB); [`query`] reads them back. What each source guarantees is in `docs/audit.md`.
#![forbid(unsafe_code)]

pub mod decode;
pub mod hash;
pub mod query;
pub mod report;
pub mod run;
pub mod source;
pub mod store;

/// Items a batch holds at most: DynamoDB's limit for `BatchWriteItem`.
pub const BATCH_ITEMS: usize = 25;
/// How long a batch that is not full waits for more.
pub const BATCH_WAIT: std::time::Duration = std::time::Duration::from_millis(200);
