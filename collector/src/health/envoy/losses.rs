//! Failed writes of Envoy → windows in which entries were lost, each with an upper bound.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Added to the age that an entry may have in Envoy's buffer: the statistics are not read in one moment.
const MARGIN: Duration = Duration::from_secs(1);
/// Samples without a failure that end a window.
const GOOD: u32 = 2;

/// Envoy's statistics, all since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Entries.
    pub buffered: u64,
    /// Writes.
    pub completed: u64,
    pub failed: u64,
    /// Bytes in the buffers now.
    pub unwritten_bytes: u64,
    /// Seconds, as of Envoy's last flush of its statistics.
    pub uptime: u64,
    pub feed_dropped: u64,
}

/// A time in which Envoy could not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Entries that Envoy buffered before were written, or belong to an earlier window.
    pub from: SystemTime,
    /// None while it lasts.
    pub to: Option<SystemTime>,
    /// At most so many entries were lost.
    pub lost: u64,
    pub failed_writes: u64,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Began(Window),
    Ended(Window),
    FeedDropped(u64),
}

#[derive(Debug, Clone, Copy)]
struct Past {
    at: SystemTime,
    buffered: u64,
}

/// What is known of Envoy.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Somebody asks Envoy: without `--envoy-admin` nobody does.
    pub asked: bool,
    /// It answered the last time.
    pub up: bool,
    pub failed_writes: u64,
    /// At most so many entries were lost, in all windows.
    pub lost: u64,
    pub windows: u64,
    /// The last window.
    pub window: Option<Window>,
    /// Entries that Envoy's logger of the access log service dropped.
    pub feed_dropped: u64,
}

/// The samples so far.
#[derive(Debug, Default)]
pub struct Losses {
    /// Oldest first; the last one is the sample before.
    past: VecDeque<Past>,
    last: Option<Sample>,
    open: Option<Open>,
    seen: Seen,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    window: Window,
    /// Entries that Envoy had buffered at the window's start.
    start: u64,
    /// The first sample without a failure, and how many there are.
    good: Option<(Past, u32)>,
}

impl Losses {
    /// `flush` is how long Envoy keeps an entry in its buffer at most.
    pub fn take(&mut self, sample: &Sample, now: SystemTime, flush: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let restarted = self.last.is_some_and(|last| is_of_another_start(&last, sample));
        if restarted || self.last.is_none() {
            // What the last one lost at its end is not in any statistics.
            events.extend(self.end(now));
            let started = now.checked_sub(Duration::from_secs(sample.uptime) + MARGIN).unwrap_or(now);
            self.past = VecDeque::from([Past { at: started, buffered: 0 }]);
            self.last = Some(Sample::default());
        }
        let last = self.last.replace(*sample).unwrap_or_default();
        let failed = sample.failed.saturating_sub(last.failed);
        self.seen.failed_writes += failed;
        let dropped = sample.feed_dropped.saturating_sub(last.feed_dropped);
        if dropped > 0 {
            self.seen.feed_dropped += dropped;
            events.push(Event::FeedDropped(self.seen.feed_dropped));
        }
        if failed > 0 {
            let began = self.open.is_none();
            let start = self.start(flush);
            let open = self.open.get_or_insert(Open {
                window: Window { from: start.at, to: None, lost: 0, failed_writes: 0 },
                start: start.buffered,
                good: None,
            });
            open.good = None;
            open.window.failed_writes += failed;
            open.window.lost = sample.buffered.saturating_sub(open.start);
            if began {
                self.seen.windows += 1;
                events.push(Event::Began(open.window));
            }
        } else if let Some(open) = &mut self.open {
            // Without entries nothing fails.
            let written = sample.completed > last.completed || sample.unwritten_bytes == 0;
            let here = Past { at: now, buffered: sample.buffered };
            open.good = match open.good {
                Some((first, count)) => Some((first, count + u32::from(written))),
                None if written => Some((here, 1)),
                None => None,
            };
            // As at the window's end: the figure is a counter's, and must not shrink.
            open.window.lost = open.good.map_or(here, |(first, _)| first).buffered.saturating_sub(open.start);
            if open.good.is_some_and(|(_, count)| count >= GOOD) {
                events.extend(self.end(now));
            }
        }
        self.seen.window = self.open.map(|open| open.window).or(self.seen.window);
        self.past.push_back(Past { at: now, buffered: sample.buffered });
        while self.past.len() > 2 && self.past.get(1).is_some_and(|second| age(second.at, now) > flush + MARGIN) {
            self.past.pop_front();
        }
        events
    }

    /// The totals and the last window, without those of whom nobody asks.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = self.seen.clone();
        seen.lost += self.open.map_or(0, |open| open.window.lost);
        seen
    }

    /// Ends the open window at its first sample without a failure.
    fn end(&mut self, now: SystemTime) -> Option<Event> {
        let Open { mut window, start, good } = self.open.take()?;
        window.to = Some(now);
        if let Some((first, _)) = good {
            window.to = Some(first.at);
            window.lost = first.buffered.saturating_sub(start);
        }
        self.seen.lost += window.lost;
        self.seen.window = Some(window);
        Some(Event::Ended(window))
    }

    /// A failure was seen. The entries that it lost were buffered after the last sample before it, or were in the buffer
    /// then: for the flush interval at most.
    fn start(&self, flush: Duration) -> Past {
        let before = self.past.back().map_or(SystemTime::UNIX_EPOCH, |last| last.at);
        let old = self.past.iter().rev().find(|past| age(past.at, before) >= flush + MARGIN).or(self.past.front());
        old.copied().unwrap_or(Past { at: before, buffered: 0 })
    }
}

fn is_of_another_start(last: &Sample, sample: &Sample) -> bool {
    sample.uptime < last.uptime
        || sample.buffered < last.buffered
        || sample.completed < last.completed
        || sample.failed < last.failed
}

fn age(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]
    use super::*;

    const FLUSH: Duration = Duration::from_millis(100);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn sample(buffered: u64, completed: u64, failed: u64) -> Sample {
        Sample { buffered, completed, failed, uptime: 0, ..Sample::default() }
    }

    #[test]
    fn a_window_has_its_bound_and_its_ends() {
        let mut losses = Losses::default();
        for second in 0..5 {
            assert_eq!(losses.take(&sample(100 * second, second, 0), at(second), FLUSH), []);
        }
        // From the last sample that is older than what was in the buffer: 400 - 100, since flush and margin are over a second.
        let began = losses.take(&sample(500, 4, 2), at(5), FLUSH);
        let window = Window { from: at(2), to: None, lost: 300, failed_writes: 2 };
        assert_eq!(began, [Event::Began(window)]);
        assert_eq!(losses.seen().lost, 300);
        assert_eq!(losses.take(&sample(600, 4, 5), at(6), FLUSH), []);
        assert_eq!(losses.take(&sample(700, 5, 5), at(7), FLUSH), []);
        let ended = losses.take(&sample(800, 6, 5), at(8), FLUSH);
        let window = Window { from: at(2), to: Some(at(7)), lost: 500, failed_writes: 5 };
        assert_eq!(ended, [Event::Ended(window)]);
        let seen = losses.seen();
        assert_eq!((seen.lost, seen.failed_writes, seen.windows, seen.window), (500, 5, 1, Some(window)));
    }

    /// Prometheus takes a counter that shrinks for one that began anew.
    #[test]
    fn the_bound_never_shrinks() {
        let mut losses = Losses::default();
        let mut last = 0;
        let waiting =
            |buffered, completed, failed| Sample { unwritten_bytes: 9, ..sample(buffered, completed, failed) };
        let samples =
            [(10, 1, 0), (20, 1, 2), (40, 2, 2), (80, 2, 2), (160, 2, 3), (320, 4, 3), (640, 4, 3), (999, 5, 3)];
        for (second, (buffered, completed, failed)) in (0..).zip(samples) {
            losses.take(&waiting(buffered, completed, failed), at(second), FLUSH);
            assert!(losses.seen().lost >= last, "{second}");
            last = losses.seen().lost;
        }
        let window = losses.seen().window;
        assert_eq!((last, window.and_then(|window| window.to)), (320, Some(at(5))));
    }

    #[test]
    fn failures_before_the_first_look_count() {
        let mut losses = Losses::default();
        let first = Sample { uptime: 60, ..sample(1_000, 10, 3) };
        let [Event::Began(window)] = losses.take(&first, at(100), FLUSH)[..] else { panic!("no window") };
        assert_eq!((window.from, window.lost, window.failed_writes), (at(39), 1_000, 3));
    }

    #[test]
    fn a_restart_of_envoy_counts_anew() {
        let mut losses = Losses::default();
        losses.take(&sample(1_000, 10, 3), at(0), FLUSH);
        let events = losses.take(&sample(50, 2, 1), at(1), FLUSH);
        let [Event::Ended(old), Event::Began(new)] = events[..] else { panic!("{events:?}") };
        assert_eq!((old.lost, new.lost, losses.seen().failed_writes, losses.seen().windows), (1_000, 50, 4, 2));
        assert_eq!(losses.seen().lost, 1_050);
    }

    #[test]
    fn a_window_stays_open_without_writes() {
        let mut losses = Losses::default();
        losses.take(&sample(0, 0, 0), at(0), FLUSH);
        losses.take(&sample(10, 0, 1), at(1), FLUSH);
        for second in 2..6 {
            let waiting = Sample { unwritten_bytes: 500, ..sample(20, 0, 1) };
            assert_eq!(losses.take(&waiting, at(second), FLUSH), []);
        }
        assert!(losses.seen().window.is_some_and(|window| window.to.is_none()));
    }

    #[test]
    fn dropped_feed_entries_are_counted() {
        let mut losses = Losses::default();
        losses.take(&sample(0, 0, 0), at(0), FLUSH);
        let events = losses.take(&Sample { feed_dropped: 7, ..sample(9, 1, 0) }, at(1), FLUSH);
        assert_eq!(events, [Event::FeedDropped(7)]);
    }
}
