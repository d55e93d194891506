//! Records in a DynamoDB table. Hash key `request_id`; index `by_time` of hash `day_shard` (`2026-11-22#07`) and range
//! `time`; TTL attribute `expires_at`. Sixteen shards a day, as one partition takes 1,000 writes a second.

pub mod beside;
mod item;
mod table;
mod write;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use audit::{AuditRecord, table as names};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use time::OffsetDateTime;

use super::{Batch, Written};
use crate::query::Query;

pub use item::{SHARDS, shard_of};

/// Why DynamoDB did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DynamoError {
    /// The table is not there.
    #[error("table {table} not found (region {region}); `--create-table` makes it, or infra/ in production")]
    NoTable {
        /// Its name.
        table: String,
        /// Where it was looked for.
        region: String,
    },
    /// A call failed.
    #[error("DynamoDB {call}: {cause}")]
    Call {
        /// The call's name.
        call: &'static str,
        /// What AWS or the connection says.
        cause: String,
    },
    /// Items came back again and again.
    #[error("DynamoDB BatchWriteItem: {left} items still unprocessed after {tries} tries")]
    Unprocessed {
        /// How many.
        left: usize,
        /// How often they were sent.
        tries: u32,
    },
    /// An item is no record.
    #[error("table {table}: an item is no record: {cause}")]
    Item {
        /// The table.
        table: String,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// No region is configured.
    #[error("no AWS region: set AWS_REGION")]
    NoRegion,
    /// A table did not become ready in time.
    #[error("table {0} is not active after a minute")]
    NotActive(String),
    /// The checkpoint or the list of rejected entries beside the log.
    #[error("{file}: {cause}")]
    Beside {
        /// The file.
        file: PathBuf,
        /// What the file system says.
        cause: std::io::Error,
    },
}

/// A table.
#[derive(Debug, Clone)]
pub struct DynamoStore {
    client: Client,
    table: String,
    region: String,
}

// === impl DynamoStore ===

impl DynamoStore {
    /// The table `table`, with region and credentials from AWS's standard places (environment, profile, container,
    /// instance). `endpoint_url` is for DynamoDB Local and for VPC endpoints. Nothing is sent yet.
    ///
    /// # Errors
    /// [`DynamoError::NoRegion`].
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

    /// The table `table`, through a client made elsewhere. `region` is for messages.
    pub fn new(client: Client, table: &str, region: &str) -> Self {
        Self { client, table: table.to_owned(), region: region.to_owned() }
    }

    /// The client, for calls that are not the store's own.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Writes a batch, then the rejected lines and the checkpoint beside the log. A crash in between repeats records,
    /// which have the same keys.
    ///
    /// # Errors
    /// [`DynamoError`]; what was accepted until then is written again with the same keys.
    pub async fn write(&self, batch: &Batch) -> Result<Written, DynamoError> {
        let written = self.put(&batch.records).await?;
        if let Some((log, checkpoint)) = &batch.checkpoint {
            beside::keep(log, &batch.rejected, &written.refused, *checkpoint)?;
        }
        Ok(written)
    }

    /// Records that match and have not expired, newest first.
    ///
    /// # Errors
    /// [`DynamoError`].
    pub async fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        if let Some(id) = &query.request_id {
            let output =
                self.client.get_item().table_name(&self.table).key("request_id", AttributeValue::S(id.clone()));
            let output = output.consistent_read(true).send().await.map_err(|error| self.failed("GetItem", &error))?;
            let mut found = Vec::from_iter(output.item.map(|item| self.record(&item)).transpose()?);
            found.retain(|record| expires_after(record, now) && query.matches(record));
            return Ok(found);
        }
        self.by_time(query, now).await
    }

    /// Day by day backwards, the shards of a day side by side, until there are enough.
    async fn by_time(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        // Nothing older has not expired, and Envoy's clock may be a little ahead of this one.
        let retention = i64::try_from(audit::RETENTION_DAYS).unwrap_or(i64::MAX);
        let oldest = (now - time::Duration::days(retention)).date().to_string();
        let since = query.since.as_deref().and_then(|since| since.get(..10)).unwrap_or_default().to_owned().max(oldest);
        let mut day = (now + time::Duration::days(1)).date();
        let mut found = Vec::new();
        while day.to_string() >= since && found.len() < query.limit {
            if query
                .until
                .as_deref()
                .and_then(|until| until.get(..10))
                .is_none_or(|until| day.to_string().as_str() <= until)
            {
                let mut shards = tokio::task::JoinSet::new();
                for shard in 0..SHARDS {
                    let (store, query, key) = (self.clone(), query.clone(), format!("{day}#{shard:02}"));
                    shards.spawn(async move { store.shard(&query, key, now).await });
                }
                let mut of_day = Vec::new();
                while let Some(shard) = shards.join_next().await {
                    let shard = shard.map_err(|error| DynamoError::Call { call: "Query", cause: error.to_string() })?;
                    of_day.extend(shard?);
                }
                of_day.sort_by(|a: &AuditRecord, b| b.time.cmp(&a.time).then_with(|| a.request_id.cmp(&b.request_id)));
                found.extend(of_day);
            }
            let Some(before) = day.previous_day() else {
                break;
            };
            day = before;
        }
        found.truncate(query.limit);
        Ok(found)
    }

    /// One shard of one day, newest first, page by page until `limit` match.
    async fn shard(&self, query: &Query, key: String, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        let mut found = Vec::new();
        let mut from = None;
        loop {
            let output = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(names::INDEX)
                .key_condition_expression("#shard = :shard AND #time BETWEEN :since AND :until")
                .expression_attribute_names("#shard", names::INDEX_HASH)
                .expression_attribute_names("#time", names::INDEX_RANGE)
                .expression_attribute_values(":shard", AttributeValue::S(key.clone()))
                .expression_attribute_values(
                    ":since",
                    AttributeValue::S(query.since.clone().unwrap_or_else(|| "0".to_owned())),
                )
                .expression_attribute_values(
                    ":until",
                    AttributeValue::S(query.until.clone().unwrap_or_else(|| "~".to_owned())),
                )
                .scan_index_forward(false)
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| self.failed("Query", &error))?;
            for item in output.items.unwrap_or_default() {
                let record = self.record(&item)?;
                if expires_after(&record, now) && query.matches(&record) {
                    found.push(record);
                }
            }
            from = output.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() || found.len() >= query.limit {
                return Ok(found);
            }
        }
    }

    fn record(&self, item: &item::Item) -> Result<AuditRecord, DynamoError> {
        item::to_record(item).map_err(|cause| DynamoError::Item { table: self.table.clone(), cause })
    }

    /// An SDK error as one line: AWS's code and message, or what is wrong with the connection.
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

/// The HTTP client: rustls on ring, with the machine's own CA certificates.
pub fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn expires_after(record: &AuditRecord, now: OffsetDateTime) -> bool {
    i64::try_from(record.expires_at).unwrap_or(i64::MAX) > now.unix_timestamp()
}
