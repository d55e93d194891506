//! A breaker for each model in each region: a region that answers 429 or 503 for a model is not asked for it by new calls
//! for a while, where the route class has another.
//!
//! It opens at the first such answer, for a second or as long as `retry-after` says, and for twice as long each time that
//! the trial after it fails. Then one call tries; when it succeeds the breaker closes. All workers share it.

use crate::shared::{Shared, millis, update};
use std::time::{Duration, SystemTime};

/// How long it is open at first, in milliseconds.
const FIRST_MS: u64 = 1000;
/// How long at most, by its own doubling or by what `retry-after` says.
const LONGEST_MS: u64 = 30_000;
/// How long a trial may take before another call tries: a model may think.
const TRIAL_MS: u64 = 5000;
/// How long a region may answer nothing but 429 and 503 for a model until such answers are not tried again there.
const PATIENCE: Duration = Duration::from_secs(2);
/// Models share this many breakers in a region, so that clients cannot make new ones without end.
const BUCKETS: u32 = 1024;

/// A model in a region.
#[derive(Debug)]
pub struct Breaker<'a> {
    shared: &'a dyn Shared,
    key: String,
    now: u64,
}

/// What is known of it. All zero: nothing bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Record {
    /// Since when it has answered nothing but 429 and 503; 0: its last answer was good.
    failing_since: u64,
    /// Until when it is open.
    open_until: u64,
    /// For how long it was opened.
    backoff: u64,
    /// Whether a call tries it now.
    trial: bool,
}

impl<'a> Breaker<'a> {
    /// The breaker of a model in a region.
    pub fn new(shared: &'a dyn Shared, region: &str, model: &str, now: SystemTime) -> Self {
        Self { shared, key: format!("breaker/{region}/{}", bucket(model)), now: millis(now) }
    }

    /// Whether a new call may go there. After the time that it was open, this is the trial: one call is told so.
    pub fn admits(&self) -> bool {
        // Most often there is nothing to change, nor to write.
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

    /// Whether a call that was answered 429 or 503 elsewhere may be tried here: not where it is open, or has been failing
    /// for long.
    pub fn takes_retries(&self) -> bool {
        let record = self.record();
        record.backoff == 0 && !self.is_hopeless(record)
    }

    /// Whether it has answered nothing but 429 and 503 for so long that asking it again at once, by another path, is no use.
    pub fn hopeless(&self) -> bool {
        self.is_hopeless(self.record())
    }

    /// It answered 429 or 503; `retry_after` as it said. Says whether that opened it.
    pub fn failed(&self, retry_after: Option<Duration>) -> bool {
        let told = retry_after.map_or(0, |told| u64::try_from(told.as_millis()).unwrap_or(u64::MAX));
        let open = |value: Option<&[u8]>| {
            let record = Record::read(value);
            let failing_since = if record.failing_since == 0 { self.now } else { record.failing_since };
            // Calls that were on their way when it opened say nothing new.
            if self.now < record.open_until && !record.trial {
                return (Some(Record { failing_since, ..record }.write()), false);
            }
            let backoff = (record.backoff * 2).max(FIRST_MS).max(told).min(LONGEST_MS);
            (Some(Record { failing_since, open_until: self.now + backoff, backoff, trial: false }.write()), true)
        };
        update(self.shared, &self.key, open).unwrap_or(false)
    }

    /// It answered well.
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
        // Lost to other workers: the next good answer closes it.
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
    /// Three numbers of 8 bytes, little endian, and a byte; nothing if there is nothing bad.
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
    fn opens_at_the_first_failure_and_lets_one_call_try_after_its_time() {
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
    fn a_trial_that_says_nothing_gives_way_to_another() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        assert!(at(&memory, 1000).admits());
        assert!(!at(&memory, 5999).admits());
        assert!(at(&memory, 6000).admits());
    }

    #[test]
    fn a_success_of_before_does_not_close_it_early() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        at(&memory, 10).succeeded();
        assert!(!at(&memory, 20).admits());
        at(&memory, 1500).succeeded();
        assert!(at(&memory, 1501).admits());
    }

    #[test]
    fn retry_after_is_heeded_within_bounds() {
        for (told, until) in [(0, 1000), (7, 7000), (3600, 30_000)] {
            let memory = Memory::default();
            at(&memory, 0).failed(Some(Duration::from_secs(told)));
            assert!(!at(&memory, until - 1).admits(), "{told}");
            assert!(at(&memory, until).admits(), "{told}");
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
    fn two_seconds_of_nothing_else_are_hopeless() {
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
    fn models_and_regions_are_apart_and_clients_cannot_make_keys_without_end() {
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
