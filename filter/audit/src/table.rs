//! The names of the DynamoDB table's keys, index and TTL attribute. The collector uses them to create and read the
//! table; a check compares them with the template in `infra/`.

/// Hash key, a string.
pub const KEY: &str = "request_id";
/// The index that finds a day's records.
pub const INDEX: &str = "by_time";
/// Hash key of the index, a string: `2026-11-22#07`.
pub const INDEX_HASH: &str = "day_shard";
/// Range key of the index, a string.
pub const INDEX_RANGE: &str = "time";
/// TTL attribute, a number.
pub const TTL: &str = "expires_at";
