//! Selects records.

use audit::AuditRecord;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::timestamp::timestamp;

/// Conditions that a record must meet. None matches every record.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Inclusive, in the form of [`timestamp`].
    pub since: Option<String>,
    /// Exclusive, in the form of [`timestamp`].
    pub until: Option<String>,
    /// Ignores case.
    pub operation: Option<String>,
    /// A part of `model_asked` or `model_sent`.
    pub model: Option<String>,
    /// A part of the principal.
    pub principal: Option<String>,
    pub path: Option<String>,
    pub status: Option<Status>,
    pub request_id: Option<String>,
    /// The maximum number of records.
    pub limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `503`
    Is(u16),
    /// `5xx`, as 5
    Class(u16),
}

/// What a scan found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    pub count: usize,
    /// More records match than the limit allows.
    pub more: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    #[error("expected a time (2026-01-02T03:04:05Z) or an age (90s, 15m, 2h, 7d)")]
    Time,
    #[error("expected a status (503) or a class (5xx)")]
    Status,
}

/// Parses an RFC 3339 time, or an age before `now` (`15m`), into the form of [`timestamp`].
pub fn time_argument(text: &str, now: OffsetDateTime) -> Result<String, ArgumentError> {
    let age = || {
        let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let count: i64 = count.parse::<u32>().ok()?.into();
        now.checked_sub(Duration::seconds(count * unit))
    };
    let time = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(age).ok_or(ArgumentError::Time)?;
    timestamp(time).ok_or(ArgumentError::Time)
}

impl std::str::FromStr for Status {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let class = text.strip_suffix("xx").map(|class| class.parse().map(Self::Class));
        class.unwrap_or_else(|| text.parse().map(Self::Is)).map_err(|_| ArgumentError::Status)
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
        each(record)
    }
}

impl Query {
    pub fn matches(&self, record: &AuditRecord) -> bool {
        let contains = |part: &Option<String>, whole: &Option<String>| {
            part.as_ref().is_none_or(|part| whole.as_ref().is_some_and(|whole| whole.contains(part)))
        };
        self.since.as_ref().is_none_or(|since| *since <= record.time)
            && self.until.as_ref().is_none_or(|until| record.time < *until)
            && self.request_id.as_ref().is_none_or(|id| *id == record.request_id)
            && self.operation.as_ref().is_none_or(|operation| {
                record.operation.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(operation))
            })
            && (contains(&self.model, &record.model_asked) || contains(&self.model, &record.model_sent))
            && contains(&self.principal, &record.principal)
            && self.path.as_ref().is_none_or(|path| record.path.as_ref() == Some(path))
            && self.status.is_none_or(|status| match status {
                Status::Is(status) => record.status == status,
                Status::Class(class) => record.status / 100 == class,
            })
    }
}
