//! Compares AWS's service models with what the gateway knows of Bedrock's API.
//!
//! Both sides become the same kind of facts ([`facts`]); the difference is the drift. The gateway's side is the code of
//! `filter-core` (operations, parameters, headers, the inventory) and the files below `tables/`, which say of everything
//! else what becomes of it, and why.

#![forbid(unsafe_code)]

pub mod facts;
pub mod model;
pub mod tables;

use facts::{Drift, compare};
use model::Models;
use tables::{TableError, Tables};

/// The files of the tables, with their texts.
pub const FILES: [(&str, &str); 4] = [
    ("operations.txt", include_str!("../tables/operations.txt")),
    ("members.txt", include_str!("../tables/members.txt")),
    ("requests.txt", include_str!("../tables/requests.txt")),
    ("responses.txt", include_str!("../tables/responses.txt")),
];

/// The tables of this version of the gateway.
///
/// # Errors
/// [`TableError`] names the line.
pub fn tables() -> Result<Tables, TableError> {
    Tables::parse(&FILES)
}

/// What differs between the models and the tables.
pub fn drift(models: &Models, tables: &Tables) -> Vec<Drift> {
    compare(&facts::of_models(models, tables), &facts::of_gateway(tables))
}
