//! What the calls of clients may occupy: budgets for a connection, a caller and the whole process.
//!
//! Envoy bounds what it buffers for one stream, and nothing that all streams buffer together. A call that is signed is
//! buffered until its body is complete, so a client that begins many and completes none would fill the memory. So would one that
//! does not read its answers: Envoy keeps a call, with its headers, until its answer has been read.
//!
//! A budget that is full takes from the one who uses most of it: first the caller with the most bytes, then its connection with the
//! most, then the stream. So small calls pass while others fill the memory. Only calls that have not been sent give way. They get
//! a reply, unless their caller leaves so many replies unread that a further one would only be kept as well.
//!
//! Each worker counts its own streams. It publishes its sums in steps of [`STEP`], so that a call with a small body costs no
//! access to shared data, and a worker whose VM crashed is forgotten.

mod counts;
mod published;

use crate::caller;
use crate::config::{Buffers, ConfigError, at};
use crate::shared::{Shared, millis, update};
use counts::{Counts, Sums};
use published::{CALLERS, Others, Report};
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
/// However many callers there are, each has this part of the calls and bytes for itself.
const LEAST_SHARE: u64 = 64;
/// Replies that are not read may occupy this part of a budget.
const UNREAD: u64 = 2;
const KEY: &str = "buffers";

/// How much all streams together may occupy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Bytes of bodies and large headers that Envoy keeps.
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

/// How far a call is, as far as its memory is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// It has not been sent yet, and may give way.
    #[default]
    Held,
    /// It has been sent. Its body still counts, because Envoy keeps it for retries.
    Sent,
    /// It gives way: neither the call nor its body counts, as it is about to be refused.
    Leaving,
    /// The same, and its body was dropped.
    Dropped,
    /// It was refused. It counts again: Envoy keeps it, and its body unless that was dropped, until the client has read the reply.
    Refused,
}

/// The streams of one worker.
#[derive(Debug, Default)]
pub struct Ledger {
    streams: BTreeMap<Stream, Entry>,
    callers: BTreeMap<u64, Caller>,
    /// Streams whose owner is not known yet: those of short bodies never need one.
    unowned: BTreeSet<Stream>,
    counts: Counts,
    published: Sums,
    published_at: u64,
    others: Others,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    owner: Option<Owner>,
    phase: Phase,
    /// Bytes of its headers, as far as they count.
    headers: u64,
    /// Bytes of its body that are buffered.
    body: u64,
}

#[derive(Debug, Default)]
struct Caller {
    counts: Counts,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    counts: Counts,
    /// Streams that may give way, with their bytes.
    held: BTreeMap<Stream, u64>,
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
    /// Who calls, and over which connection.
    pub fn new(caller: &caller::Caller, connection: u64) -> Self {
        let mut hasher = Sha256::new();
        caller.hash(&mut hasher);
        let digest = hasher.finalize();
        Self { caller: digest.first_chunk().map_or(0, |head| u64::from_le_bytes(*head)), connection }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Counts a call with these bytes of headers. It must [end](Ledger::end).
    pub fn begin(&mut self, stream: Stream, headers: u64) {
        if self.streams.contains_key(&stream) {
            return;
        }
        let entry = Entry { headers, ..Entry::default() };
        self.streams.insert(stream, entry);
        self.unowned.insert(stream);
        self.add(stream, entry);
    }

    /// Counts bytes of a call's body.
    pub fn grow(&mut self, stream: Stream, by: u64) {
        self.change(stream, |entry| {
            if matches!(entry.phase, Phase::Held | Phase::Sent) {
                entry.body += by;
            }
        });
    }

    /// Notes how far a call is.
    pub fn note(&mut self, stream: Stream, phase: Phase) {
        self.change(stream, |entry| {
            entry.phase = phase;
            if phase == Phase::Dropped {
                entry.body = 0;
            }
        });
    }

    /// Says whose a stream is.
    pub fn own(&mut self, stream: Stream, owner: Owner) {
        self.unowned.remove(&stream);
        self.change(stream, |entry| entry.owner = entry.owner.or(Some(owner)));
    }

    /// The call is over, and Envoy has forgotten it.
    pub fn end(&mut self, stream: Stream) {
        self.unowned.remove(&stream);
        if let Some(entry) = self.streams.remove(&stream) {
            self.subtract(stream, entry);
        }
    }

    /// Streams whose owner has to be given before [`Ledger::full`] is asked.
    pub fn unowned(&self) -> Vec<Stream> {
        self.unowned.iter().copied().collect()
    }

    /// Whether the owner of a stream is known.
    pub fn is_owned(&self, stream: Stream) -> bool {
        self.streams.get(&stream).is_some_and(|entry| entry.owner.is_some())
    }

    /// Whether a budget of the process is full, as far as this worker knows, or half of the calls are used. [`Ledger::full`] then
    /// finds the streams that give way, once each stream has an owner.
    pub fn is_full(&self, budgets: &Budgets) -> bool {
        self.over(budgets) != Sums::default() || self.counts.calls() > budgets.calls / 2
    }

    /// The next stream that has to give way to a budget that `stream` or its connection or caller exceeds, or any stream does.
    pub fn full(&self, stream: Option<Stream>, budgets: &Budgets) -> Option<Evicted> {
        if let Some(owner) = stream.and_then(|stream| self.streams.get(&stream)?.owner)
            && let Some(caller) = self.callers.get(&owner.caller)
        {
            let connection = caller.connections.get(&owner.connection);
            if let Some(connection) = connection.filter(|it| it.counts.all.bytes > budgets.connection_bytes)
                && let Some(stream) = connection.largest()
            {
                return Some(Evicted { stream, full: Full::Connection });
            }
            let elsewhere = self.elsewhere(owner);
            if caller.counts.all.bytes + elsewhere.bytes > budgets.caller_bytes
                && let Some(stream) = caller.largest(|sums| sums.bytes)
            {
                return Some(Evicted { stream, full: Full::Caller });
            }
            // One caller leaves room for others.
            if caller.counts.all.calls + elsewhere.calls > budgets.calls / 2
                && let Some(stream) = caller.largest(|sums| sums.calls)
            {
                return Some(Evicted { stream, full: Full::Caller });
            }
        }
        // Calls that give way take a while to leave.
        if let Some(stream) = stream.filter(|_| self.counts.leaving > budgets.calls)
            && self.streams.get(&stream).is_some_and(|entry| entry.phase == Phase::Held)
            && !self.is_within_share(stream, budgets)
        {
            return Some(Evicted { stream, full: Full::Process });
        }
        let over = self.over(budgets);
        let evicted = |weight: fn(&Sums) -> u64| {
            let mut callers: Vec<&Caller> = self.callers.values().collect();
            callers.sort_by_key(|caller| std::cmp::Reverse(weight(&caller.counts.all)));
            let stream = callers.into_iter().find_map(|caller| caller.largest(weight))?;
            (!self.is_within_share(stream, budgets)).then_some(Evicted { stream, full: Full::Process })
        };
        let of_bytes = (over.bytes > 0).then(|| evicted(|sums| sums.bytes)).flatten();
        of_bytes.or_else(|| (over.calls > 0).then(|| evicted(|sums| sums.calls)).flatten())
    }

    /// Whether a call that gives way may wait for its reply until the client has sent what it is sending.
    pub fn may_wait(&self, stream: Stream, budgets: &Budgets) -> bool {
        let Some(caller) = self.caller_of(stream) else { return true };
        let own = caller.counts.leaving <= budgets.calls / 4 && caller.counts.all.bytes <= budgets.caller_bytes;
        let all = self.counts.leaving <= budgets.calls && self.over(budgets) == Sums::default();
        own && (all || self.is_within_share(stream, budgets))
    }

    /// Whether so many replies are not read that [`Ledger::may_reply`] has to be asked, once each stream has an owner.
    pub fn has_unread(&self, budgets: &Budgets) -> bool {
        self.counts.refused.calls > budgets.calls / LEAST_SHARE
            || self.counts.refused.bytes > budgets.total_bytes / LEAST_SHARE
    }

    /// Whether Envoy may keep a reply to a stream. If not, the stream has to be reset.
    pub fn may_reply(&self, stream: Stream, budgets: &Budgets) -> bool {
        let Some(caller) = self.caller_of(stream) else { return true };
        let workers = self.others.workers + 1;
        let fits = |Sums { bytes, calls }, most: Sums| bytes <= most.bytes && calls <= most.calls;
        let of_caller = Sums { bytes: budgets.caller_bytes / UNREAD, calls: budgets.calls / 2 / UNREAD };
        let of_worker = Sums { bytes: budgets.total_bytes / UNREAD / workers, calls: budgets.calls / UNREAD / workers };
        fits(caller.counts.refused, of_caller)
            && (fits(self.counts.refused, of_worker) || self.is_within_share(stream, budgets))
    }

    /// Whether a stream's caller has at most an equal share of all calls and bytes, so that none of it is refused for what others
    /// have. What cannot give way, such as answers that are not read, would otherwise cost the calls of those who have less.
    fn is_within_share(&self, stream: Stream, budgets: &Budgets) -> bool {
        let owner = self.streams.get(&stream).and_then(|entry| entry.owner);
        let Some((owner, Caller { counts, .. })) = owner.and_then(|it| Some((it, self.callers.get(&it.caller)?)))
        else {
            return false;
        };
        let elsewhere = self.others.callers.keys().filter(|caller| !self.callers.contains_key(caller));
        let callers = ((self.callers.len() + elsewhere.count()) as u64).min(LEAST_SHARE);
        let more = self.elsewhere(owner);
        counts.calls() + more.calls <= budgets.calls / callers
            && counts.all.bytes + more.bytes <= budgets.total_bytes / callers
    }

    /// What an owner's caller has on other workers.
    fn elsewhere(&self, owner: Owner) -> Sums {
        self.others.callers.get(&owner.caller).copied().unwrap_or_default()
    }

    fn caller_of(&self, stream: Stream) -> Option<&Caller> {
        self.callers.get(&self.streams.get(&stream)?.owner?.caller)
    }

    /// Whether the sums have changed so much that other workers have to know.
    pub fn has_news(&self) -> bool {
        let bytes = self.counts.all.bytes.abs_diff(self.published.bytes);
        let calls = self.counts.all.calls.abs_diff(self.published.calls);
        bytes >= STEP || calls >= CALLS_STEP
    }

    /// Tells the other workers, and learns of them, if there is news or it is time to repeat. `worker` is a number of this VM's
    /// own.
    pub fn publish(&mut self, worker: u64, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        let waited = now.saturating_sub(self.published_at) >= REPEAT_MS;
        // Zero needs no repetition: it counts like a worker that is gone.
        let repeat = waited && (self.published != Sums::default() || self.counts.all != Sums::default());
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
            self.published = self.counts.all;
            self.published_at = now;
        }
    }

    /// By how much this worker is over what it may use: the budget that the others leave, or an equal share of the budget if
    /// that is more.
    fn over(&self, budgets: &Budgets) -> Sums {
        let workers = self.others.workers + 1;
        let allowed = |limit: u64, others: u64| (limit / workers).max(limit.saturating_sub(others));
        Sums {
            bytes: self.counts.all.bytes.saturating_sub(allowed(budgets.total_bytes, self.others.sums.bytes)),
            calls: self.counts.all.calls.saturating_sub(allowed(budgets.calls, self.others.sums.calls)),
        }
    }

    fn report(&self, worker: u64, at: u64) -> Report {
        let mut callers: Vec<(u64, Sums)> = self
            .callers
            .iter()
            .map(|(caller, it)| (*caller, it.counts.all))
            .filter(|(_, sums)| sums.bytes >= STEP || sums.calls >= CALLS_STEP)
            .collect();
        callers.sort_by_key(|(_, sums)| std::cmp::Reverse(*sums));
        callers.truncate(CALLERS);
        Report { worker, at, sums: self.counts.all, callers }
    }

    /// Changes what is known of a stream, and all sums with it.
    fn change(&mut self, stream: Stream, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        let before = *entry;
        change(entry);
        let after = *entry;
        // The new first: a caller without calls is forgotten.
        self.add(stream, after);
        self.uncount(before);
    }

    fn add(&mut self, stream: Stream, entry: Entry) {
        let counts = entry.counts();
        self.counts.add(counts);
        let Some(owner) = entry.owner else { return };
        let caller = self.callers.entry(owner.caller).or_default();
        caller.counts.add(counts);
        let connection = caller.connections.entry(owner.connection).or_default();
        connection.counts.add(counts);
        if entry.phase == Phase::Held {
            connection.held.insert(stream, counts.all.bytes);
        } else {
            connection.held.remove(&stream);
        }
    }

    fn subtract(&mut self, stream: Stream, entry: Entry) {
        if let Some(owner) = entry.owner
            && let Some(connection) =
                self.callers.get_mut(&owner.caller).and_then(|caller| caller.connections.get_mut(&owner.connection))
        {
            connection.held.remove(&stream);
        }
        self.uncount(entry);
    }

    fn uncount(&mut self, entry: Entry) {
        let counts = entry.counts();
        self.counts.subtract(counts);
        let Some(owner) = entry.owner else { return };
        let Some(caller) = self.callers.get_mut(&owner.caller) else { return };
        caller.counts.subtract(counts);
        if let Some(connection) = caller.connections.get_mut(&owner.connection) {
            connection.counts.subtract(counts);
            if connection.counts == Counts::default() {
                caller.connections.remove(&owner.connection);
            }
        }
        if caller.counts == Counts::default() {
            self.callers.remove(&owner.caller);
        }
    }
}

// === impl Entry, Caller, Connection ===

impl Entry {
    fn counts(&self) -> Counts {
        let all = Sums { bytes: self.headers + self.body, calls: 1 };
        match self.phase {
            Phase::Held | Phase::Sent => Counts { all, ..Counts::default() },
            Phase::Refused => Counts { all, refused: all, ..Counts::default() },
            Phase::Leaving | Phase::Dropped => {
                Counts { all: Sums { bytes: self.headers, calls: 0 }, leaving: 1, ..Counts::default() }
            }
        }
    }
}

impl Caller {
    /// The largest stream that may give way, of the connection with most that has one.
    fn largest(&self, weight: impl Fn(&Sums) -> u64) -> Option<Stream> {
        let candidates = self.connections.values().filter(|connection| !connection.held.is_empty());
        candidates.max_by_key(|connection| weight(&connection.counts.all))?.largest()
    }
}

impl Connection {
    fn largest(&self) -> Option<Stream> {
        self.held.iter().max_by_key(|(_, bytes)| **bytes).map(|(stream, _)| *stream)
    }
}

#[cfg(test)]
#[path = "buffers_tests.rs"]
mod tests;
