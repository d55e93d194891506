//! Columns of text.

use std::io::{self, Write};

use audit::FieldValue;
use audit::text::visible;

use super::Column;

/// Rows whose texts set the widths of the columns. Later lines may be wider.
const MEASURED: usize = 1_000;

/// Writes one line for each row, below the headings.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The rows that wait for their widths.
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
}

impl Table {
    /// Records of older releases may hold text that is not visible.
    pub(super) fn add(&mut self, columns: &[Column], values: &[FieldValue<'_>], to: &mut impl Write) -> io::Result<()> {
        let cell = |value: &FieldValue<'_>| match value {
            FieldValue::Text(text) => visible(text).into_owned(),
            FieldValue::Integer(number) => number.to_string(),
            FieldValue::Null => "-".to_owned(),
        };
        let row: Vec<_> = values.iter().map(cell).collect();
        if let Some(widths) = &self.widths {
            return print(columns, &row, widths, to);
        }
        self.waiting.push(row);
        if self.waiting.len() == MEASURED { self.begin(columns, to) } else { Ok(()) }
    }

    /// Writes what still waits.
    pub(super) fn end(&mut self, columns: &[Column], to: &mut impl Write) -> io::Result<()> {
        if self.widths.is_none() && !self.waiting.is_empty() { self.begin(columns, to) } else { Ok(()) }
    }

    fn begin(&mut self, columns: &[Column], to: &mut impl Write) -> io::Result<()> {
        let headings: Vec<_> = columns.iter().map(|column| column.heading.to_owned()).collect();
        let mut widths = vec![0; columns.len()];
        for row in self.waiting.iter().chain([&headings]) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        print(columns, &headings, &widths, to)?;
        std::mem::take(&mut self.waiting).iter().try_for_each(|row| print(columns, row, &widths, to))?;
        self.widths = Some(widths);
        Ok(())
    }
}

fn print(columns: &[Column], row: &[String], widths: &[usize], to: &mut impl Write) -> io::Result<()> {
    let mut line = String::new();
    for ((column, cell), width) in columns.iter().zip(row).zip(widths) {
        let gap = if line.is_empty() { "" } else { "  " };
        line += &if column.number { format!("{gap}{cell:>width$}") } else { format!("{gap}{cell:<width$}") };
    }
    writeln!(to, "{}", line.trim_end())
}
