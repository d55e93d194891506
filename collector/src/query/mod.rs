//! Selects records.

pub mod condition;
mod cursor;
pub mod groups;
mod progress;
mod zone;

use audit::{AuditRecord, FieldValue, RecordKind};

use self::condition::{Condition, Test};
pub use self::cursor::Cursor;
pub use self::progress::Progress;
pub use self::zone::{Zone, time_argument};

/// Conditions that a record must meet. None matches every record.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Inclusive, in the form of [`timestamp`](crate::timestamp::timestamp).
    pub since: Option<String>,
    /// Exclusive, in the form of [`timestamp`](crate::timestamp::timestamp).
    pub until: Option<String>,
    /// Where an earlier query stopped.
    pub after: Option<Cursor>,
    /// Ignores case.
    pub operation: Option<String>,
    /// A part of `model_asked` or `model_sent`.
    pub model: Option<String>,
    /// A part of the principal.
    pub principal: Option<String>,
    pub source_address: Option<String>,
    pub class: Option<String>,
    pub path: Option<String>,
    pub region: Option<String>,
    pub status: Option<Status>,
    /// A part of the error type.
    pub error_type: Option<String>,
    pub access_key_id: Option<String>,
    /// A part of the session's ARN.
    pub session: Option<String>,
    pub upstream_request_id: Option<String>,
    pub kind: KindFilter,
    pub request_id: Option<String>,
    /// The maximum number of records.
    pub limit: usize,
}

/// Which values of the field `kind`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KindFilter {
    #[default]
    All,
    /// Null, and [calls](RecordKind::is_call).
    Calls,
    /// Null.
    Exchange,
    Is(RecordKind),
}

const CALLS: [&str; 2] = [RecordKind::OutcomeUnknown.name(), RecordKind::Unlogged.name()];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `503`
    Is(u16),
    /// `5xx`, as 5
    Class(u16),
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub count: usize,
    /// More records match than the limit allows.
    pub more: bool,
    /// The last record that was handed on.
    pub last: Option<Cursor>,
}

#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    #[error(
        "expected a time (2026-01-02T03:04:05Z, 2026-01-02T03:04), a day (2026-01-02) or an age (90s, 15m, 2h, 7d)"
    )]
    Time,
    #[error("expected a status (503), a class (5xx), or 0 for a client that left first")]
    Status,
    #[error("expected the cursor that a query printed")]
    Cursor,
    #[error("not a time zone of the IANA database{}", suggestion(.0))]
    Zone(Option<String>),
    #[error("no such kind{}; there are: {}", suggestion(.nearest), .all.join(", "))]
    Kind { nearest: Option<String>, all: Vec<&'static str> },
    #[error("no such column{}; there are: {}", suggestion(.nearest), .all.join(", "))]
    Column { nearest: Option<String>, all: Vec<&'static str> },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!(": did you mean {nearest}?"))
}

/// The name that a mistyped one most likely means.
pub(crate) fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    let distance = |name: &&str| strsim::damerau_levenshtein(&typed, &name.to_ascii_lowercase());
    names.map(|name| (distance(&name), name)).min().filter(|(distance, _)| *distance <= 3).map(|(_, name)| name)
}

impl std::str::FromStr for Status {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let status = match text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            Some(class) => class.parse().ok().filter(|class| (1..=5).contains(class)).map(Self::Class),
            None => text.parse().ok().filter(|status| matches!(status, 0 | 100..=599)).map(Self::Is),
        };
        status.ok_or(ArgumentError::Status)
    }
}

impl std::str::FromStr for KindFilter {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        match text {
            "all" => return Ok(Self::All),
            "calls" => return Ok(Self::Calls),
            "exchange" => return Ok(Self::Exchange),
            _ => {}
        }
        let names = || ["all", "calls", "exchange"].into_iter().chain(RecordKind::ALL.iter().map(|kind| kind.name()));
        RecordKind::ALL.into_iter().find(|kind| kind.name() == text).map(Self::Is).ok_or_else(|| ArgumentError::Kind {
            nearest: nearest(text, names()).map(str::to_owned),
            all: names().collect(),
        })
    }
}

impl Found {
    /// Hands on a matching record. False ends the scan: there are enough, or `each` wants no more.
    pub(crate) fn next(
        &mut self,
        limit: usize,
        record: AuditRecord,
        each: &mut impl FnMut(AuditRecord) -> bool,
    ) -> bool {
        self.more = self.count >= limit;
        if self.more {
            return false;
        }
        self.count += 1;
        self.last = Some(Cursor::of(&record));
        each(record)
    }
}

impl Query {
    /// The conditions, but for those on time and request id, which stores have indexes for.
    pub fn conditions(&self) -> Vec<Condition<'_>> {
        fn add<'q>(
            to: &mut Vec<Condition<'q>>,
            fields: &'static [&'static str],
            value: &'q Option<String>,
            test: fn(&'q str) -> Test<'q>,
        ) {
            to.extend(value.as_deref().map(|value| Condition { fields, test: test(value) }));
        }
        let mut all = Vec::new();
        add(&mut all, &["operation"], &self.operation, Test::IsInAnyCase);
        add(&mut all, &["model_asked", "model_sent"], &self.model, Test::Contains);
        add(&mut all, &["principal"], &self.principal, Test::Contains);
        add(&mut all, &["source_address"], &self.source_address, Test::Is);
        add(&mut all, &["route_class"], &self.class, Test::Is);
        add(&mut all, &["path"], &self.path, Test::Is);
        add(&mut all, &["region"], &self.region, Test::Is);
        add(&mut all, &["error_type"], &self.error_type, Test::Contains);
        add(&mut all, &["access_key_id"], &self.access_key_id, Test::Is);
        add(&mut all, &["session"], &self.session, Test::Contains);
        add(&mut all, &["upstream_request_id"], &self.upstream_request_id, Test::Is);
        let kind = match self.kind {
            KindFilter::All => None,
            KindFilter::Calls => Some(Test::AbsentOr(&CALLS)),
            KindFilter::Exchange => Some(Test::Absent),
            KindFilter::Is(kind) => Some(Test::Is(kind.name())),
        };
        all.extend(kind.map(|test| Condition { fields: &["kind"], test }));
        if let Some(status) = self.status {
            let (first, last) = match status {
                Status::Is(status) => (status, status),
                Status::Class(class) => (class.saturating_mul(100), class.saturating_mul(100).saturating_add(99)),
            };
            all.push(Condition { fields: &["status"], test: Test::Between(first.into(), last.into()) });
        }
        all
    }

    pub fn matches(&self, record: &AuditRecord) -> bool {
        self.since.as_ref().is_none_or(|since| *since <= record.time)
            && self.until.as_ref().is_none_or(|until| record.time < *until)
            && self.after.as_ref().is_none_or(|after| *after < Cursor::of(record))
            && self.request_id.as_ref().is_none_or(|id| *id == record.request_id)
            && {
                let values = record.values();
                let value = |name| {
                    let place = AuditRecord::FIELDS.iter().position(|field| field.name == name);
                    place.and_then(|place| values.get(place)).copied().unwrap_or(FieldValue::Null)
                };
                self.conditions().iter().all(|condition| condition.holds(value))
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let names = ["principal", "path", "region"];
        assert_eq!(nearest("principle", names.into_iter()), Some("principal"));
        assert_eq!(nearest("PAHT", names.into_iter()), Some("path"));
        assert_eq!(nearest("something", names.into_iter()), None);
    }

    #[test]
    fn calls_are_the_kinds_of_calls() {
        let calls = RecordKind::ALL.into_iter().filter(|kind| kind.is_call()).map(RecordKind::name);
        assert_eq!(calls.collect::<Vec<_>>(), CALLS);
    }

    #[test]
    fn conditions_name_fields() {
        let text = || Some("x".to_owned());
        let query = Query {
            operation: text(),
            model: text(),
            principal: text(),
            source_address: text(),
            class: text(),
            path: text(),
            region: text(),
            status: Some(Status::Is(1)),
            error_type: text(),
            access_key_id: text(),
            session: text(),
            upstream_request_id: text(),
            kind: KindFilter::Calls,
            ..Query::default()
        };
        for field in query.conditions().iter().flat_map(|condition| condition.fields) {
            assert!(AuditRecord::FIELDS.iter().any(|known| known.name == *field), "{field}");
        }
    }
}
