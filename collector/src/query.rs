//! Which records are asked for, and how they are printed.

use std::fmt::Write;

use audit::AuditRecord;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::decode::time_text;

/// Which records are asked for. What is None asks for all.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// At or after this time, written as records write it.
    pub since: Option<String>,
    /// Before this time.
    pub until: Option<String>,
    /// The operation's name, whatever its case.
    pub operation: Option<String>,
    /// A part of the model asked for, or of the one sent.
    pub model: Option<String>,
    /// A part of the principal.
    pub principal: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The status, or its class.
    pub status: Option<Status>,
    /// The request id.
    pub request_id: Option<String>,
    /// How many at most.
    pub limit: usize,
}

/// `503`, or `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// This one.
    Is(u16),
    /// Its hundreds.
    Class(u16),
}

/// Why an argument is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// Not a time.
    #[error("neither a time (2026-01-02T03:04:05Z) nor an age (90s, 15m, 2h, 7d)")]
    Time,
    /// Not a status.
    #[error("neither a status (503) nor a class of them (5xx)")]
    Status,
}

/// An RFC 3339 time, or an age before `now` (`15m`), as records write times.
///
/// # Errors
/// [`ArgumentError::Time`].
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
    time_text(time).map_err(|_| ArgumentError::Time)
}

// === impl Status ===

impl std::str::FromStr for Status {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let class = text.strip_suffix("xx").map(|class| class.parse().map(Self::Class));
        class.unwrap_or_else(|| text.parse().map(Self::Is)).map_err(|_| ArgumentError::Status)
    }
}

// === impl Query ===

impl Query {
    /// Whether a record is one of those asked for.
    pub fn matches(&self, record: &AuditRecord) -> bool {
        let within = |part: &Option<String>, whole: &Option<String>| {
            part.as_ref().is_none_or(|part| whole.as_ref().is_some_and(|whole| whole.contains(part)))
        };
        self.since.as_ref().is_none_or(|since| *since <= record.time)
            && self.until.as_ref().is_none_or(|until| record.time < *until)
            && self.request_id.as_ref().is_none_or(|id| *id == record.request_id)
            && self.operation.as_ref().is_none_or(|operation| {
                record.operation.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(operation))
            })
            && (within(&self.model, &record.model_asked) || within(&self.model, &record.model_sent))
            && within(&self.principal, &record.principal)
            && self.path.as_ref().is_none_or(|path| record.path.as_ref() == Some(path))
            && self.status.is_none_or(|status| match status {
                Status::Is(status) => record.status == status,
                Status::Class(class) => record.status / 100 == class,
            })
    }
}

const HEADINGS: [&str; 11] =
    ["TIME", "OPERATION", "MODEL SENT", "PATH", "TRIES", "STATUS", "ERROR", "TOKENS IN", "OUT", "MS", "PRINCIPAL"];
/// Columns of numbers.
const RIGHT: [usize; 5] = [4, 5, 7, 8, 9];

/// Records as a table, one line each below its headings. What a client chose (its model, say) is printed with control
/// characters escaped, so that no record can draw on the reader's terminal.
pub fn table(records: &[AuditRecord]) -> String {
    let text = |field: &Option<String>| field.as_ref().map_or_else(|| "-".to_owned(), |text| clean(text));
    let number = |field: Option<u64>| field.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        [
            clean(&record.time),
            text(&record.operation),
            text(&record.model_sent),
            text(&record.path),
            record.attempts.to_string(),
            record.status.to_string(),
            text(&record.error_type),
            number(record.tokens_in),
            number(record.tokens_out),
            record.latency_ms.to_string(),
            text(&record.principal),
        ]
    }));
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if at == 0 { "" } else { "  " };
            let _ = if RIGHT.contains(&at) {
                write!(line, "{gap}{cell:>width$}")
            } else {
                write!(line, "{gap}{cell:<width$}")
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn clean(text: &str) -> String {
    text.chars().flat_map(|char| if char.is_control() { char.escape_default().collect() } else { vec![char] }).collect()
}
