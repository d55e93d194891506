//! Finds records: by key, or through the index by time.

use audit::{AuditRecord, table as names};
use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;

use super::DynamoStore;
use super::error::DynamoError;
use super::item::{self, SHARDS};
use crate::query::Query;

impl DynamoStore {
    /// Matching records that have not expired, newest first.
    pub async fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        match &query.request_id {
            Some(id) => self.by_id(id, query, now).await,
            None => self.by_time(query, now).await,
        }
    }

    async fn by_id(&self, id: &str, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let output = get.key(names::KEY, AttributeValue::S(id.to_owned())).send().await;
        let output = output.map_err(|error| self.failed("GetItem", &error))?;
        let mut found = Vec::from_iter(output.item.map(|item| self.record(&item)).transpose()?);
        found.retain(|record| expires_after(record, now) && query.matches(record));
        Ok(found)
    }

    /// Reads day by day, newest first, until `limit` records match.
    async fn by_time(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        let retention = i64::try_from(audit::RETENTION_DAYS).unwrap_or(i64::MAX);
        let oldest = (now - time::Duration::days(retention)).date().to_string();
        let since = query.since.as_deref().and_then(day_of).unwrap_or_default().to_owned().max(oldest);
        let until = query.until.as_deref().and_then(day_of);
        // Envoy's clock may be ahead of this one.
        let mut day = (now + time::Duration::days(1)).date();
        let mut found = Vec::new();
        while day.to_string() >= since && found.len() < query.limit {
            let name = day.to_string();
            if until.is_none_or(|until| name.as_str() <= until) {
                found.extend(self.day(query, &name, now).await?);
            }
            let Some(previous) = day.previous_day() else {
                break;
            };
            day = previous;
        }
        found.truncate(query.limit);
        Ok(found)
    }

    /// Queries a day's shards concurrently.
    async fn day(&self, query: &Query, day: &str, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        let mut shards = tokio::task::JoinSet::new();
        for shard in 0..SHARDS {
            let (store, query, key) = (self.clone(), query.clone(), format!("{day}#{shard:02}"));
            shards.spawn(async move { store.shard(&query, key, now).await });
        }
        let mut found: Vec<AuditRecord> = Vec::new();
        while let Some(shard) = shards.join_next().await {
            let shard = shard.map_err(|error| DynamoError::Call { call: "Query", cause: error.to_string() })?;
            found.extend(shard?);
        }
        found.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.request_id.cmp(&b.request_id)));
        Ok(found)
    }

    /// Reads pages of a shard, newest first, until `limit` records match.
    async fn shard(&self, query: &Query, key: String, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        // `0` sorts before every time, `~` after.
        let since = query.since.clone().unwrap_or_else(|| "0".to_owned());
        let until = query.until.clone().unwrap_or_else(|| "~".to_owned());
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
                .expression_attribute_values(":since", AttributeValue::S(since.clone()))
                .expression_attribute_values(":until", AttributeValue::S(until.clone()))
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
}

/// The `2026-11-22` of a timestamp.
fn day_of(timestamp: &str) -> Option<&str> {
    timestamp.get(..10)
}

/// DynamoDB deletes an item within a few days of its expiry, so expired ones may still be there.
fn expires_after(record: &AuditRecord, now: OffsetDateTime) -> bool {
    i64::try_from(record.expires_at).unwrap_or(i64::MAX) > now.unix_timestamp()
}
