//! Failures of the DynamoDB store.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum DynamoError {
    #[error(
        "table {table} not found in region {region}; create it with infra/, or `run --create-table` for DynamoDB Local"
    )]
    NoTable { table: String, region: String },
    /// `cause` is AWS's code and message, or the connection's error.
    #[error("DynamoDB {call}: {cause}")]
    Call { call: &'static str, cause: String },
    #[error("table {table}: cannot read an item: its attribute {field} has another type, or none")]
    Item { table: String, field: &'static str },
    #[error("no AWS region: set AWS_REGION")]
    NoRegion,
    #[error("table {0} is not active after a minute")]
    NotActive(String),
    /// The checkpoint or the list of rejected entries.
    #[error("{file}: {cause}")]
    File { file: PathBuf, cause: std::io::Error },
}
