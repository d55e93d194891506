//! Records in a DynamoDB table. Hash key `request_id`; index `by_time` with hash key `day_shard` (`2026-11-22#07`) and
//! range key `time`; TTL attribute `expires_at`. A day has sixteen shards because one partition takes 1,000 writes a
//! second (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html>).

pub mod checkpoint_file;
mod error;
mod item;
mod query;
pub mod rejected_file;
mod table;
mod write;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::batch::{Batch, Rejected, Written};

pub use error::DynamoError;
pub use item::{SHARDS, shard_of};

#[derive(Debug, Clone)]
pub struct DynamoStore {
    client: Client,
    table: String,
    region: String,
    /// Holds rejected entries.
    rejected: PathBuf,
}

impl DynamoStore {
    /// Region and credentials come from AWS's standard places (environment, profile, container, instance).
    /// `endpoint_url` is for DynamoDB Local and VPC endpoints. Sends nothing.
    pub async fn connect(table: &str, endpoint_url: Option<&str>) -> Result<Self, DynamoError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(Duration::from_secs(10))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3));
        if let Some(url) = endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let config = loader.load().await;
        let region =
            config.region().map(Region::to_string).filter(|region| !region.is_empty()).ok_or(DynamoError::NoRegion)?;
        Ok(Self::new(Client::new(&config), table, &region))
    }

    /// `region` is for messages only.
    pub fn new(client: Client, table: &str, region: &str) -> Self {
        let rejected = PathBuf::from(format!("{table}.rejected.jsonl"));
        Self { client, table: table.to_owned(), region: region.to_owned(), rejected }
    }

    /// Keeps rejected entries in that file, instead of `TABLE.rejected.jsonl` in the working folder.
    #[must_use]
    pub fn with_rejected(self, rejected: PathBuf) -> Self {
        Self { rejected, ..self }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Writes the records, then rejected entries and the checkpoint to the files next to the log. After a crash in
    /// between, the same records are written again under the same keys.
    pub async fn write(&self, batch: &Batch) -> Result<Written, DynamoError> {
        self.write_or_import(batch, false).await
    }

    /// As [`Self::write`]. An item that is there already expires when this one does, if that is later.
    pub async fn import(&self, batch: &Batch) -> Result<Written, DynamoError> {
        self.write_or_import(batch, true).await
    }

    /// Hands the entries of the file of rejected entries to `each`.
    pub fn rejected(&self, mut each: impl FnMut(&Rejected)) -> Result<(), DynamoError> {
        if self.rejected.exists() { rejected_file::read(&self.rejected, |_, entry| each(&entry)) } else { Ok(()) }
    }

    async fn write_or_import(&self, batch: &Batch, prolong: bool) -> Result<Written, DynamoError> {
        let mut written = self.put(&batch.records, prolong).await?;
        let mut refused = written.refused.clone();
        if prolong && !refused.is_empty() {
            // An import that is repeated does not refuse a record again.
            self.rejected(|kept| {
                let same =
                    |new: &Rejected| (&new.source, &new.file, &new.reason) == (&kept.source, &kept.file, &kept.reason);
                refused.retain(|new| !same(new));
            })?;
        }
        let rejected: Vec<_> = batch.rejected.iter().cloned().chain(refused).collect();
        match (rejected_file::append(&self.rejected, &rejected), &batch.checkpoint) {
            (Ok(()), _) => {}
            // The line is still in the log.
            (Err(error), Some(_)) => return Err(error),
            // The feed goes on without.
            (Err(error), None) => written.lost = Some((rejected.len(), error.to_string())),
        }
        if let Some((log, checkpoint)) = &batch.checkpoint {
            checkpoint_file::write(log, checkpoint)?;
        }
        Ok(written)
    }

    fn failed<E>(&self, call: &'static str, error: &SdkError<E>) -> DynamoError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        if error.code() == Some("ResourceNotFoundException") {
            return DynamoError::NoTable { table: self.table.clone(), region: self.region.clone() };
        }
        let cause = match (error.code(), error.message()) {
            (Some(code), message) => format!("{code}: {}", message.unwrap_or("no message")),
            (None, _) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(inner) = source {
                    let _ = write!(text, ": {inner}");
                    source = inner.source();
                }
                text
            }
        };
        DynamoError::Call { call, cause }
    }
}

/// rustls on ring, or on AWS-LC's FIPS module (feature `fips`), with the machine's CA certificates.
pub fn http_client() -> SharedHttpClient {
    #[cfg(feature = "fips")]
    let crypto = CryptoMode::AwsLcFips;
    #[cfg(not(feature = "fips"))]
    let crypto = CryptoMode::Ring;
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(crypto)).build_https()
}
