//! The subcommands that are not in `main.rs`.

pub(crate) mod completeness;
pub(crate) mod import;
pub(crate) mod query;
pub(crate) mod reads;
