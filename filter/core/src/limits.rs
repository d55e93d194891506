//! What one caller may use in a minute: calls and tokens, as two buckets that fill evenly and hold a minute's worth.
//!
//! Tokens are known when a call is over; a bucket may be overdrawn by calls in flight, and the next call waits until that
//! is paid. All workers share the buckets, in a table of fixed size.

use crate::config::Limits;
use crate::shared::{Shared, millis, update};
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// Callers that can be held apart at one time.
const SLOTS: u64 = 16_384;
/// Slots in which a caller may stand.
const PROBES: u64 = 4;
const MINUTE_MS: f64 = 60_000.0;

/// The allowance of a caller in a route class.
#[derive(Debug)]
pub struct Allowance<'a> {
    shared: &'a dyn Shared,
    limits: Limits,
    id: [u8; 16],
    first_slot: u64,
    now: u64,
}

/// What is left, in a slot of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Purse {
    id: [u8; 16],
    requests: f64,
    tokens: f64,
    /// When that was so, in milliseconds since 1970.
    at: u64,
    /// When both buckets are full again: then the slot is as good as empty.
    full_at: u64,
}

impl<'a> Allowance<'a> {
    /// The allowance of `caller` in `class`; `None` where the class sets no limits.
    pub fn new(shared: &'a dyn Shared, limits: Limits, class: &str, caller: &str, now: SystemTime) -> Option<Self> {
        limits.requests_per_minute.or(limits.tokens_per_minute)?;
        let mut hasher = Sha256::new();
        hasher.update((class.len() as u64).to_le_bytes());
        hasher.update(class.as_bytes());
        hasher.update(caller.as_bytes());
        let digest = hasher.finalize();
        let id = digest.first_chunk().copied().unwrap_or_default();
        let first_slot = digest.last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail) % SLOTS);
        Some(Self { shared, limits, id, first_slot, now: millis(now) })
    }

    /// Takes a call from the allowance.
    ///
    /// # Errors
    /// The seconds after which a call is allowed again, at least 1.
    pub fn take(&self) -> Result<(), u64> {
        let take = |value: Option<&[u8]>| {
            let purse = self.purse(value);
            let wait = self.wait_ms(&purse);
            if wait > 0.0 {
                return (None, Err((wait / 1000.0).ceil().max(1.0) as u64));
            }
            (Some(self.write(Purse { requests: purse.requests - 1.0, ..purse })), Ok(()))
        };
        // Where many workers were ahead there is no lack of calls.
        update(self.shared, &self.slot(), take).unwrap_or(Err(1))
    }

    /// Takes the tokens of a call that is over.
    pub fn charge(&self, tokens: u64) {
        if self.limits.tokens_per_minute.is_none() || tokens == 0 {
            return;
        }
        let charge = |value: Option<&[u8]>| {
            let purse = self.purse(value);
            (Some(self.write(Purse { tokens: purse.tokens - tokens as f64, ..purse })), ())
        };
        let _ = update(self.shared, &self.slot(), charge);
    }

    /// How long until a call may be made, in milliseconds.
    fn wait_ms(&self, purse: &Purse) -> f64 {
        let until = |level: f64, wanted: f64, per_minute: Option<u32>| {
            per_minute.map_or(0.0, |rate| (wanted - level).max(0.0) * MINUTE_MS / f64::from(rate))
        };
        let requests = until(purse.requests, 1.0, self.limits.requests_per_minute);
        requests.max(until(purse.tokens, 1.0, self.limits.tokens_per_minute))
    }

    /// The caller's purse as it is now: full where the slot is empty or another's.
    fn purse(&self, value: Option<&[u8]>) -> Purse {
        let [requests, tokens] = self.capacity();
        let fresh = Purse { id: self.id, requests, tokens, at: self.now, full_at: self.now };
        let Some(kept) = value.and_then(Purse::read).filter(|purse| purse.id == self.id) else { return fresh };
        let minutes = self.now.saturating_sub(kept.at) as f64 / MINUTE_MS;
        Purse {
            requests: (kept.requests + minutes * requests).min(requests),
            tokens: (kept.tokens + minutes * tokens).min(tokens),
            ..fresh
        }
    }

    fn capacity(&self) -> [f64; 2] {
        [self.limits.requests_per_minute, self.limits.tokens_per_minute].map(|limit| limit.map_or(0.0, f64::from))
    }

    fn write(&self, purse: Purse) -> Vec<u8> {
        let [requests, tokens] = self.capacity();
        let lacking = |level: f64, full: f64| if full > 0.0 { (full - level) / full * MINUTE_MS } else { 0.0 };
        let wait = lacking(purse.requests, requests).max(lacking(purse.tokens, tokens));
        Purse { full_at: self.now.saturating_add(wait.max(0.0) as u64), ..purse }.write()
    }

    /// The key of the caller's slot: where it stands, else one that is empty or full, else the one that is full soonest.
    fn slot(&self) -> String {
        let key = |probe: u64| format!("limit/{}", (self.first_slot + probe) % SLOTS);
        let mut best: Option<(u64, u64)> = None;
        for probe in 0..PROBES {
            let kept = self.shared.get(&key(probe)).and_then(|(value, _)| Purse::read(&value));
            let full_at = match kept {
                Some(purse) if purse.id == self.id => return key(probe),
                Some(purse) if purse.full_at > self.now => purse.full_at,
                _ => 0,
            };
            if best.is_none_or(|(_, earliest)| full_at < earliest) {
                best = Some((probe, full_at));
            }
        }
        key(best.map_or(0, |(probe, _)| probe))
    }
}

impl Purse {
    /// The id, then four numbers of 8 bytes, little endian.
    fn write(&self) -> Vec<u8> {
        let numbers = [self.requests.to_bits(), self.tokens.to_bits(), self.at, self.full_at];
        let mut bytes = self.id.to_vec();
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
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
        Some(Self { id: *id, requests, tokens, at: next()?, full_at: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::Memory;
    use std::time::Duration;

    fn limits(requests: Option<u32>, tokens: Option<u32>) -> Limits {
        Limits { requests_per_minute: requests, tokens_per_minute: tokens }
    }

    fn allowance<'a>(memory: &'a Memory, limits: Limits, caller: &str, ms: u64) -> Allowance<'a> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
        Allowance::new(memory, limits, "any", caller, now).unwrap()
    }

    #[test]
    fn a_minutes_calls_may_come_at_once_and_then_evenly() {
        let memory = Memory::default();
        let of = |ms| allowance(&memory, limits(Some(10), None), "a", ms);
        for _ in 0..10 {
            assert_eq!(of(0).take(), Ok(()));
        }
        assert_eq!(of(0).take(), Err(6));
        assert_eq!(of(5001).take(), Err(1));
        assert_eq!(of(6000).take(), Ok(()));
        assert_eq!(of(6000).take(), Err(6));
        assert_eq!(of(600_000).take(), Ok(()));
    }

    #[test]
    fn tokens_are_paid_when_the_call_is_over() {
        let memory = Memory::default();
        let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
        assert_eq!((of(0).take(), of(0).take()), (Ok(()), Ok(())));
        of(0).charge(700);
        // 100 overdrawn and one wanted, at ten a second.
        assert_eq!(of(0).take(), Err(11));
        assert_eq!(of(10_200).take(), Ok(()));
    }

    #[test]
    fn callers_and_classes_are_apart() {
        let memory = Memory::default();
        let limits = limits(Some(1), None);
        assert_eq!(allowance(&memory, limits, "a", 0).take(), Ok(()));
        assert!(allowance(&memory, limits, "a", 0).take().is_err());
        assert_eq!(allowance(&memory, limits, "b", 0).take(), Ok(()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(Allowance::new(&memory, limits, "bulk", "a", now).unwrap().take(), Ok(()));
        assert!(Allowance::new(&memory, Limits::default(), "any", "a", now).is_none());
    }

    #[test]
    fn the_table_has_an_end_and_callers_in_debt_keep_their_places() {
        let memory = Memory::default();
        let limits = limits(Some(1), None);
        assert_eq!(allowance(&memory, limits, "first", 0).take(), Ok(()));
        for nth in 0..2000 {
            assert_eq!(allowance(&memory, limits, &format!("p{nth}"), 0).take(), Ok(()), "{nth}");
        }
        assert!(allowance(&memory, limits, "first", 1).take().is_err());
        assert!(memory.values.borrow().len() as u64 <= SLOTS);
        // Where all places of a caller are taken, it takes that of the one who is full soonest.
        let caller = allowance(&memory, limits, "late", 10);
        for probe in 0..PROBES {
            let taken = Purse { id: [9; 16], requests: 0.0, tokens: 0.0, at: 0, full_at: 2_000_000 - probe };
            let key = format!("limit/{}", (caller.first_slot + probe) % SLOTS);
            memory.set(&key, &taken.write(), None);
        }
        assert_eq!(caller.slot(), format!("limit/{}", (caller.first_slot + PROBES - 1) % SLOTS));
        assert_eq!(caller.take(), Ok(()));
        assert!(caller.take().is_err());
    }
}
