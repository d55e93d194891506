//! Puts records, and never replaces one, except those that the collector made for want of a log entry.
//!
//! Each put has the condition that no item has its key, or one of such a kind. `BatchWriteItem` takes no conditions, and its right includes
//! deletion (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>). If there is an
//! item, DynamoDB returns it, without a read
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html>, `ReturnValuesOnConditionCheckFailure`):
//! the same record came again, or another one wants its key.

use std::collections::HashMap;
use std::sync::Arc;

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

/// Puts that are in flight. At 10 ms each that is some 9,600 a second.
const IN_FLIGHT: usize = 96;
/// Attempts of a throttled put before the batch fails; their back-off adds up to some 12 s.
const ATTEMPTS: u32 = 8;
/// How DynamoDB asks for fewer calls.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const THROTTLED: [&str; 3] = ["ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"];

impl DynamoStore {
    /// Counts only accepted records. On an error some of them may be stored. With `prolong`, an item that is there expires when
    /// the record does, if that is later.
    pub(super) async fn put(&self, records: &[AuditRecord], prolong: bool) -> Result<Written, DynamoError> {
        let now = OffsetDateTime::now_utc();
        let mut written = Written::default();
        // Concurrent puts of one key have no order: the first of a batch is put.
        let mut firsts: HashMap<&str, &AuditRecord> = HashMap::new();
        let mut puts = JoinSet::new();
        for record in records {
            let first = *firsts.entry(record.request_id.as_str()).or_insert(record);
            if !std::ptr::eq(first, record) {
                written.count(record, Inserted::compare(first, record));
                continue;
            }
            let item = item::from_record(record, now);
            let size = item::size(&item);
            if size > item::MAX_ITEM {
                let reason = format!("its item of {size} bytes exceeds DynamoDB's limit of {}", item::MAX_ITEM);
                written.refuse(record, reason);
                continue;
            }
            if puts.len() >= IN_FLIGHT
                && let Some(put) = puts.join_next().await
            {
                finish(put, &mut written)?;
            }
            let (store, record) = (self.clone(), Arc::new(record.clone()));
            puts.spawn(async move { store.put_new(&record, item, prolong).await.map(|inserted| (record, inserted)) });
        }
        while let Some(put) = puts.join_next().await {
            finish(put, &mut written)?;
        }
        Ok(written)
    }

    async fn put_new(&self, record: &AuditRecord, item: item::Item, prolong: bool) -> Result<Inserted, DynamoError> {
        let mut attempt = 1;
        let replaced = replaced_by(record);
        loop {
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
            let Err(error) = put.send().await else { return Ok(Inserted::New) };
            if let Some(PutItemError::ConditionalCheckFailedException(exists)) = error.as_service_error() {
                let stored = exists.item().map(|item| self.record(item)).transpose()?;
                let Some(stored) = stored else {
                    return Ok(Inserted::Conflict("the table has an item under its request id".to_owned()));
                };
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

type Put = Result<Result<(Arc<AuditRecord>, Inserted), DynamoError>, tokio::task::JoinError>;

fn finish(put: Put, written: &mut Written) -> Result<(), DynamoError> {
    let put = put.map_err(|error| DynamoError::Call { call: "PutItem", cause: error.to_string() })?;
    let (record, inserted) = put?;
    written.count(&record, inserted);
    Ok(())
}
