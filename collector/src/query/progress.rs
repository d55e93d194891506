//! Says on stderr how far a long scan is.

use std::time::{Duration, Instant};

use crate::stderr;

/// Shorter scans say nothing.
const FIRST: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(2);

/// How much of a store was searched.
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

    pub(crate) fn of_about(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// `count` more records were searched, back to that time or day.
    pub(crate) fn searched(&mut self, count: u64, back_to: Option<&str>) {
        self.searched += count;
        let Some(next) = self.next else { return };
        if Instant::now() < next {
            return;
        }
        self.next = Some(Instant::now() + LATER);
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
