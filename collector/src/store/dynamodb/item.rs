//! A record as an item, and back.

use std::collections::HashMap;

use audit::{AuditRecord, table as names};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Value};

use crate::hash::fnv1a;

/// An item's attributes.
pub(super) type Item = HashMap<String, AttributeValue>;

/// Shards of a day in the index by time. More would be more queries for the same answer.
pub const SHARDS: u64 = 16;
/// DynamoDB's limit for an item, in bytes of its names and values.
pub(super) const MAX_ITEM: usize = 400 * 1024;
/// The length of a day in a time.
const DAY: usize = "2026-11-22".len();

/// The index's hash key for a record: its day, and a shard that its id alone decides.
pub fn shard_of(time: &str, request_id: &str) -> String {
    format!("{}#{:02}", time.get(..DAY).unwrap_or(time), fnv1a(request_id.as_bytes()) % SHARDS)
}

/// A record as an item. What is unknown is left out.
pub(super) fn from_record(record: &AuditRecord) -> Item {
    let mut item = Item::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(record) {
        for (name, value) in fields {
            let value = match value {
                Value::String(text) => AttributeValue::S(text),
                Value::Number(number) => AttributeValue::N(number.to_string()),
                _ => continue,
            };
            item.insert(name, value);
        }
    }
    item.insert(names::INDEX_HASH.to_owned(), AttributeValue::S(shard_of(&record.time, &record.request_id)));
    item
}

/// An item as a record.
pub(super) fn to_record(item: &Item) -> Result<AuditRecord, serde_json::Error> {
    let mut fields = Map::new();
    for (name, value) in item {
        let value = match value {
            AttributeValue::S(text) => Value::String(text.clone()),
            AttributeValue::N(number) => serde_json::from_str(number)?,
            _ => continue,
        };
        fields.insert(name.clone(), value);
    }
    serde_json::from_value(Value::Object(fields))
}

/// An item's size as DynamoDB counts it, a number as the 21 bytes that it takes at most.
pub(super) fn size(item: &Item) -> usize {
    let value = |value: &AttributeValue| match value {
        AttributeValue::S(text) => text.len(),
        _ => 21,
    };
    item.iter().map(|(name, attribute)| name.len() + value(attribute)).sum()
}
