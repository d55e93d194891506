//! What the bodies of requests may occupy: budgets for a connection, a caller and the whole process.
//!
//! Envoy bounds what it buffers for one stream, and nothing that all streams buffer together. A call that is signed is
//! buffered until its body is complete, so a client that begins many and completes none would fill the memory.
//!
//! A budget that is full takes from the one who uses most of it: first the caller with the most bytes, then its connection with the
//! most, then the stream. So small calls pass while others fill the memory. Only calls that have not been sent give way.
//!
//! Each worker counts its own streams. It publishes its sums in steps of [`STEP`], so that a call with a small body costs no
//! access to shared data, and a worker whose VM crashed is forgotten.

use crate::config::{Buffers, ConfigError, at};
use crate::shared::{Shared, millis, update};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// Bodies that arrive whole and are not longer are not counted by their bytes: the limit of calls bounds them.
pub const UNCOUNTED: usize = 64 << 10;
/// A worker publishes its sum when it has changed by so many bytes. All budgets may be exceeded by as many for each worker.
const STEP: u64 = 1 << 20;
/// The same for the number of calls.
const CALLS_STEP: u64 = 64;
/// A worker that has published nothing for so long is gone: living ones repeat it on their ticks.
const FORGOTTEN_MS: u64 = 5000;
/// How often a worker repeats its sums.
const REPEAT_MS: u64 = 1000;
/// A caller with at most this part of the calls is not refused for those of others.
const SMALL: u64 = 64;
/// So many callers of each worker are published: those with most bytes.
const CALLERS: usize = 16;
const KEY: &str = "buffers";

/// How much all streams together may occupy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Bytes of bodies that Envoy buffers.
    pub total_bytes: u64,
    /// The same for one caller.
    pub caller_bytes: u64,
    /// The same for one connection.
    pub connection_bytes: u64,
    /// Calls in flight. One caller may have half of them.
    pub calls: u64,
}

/// The number of a stream's context in its VM.
pub type Stream = u32;

/// Whose a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    caller: u64,
    /// Envoy's number for the connection.
    connection: u64,
}

/// Which budget is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Of one connection.
    Connection,
    /// Of one caller.
    Caller,
    /// Of the process.
    Process,
}

/// A stream that gives way, and to which budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evicted {
    /// The stream.
    pub stream: Stream,
    /// The budget.
    pub full: Full,
}

/// The streams of one worker.
#[derive(Debug, Default)]
pub struct Ledger {
    streams: BTreeMap<Stream, Entry>,
    callers: BTreeMap<u64, Caller>,
    /// Streams whose owner is not known yet: those of short bodies never need one.
    unowned: BTreeSet<Stream>,
    sums: Sums,
    /// Calls that give way.
    leaving: u64,
    published: Sums,
    published_at: u64,
    others: Others,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    owner: Option<Owner>,
    bytes: u64,
    /// Whether it has not been sent yet.
    held: bool,
    /// Of a call that gives way: the bytes of its body, unless they have been dropped. Neither they nor the call count.
    leaving: Option<u64>,
}

#[derive(Debug, Default)]
struct Caller {
    sums: Sums,
    /// Calls that give way.
    leaving: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    sums: Sums,
    /// Streams that may give way.
    held: BTreeMap<Stream, u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sums {
    bytes: u64,
    calls: u64,
}

/// What the other workers had when this one last looked.
#[derive(Debug, Default)]
struct Others {
    workers: u64,
    sums: Sums,
    callers: BTreeMap<u64, u64>,
}

// === impl Budgets ===

impl Budgets {
    /// What the document says, or 256, 128 and 64 MiB, and 4096 calls. A caller and a connection always have room for two of the
    /// longest bodies if the document does not say otherwise.
    pub(crate) fn compile(given: &Buffers, max_body_bytes: u64) -> Result<Self, ConfigError> {
        let two = max_body_bytes.saturating_mul(2);
        let connection_bytes = given.connection_bytes.unwrap_or_else(|| two.max(64 << 20));
        let caller_bytes = given.caller_bytes.unwrap_or_else(|| connection_bytes.max(128 << 20));
        let total_bytes = given.total_bytes.unwrap_or_else(|| caller_bytes.max(256 << 20));
        let calls = given.calls.unwrap_or(4096);
        for (key, value, least, of) in [
            ("connection_bytes", connection_bytes, max_body_bytes, "`max_body_bytes`"),
            ("caller_bytes", caller_bytes, connection_bytes, "`buffers.connection_bytes`"),
            ("total_bytes", total_bytes, caller_bytes, "`buffers.caller_bytes`"),
        ] {
            if value < least {
                return Err(at(format!("buffers.{key}"), format!("{value} is less than {of} ({least})")));
            }
        }
        if calls < 2 {
            return Err(at("buffers.calls", format!("want a whole number, 2 or more, not {calls}")));
        }
        Ok(Self { total_bytes, caller_bytes, connection_bytes, calls })
    }
}

// === impl Owner ===

impl Owner {
    /// `caller` is the caller's name, or its address if it has none.
    pub fn new(caller: &str, connection: u64) -> Self {
        let digest = Sha256::digest(caller.as_bytes());
        Self { caller: digest.first_chunk().map_or(0, |head| u64::from_le_bytes(*head)), connection }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Counts a call whose body is not complete. It must [end](Ledger::end).
    pub fn begin(&mut self, stream: Stream) {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.streams.entry(stream) {
            vacant.insert(Entry { owner: None, bytes: 0, held: true, leaving: None });
            self.sums.calls += 1;
            self.unowned.insert(stream);
        }
    }

    /// The call has been sent: it does not give way any more. Its body still counts, because Envoy keeps it for retries.
    pub fn sent(&mut self, stream: Stream) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.held = false;
        if let Some(owner) = entry.owner
            && let Some(connection) =
                self.callers.get_mut(&owner.caller).and_then(|caller| caller.connections.get_mut(&owner.connection))
        {
            connection.held.remove(&stream);
        }
    }

    /// The call gives way: it counts no more, as it is about to be refused.
    pub fn evict(&mut self, stream: Stream) {
        self.sent(stream);
        let Some(entry) = self.streams.get_mut(&stream).filter(|entry| entry.leaving.is_none()) else { return };
        let (bytes, owner) = (std::mem::take(&mut entry.bytes), entry.owner);
        entry.leaving = Some(bytes);
        self.leaving += 1;
        if let Some(caller) = owner.and_then(|owner| self.callers.get_mut(&owner.caller)) {
            caller.leaving += 1;
        }
        self.subtract(owner, Sums { bytes, calls: 1 });
    }

    /// The same, and the call's body was dropped.
    pub fn dropped(&mut self, stream: Stream) {
        self.evict(stream);
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.leaving = Some(0);
        }
    }

    /// A call that gave way was refused. It counts again: Envoy keeps it, and its body, until the client has read the reply.
    pub fn stays(&mut self, stream: Stream) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        let Some(bytes) = entry.leaving.take() else { return };
        entry.bytes = bytes;
        let owner = entry.owner;
        self.leaving -= 1;
        self.sums.add(Sums { bytes, calls: 1 });
        if let Some(owner) = owner {
            self.connection(owner, Sums { bytes, calls: 1 });
            if let Some(caller) = self.callers.get_mut(&owner.caller) {
                caller.leaving = caller.leaving.saturating_sub(1);
            }
        }
    }

    /// The call is over.
    pub fn end(&mut self, stream: Stream) {
        self.stays(stream);
        self.sent(stream);
        self.unowned.remove(&stream);
        let Some(Entry { owner, bytes, .. }) = self.streams.remove(&stream) else { return };
        self.subtract(owner, Sums { bytes, calls: 1 });
    }

    /// Streams whose owner has to be given before [`Ledger::full`] is asked.
    pub fn unowned(&self) -> Vec<Stream> {
        self.unowned.iter().copied().collect()
    }

    /// Whether the owner of a stream is known.
    pub fn is_owned(&self, stream: Stream) -> bool {
        self.streams.get(&stream).is_some_and(|entry| entry.owner.is_some())
    }

    /// Says whose a stream is.
    pub fn own(&mut self, stream: Stream, owner: Owner) {
        self.unowned.remove(&stream);
        let Some(entry) = self.streams.get_mut(&stream).filter(|entry| entry.owner.is_none()) else { return };
        entry.owner = Some(owner);
        let Entry { bytes, held, leaving, .. } = *entry;
        if leaving.is_some() {
            self.callers.entry(owner.caller).or_default().leaving += 1;
            return;
        }
        let connection = self.connection(owner, Sums { bytes, calls: 1 });
        if held {
            connection.held.insert(stream, bytes);
        }
    }

    /// Counts bytes of a call's body.
    pub fn grow(&mut self, stream: Stream, by: u64) {
        let Some(entry) = self.streams.get_mut(&stream).filter(|entry| entry.leaving.is_none()) else { return };
        entry.bytes += by;
        self.sums.bytes += by;
        let Entry { owner, bytes, held, .. } = *entry;
        let Some(owner) = owner else { return };
        if let Some(caller) = self.callers.get_mut(&owner.caller) {
            caller.sums.bytes += by;
            if let Some(connection) = caller.connections.get_mut(&owner.connection) {
                connection.sums.bytes += by;
                if held {
                    connection.held.insert(stream, bytes);
                }
            }
        }
    }

    /// Whether a budget of the process is full, as far as this worker knows, or half of the calls are used. [`Ledger::full`] then
    /// finds the streams that give way, once each stream has an owner.
    pub fn is_full(&self, budgets: &Budgets) -> bool {
        self.over(budgets) != Sums::default() || self.sums.calls + self.leaving > budgets.calls / 2
    }

    /// The next stream that has to give way to a budget that `stream` or its connection or caller exceeds, or any stream does.
    pub fn full(&self, stream: Option<Stream>, budgets: &Budgets) -> Option<Evicted> {
        if let Some(owner) = stream.and_then(|stream| self.streams.get(&stream)?.owner)
            && let Some(caller) = self.callers.get(&owner.caller)
        {
            let connection = caller.connections.get(&owner.connection);
            if let Some(connection) = connection.filter(|it| it.sums.bytes > budgets.connection_bytes)
                && let Some(stream) = connection.largest()
            {
                return Some(Evicted { stream, full: Full::Connection });
            }
            let elsewhere = self.others.callers.get(&owner.caller).copied().unwrap_or_default();
            if caller.sums.bytes + elsewhere > budgets.caller_bytes
                && let Some(stream) = caller.largest(|sums| sums.bytes)
            {
                return Some(Evicted { stream, full: Full::Caller });
            }
            // One caller leaves room for others.
            if caller.sums.calls > budgets.calls / 2
                && let Some(stream) = caller.largest(|sums| sums.calls)
            {
                return Some(Evicted { stream, full: Full::Caller });
            }
        }
        // Calls that give way take a while to leave.
        if let Some(stream) = stream.filter(|_| self.leaving > budgets.calls)
            && self.streams.get(&stream).is_some_and(|entry| entry.held)
            && !self.is_small(stream, budgets)
        {
            return Some(Evicted { stream, full: Full::Process });
        }
        let over = self.over(budgets);
        let evicted = |weight: fn(&Sums) -> u64| {
            let mut callers: Vec<&Caller> = self.callers.values().collect();
            callers.sort_by_key(|caller| std::cmp::Reverse(weight(&caller.sums)));
            let stream = callers.into_iter().find_map(|caller| caller.largest(weight))?;
            Some(Evicted { stream, full: Full::Process })
        };
        let of_bytes = (over.bytes > 0).then(|| evicted(|sums| sums.bytes)).flatten();
        let of_calls = || evicted(|sums| sums.calls).filter(|evicted| !self.is_small(evicted.stream, budgets));
        of_bytes.or_else(|| (over.calls > 0).then(of_calls).flatten())
    }

    /// Whether a stream's caller has so few calls that none is refused for the calls of others.
    fn is_small(&self, stream: Stream, budgets: &Budgets) -> bool {
        let owner = self.streams.get(&stream).and_then(|entry| entry.owner);
        let caller = owner.and_then(|owner| self.callers.get(&owner.caller));
        caller.is_some_and(|caller| caller.sums.calls + caller.leaving <= budgets.calls / SMALL)
    }

    /// Whether the sums have changed so much that other workers have to know.
    pub fn has_news(&self) -> bool {
        let bytes = self.sums.bytes.abs_diff(self.published.bytes);
        let calls = self.sums.calls.abs_diff(self.published.calls);
        bytes >= STEP || calls >= CALLS_STEP
    }

    /// Tells the other workers, and learns of them, if there is news or it is time to repeat. `worker` is a number of this VM's
    /// own.
    pub fn publish(&mut self, worker: u64, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        let waited = now.saturating_sub(self.published_at) >= REPEAT_MS;
        // Zero needs no repetition: it counts like a worker that is gone.
        let repeat = waited && (self.published != Sums::default() || self.sums != Sums::default());
        if !self.has_news() && !repeat {
            return;
        }
        let own = self.report(worker, now);
        let exchange = |value: Option<&[u8]>| {
            let reports = Report::read_all(value.unwrap_or_default());
            let others: Vec<Report> = reports
                .into_iter()
                .filter(|report| report.worker != worker && report.at.abs_diff(now) < FORGOTTEN_MS)
                .collect();
            let all = others.iter().chain(std::iter::once(&own));
            let written: Vec<u8> = all.flat_map(Report::write).collect();
            (Some(written), others)
        };
        if let Some(others) = update(shared, KEY, exchange) {
            self.others = Others::sum(&others);
            self.published = self.sums;
            self.published_at = now;
        }
    }

    /// By how much this worker is over what it may use: the budget that the others leave, or an equal share of the budget if
    /// that is more.
    fn over(&self, budgets: &Budgets) -> Sums {
        let workers = self.others.workers + 1;
        let allowed = |limit: u64, others: u64| (limit / workers).max(limit.saturating_sub(others));
        Sums {
            bytes: self.sums.bytes.saturating_sub(allowed(budgets.total_bytes, self.others.sums.bytes)),
            calls: self.sums.calls.saturating_sub(allowed(budgets.calls, self.others.sums.calls)),
        }
    }

    fn report(&self, worker: u64, at: u64) -> Report {
        let mut callers: Vec<(u64, u64)> = self
            .callers
            .iter()
            .map(|(caller, it)| (*caller, it.sums.bytes))
            .filter(|(_, bytes)| *bytes >= STEP)
            .collect();
        callers.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        callers.truncate(CALLERS);
        Report { worker, at, sums: self.sums, callers }
    }

    /// Adds to what an owner has.
    fn connection(&mut self, owner: Owner, sums: Sums) -> &mut Connection {
        let caller = self.callers.entry(owner.caller).or_default();
        caller.sums.add(sums);
        let connection = caller.connections.entry(owner.connection).or_default();
        connection.sums.add(sums);
        connection
    }

    fn subtract(&mut self, owner: Option<Owner>, sums: Sums) {
        self.sums.subtract(sums);
        let Some(owner) = owner else { return };
        let Some(caller) = self.callers.get_mut(&owner.caller) else { return };
        caller.sums.subtract(sums);
        if let Some(connection) = caller.connections.get_mut(&owner.connection) {
            connection.sums.subtract(sums);
            if connection.sums.calls == 0 {
                caller.connections.remove(&owner.connection);
            }
        }
        if caller.sums.calls == 0 && caller.leaving == 0 {
            self.callers.remove(&owner.caller);
        }
    }
}

// === impl Caller, Connection, Sums ===

impl Caller {
    /// The largest stream that may give way, of the connection with most that has one.
    fn largest(&self, weight: impl Fn(&Sums) -> u64) -> Option<Stream> {
        let candidates = self.connections.values().filter(|connection| !connection.held.is_empty());
        candidates.max_by_key(|connection| weight(&connection.sums))?.largest()
    }
}

impl Connection {
    fn largest(&self) -> Option<Stream> {
        self.held.iter().max_by_key(|(_, bytes)| **bytes).map(|(stream, _)| *stream)
    }
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.calls += other.calls;
    }

    fn subtract(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.calls = self.calls.saturating_sub(other.calls);
    }
}

// === the shared value ===

/// What one worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    worker: u64,
    /// In milliseconds since 1970.
    at: u64,
    sums: Sums,
    /// Bytes by caller.
    callers: Vec<(u64, u64)>,
}

impl Report {
    /// Numbers of 8 bytes, little endian: worker, time, bytes, calls, the number of callers, then each with its bytes.
    fn write(&self) -> Vec<u8> {
        let Sums { bytes, calls } = self.sums;
        let head = [self.worker, self.at, bytes, calls, self.callers.len() as u64];
        let callers = self.callers.iter().flat_map(|(caller, bytes)| [*caller, *bytes]);
        head.into_iter().chain(callers).flat_map(u64::to_le_bytes).collect()
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut next = || {
            let (head, tail) = bytes.split_first_chunk()?;
            *bytes = tail;
            Some(u64::from_le_bytes(*head))
        };
        let (worker, at) = (next()?, next()?);
        let sums = Sums { bytes: next()?, calls: next()? };
        let callers = (0..next()?.min(CALLERS as u64)).map(|_| Some((next()?, next()?))).collect::<Option<_>>()?;
        Some(Self { worker, at, sums, callers })
    }

    fn read_all(mut bytes: &[u8]) -> Vec<Self> {
        std::iter::from_fn(|| Self::read(&mut bytes)).collect()
    }
}

impl Others {
    fn sum(reports: &[Report]) -> Self {
        let mut others = Self::default();
        for report in reports.iter().filter(|report| report.sums != Sums::default()) {
            others.workers += 1;
            others.sums.add(report.sums);
            for (caller, bytes) in &report.callers {
                *others.callers.entry(*caller).or_default() += bytes;
            }
        }
        others
    }
}

#[cfg(test)]
#[path = "buffers_tests.rs"]
mod tests;
