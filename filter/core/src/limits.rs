//! What one caller may use: calls and tokens in a minute, as two token buckets that hold a minute's worth, and calls at the same
//! time.
//!
//! A call reserves tokens when it is sent ([`quota`](crate::quota)). When it is over, what it used replaces the reservation. That may
//! be more, so a bucket may be overdrawn; the next call waits until the debt is paid. All workers share the buckets, in a table of
//! fixed size.

use crate::caller::Caller;
use crate::config::Limits;
use crate::shared::{Shared, millis, update};
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// Slots of the table: so many callers can be counted separately at a time.
const SLOTS: u64 = 16_384;
/// Slots that a caller may use.
const PROBES: u64 = 4;
const MINUTE_MS: f64 = 60_000.0;
/// The largest debt, in minutes' worth: one call must not lock a caller out for longer than an hour.
const MOST_DEBT: f64 = 60.0;
/// A worker that began or ended no call of a caller for so long has none in flight, or its VM crashed.
const FORGOTTEN_MS: u64 = 600_000;
/// Workers that are counted separately.
const WORKERS: usize = 128;

/// The allowance of a caller in a route class.
#[derive(Debug)]
pub struct Allowance<'a> {
    shared: &'a dyn Shared,
    /// This VM's number among the workers.
    worker: u64,
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
    /// When it last began or ended one.
    at: u64,
}

impl<'a> Allowance<'a> {
    /// The allowance of `caller` in `class`; `None` where the class sets no limits. `worker` is this VM's number among the workers.
    pub fn new(
        (shared, worker): (&'a dyn Shared, u64),
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
                self.flying(bucket, |calls| calls.saturating_add(1));
            }
            Ok(())
        })
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
        let [_, most] = self.capacity();
        let _ = self.change(|bucket| {
            bucket.tokens = (bucket.tokens + reserved as f64 - used as f64).clamp(-most * MOST_DEBT, most);
            if flew {
                self.flying(bucket, |calls| calls.saturating_sub(1));
            }
            Ok(())
        });
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

    /// Changes the number of this worker's calls in flight.
    fn flying(&self, bucket: &mut TokenBucket, change: impl Fn(u64) -> u64) {
        let own = bucket.in_flight.iter().position(|worker| worker.worker == self.worker);
        let calls = own.map_or(0, |index| bucket.in_flight.remove(index).calls);
        let calls = change(calls);
        if calls > 0 && bucket.in_flight.len() < WORKERS {
            bucket.in_flight.push(InFlight { worker: self.worker, calls, at: self.now });
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
mod tests {
    use super::*;
    use crate::shared::tests::Memory;
    use std::time::Duration;

    fn limits(requests: Option<u32>, tokens: Option<u32>) -> Limits {
        Limits { requests_per_minute: requests, tokens_per_minute: tokens, concurrent_calls: None }
    }

    fn allowance<'a>(memory: &'a Memory, limits: Limits, caller: &str, ms: u64) -> Allowance<'a> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
        Allowance::new((memory, 1), limits, "any", &Caller::named(caller), now).unwrap()
    }

    #[test]
    fn a_burst_is_followed_by_even_refill() {
        let memory = Memory::default();
        let of = |ms| allowance(&memory, limits(Some(10), None), "a", ms);
        for _ in 0..10 {
            assert_eq!(of(0).take(), Ok(()));
        }
        assert_eq!(of(0).take(), Err(Exhausted::For(6)));
        assert_eq!(of(5001).take(), Err(Exhausted::For(1)));
        assert_eq!(of(6000).take(), Ok(()));
        assert_eq!(of(6000).take(), Err(Exhausted::For(6)));
        assert_eq!(of(600_000).take(), Ok(()));
    }

    #[test]
    fn tokens_are_charged_at_the_end() {
        let memory = Memory::default();
        let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
        assert_eq!((of(0).take(), of(0).take()), (Ok(()), Ok(())));
        of(0).settle(true, 0, 700);
        // 100 overdrawn and one wanted, at ten a second.
        assert_eq!(of(0).take(), Err(Exhausted::For(11)));
        assert_eq!(of(10_200).take(), Ok(()));
    }

    #[test]
    fn calls_in_flight_cannot_overdraw() {
        let memory = Memory::default();
        let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
        assert_eq!((of(0).reserve(0, 400), of(0).reserve(0, 300)), (Ok(400), Err(Exhausted::For(10))));
        // A call for more than a minute's worth needs all of it.
        assert_eq!(of(0).reserve(0, 10_000), Err(Exhausted::For(40)));
        // It used less than it reserved.
        of(0).settle(true, 400, 100);
        assert_eq!((of(0).reserve(0, 500), of(0).take()), (Ok(500), Err(Exhausted::For(1))));
        of(0).settle(true, 500, 0);
        assert_eq!(of(60_000).reserve(0, 10_000), Ok(600));
    }

    #[test]
    fn no_usage_locks_a_caller_out() {
        let memory = Memory::default();
        let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
        of(0).settle(true, 0, u64::MAX);
        of(0).settle(true, 0, u64::MAX);
        assert_eq!(of(0).take(), Err(Exhausted::For(3601)));
        assert_eq!(of(3_601_000).take(), Ok(()));
    }

    #[test]
    fn calls_at_the_same_time_are_counted() {
        let memory = Memory::default();
        let of = |worker, ms: u64| {
            let limits = Limits { concurrent_calls: Some(3), ..Limits::default() };
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
            Allowance::new((&memory, worker), limits, "any", &Caller::named("a"), now).unwrap()
        };
        assert_eq!((of(1, 0).take(), of(1, 0).take(), of(2, 0).take()), (Ok(()), Ok(()), Ok(())));
        assert_eq!(of(3, 0).take(), Err(Exhausted::Calls(3)));
        of(2, 1).settle(true, 0, 900);
        assert_eq!((of(3, 1).take(), of(3, 1).take()), (Ok(()), Err(Exhausted::Calls(3))));
        of(3, 2).settle(false, 0, 0);
        assert_eq!(of(3, 2).take(), Err(Exhausted::Calls(3)), "a call that was refused is not counted");
        // The first worker's VM crashed: its calls are forgotten.
        of(3, FORGOTTEN_MS - 1).settle(true, 0, 0);
        assert_eq!(of(2, FORGOTTEN_MS).take(), Ok(()));
        assert_eq!(of(2, FORGOTTEN_MS).take(), Ok(()));
    }

    #[test]
    fn callers_and_classes_are_separate() {
        let memory = Memory::default();
        let limits = limits(Some(1), None);
        assert_eq!(allowance(&memory, limits, "a", 0).take(), Ok(()));
        assert!(allowance(&memory, limits, "a", 0).take().is_err());
        assert_eq!(allowance(&memory, limits, "b", 0).take(), Ok(()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(Allowance::new((&memory, 1), limits, "bulk", &Caller::named("a"), now).unwrap().take(), Ok(()));
        assert!(Allowance::new((&memory, 1), Limits::default(), "any", &Caller::named("a"), now).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_debtors() {
        let memory = Memory::default();
        let limits = limits(Some(1), None);
        assert_eq!(allowance(&memory, limits, "first", 0).take(), Ok(()));
        for nth in 0..2000 {
            assert_eq!(allowance(&memory, limits, &format!("p{nth}"), 0).take(), Ok(()), "{nth}");
        }
        assert!(allowance(&memory, limits, "first", 1).take().is_err());
        assert!(memory.values.borrow().len() as u64 <= SLOTS);
        // If all slots of a caller are taken, it takes the one that is full soonest.
        let caller = allowance(&memory, limits, "late", 10);
        for probe in 0..PROBES {
            let taken = TokenBucket {
                id: [9; 16],
                requests: 0.0,
                tokens: 0.0,
                at: 0,
                full_at: 2_000_000 - probe,
                in_flight: Vec::new(),
            };
            let key = format!("limit/{}", (caller.first_slot + probe) % SLOTS);
            memory.set(&key, &taken.write(), None);
        }
        assert_eq!(caller.slot(), format!("limit/{}", (caller.first_slot + PROBES - 1) % SLOTS));
        assert_eq!(caller.take(), Ok(()));
        assert!(caller.take().is_err());
    }
}
