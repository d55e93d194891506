//! Makes audit records of Envoy's access logs: [`source`] (gRPC access log service, JSON log file) → [`decode`] →
//! [`store`] (SQLite, DynamoDB); [`query`] reads them. [`ledger`] keeps the intents of calls, and what is missing. `docs/audit.md` says what each source guarantees.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod batch;
pub mod checkpoint;
pub mod clock;
pub mod completeness;
pub mod decode;
pub mod deliver;
pub mod hash;
pub mod health;
pub mod import;
pub mod ledger;
pub mod print;
mod private_file;
pub mod query;
pub mod rejected;
pub mod report;
pub mod run;
pub mod source;
pub mod stderr;
pub mod store;
pub mod timestamp;
