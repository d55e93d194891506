//! A record as a DynamoDB item. Attributes are the record's JSON fields and the index's hash key.

use std::collections::HashMap;

use audit::{AuditRecord, FieldValue, table as names};
use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;

use crate::hash::fnv1a;
use crate::timestamp::timestamp;

pub(super) type Item = HashMap<String, AttributeValue>;

/// Shards of a day in the index by time. A query reads each of them.
pub const SHARDS: u64 = 16;
/// Instead of the day, in the index's hash key of records whose time is a day ahead or more: a query reads each of its
/// days, and these shards.
pub(super) const FUTURE: &str = "future";
/// DynamoDB's limit for an item, in bytes of its names and values.
pub(super) const MAX_ITEM: usize = 400 * 1024;
const DAY: usize = "2026-11-22".len();

/// The index's hash key: the day of `time`, and a shard that follows from the id alone.
pub fn shard_of(time: &str, request_id: &str) -> String {
    format!("{}#{:02}", time.get(..DAY).unwrap_or(time), shard(request_id))
}

fn shard(request_id: &str) -> u64 {
    fnv1a(request_id.as_bytes()) % SHARDS
}

/// Null fields become no attribute.
pub(super) fn from_record(record: &AuditRecord, now: OffsetDateTime) -> Item {
    let mut item = Item::new();
    for (field, value) in AuditRecord::FIELDS.iter().zip(record.values()) {
        let value = match value {
            FieldValue::Null => continue,
            FieldValue::Text(text) => AttributeValue::S(text.to_owned()),
            FieldValue::Integer(number) => AttributeValue::N(number.to_string()),
        };
        item.insert(field.name.to_owned(), value);
    }
    let shard = if is_ahead(&record.time, now) {
        future(&record.request_id)
    } else {
        shard_of(&record.time, &record.request_id)
    };
    item.insert(names::INDEX_HASH.to_owned(), AttributeValue::S(shard));
    item
}

/// The item as it is to be, if its time is a day ahead or more and it is not among those of the future.
pub(super) fn shown(item: &Item, now: OffsetDateTime) -> Option<Item> {
    let text = |name| item.get(name).and_then(|value| value.as_s().ok());
    let (time, id, shard) = (text(names::INDEX_RANGE)?, text(names::KEY)?, text(names::INDEX_HASH)?);
    if !is_ahead(time, now) || shard.starts_with(FUTURE) {
        return None;
    }
    let mut shown = item.clone();
    shown.insert(names::INDEX_HASH.to_owned(), AttributeValue::S(future(id)));
    Some(shown)
}

fn is_ahead(time: &str, now: OffsetDateTime) -> bool {
    timestamp(now + time::Duration::days(1)).is_some_and(|tomorrow| time > tomorrow.as_str())
}

fn future(request_id: &str) -> String {
    format!("{FUTURE}#{:02}", shard(request_id))
}

/// Ignores attributes that are not fields.
///
/// # Errors
/// The name of a field whose attribute is of another type.
pub(super) fn to_record(item: &Item) -> Result<AuditRecord, &'static str> {
    AuditRecord::read(|field| value(item, field.name))
}

/// An attribute's value. Null if the item has none.
pub(super) fn value<'i>(item: &'i Item, name: &str) -> FieldValue<'i> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => FieldValue::Text(text),
        Some(AttributeValue::N(number)) => number.parse().map_or(FieldValue::Null, FieldValue::Integer),
        _ => FieldValue::Null,
    }
}

/// The item's size by DynamoDB's rules, counting each number at its maximum of 21 bytes.
pub(super) fn size(item: &Item) -> usize {
    let value = |value: &AttributeValue| match value {
        AttributeValue::S(text) => text.len(),
        _ => 21,
    };
    item.iter().map(|(name, attribute)| name.len() + value(attribute)).sum()
}
