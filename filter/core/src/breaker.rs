//! A circuit breaker for each model in each region: new calls avoid a region that returned 429 or 503 for their model, if the
//! route class has another.
//!
//! The breaker opens at the first such response, for a second or as long as `retry-after` says. Then one trial call may try: if
//! it succeeds the breaker closes, if it fails the breaker opens for twice as long. All workers share it.

use crate::shared::{Shared, millis, update};
use std::time::{Duration, SystemTime};

/// How long the breaker is open at first, in milliseconds.
const FIRST_MS: u64 = 1000;
/// How long it is open at most, whether by doubling or by `retry-after`.
const LONGEST_MS: u64 = 30_000;
/// How long a trial may take before another call tries: a model's first byte may take seconds.
const TRIAL_MS: u64 = 5000;
/// After this time of nothing but 429 and 503, a call is not retried in the same region.
const PATIENCE: Duration = Duration::from_secs(2);
/// Models share this many breakers in a region, so that clients cannot create keys without bound.
const BUCKETS: u32 = 1024;

/// A model in a region.
#[derive(Debug)]
pub struct Breaker<'a> {
    shared: &'a dyn Shared,
    key: String,
    now: u64,
}

/// What is known of a model in a region. All zero: no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Record {
    /// Since when every response was 429 or 503; 0: the last one was good.
    failing_since: u64,
    /// Until when it is open.
    open_until: u64,
    /// How long it was opened for.
    backoff: u64,
    /// Whether a trial call is under way.
    trial: bool,
}

impl<'a> Breaker<'a> {
    /// The breaker of a model in a region.
    pub fn new(shared: &'a dyn Shared, region: &str, model: &str, now: SystemTime) -> Self {
        Self { shared, key: format!("breaker/{region}/{}", bucket(model)), now: millis(now) }
    }

    /// Whether a new call may go there. The first call after the open time gets `true`: it is the trial.
    pub fn admits(&self) -> bool {
        // The common case, which writes nothing.
        let record = self.record();
        if record.backoff == 0 {
            return true;
        }
        if self.now < record.open_until {
            return false;
        }
        let claim = |value: Option<&[u8]>| {
            let record = Record::read(value);
            if self.now < record.open_until {
                return (None, record.backoff == 0);
            }
            (Some(Record { open_until: self.now + TRIAL_MS, trial: true, ..record }.write()), true)
        };
        update(self.shared, &self.key, claim).unwrap_or(false)
    }

    /// Whether a call that got 429 elsewhere may be retried here: not if the breaker is open,
    /// nor after a long time of failures.
    pub fn takes_retries(&self) -> bool {
        let record = self.record();
        record.backoff == 0 && !self.is_hopeless(record)
    }

    /// Whether the region has failed for so long that a retry by another path is pointless.
    pub fn hopeless(&self) -> bool {
        self.is_hopeless(self.record())
    }

    /// Records a 429 or 503 with its `retry-after`. Returns whether that opened the breaker.
    pub fn failed(&self, retry_after: Option<Duration>) -> bool {
        let requested = retry_after.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let open = |value: Option<&[u8]>| {
            let record = Record::read(value);
            let failing_since = if record.failing_since == 0 { self.now } else { record.failing_since };
            // Calls that were in flight when it opened add nothing.
            if self.now < record.open_until && !record.trial {
                return (Some(Record { failing_since, ..record }.write()), false);
            }
            let backoff = (record.backoff * 2).max(FIRST_MS).max(requested).min(LONGEST_MS);
            (Some(Record { failing_since, open_until: self.now + backoff, backoff, trial: false }.write()), true)
        };
        update(self.shared, &self.key, open).unwrap_or(false)
    }

    /// Records a success.
    pub fn succeeded(&self) {
        if self.record() == Record::default() {
            return;
        }
        let close = |value: Option<&[u8]>| {
            let record = Record::read(value);
            let still_open = self.now < record.open_until && !record.trial;
            let new = if still_open { Record { failing_since: 0, ..record } } else { Record::default() };
            ((new != record).then(|| new.write()), ())
        };
        // If other workers win every race, the next success closes it.
        let _ = update(self.shared, &self.key, close);
    }

    fn is_hopeless(&self, record: Record) -> bool {
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        record.failing_since != 0 && self.now.saturating_sub(record.failing_since) >= patience
    }

    fn record(&self) -> Record {
        Record::read(self.shared.get(&self.key).map(|(value, _)| value).as_deref())
    }
}

impl Record {
    /// Three numbers of 8 bytes, little endian, and a byte; empty without a failure.
    fn write(self) -> Vec<u8> {
        if self == Self::default() {
            return Vec::new();
        }
        let mut bytes = Vec::with_capacity(25);
        for number in [self.failing_since, self.open_until, self.backoff] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(u8::from(self.trial));
        bytes
    }

    fn read(value: Option<&[u8]>) -> Self {
        let mut rest = value.unwrap_or_default();
        let mut next = || {
            let (head, tail) = rest.split_first_chunk()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let [failing_since, open_until, backoff] = [(); 3].map(|()| next().unwrap_or(0));
        Self { failing_since, open_until, backoff, trial: rest.first() == Some(&1) }
    }
}

/// FNV-1a, for its brevity: who makes models collide gains a shared breaker.
fn bucket(model: &str) -> u32 {
    let hash = model.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::Memory;

    fn at(memory: &Memory, ms: u64) -> Breaker<'_> {
        Breaker::new(memory, "us-east-1", "a.b", SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms))
    }

    #[test]
    fn opens_at_once_and_then_admits_one_trial() {
        let memory = Memory::default();
        assert!(at(&memory, 0).admits());
        assert!(at(&memory, 0).failed(None));
        assert!(!at(&memory, 10).failed(None), "it is open already");
        assert!(!at(&memory, 999).admits());
        assert!(at(&memory, 1000).admits(), "the trial");
        assert!(!at(&memory, 1001).admits(), "one only");
        assert!(at(&memory, 1100).failed(None), "the trial failed");
        assert!(!at(&memory, 3099).admits(), "open for twice as long");
        assert!(at(&memory, 3100).admits());
        at(&memory, 3150).succeeded();
        assert!(at(&memory, 3151).admits() && at(&memory, 3151).admits());
        assert!(memory.get("breaker/us-east-1/".to_owned().as_str()).is_none());
        assert!(memory.values.borrow().values().all(|(value, _)| value.is_empty()));
    }

    #[test]
    fn a_lost_trial_gives_way_to_another() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        assert!(at(&memory, 1000).admits());
        assert!(!at(&memory, 5999).admits());
        assert!(at(&memory, 6000).admits());
    }

    #[test]
    fn an_earlier_success_does_not_close_it() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        at(&memory, 10).succeeded();
        assert!(!at(&memory, 20).admits());
        at(&memory, 1500).succeeded();
        assert!(at(&memory, 1501).admits());
    }

    #[test]
    fn retry_after_counts_within_bounds() {
        for (seconds, until) in [(0, 1000), (7, 7000), (3600, 30_000)] {
            let memory = Memory::default();
            at(&memory, 0).failed(Some(Duration::from_secs(seconds)));
            assert!(!at(&memory, until - 1).admits(), "{seconds}");
            assert!(at(&memory, until).admits(), "{seconds}");
        }
    }

    #[test]
    fn it_never_waits_longer_than_the_longest() {
        let memory = Memory::default();
        let mut now = 0;
        for _ in 0..20 {
            at(&memory, now).failed(None);
            now += LONGEST_MS;
            assert!(at(&memory, now).admits());
        }
    }

    #[test]
    fn two_seconds_of_failures_are_hopeless() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        assert!(!at(&memory, 1999).hopeless());
        at(&memory, 1500).failed(None);
        assert!(at(&memory, 2000).hopeless());
        at(&memory, 2001).succeeded();
        assert!(!at(&memory, 2002).hopeless());
        assert!(!at(&memory, 100).takes_retries() || at(&memory, 60_000).takes_retries());
    }

    #[test]
    fn models_and_regions_have_bounded_own_keys() {
        let memory = Memory::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        Breaker::new(&memory, "us-east-1", "a.b", now).failed(None);
        assert!(Breaker::new(&memory, "us-west-2", "a.b", now).admits());
        assert!(Breaker::new(&memory, "us-east-1", "c.d", now).admits());
        for nth in 0..5000 {
            Breaker::new(&memory, "us-east-1", &format!("x.{nth}"), now).failed(None);
        }
        assert!(memory.values.borrow().len() <= BUCKETS as usize);
    }
}
