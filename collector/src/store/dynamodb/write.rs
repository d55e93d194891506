//! Puts records until DynamoDB has accepted every item.

use std::collections::HashMap;

use audit::AuditRecord;
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};

use super::error::DynamoError;
use super::{DynamoStore, item};
use crate::backoff::back_off;
use crate::batch::{BATCH_ITEMS, Written};

/// Attempts before the batch fails; their back-off adds up to some 12 s.
const ATTEMPTS: u32 = 8;

impl DynamoStore {
    /// Sends items that DynamoDB leaves unprocessed (its way to throttle a batch) again, with back-off. Counts only
    /// accepted ones.
    pub(super) async fn put(&self, records: &[AuditRecord]) -> Result<Written, DynamoError> {
        let mut written = Written::default();
        // DynamoDB rejects a batch that has two items of one key. The first is kept, as in SQLite.
        let mut seen = HashMap::new();
        let mut requests = Vec::new();
        for record in records {
            let first = *seen.entry(record.request_id.as_str()).or_insert(record);
            if first.time != record.time {
                written.refused.push((record.request_id.clone(), Written::id_conflict(&first.time)));
                continue;
            }
            if !std::ptr::eq(first, record) {
                written.stored += 1;
                written.repeated += 1;
                continue;
            }
            let item = item::from_record(record);
            let size = item::size(&item);
            if size > item::MAX_ITEM {
                let reason = format!("its item of {size} bytes exceeds DynamoDB's limit of {}", item::MAX_ITEM);
                written.refused.push((record.request_id.clone(), reason));
                continue;
            }
            let put = PutRequest::builder().set_item(Some(item)).build();
            let put = put.map_err(|error| DynamoError::Call { call: "BatchWriteItem", cause: error.to_string() })?;
            requests.push(WriteRequest::builder().put_request(put).build());
        }
        for chunk in requests.chunks(BATCH_ITEMS) {
            self.put_all(chunk.to_vec()).await?;
            written.stored += chunk.len() as u64;
        }
        Ok(written)
    }

    async fn put_all(&self, mut left: Vec<WriteRequest>) -> Result<(), DynamoError> {
        for attempt in 1..=ATTEMPTS {
            let request = HashMap::from([(self.table.clone(), std::mem::take(&mut left))]);
            let output = self.client.batch_write_item().set_request_items(Some(request)).send().await;
            let output = output.map_err(|error| self.failed("BatchWriteItem", &error))?;
            left = output.unprocessed_items.unwrap_or_default().into_values().flatten().collect();
            if left.is_empty() {
                return Ok(());
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(back_off(attempt)).await;
            }
        }
        Err(DynamoError::Unprocessed { left: left.len(), attempts: ATTEMPTS })
    }
}
