//! Finds records: by key, or through the index by time.

use std::cmp::Ordering;
use std::collections::VecDeque;

use audit::{AuditRecord, table as names};
use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;

use super::DynamoStore;
use super::error::DynamoError;
use super::item::{self, FUTURE, SHARDS};
use crate::query::{Found, Query};

/// Items of a page, of which each shard has one in memory.
const PAGE: usize = 250;

/// A shard of the index that is read page by page, newest first.
struct Shard {
    key: String,
    page: VecDeque<AuditRecord>,
    /// Where the next page begins.
    from: Option<item::Item>,
    ended: bool,
}

impl DynamoStore {
    /// Hands matching records that have not expired to `each`, newest first.
    pub async fn scan(
        &self,
        query: &Query,
        now: OffsetDateTime,
        mut each: impl FnMut(AuditRecord) -> bool,
    ) -> Result<Found, DynamoError> {
        let mut found = Found::default();
        if let Some(id) = &query.request_id {
            if let Some(record) = self.by_id(id, query, now).await? {
                found.next(query.limit, record, &mut each);
            }
            return Ok(found);
        }
        // Records from the future are in shards of their own, whatever their day is.
        let mut future = self.future(query, now).await?.into_iter().peekable();
        let retention = i64::try_from(audit::RETENTION_DAYS).unwrap_or(i64::MAX);
        let oldest = (now - time::Duration::days(retention)).date().to_string();
        let since = query.since.as_deref().and_then(day_of).unwrap_or_default().to_owned().max(oldest);
        let until = query.until.as_deref().and_then(day_of);
        // Envoy's clock may be ahead of this one. Older releases put records of any day into its shards.
        let mut day = (now + time::Duration::days(1)).date();
        if let Some(until) = until.and_then(date) {
            day = day.max(until);
        }
        while day.to_string() >= since {
            let name = day.to_string();
            if until.is_none_or(|until| name.as_str() <= until) {
                let mut shards = self.open(query, now, |shard| format!("{name}#{shard:02}")).await?;
                while let Some(record) = self.newest(&mut shards, query, now).await? {
                    while let Some(newer) = future.next_if(|newer| newest_first(newer, &record) == Ordering::Less) {
                        if !found.next(query.limit, newer, &mut each) {
                            return Ok(found);
                        }
                    }
                    if !found.next(query.limit, record, &mut each) {
                        return Ok(found);
                    }
                }
            }
            let Some(previous) = day.previous_day() else {
                break;
            };
            day = previous;
        }
        for record in future {
            if !found.next(query.limit, record, &mut each) {
                break;
            }
        }
        Ok(found)
    }

    /// The records that [`Self::scan`] finds.
    pub async fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        let mut records = Vec::new();
        let each = |record| {
            records.push(record);
            true
        };
        self.scan(query, now, each).await?;
        Ok(records)
    }

    async fn by_id(&self, id: &str, query: &Query, now: OffsetDateTime) -> Result<Option<AuditRecord>, DynamoError> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let output = get.key(names::KEY, AttributeValue::S(id.to_owned())).send().await;
        let output = output.map_err(|error| self.failed("GetItem", &error))?;
        let found = output.item.map(|item| self.record(&item)).transpose()?;
        Ok(found.filter(|record| expires_after(record, now) && query.matches(record)))
    }

    /// The records that were a day or more ahead when they were stored: few, unless a clock is wrong.
    async fn future(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        let mut shards = self.open(query, now, |shard| format!("{FUTURE}#{shard:02}")).await?;
        let mut found = Vec::new();
        while found.len() <= query.limit
            && let Some(record) = self.newest(&mut shards, query, now).await?
        {
            found.push(record);
        }
        Ok(found)
    }

    /// Reads the first page of each shard of a day, concurrently.
    async fn open(
        &self,
        query: &Query,
        now: OffsetDateTime,
        key: impl Fn(u64) -> String,
    ) -> Result<Vec<Shard>, DynamoError> {
        let mut reads = tokio::task::JoinSet::new();
        for shard in 0..SHARDS {
            let mut shard = Shard { key: key(shard), page: VecDeque::new(), from: None, ended: false };
            let (store, query) = (self.clone(), query.clone());
            reads.spawn(async move { store.fill(&mut shard, &query, now).await.map(|()| shard) });
        }
        let mut shards = Vec::new();
        while let Some(read) = reads.join_next().await {
            shards.push(read.map_err(|error| DynamoError::Call { call: "Query", cause: error.to_string() })??);
        }
        Ok(shards)
    }

    /// Takes the newest record of all shards.
    async fn newest(
        &self,
        shards: &mut [Shard],
        query: &Query,
        now: OffsetDateTime,
    ) -> Result<Option<AuditRecord>, DynamoError> {
        for shard in shards.iter_mut() {
            self.fill(shard, query, now).await?;
        }
        let heads = shards.iter_mut().filter(|shard| !shard.page.is_empty());
        let newest = heads.min_by(|a, b| match (a.page.front(), b.page.front()) {
            (Some(a), Some(b)) => newest_first(a, b),
            _ => Ordering::Equal,
        });
        Ok(newest.and_then(|shard| shard.page.pop_front()))
    }

    /// Reads pages until one has a matching record.
    async fn fill(&self, shard: &mut Shard, query: &Query, now: OffsetDateTime) -> Result<(), DynamoError> {
        // `0` sorts before every time, `~` after.
        let since = query.since.clone().unwrap_or_else(|| "0".to_owned());
        let until = query.until.clone().unwrap_or_else(|| "~".to_owned());
        while shard.page.is_empty() && !shard.ended {
            let output = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(names::INDEX)
                .key_condition_expression("#shard = :shard AND #time BETWEEN :since AND :until")
                .expression_attribute_names("#shard", names::INDEX_HASH)
                .expression_attribute_names("#time", names::INDEX_RANGE)
                .expression_attribute_values(":shard", AttributeValue::S(shard.key.clone()))
                .expression_attribute_values(":since", AttributeValue::S(since.clone()))
                .expression_attribute_values(":until", AttributeValue::S(until.clone()))
                .scan_index_forward(false)
                .limit(i32::try_from(query.limit.saturating_add(1).min(PAGE)).unwrap_or(1))
                .set_exclusive_start_key(shard.from.take())
                .send()
                .await
                .map_err(|error| self.failed("Query", &error))?;
            for item in output.items.unwrap_or_default() {
                let record = self.record(&item)?;
                if expires_after(&record, now) && query.matches(&record) {
                    shard.page.push_back(record);
                }
            }
            shard.from = output.last_evaluated_key.filter(|key| !key.is_empty());
            shard.ended = shard.from.is_none();
        }
        Ok(())
    }

    pub(super) fn record(&self, item: &item::Item) -> Result<AuditRecord, DynamoError> {
        item::to_record(item).map_err(|cause| DynamoError::Item { table: self.table.clone(), cause })
    }
}

fn newest_first(a: &AuditRecord, b: &AuditRecord) -> Ordering {
    b.time.cmp(&a.time).then_with(|| a.request_id.cmp(&b.request_id))
}

/// The `2026-11-22` of a timestamp.
fn day_of(timestamp: &str) -> Option<&str> {
    timestamp.get(..10)
}

fn date(day: &str) -> Option<time::Date> {
    time::Date::parse(day, time::macros::format_description!("[year]-[month]-[day]")).ok()
}

/// DynamoDB deletes an item within a few days of its expiry, so expired ones may still be there.
fn expires_after(record: &AuditRecord, now: OffsetDateTime) -> bool {
    i64::try_from(record.expires_at).unwrap_or(i64::MAX) > now.unix_timestamp()
}
