//! Prints records for people.

use std::io::{self, Write};

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

/// Records whose texts set the widths of the columns. Later lines may be wider.
const MEASURED: usize = 1_000;

/// Writes one line for each record, below the headings.
#[derive(Debug, Default)]
pub struct Table {
    /// The lines that wait for their widths.
    waiting: Vec<[String; COLUMNS.len()]>,
    widths: Option<[usize; COLUMNS.len()]>,
}

impl Table {
    /// Records of older releases may hold text that is not visible.
    pub fn add(&mut self, record: &AuditRecord, to: &mut impl Write) -> io::Result<()> {
        let fields = serde_json::to_value(record).unwrap_or_default();
        let row = COLUMNS.map(|(_, name)| match fields.get(name) {
            Some(Value::String(text)) => visible(text).into_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "-".to_owned(),
        });
        if let Some(widths) = self.widths {
            return print(&row, widths, to);
        }
        self.waiting.push(row);
        if self.waiting.len() == MEASURED { self.begin(to) } else { Ok(()) }
    }

    /// Writes what still waits.
    pub fn end(&mut self, to: &mut impl Write) -> io::Result<()> {
        if self.widths.is_none() && !self.waiting.is_empty() { self.begin(to) } else { Ok(()) }
    }

    fn begin(&mut self, to: &mut impl Write) -> io::Result<()> {
        let headings = COLUMNS.map(|(heading, _)| heading.to_owned());
        let mut widths = [0; COLUMNS.len()];
        for row in self.waiting.iter().chain([&headings]) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.widths = Some(widths);
        print(&headings, widths, to)?;
        std::mem::take(&mut self.waiting).iter().try_for_each(|row| print(row, widths, to))
    }
}

fn print(row: &[String; COLUMNS.len()], widths: [usize; COLUMNS.len()], to: &mut impl Write) -> io::Result<()> {
    let mut line = String::new();
    for (((_, name), cell), width) in COLUMNS.iter().zip(row).zip(widths) {
        let gap = if line.is_empty() { "" } else { "  " };
        line += &if is_integer(name) { format!("{gap}{cell:>width$}") } else { format!("{gap}{cell:<width$}") };
    }
    writeln!(to, "{}", line.trim_end())
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
