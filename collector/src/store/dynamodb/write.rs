//! Puts records, and never replaces one, except those that the collector made for want of a log entry.
//!
//! Each put has the condition that no item has its key, or one of such a kind. `BatchWriteItem` takes no conditions, and its right includes
//! deletion (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>). If there is an
//! item, DynamoDB returns it, without a read
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html>, `ReturnValuesOnConditionCheckFailure`):
//! the same record came again, or another one wants its key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use audit::AuditRecord;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use super::error::DynamoError;
use super::{DynamoStore, item};
use crate::backoff::back_off;
use crate::batch::{Inserted, Written, replaced_by};

/// Puts that are in flight. At 10 ms each, 80 would be enough for 8,000 a second if no time passed between them.
const IN_FLIGHT: usize = 384;
/// Attempts of a throttled put before the batch fails; their back-off adds up to some 12 s.
const ATTEMPTS: u32 = 8;
/// How DynamoDB asks for fewer calls.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const THROTTLED: [&str; 3] = ["ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"];

/// Records that are put, in no order.
struct Queue {
    records: Vec<AuditRecord>,
    next: AtomicUsize,
    prolong: bool,
}

impl DynamoStore {
    /// Counts only accepted records. On an error some of them may be stored. With `prolong`, an item that is there expires when
    /// the record does, if that is later.
    pub(super) async fn put(&self, records: &[AuditRecord], prolong: bool) -> Result<Written, DynamoError> {
        let mut written = Written::default();
        // Concurrent puts of one key have no order: the first of a batch is put.
        let mut firsts: HashMap<&str, &AuditRecord> = HashMap::new();
        let mut queue = Vec::with_capacity(records.len());
        for record in records {
            let first = *firsts.entry(record.request_id.as_str()).or_insert(record);
            if std::ptr::eq(first, record) {
                queue.push(record.clone());
            } else {
                written.count(record, Inserted::compare(first, record));
            }
        }
        let puts = queue.len().min(IN_FLIGHT);
        let queue = Arc::new(Queue { records: queue, next: AtomicUsize::new(0), prolong });
        let mut lanes: JoinSet<_> = (0..puts).map(|_| self.clone().put_from(Arc::clone(&queue))).collect();
        while let Some(lane) = lanes.join_next().await {
            let lane = lane.map_err(|error| DynamoError::Call { call: "PutItem", cause: error.to_string() })?;
            for (number, inserted) in lane? {
                if let Some(record) = queue.records.get(number) {
                    written.count(record, inserted);
                }
            }
        }
        Ok(written)
    }

    /// Puts one record after the other, until the queue is empty. Returns their places.
    async fn put_from(self, queue: Arc<Queue>) -> Result<Vec<(usize, Inserted)>, DynamoError> {
        let mut done = Vec::new();
        loop {
            let number = queue.next.fetch_add(1, Ordering::Relaxed);
            let Some(record) = queue.records.get(number) else { return Ok(done) };
            done.push((number, self.put_new(record, queue.prolong).await?));
        }
    }

    async fn put_new(&self, record: &AuditRecord, prolong: bool) -> Result<Inserted, DynamoError> {
        let mut attempt = 1;
        let replaced = replaced_by(record);
        loop {
            let item = item::from_record(record, OffsetDateTime::now_utc());
            let size = item::size(&item);
            if size > item::MAX_ITEM {
                let reason = format!("its item of {size} bytes exceeds DynamoDB's limit of {}", item::MAX_ITEM);
                return Ok(Inserted::Conflict(reason));
            }
            let mut put = self
                .client
                .put_item()
                .table_name(&self.table)
                .set_item(Some(item.clone()))
                .expression_attribute_names("#key", audit::table::KEY)
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
            // DynamoDB refuses a name or a value that the expression does not use.
            let mut condition = "attribute_not_exists(#key)".to_owned();
            for (number, kind) in replaced.iter().enumerate() {
                condition += &format!(" OR #kind = :kind{number}");
                put = put
                    .expression_attribute_names("#kind", "kind")
                    .expression_attribute_values(format!(":kind{number}"), AttributeValue::S(kind.name().to_owned()));
            }
            let put = put.condition_expression(condition);
            let Err(error) = put.send().await else {
                self.show(&item).await?;
                return Ok(Inserted::New);
            };
            if let Some(PutItemError::ConditionalCheckFailedException(exists)) = error.as_service_error() {
                let Some(item) = exists.item() else {
                    return Ok(Inserted::Conflict("the table has an item under its request id".to_owned()));
                };
                let stored = self.record(item)?;
                // The batch that put it may have failed, or the collector ended, before this.
                self.show(item).await?;
                let inserted = Inserted::compare(&stored, record);
                if prolong && inserted == Inserted::Repeated && stored.expires_at < record.expires_at {
                    self.prolong(record).await?;
                }
                return Ok(inserted);
            }
            if attempt == ATTEMPTS || !error.code().is_some_and(|code| THROTTLED.contains(&code)) {
                return Err(self.failed("PutItem", &error));
            }
            tokio::time::sleep(back_off(attempt)).await;
            attempt += 1;
        }
    }
}

impl DynamoStore {
    /// Moves an item whose day is in the future to where queries look: the clock stepped back while it was put.
    async fn show(&self, old: &item::Item) -> Result<(), DynamoError> {
        let Some(new) = item::shown(old, OffsetDateTime::now_utc()) else { return Ok(()) };
        let shard = |item: &item::Item| item.get(audit::table::INDEX_HASH).cloned();
        let put = self.client.put_item().table_name(&self.table).set_item(Some(new));
        let put = put.condition_expression("#shard = :shard");
        let put = put.expression_attribute_names("#shard", audit::table::INDEX_HASH);
        let put = put.set_expression_attribute_values(shard(old).map(|shard| [(":shard".to_owned(), shard)].into()));
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("PutItem", &error)),
        }
    }

    /// Only an import needs this right, `dynamodb:UpdateItem`.
    async fn prolong(&self, record: &AuditRecord) -> Result<(), DynamoError> {
        let expires = AttributeValue::N(record.expires_at.to_string());
        let update = self.client.update_item().table_name(&self.table);
        let update = update.key(audit::table::KEY, AttributeValue::S(record.request_id.clone()));
        // Not an item that DynamoDB has just deleted: it would be a new one, without the rest.
        let update = update.condition_expression("attribute_exists(#key)").update_expression("SET #expires = :expires");
        let update = update.expression_attribute_names("#key", audit::table::KEY);
        let update = update.expression_attribute_names("#expires", audit::table::TTL);
        match update.expression_attribute_values(":expires", expires).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("UpdateItem", &error)),
        }
    }
}
