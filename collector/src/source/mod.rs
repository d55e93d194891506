//! Where entries come from: [`als`] is a live feed that can lose entries, [`file`] is the ledger.

pub mod als;
pub mod backlog;
pub mod buffer;
pub(crate) mod content;
pub mod file;
mod folder;
pub mod log_file;
mod part;
pub mod tail;
