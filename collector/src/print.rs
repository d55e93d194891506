//! Prints records for people.

use std::fmt::Write;

use audit::text::visible;
use audit::{AuditRecord, Kind};
use serde_json::Value;

/// Heading and field. The other fields are in the JSON output only.
const COLUMNS: [(&str, &str); 11] = [
    ("TIME", "time"),
    ("OPERATION", "operation"),
    ("MODEL SENT", "model_sent"),
    ("PATH", "path"),
    ("TRIES", "attempts"),
    ("STATUS", "status"),
    ("ERROR", "error_type"),
    ("TOKENS IN", "tokens_in"),
    ("OUT", "tokens_out"),
    ("MS", "latency_ms"),
    ("PRINCIPAL", "principal"),
];

/// One line for each record, below the headings. Records of older releases may hold text that is not visible.
pub fn table(records: &[AuditRecord]) -> String {
    let mut rows = vec![COLUMNS.map(|(heading, _)| heading.to_owned())];
    rows.extend(records.iter().map(|record| {
        let fields = serde_json::to_value(record).unwrap_or_default();
        COLUMNS.map(|(_, name)| match fields.get(name) {
            Some(Value::String(text)) => visible(text).into_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "-".to_owned(),
        })
    }));
    let mut widths = [0; COLUMNS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (((_, name), cell), width) in COLUMNS.iter().zip(row).zip(widths) {
            let gap = if line.is_empty() { "" } else { "  " };
            let _ = if is_integer(name) {
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

fn is_integer(name: &str) -> bool {
    AuditRecord::FIELDS.iter().any(|field| field.name == name && field.kind == Kind::Integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_a_field() {
        for (heading, name) in COLUMNS {
            assert!(AuditRecord::FIELDS.iter().any(|field| field.name == name), "{heading}");
        }
    }
}
