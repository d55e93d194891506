//! Writes, until DynamoDB has accepted every item.

use std::collections::HashMap;

use audit::AuditRecord;
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};

use super::{DynamoError, DynamoStore, item};
use crate::BATCH_ITEMS;
use crate::source::back_off;
use crate::store::Written;

/// How often what DynamoDB leaves unprocessed is sent, before the batch as a whole counts as failed: with the back-off
/// between them some 12 s.
const TRIES: u32 = 8;

impl DynamoStore {
    /// Puts records. What DynamoDB gives back as unprocessed (it throttles that way) is sent again, with back-off and
    /// jitter; only what it accepted counts as stored.
    ///
    /// # Errors
    /// [`DynamoError::Unprocessed`] and what the call itself gives.
    pub(super) async fn put(&self, records: &[AuditRecord]) -> Result<Written, DynamoError> {
        let mut written = Written::default();
        // Two items of one key make DynamoDB reject the whole batch. The first stays, as in SQLite.
        let mut seen = HashMap::new();
        let mut requests = Vec::new();
        for record in records {
            let first = *seen.entry(record.request_id.as_str()).or_insert(record);
            if first.time != record.time {
                let reason = format!("its id is that of another exchange, of {}", first.time);
                written.refused.push((record.request_id.clone(), reason));
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
                let reason = format!("the item has {size} bytes, and DynamoDB takes {}", item::MAX_ITEM);
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
        for tries in 1..=TRIES {
            let request = HashMap::from([(self.table.clone(), std::mem::take(&mut left))]);
            let output = self.client.batch_write_item().set_request_items(Some(request)).send().await;
            let output = output.map_err(|error| self.failed("BatchWriteItem", &error))?;
            left = output.unprocessed_items.unwrap_or_default().into_values().flatten().collect();
            if left.is_empty() {
                return Ok(());
            }
            if tries < TRIES {
                tokio::time::sleep(back_off(tries)).await;
            }
        }
        Err(DynamoError::Unprocessed { left: left.len(), tries: TRIES })
    }
}
