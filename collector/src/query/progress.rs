//! Says on stderr how far long work is.

use std::time::{Duration, Instant};

use crate::stderr;

/// Shorter scans say nothing.
const FIRST: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(2);

/// How much of a store was searched, or of a file read.
#[derive(Debug)]
pub struct Progress {
    /// None says nothing.
    next: Option<Instant>,
    searched: u64,
    /// About how many records there are to search.
    total: Option<u64>,
}

impl Progress {
    /// `shown` is false if nobody looks.
    pub fn new(shown: bool) -> Self {
        Self { next: shown.then(|| Instant::now() + FIRST), searched: 0, total: None }
    }

    /// Whether it is time for a line.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = Some(now + LATER);
        }
        due
    }

    pub(crate) fn of_about(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// `count` more records were searched, back to that time or day.
    pub(crate) fn searched(&mut self, count: u64, back_to: Option<&str>) {
        self.searched += count;
        if !self.is_due() {
            return;
        }
        let mut line = format!("audit-collector: searched {} records", self.searched);
        if let Some(total) = self.total.filter(|total| *total >= self.searched) {
            line += &format!(" of about {total}");
        }
        if let Some(time) = back_to {
            line += &format!(", back to {time}");
        }
        stderr::line(line + "\n");
    }
}
