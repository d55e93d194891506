//! Leaves a line of each command that reads the records of a SQLite file, or changes them.

use std::path::Path;

use audit::text::visible;
use audit_collector::stderr;
use audit_collector::store::sqlite::Reading;

/// A line that has no number of rows yet; none with DynamoDB, whose reads CloudTrail has.
pub(crate) struct Logged(Option<Reading>);

impl Logged {
    /// A file that cannot be written, such as a copy, can be read nevertheless.
    pub(crate) fn begin(file: Option<&Path>, command: &str) -> Self {
        let Some(file) = file else { return Self(None) };
        let arguments: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        match Reading::begin(file, command, &arguments) {
            Ok(reading) => Self(Some(reading)),
            Err(error) => {
                warn(&error);
                Self(None)
            }
        }
    }

    /// Adds the rows that were printed, stored or deleted.
    pub(crate) fn end(self, rows: u64) {
        if let Some(Err(error)) = self.0.map(|reading| reading.end(rows)) {
            warn(&error);
        }
    }
}

fn warn(error: &dyn std::fmt::Display) {
    let text = format!("the table `reads` has no whole line of this command: {error}");
    stderr::line(format!("audit-collector warn {}\n", visible(&text)));
}
