//! Adds up records by some of their values: calls, errors, tokens and bytes of each model on each day, say.

use std::collections::HashMap;

use audit::FieldValue;

use super::{ArgumentError, Zone, nearest};

/// Groups that are kept: some 30 MB.
const MAX_GROUPS: usize = 50_000;

/// What records can be added up by, and the fields that it needs.
const KEYS: [(&str, Key); 23] = [
    ("principal", Key::Field("principal")),
    ("source_address", Key::Field("source_address")),
    ("operation", Key::Field("operation")),
    ("model", Key::Model),
    ("model_asked", Key::Field("model_asked")),
    ("model_sent", Key::Field("model_sent")),
    ("class", Key::Field("route_class")),
    ("rule", Key::Field("rule")),
    ("rule_decision", Key::Field("rule_decision")),
    ("region", Key::Field("region")),
    ("path", Key::Field("path")),
    ("attempts", Key::Field("attempts")),
    ("status", Key::Field("status")),
    ("error_type", Key::Field("error_type")),
    ("access_key_id", Key::Field("access_key_id")),
    ("session", Key::Field("session")),
    ("kind", Key::Field("kind")),
    ("service_tier", Key::Field("service_tier")),
    ("model_invoked", Key::Field("model_invoked")),
    ("stream_end", Key::Field("stream_end")),
    ("day", Key::Time(10)),
    ("hour", Key::Time(13)),
    ("month", Key::Time(7)),
];

/// The columns behind the keys.
pub const SUMS: [&str; 14] = [
    "records",
    "errors",
    "tokens_in",
    "tokens_out",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_cache_write_5m",
    "tokens_cache_write_1h",
    "tokens_in_estimated",
    "tokens_out_estimated",
    "bytes_in",
    "bytes_out",
    "latency_p50_ms",
    "latency_max_ms",
];

/// The fields that each group needs, whatever its keys are.
const NEEDED: [&str; 13] = [
    "status",
    "error_type",
    "tokens_in",
    "tokens_out",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_cache_write_5m",
    "tokens_cache_write_1h",
    "tokens_in_estimated",
    "tokens_out_estimated",
    "bytes_in",
    "bytes_out",
    "latency_ms",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Field(&'static str),
    /// `model_sent`, or `model_asked` of a call that was not sent.
    Model,
    /// So many characters of the local time.
    Time(usize),
}

/// A choice of keys.
#[derive(Debug, Clone)]
pub struct Keys(Vec<(&'static str, Key)>);

#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_GROUPS} groups: give fewer columns to --by, or narrow the query")]
pub struct TooMany;

/// Groups of records.
#[derive(Debug)]
pub struct Groups {
    keys: Keys,
    zone: Zone,
    fields: Vec<&'static str>,
    groups: HashMap<Vec<u8>, Group>,
    buffer: Vec<u8>,
    minute: Minute,
}

/// A minute in UTC and in another zone. Most records are of the minute of the one before.
#[derive(Debug, Default)]
struct Minute {
    utc: String,
    local: String,
}

#[derive(Debug, Default)]
struct Group {
    records: u64,
    errors: u64,
    /// Those of [`NEEDED`] from the third to the last but one.
    sums: [u64; 10],
    latency: Latency,
    latency_max: u64,
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyValue {
    Null,
    Integer(u64),
    Text(String),
}

impl std::str::FromStr for Keys {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let find = |name: &str| {
            let name = name.trim();
            // The record's own name of it.
            let name = if name == "route_class" { "class" } else { name };
            KEYS.into_iter().find(|(known, _)| *known == name).ok_or_else(|| ArgumentError::Column {
                nearest: nearest(name, KEYS.iter().map(|(known, _)| *known)).map(str::to_owned),
                all: KEYS.iter().map(|(known, _)| *known).collect(),
            })
        };
        text.split(',').map(find).collect::<Result<_, _>>().map(Self)
    }
}

impl Keys {
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    /// Whether the values of a key are numbers.
    pub fn is_number(name: &str) -> bool {
        matches!(name, "attempts" | "status")
    }
}

impl Groups {
    pub fn new(keys: Keys, zone: Zone) -> Self {
        let mut fields = NEEDED.to_vec();
        for (_, key) in &keys.0 {
            match key {
                Key::Field(name) => fields.push(name),
                Key::Model => fields.extend(["model_sent", "model_asked"]),
                Key::Time(_) => fields.push("time"),
            }
        }
        Self { keys, zone, fields, groups: HashMap::new(), buffer: Vec::new(), minute: Minute::default() }
    }

    /// The fields that [`Self::add`] takes, in its order.
    pub fn fields(&self) -> &[&'static str] {
        &self.fields
    }

    /// Adds a record's values of [`Self::fields`].
    pub fn add(&mut self, values: &[FieldValue<'_>]) -> Result<(), TooMany> {
        let (needed, mut rest) = values.split_at_checked(NEEDED.len()).unwrap_or((values, &[]));
        let mut next = || rest.split_off_first().copied().unwrap_or(FieldValue::Null);
        self.buffer.clear();
        for (_, key) in &self.keys.0 {
            match key {
                Key::Field(_) => push(&mut self.buffer, next()),
                Key::Model => {
                    let (sent, asked) = (next(), next());
                    push(&mut self.buffer, if sent == FieldValue::Null { asked } else { sent });
                }
                Key::Time(length) => match next() {
                    FieldValue::Text(time) => {
                        let local = self.minute.local(time, &self.zone);
                        push(&mut self.buffer, FieldValue::Text(local.get(..*length).unwrap_or(local)));
                    }
                    other => push(&mut self.buffer, other),
                },
            }
        }
        let full = self.groups.len() >= MAX_GROUPS;
        match self.groups.get_mut(&self.buffer) {
            Some(group) => group.add(needed),
            None if full => return Err(TooMany),
            None => self.groups.entry(self.buffer.clone()).or_default().add(needed),
        }
        Ok(())
    }

    /// Each group's keys and [`SUMS`], in the order of the keys.
    pub fn rows(self) -> Vec<(Vec<KeyValue>, [u64; SUMS.len()])> {
        let rows = self.groups.into_iter().map(|(key, group)| (read(&key), group.sums()));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        rows
    }
}

impl Minute {
    /// The local time, up to the minute at least. No zone's offset changes within a minute.
    fn local<'t>(&'t mut self, time: &'t str, zone: &Zone) -> &'t str {
        if zone.is_utc() {
            return time;
        }
        let Some(minute) = time.get(..16) else { return time };
        if self.utc != minute {
            self.utc = minute.to_owned();
            self.local = zone.local(time);
        }
        &self.local
    }
}

impl Group {
    fn add(&mut self, values: &[FieldValue<'_>]) {
        let [status, error, sums @ .., latency] = values else { return };
        self.records += 1;
        let failed = matches!(status, FieldValue::Integer(0 | 400..)) || *error != FieldValue::Null;
        self.errors += u64::from(failed);
        for (sum, value) in self.sums.iter_mut().zip(sums) {
            *sum = sum.saturating_add(number(*value));
        }
        self.latency.add(number(*latency));
        self.latency_max = self.latency_max.max(number(*latency));
    }

    fn sums(&self) -> [u64; SUMS.len()] {
        let [input, output, read, write, write_5m, write_1h, input_guess, output_guess, bytes_in, bytes_out] =
            self.sums;
        let median = self.latency.median().min(self.latency_max);
        [
            self.records,
            self.errors,
            input,
            output,
            read,
            write,
            write_5m,
            write_1h,
            input_guess,
            output_guess,
            bytes_in,
            bytes_out,
            median,
            self.latency_max,
        ]
    }
}

fn number(value: FieldValue<'_>) -> u64 {
    if let FieldValue::Integer(number) = value { number } else { 0 }
}

// A key of the map: for each value a tag, its length, and its bytes.

fn push(to: &mut Vec<u8>, value: FieldValue<'_>) {
    let mut write = |tag: u8, bytes: &[u8]| {
        to.push(tag);
        to.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        to.extend_from_slice(bytes);
    };
    match value {
        FieldValue::Null => write(0, &[]),
        FieldValue::Integer(number) => write(1, &number.to_le_bytes()),
        FieldValue::Text(text) => write(2, text.as_bytes()),
    }
}

fn read(mut key: &[u8]) -> Vec<KeyValue> {
    let mut values = Vec::new();
    while let Some((head, rest)) = key.split_first_chunk::<5>() {
        let [tag, length @ ..] = head;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(0);
        let (bytes, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        key = rest;
        values.push(match tag {
            0 => KeyValue::Null,
            1 => KeyValue::Integer(bytes.try_into().map_or(0, u64::from_le_bytes)),
            _ => KeyValue::Text(String::from_utf8_lossy(bytes).into_owned()),
        });
    }
    values
}

/// Counts of latencies in ranges that grow with them: eight between a number and its double.
#[derive(Debug, Default)]
struct Latency(Vec<(u16, u32)>);

impl Latency {
    fn add(&mut self, value: u64) {
        let range = range_of(value);
        match self.0.binary_search_by_key(&range, |(range, _)| *range) {
            Ok(at) => {
                if let Some((_, count)) = self.0.get_mut(at) {
                    *count = count.saturating_add(1);
                }
            }
            Err(at) => self.0.insert(at, (range, 1)),
        }
    }

    /// At most 6 percent above or below the true one.
    fn median(&self) -> u64 {
        let total: u64 = self.0.iter().map(|(_, count)| u64::from(*count)).sum();
        let mut seen = 0;
        for (range, count) in &self.0 {
            seen += u64::from(*count);
            if seen * 2 >= total {
                return middle_of(*range);
            }
        }
        0
    }
}

fn range_of(value: u64) -> u16 {
    let Some(shift) = (u64::BITS - value.leading_zeros()).checked_sub(4) else {
        return u16::try_from(value).unwrap_or(0);
    };
    // The four highest bits, of which the first is set.
    u16::try_from(u64::from(shift) * 8 + (value >> shift)).unwrap_or(u16::MAX)
}

fn middle_of(range: u16) -> u64 {
    let range = u64::from(range);
    if range < 16 {
        return range;
    }
    let shift = range / 8 - 1;
    ((range % 8 + 8) << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use audit::AuditRecord;

    use super::*;

    #[test]
    fn every_key_is_a_field() {
        let is_field = |name: &str| AuditRecord::FIELDS.iter().any(|field| field.name == name);
        for (name, _) in KEYS {
            let groups = Groups::new(name.parse().unwrap(), Zone::default());
            assert!(groups.fields().iter().all(|name| is_field(name)), "{name}");
        }
    }

    #[test]
    fn a_mistyped_key_is_named() {
        let error = "day,modle".parse::<Keys>().unwrap_err().to_string();
        assert!(error.starts_with("no such column: did you mean model?; there are: principal, "), "{error}");
    }

    #[test]
    fn medians_are_near() {
        for value in (0..2_000).chain([10_000, 123_456, u64::from(u32::MAX), u64::MAX / 2]) {
            let middle = middle_of(range_of(value));
            assert!(middle.abs_diff(value) * 16 <= value, "{value}: {middle}");
        }
        let mut latency = Latency::default();
        for value in [5, 100, 100, 100, 90_000] {
            latency.add(value);
        }
        assert!(latency.median().abs_diff(100) <= 6);
    }

    #[test]
    fn groups_add_up() {
        let mut groups = Groups::new("day,model,status".parse().unwrap(), "Asia/Tokyo".parse().unwrap());
        let mut record = AuditRecord {
            time: "2026-01-02T20:00:00.000Z".to_owned(),
            model_asked: Some("m".to_owned()),
            status: 200,
            tokens_in: Some(5),
            latency_ms: 10,
            ..AuditRecord::default()
        };
        let mut add = |record: &AuditRecord| {
            let values: Vec<_> = groups.fields().iter().map(|name| value(record, name)).collect();
            groups.add(&values).unwrap();
        };
        add(&record);
        record.model_sent = Some("m".to_owned());
        add(&record);
        record.status = 500;
        record.time = "2026-01-02T10:00:00.000Z".to_owned();
        add(&record);
        let text = |text: &str| KeyValue::Text(text.to_owned());
        let rows = groups.rows();
        let keys: Vec<_> = rows.iter().map(|(keys, sums)| (keys.clone(), sums[0], sums[1], sums[2])).collect();
        assert_eq!(
            keys,
            [
                (vec![text("2026-01-02"), text("m"), KeyValue::Integer(500)], 1, 1, 5),
                (vec![text("2026-01-03"), text("m"), KeyValue::Integer(200)], 2, 0, 10)
            ]
        );
    }

    fn value<'r>(record: &'r AuditRecord, name: &str) -> FieldValue<'r> {
        let at = AuditRecord::FIELDS.iter().position(|field| field.name == name).unwrap();
        record.values()[at]
    }
}
