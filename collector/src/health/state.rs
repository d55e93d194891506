//! What the tasks of a run did last. They write it; the page, the metrics and the watchdog read it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::envoy::losses::Seen;
use crate::checkpoint::Checkpoint;
use crate::source::backlog::Backlog;

#[derive(Debug, Default)]
pub struct State(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    serving: bool,
    stopping: bool,
    /// The check of the store at the start failed, and nothing was written yet.
    store_unchecked: Option<String>,
    last_success: Option<SystemTime>,
    deliveries: BTreeMap<u64, Attempts>,
    next: u64,
    /// When the log's reader began its last round; none while it waits for the store.
    reader: Option<Instant>,
    log_error: Option<String>,
    log: Log,
    envoy: Seen,
}

/// A batch that is on its way to the store.
#[derive(Debug)]
struct Attempts {
    since: Instant,
    /// When the last attempt began or ended.
    last: Instant,
    failures: u32,
    error: Option<String>,
}

/// The log, as far as the health tasks see it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub checkpoint: Option<Checkpoint>,
    pub open_parts: usize,
    pub backlog: Backlog,
    pub disk: Option<Disk>,
}

/// The file system of the log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub free: u64,
    pub size: u64,
}

/// The store, in figures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoreFigures {
    pub last_success: Option<SystemTime>,
    /// How long the oldest batch waits; zero if none does.
    pub waiting: Duration,
    pub failures: u32,
}

/// Why a run is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("starting")]
    Starting,
    #[error("stopping")]
    Stopping,
    #[error("the log cannot be read: {0}")]
    Log(String),
    #[error("the store accepts nothing for {} s, after {failures} failures in a row: {error}", waiting.as_secs())]
    Store { waiting: Duration, failures: u32, error: String },
    #[error("the store's check at the start failed, and nothing was written since: {0}")]
    Unchecked(String),
    #[error("{0}")]
    Stuck(&'static str),
}

/// A write hangs for longer than any time limit of the stores, or the reader does not go round.
pub const STUCK: Duration = Duration::from_secs(120);

/// One batch's delivery. Dropping it ends it, whatever its result.
#[derive(Debug)]
pub struct Delivery<'a> {
    state: &'a State,
    number: u64,
}

impl State {
    pub fn serving(&self) {
        self.lock().serving = true;
    }

    pub fn stopping(&self) {
        self.lock().stopping = true;
    }

    pub fn store_unchecked(&self, error: &dyn Display) {
        self.lock().store_unchecked = Some(error.to_string());
    }

    pub fn deliver(&self) -> Delivery<'_> {
        let now = Instant::now();
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.deliveries.insert(number, Attempts { since: now, last: now, failures: 0, error: None });
        Delivery { state: self, number }
    }

    /// The log's reader begins a round.
    pub fn reader_turns(&self) {
        self.lock().reader = Some(Instant::now());
    }

    /// The log's reader waits for the store, whose delays are seen there, or has ended.
    pub fn reader_rests(&self) {
        self.lock().reader = None;
    }

    pub fn log_error(&self, error: Option<&str>) {
        let mut inner = self.lock();
        if inner.log_error.as_deref() != error {
            inner.log_error = error.map(str::to_owned);
        }
    }

    pub fn log_is_at(&self, checkpoint: Option<&Checkpoint>, open_parts: usize) {
        let mut inner = self.lock();
        inner.log.open_parts = open_parts;
        inner.log.checkpoint = checkpoint.cloned();
    }

    pub fn log_is_left(&self, backlog: Backlog, disk: Option<Disk>) {
        let mut inner = self.lock();
        (inner.log.backlog, inner.log.disk) = (backlog, disk);
    }

    pub fn log(&self) -> Log {
        self.lock().log.clone()
    }

    pub fn set_envoy(&self, seen: Seen) {
        self.lock().envoy = seen;
    }

    pub fn envoy(&self) -> Seen {
        self.lock().envoy.clone()
    }

    pub fn store(&self) -> StoreFigures {
        let inner = self.lock();
        let waiting = inner.deliveries.values().map(|attempts| attempts.since.elapsed()).max().unwrap_or_default();
        let failures = inner.deliveries.values().map(|attempts| attempts.failures).max().unwrap_or(0);
        StoreFigures { last_success: inner.last_success, waiting, failures }
    }

    /// Whether logs are read and the store accepts what is read.
    pub fn ready(&self) -> Result<(), NotReady> {
        let inner = self.lock();
        if !inner.serving {
            return Err(NotReady::Starting);
        }
        if inner.stopping {
            return Err(NotReady::Stopping);
        }
        let failing = inner.deliveries.values().filter(|attempts| attempts.failures > 0).max_by_key(|one| one.failures);
        if let Some(Attempts { since, failures, error, .. }) = failing {
            let error = error.clone().unwrap_or_default();
            return Err(NotReady::Store { waiting: since.elapsed(), failures: *failures, error });
        }
        if let Some(error) = &inner.store_unchecked {
            return Err(NotReady::Unchecked(error.clone()));
        }
        if let Some(error) = &inner.log_error {
            return Err(NotReady::Log(error.clone()));
        }
        inner.stuck(STUCK).map_or(Ok(()), |what| Err(NotReady::Stuck(what)))
    }

    /// What hangs for that long, if something does. A store that refuses does not hang: its batch is tried again and again.
    pub fn stuck(&self, limit: Duration) -> Option<&'static str> {
        self.lock().stuck(limit)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn stuck(&self, limit: Duration) -> Option<&'static str> {
        if self.deliveries.values().any(|attempts| attempts.last.elapsed() > limit) {
            return Some("a write to the store does not end");
        }
        let reader = self.reader.filter(|turned| turned.elapsed() > limit);
        reader.map(|_| "the reader of the log does not go on")
    }
}

impl Delivery<'_> {
    /// An attempt begins.
    pub fn attempt(&self) {
        self.change(|attempts| attempts.last = Instant::now());
    }

    pub fn failed(&self, error: &dyn Display) {
        self.change(|attempts| {
            attempts.last = Instant::now();
            attempts.failures = attempts.failures.saturating_add(1);
            attempts.error = Some(error.to_string());
        });
    }

    pub fn succeeded(&self) {
        let mut inner = self.state.lock();
        inner.last_success = Some(SystemTime::now());
        inner.store_unchecked = None;
    }

    fn change(&self, change: impl FnOnce(&mut Attempts)) {
        if let Some(attempts) = self.state.lock().deliveries.get_mut(&self.number) {
            change(attempts);
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.state.lock().deliveries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_it_is_not_ready() {
        let state = State::default();
        assert_eq!(state.ready(), Err(NotReady::Starting));
        state.serving();
        assert_eq!(state.ready(), Ok(()));
        state.store_unchecked(&"no table");
        assert_eq!(state.ready(), Err(NotReady::Unchecked("no table".to_owned())));
        let delivery = state.deliver();
        for _ in 0..3 {
            delivery.attempt();
            delivery.failed(&"down");
        }
        assert!(matches!(state.ready(), Err(NotReady::Store { failures: 3, error, .. }) if error == "down"));
        assert_eq!(state.store().failures, 3);
        delivery.succeeded();
        drop(delivery);
        assert_eq!((state.ready(), state.store().failures), (Ok(()), 0));
        assert!(state.store().last_success.is_some());
        state.log_error(Some("denied"));
        assert_eq!(state.ready(), Err(NotReady::Log("denied".to_owned())));
        state.log_error(None);
        state.stopping();
        assert_eq!(state.ready(), Err(NotReady::Stopping));
    }

    #[test]
    fn what_hangs_is_named() {
        let state = State::default();
        let limit = Duration::from_millis(20);
        state.reader_turns();
        let delivery = state.deliver();
        assert_eq!(state.stuck(limit), None);
        std::thread::sleep(limit * 2);
        assert_eq!(state.stuck(limit), Some("a write to the store does not end"));
        // One that fails each time is not stuck.
        delivery.failed(&"down");
        assert_eq!(state.stuck(limit), Some("the reader of the log does not go on"));
        state.reader_rests();
        assert_eq!(state.stuck(limit), None);
    }
}
