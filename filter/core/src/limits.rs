//! What one caller may use in a minute: calls and tokens, as two token buckets that hold a minute's worth.
//!
//! Tokens are known when a call is over, so calls in flight may overdraw a bucket; the next call waits until the debt is paid.
//! All workers share the buckets, in a table of fixed size.

use crate::config::Limits;
use crate::shared::{Shared, millis, update};
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// Slots of the table: so many callers can be counted separately at a time.
const SLOTS: u64 = 16_384;
/// Slots that a caller may use.
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

/// What a caller has left: a slot of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
struct TokenBucket {
    id: [u8; 16],
    requests: f64,
    tokens: f64,
    /// The time of these levels, in milliseconds since 1970.
    at: u64,
    /// When both are full again: from then on the slot counts as empty.
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
            let bucket = self.bucket(value);
            let wait = self.wait_ms(&bucket);
            if wait > 0.0 {
                return (None, Err((wait / 1000.0).ceil().max(1.0) as u64));
            }
            (Some(self.write(TokenBucket { requests: bucket.requests - 1.0, ..bucket })), Ok(()))
        };
        // Lost to other workers every time: there are many calls at the moment.
        update(self.shared, &self.slot(), take).unwrap_or(Err(1))
    }

    /// Takes the tokens of a call that is over.
    pub fn charge(&self, tokens: u64) {
        if self.limits.tokens_per_minute.is_none() || tokens == 0 {
            return;
        }
        let charge = |value: Option<&[u8]>| {
            let bucket = self.bucket(value);
            (Some(self.write(TokenBucket { tokens: bucket.tokens - tokens as f64, ..bucket })), ())
        };
        let _ = update(self.shared, &self.slot(), charge);
    }

    /// How long until a call may be made, in milliseconds.
    fn wait_ms(&self, bucket: &TokenBucket) -> f64 {
        let until = |level: f64, needed: f64, per_minute: Option<u32>| {
            per_minute.map_or(0.0, |rate| (needed - level).max(0.0) * MINUTE_MS / f64::from(rate))
        };
        let requests = until(bucket.requests, 1.0, self.limits.requests_per_minute);
        requests.max(until(bucket.tokens, 1.0, self.limits.tokens_per_minute))
    }

    /// The caller's bucket now: full if the slot is empty or another caller's.
    fn bucket(&self, value: Option<&[u8]>) -> TokenBucket {
        let [requests, tokens] = self.capacity();
        let fresh = TokenBucket { id: self.id, requests, tokens, at: self.now, full_at: self.now };
        let Some(kept) = value.and_then(TokenBucket::read).filter(|bucket| bucket.id == self.id) else { return fresh };
        let minutes = self.now.saturating_sub(kept.at) as f64 / MINUTE_MS;
        TokenBucket {
            requests: (kept.requests + minutes * requests).min(requests),
            tokens: (kept.tokens + minutes * tokens).min(tokens),
            ..fresh
        }
    }

    fn capacity(&self) -> [f64; 2] {
        [self.limits.requests_per_minute, self.limits.tokens_per_minute].map(|limit| limit.map_or(0.0, f64::from))
    }

    fn write(&self, bucket: TokenBucket) -> Vec<u8> {
        let [requests, tokens] = self.capacity();
        let lacking = |level: f64, full: f64| if full > 0.0 { (full - level) / full * MINUTE_MS } else { 0.0 };
        let wait = lacking(bucket.requests, requests).max(lacking(bucket.tokens, tokens));
        TokenBucket { full_at: self.now.saturating_add(wait.max(0.0) as u64), ..bucket }.write()
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
    fn a_burst_is_followed_by_even_refill() {
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
    fn tokens_are_charged_at_the_end() {
        let memory = Memory::default();
        let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
        assert_eq!((of(0).take(), of(0).take()), (Ok(()), Ok(())));
        of(0).charge(700);
        // 100 overdrawn and one wanted, at ten a second.
        assert_eq!(of(0).take(), Err(11));
        assert_eq!(of(10_200).take(), Ok(()));
    }

    #[test]
    fn callers_and_classes_are_separate() {
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
            let taken = TokenBucket { id: [9; 16], requests: 0.0, tokens: 0.0, at: 0, full_at: 2_000_000 - probe };
            let key = format!("limit/{}", (caller.first_slot + probe) % SLOTS);
            memory.set(&key, &taken.write(), None);
        }
        assert_eq!(caller.slot(), format!("limit/{}", (caller.first_slot + PROBES - 1) % SLOTS));
        assert_eq!(caller.take(), Ok(()));
        assert!(caller.take().is_err());
    }
}
