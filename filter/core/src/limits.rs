//! What one caller may use: calls and tokens in a minute, as two token buckets that hold a minute's worth, and calls at the same
//! time.
//!
//! A call reserves tokens when it is sent ([`quota`](crate::quota)). When it is over, what it used replaces the reservation. That may
//! be more, so a bucket may be overdrawn; the next call waits until the debt is paid. All workers share the buckets, in a table of
//! fixed size. Each [`Worker`] knows which calls are its own, and repeats that while they last.

use crate::caller::Caller;
use crate::config::Limits;
use crate::shared::{Shared, millis, update};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Slots of the table: so many callers can be counted separately at a time.
const SLOTS: u64 = 16_384;
/// Slots that a caller may use.
const PROBES: u64 = 4;
const MINUTE_MS: f64 = 60_000.0;
/// The largest debt, in minutes' worth: one call must not lock a caller out for longer than an hour.
const MOST_DEBT: f64 = 60.0;
/// A worker that has not repeated for so long that it has calls of a caller has none: its VM crashed.
const FORGOTTEN_MS: u64 = 60_000;
/// How often a worker repeats it.
const REPEAT_MS: u64 = 15_000;
/// Workers that are counted separately.
const WORKERS: usize = 128;

/// This VM among the workers.
#[derive(Debug)]
pub struct Worker {
    number: u64,
    open: RefCell<BTreeMap<[u8; 16], Open>>,
}

/// The calls of this worker that take from one allowance.
#[derive(Debug, Clone, Copy)]
struct Open {
    limits: Limits,
    first_slot: u64,
    /// Calls in flight, if their number is limited.
    calls: u64,
    /// Tokens that ended calls have to pay (or get back) and the bucket does not have yet.
    owed: f64,
    /// When the bucket had both last; `None`: it does not.
    written: Option<u64>,
}

/// The allowance of a caller in a route class.
#[derive(Debug)]
pub struct Allowance<'a> {
    shared: &'a dyn Shared,
    worker: &'a Worker,
    limits: Limits,
    id: [u8; 16],
    first_slot: u64,
    now: u64,
}

/// Why a call may not be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// Calls or tokens are used up for so many seconds, at least 1.
    For(u64),
    /// So many calls are in flight.
    Calls(u32),
}

/// What a caller has left: a slot of the table.
#[derive(Debug, Clone, PartialEq)]
struct TokenBucket {
    id: [u8; 16],
    requests: f64,
    tokens: f64,
    /// The time of these levels, in milliseconds since 1970.
    at: u64,
    /// When both are full again: from then on the slot counts as empty.
    full_at: u64,
    in_flight: Vec<InFlight>,
}

/// The calls of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InFlight {
    worker: u64,
    calls: u64,
    /// When it last said so.
    at: u64,
}

// === impl Worker ===

impl Worker {
    /// A worker without calls. `number` must differ from that of any other.
    pub fn new(number: u64) -> Self {
        Self { number, open: RefCell::default() }
    }

    /// Repeats what the calls of this worker have, and what other workers kept it from writing. To be called on each tick.
    pub fn tick(&self, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        let late = |open: &Open| open.written.is_none_or(|written| now.saturating_sub(written) >= REPEAT_MS);
        let due: Vec<([u8; 16], Open)> =
            self.open.borrow().iter().filter(|(_, open)| late(open)).map(|(id, open)| (*id, *open)).collect();
        for (id, Open { limits, first_slot, .. }) in due {
            Allowance { shared, worker: self, limits, id, first_slot, now }.write_own();
        }
    }
}

// === impl Allowance ===

impl<'a> Allowance<'a> {
    /// The allowance of `caller` in `class`; `None` where the class sets no limits.
    pub fn new(
        (shared, worker): (&'a dyn Shared, &'a Worker),
        limits: Limits,
        class: &str,
        caller: &Caller,
        now: SystemTime,
    ) -> Option<Self> {
        limits.requests_per_minute.or(limits.tokens_per_minute).or(limits.concurrent_calls)?;
        let mut hasher = Sha256::new();
        hasher.update((class.len() as u64).to_le_bytes());
        hasher.update(class.as_bytes());
        caller.hash(&mut hasher);
        let digest = hasher.finalize();
        let id = digest.first_chunk().copied().unwrap_or_default();
        let first_slot = digest.last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail) % SLOTS);
        Some(Self { shared, worker, limits, id, first_slot, now: millis(now) })
    }

    /// Takes a call from the allowance. It is in flight until it is [settled](Allowance::settle).
    ///
    /// # Errors
    /// What is used up.
    pub fn take(&self) -> Result<(), Exhausted> {
        self.change(|bucket| {
            let flying = bucket.in_flight.iter().map(|worker| worker.calls).fold(0, u64::saturating_add);
            if let Some(limit) = self.limits.concurrent_calls.filter(|limit| flying >= u64::from(*limit)) {
                return Err(Exhausted::Calls(limit));
            }
            self.wait(bucket, 1.0, 1.0)?;
            bucket.requests -= 1.0;
            if self.limits.concurrent_calls.is_some() {
                self.set_own(bucket, self.own().calls + 1);
            }
            Ok(())
        })?;
        if self.limits.concurrent_calls.is_some() {
            let own = self.own();
            let written = Some(self.now).filter(|_| own.owed == 0.0);
            self.keep(Open { calls: own.calls + 1, written, ..own });
        }
        Ok(())
    }

    /// Reserves tokens for a call that has `reserved` some: as many as a minute has, if these are more. Returns how many are
    /// reserved now.
    ///
    /// # Errors
    /// What is used up.
    pub fn reserve(&self, reserved: u64, tokens: u64) -> Result<u64, Exhausted> {
        let Some(limit) = self.limits.tokens_per_minute else { return Ok(0) };
        let tokens = tokens.min(limit.into());
        let Some(more) = tokens.checked_sub(reserved).filter(|more| *more > 0) else { return Ok(reserved) };
        self.change(|bucket| {
            self.wait(bucket, 0.0, more as f64)?;
            bucket.tokens -= more as f64;
            Ok(tokens)
        })
    }

    /// Ends a call: `used` tokens replace those that it had `reserved`. `taken`: it was [taken](Allowance::take).
    pub fn settle(&self, taken: bool, reserved: u64, used: u64) {
        let flew = taken && self.limits.concurrent_calls.is_some();
        let used = if self.limits.tokens_per_minute.is_some() { used } else { reserved };
        if !flew && reserved == used {
            return;
        }
        let own = self.own();
        let calls = if flew { own.calls.saturating_sub(1) } else { own.calls };
        self.keep(Open { calls, owed: own.owed + used as f64 - reserved as f64, ..own });
        self.write_own();
    }

    /// What this worker's calls have of the allowance.
    fn own(&self) -> Open {
        let none = Open { limits: self.limits, first_slot: self.first_slot, calls: 0, owed: 0.0, written: None };
        self.worker.open.borrow().get(&self.id).copied().unwrap_or(none)
    }

    fn keep(&self, own: Open) {
        self.worker.open.borrow_mut().insert(self.id, own);
    }

    /// Writes what this worker's calls have. If other workers win every race, a tick tries again.
    fn write_own(&self) {
        let own = self.own();
        let [_, most] = self.capacity();
        let write = |value: Option<&[u8]>| {
            let mut bucket = self.bucket(value);
            bucket.tokens = (bucket.tokens - own.owed).clamp(-most * MOST_DEBT, most);
            self.set_own(&mut bucket, own.calls);
            (Some(self.write(bucket)), ())
        };
        match update(self.shared, &self.slot(), write) {
            Some(()) if own.calls == 0 => {
                self.worker.open.borrow_mut().remove(&self.id);
            }
            Some(()) => self.keep(Open { owed: 0.0, written: Some(self.now), ..own }),
            None => self.keep(Open { written: None, ..own }),
        }
    }

    fn change<T>(&self, change: impl Fn(&mut TokenBucket) -> Result<T, Exhausted>) -> Result<T, Exhausted> {
        let update_slot = |value: Option<&[u8]>| {
            let mut bucket = self.bucket(value);
            let outcome = change(&mut bucket);
            (outcome.is_ok().then(|| self.write(bucket)), outcome)
        };
        // Lost to other workers every time: there are many calls at the moment.
        update(self.shared, &self.slot(), update_slot).unwrap_or(Err(Exhausted::For(1)))
    }

    /// Sets the number of this worker's calls in flight.
    fn set_own(&self, bucket: &mut TokenBucket, calls: u64) {
        bucket.in_flight.retain(|worker| worker.worker != self.worker.number);
        if calls > 0 && bucket.in_flight.len() < WORKERS {
            bucket.in_flight.push(InFlight { worker: self.worker.number, calls, at: self.now });
        }
    }

    /// Fails with how long it takes until there are so many calls and tokens.
    fn wait(&self, bucket: &TokenBucket, calls: f64, tokens: f64) -> Result<(), Exhausted> {
        let until = |level: f64, needed: f64, per_minute: Option<u32>| {
            let lacking = if needed > 0.0 { (needed - level).max(0.0) } else { 0.0 };
            per_minute.map_or(0.0, |rate| lacking * MINUTE_MS / f64::from(rate))
        };
        let calls = until(bucket.requests, calls, self.limits.requests_per_minute);
        let wait = calls.max(until(bucket.tokens, tokens, self.limits.tokens_per_minute));
        if wait > 0.0 { Err(Exhausted::For((wait / 1000.0).ceil().max(1.0) as u64)) } else { Ok(()) }
    }

    /// The caller's bucket now: full if the slot is empty or another caller's.
    fn bucket(&self, value: Option<&[u8]>) -> TokenBucket {
        let [requests, tokens] = self.capacity();
        let fresh =
            TokenBucket { id: self.id, requests, tokens, at: self.now, full_at: self.now, in_flight: Vec::new() };
        let Some(kept) = value.and_then(TokenBucket::read).filter(|bucket| bucket.id == self.id) else { return fresh };
        let minutes = self.now.saturating_sub(kept.at) as f64 / MINUTE_MS;
        let lives = |worker: &InFlight| self.now.saturating_sub(worker.at) < FORGOTTEN_MS;
        TokenBucket {
            requests: (kept.requests + minutes * requests).min(requests),
            tokens: (kept.tokens + minutes * tokens).min(tokens),
            in_flight: kept.in_flight.into_iter().filter(lives).collect(),
            ..fresh
        }
    }

    fn capacity(&self) -> [f64; 2] {
        [self.limits.requests_per_minute, self.limits.tokens_per_minute].map(|limit| limit.map_or(0.0, f64::from))
    }

    fn write(&self, bucket: TokenBucket) -> Vec<u8> {
        let [requests, tokens] = self.capacity();
        let lacking = |level: f64, full: f64| if full > 0.0 { (full - level) / full * MINUTE_MS } else { 0.0 };
        let wait = lacking(bucket.requests, requests).max(lacking(bucket.tokens, tokens)).max(0.0) as u64;
        let forgotten = bucket.in_flight.iter().map(|worker| worker.at.saturating_add(FORGOTTEN_MS)).max();
        let full_at = self.now.saturating_add(wait).max(forgotten.unwrap_or_default());
        TokenBucket { full_at, ..bucket }.write()
    }

    /// The key of the caller's slot: its own, else an empty or full one, else the one that is full soonest.
    fn slot(&self) -> String {
        let key = |probe: u64| format!("limit/{}", (self.first_slot + probe) % SLOTS);
        let mut best: Option<(u64, u64)> = None;
        for probe in 0..PROBES {
            let kept = self.shared.get(&key(probe)).and_then(|(value, _)| TokenBucket::read(&value));
            let full_at = match kept {
                Some(bucket) if bucket.id == self.id => return key(probe),
                Some(bucket) if bucket.full_at > self.now => bucket.full_at,
                _ => 0,
            };
            if best.is_none_or(|(_, earliest)| full_at < earliest) {
                best = Some((probe, full_at));
            }
        }
        key(best.map_or(0, |(probe, _)| probe))
    }
}

impl TokenBucket {
    /// The id, then numbers of 8 bytes, little endian: four of the bucket, and three of each worker with calls in flight.
    fn write(&self) -> Vec<u8> {
        let numbers = [self.requests.to_bits(), self.tokens.to_bits(), self.at, self.full_at];
        let in_flight = self.in_flight.iter().flat_map(|worker| [worker.worker, worker.calls, worker.at]);
        let mut bytes = self.id.to_vec();
        numbers.into_iter().chain(in_flight).for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, mut rest) = bytes.split_first_chunk()?;
        let mut next = || {
            let (head, tail) = rest.split_first_chunk()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let (requests, tokens) = (f64::from_bits(next()?), f64::from_bits(next()?));
        let (at, full_at) = (next()?, next()?);
        let worker = || Some(InFlight { worker: next()?, calls: next()?, at: next()? });
        Some(Self { id: *id, requests, tokens, at, full_at, in_flight: std::iter::from_fn(worker).collect() })
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
