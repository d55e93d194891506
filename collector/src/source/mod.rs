//! Where entries come from: [`als`] is a live feed that can lose entries, [`file`] is the ledger.

pub mod als;
pub mod buffer;
pub mod file;
pub mod log_file;
pub mod tail;
