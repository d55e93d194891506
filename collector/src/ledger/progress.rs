//! Whether the sources are read to their ends: only then something is missing that is not there.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::Origin;

/// A source that was at its end within this time still counts as read.
const FRESH: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Ends>);

#[derive(Debug, Default)]
struct Ends {
    /// When the source was last at its end. None: it is not a source of this run.
    file: Option<Option<Instant>>,
    feed: Option<Option<Instant>>,
    /// Since when all are, without a break.
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl Progress {
    pub(super) fn expect(&self, file: bool, feed: bool) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *ends = Ends { file: file.then_some(None), feed: feed.then_some(None), ..Ends::default() };
    }

    /// The source has nothing more for now, and all that it had is stored.
    pub(super) fn at_end(&self, origin: Origin, now: Instant) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = match origin {
            Origin::File => &mut ends.file,
            Origin::Feed => &mut ends.feed,
            Origin::Own => return,
        };
        *end = Some(Some(now));
    }

    /// How long all sources have been read to their ends. To be asked more often than every 5 seconds: after a pause of the
    /// collector it begins anew.
    pub(super) fn since(&self, now: Instant) -> Option<Duration> {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |end: &Option<Instant>| end.is_some_and(|end| now.saturating_duration_since(end) < FRESH);
        let read = [&ends.file, &ends.feed].into_iter().flatten().all(is_fresh);
        let paused = ends.looked.replace(now).is_some_and(|looked| now.saturating_duration_since(looked) >= FRESH);
        if !read || paused {
            ends.since = None;
        }
        if !read {
            return None;
        }
        Some(now.saturating_duration_since(*ends.since.get_or_insert(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_or_a_pause_begins_anew() {
        let (progress, start) = (Progress::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        progress.expect(true, true);
        progress.at_end(Origin::File, at(0));
        assert_eq!(progress.since(at(0)), None, "the feed was not looked at");
        for second in 1..=20 {
            progress.at_end(Origin::File, at(second));
            progress.at_end(Origin::Feed, at(second));
            assert_eq!(progress.since(at(second)), Some(Duration::from_secs(second - 1)));
        }
        assert_eq!(progress.since(at(24)), Some(Duration::from_secs(23)));
        assert_eq!(progress.since(at(26)), None, "a backlog");
        for second in [27, 28] {
            progress.at_end(Origin::File, at(second));
            progress.at_end(Origin::Feed, at(second));
            assert_eq!(progress.since(at(second)), Some(Duration::from_secs(second - 27)));
        }
        progress.at_end(Origin::File, at(40));
        progress.at_end(Origin::Feed, at(40));
        assert_eq!(progress.since(at(40)), Some(Duration::ZERO), "the collector was stopped");
    }
}
