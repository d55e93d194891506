//! A circuit breaker for each model in each region: new calls avoid a region that returned 429 or 503 for their model, if the
//! route class has another.
//!
//! The breaker opens at the first such response, for a second or as long as `retry-after` says. Then one trial call may try: if
//! the region answers it the breaker closes, if it fails the breaker opens for twice as long. The trial is the first attempt that
//! is sent complete: a call whose body never ends keeps no other call away. All workers share the breakers.

use crate::shared::{Shared, millis, update};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

/// How long the breaker is open at first, in milliseconds.
const FIRST_MS: u64 = 1000;
/// How long it is open at most, whether by doubling or by `retry-after`.
const LONGEST_MS: u64 = 30_000;
/// How long a trial may take before another call tries: a model's first byte may take seconds.
const TRIAL_MS: u64 = 5000;
/// After this time of nothing but 429 and 503, a call is not retried in the same region.
const PATIENCE: Duration = Duration::from_secs(2);
/// A region's models are spread over this many keys, so that clients cannot create keys without bound.
const KEYS: u64 = 256;
/// Most models under a key. One more takes the place of the model whose breaker closes first.
const MODELS: usize = 8;

/// A model in a region.
#[derive(Debug)]
pub struct Breaker<'a> {
    shared: &'a dyn Shared,
    key: String,
    id: [u8; 16],
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
    /// Until when a trial may take; 0: none is under way.
    trial_until: u64,
}

/// The records of a key, each after the first 16 bytes of its model's SHA-256.
type Records = Vec<([u8; 16], Record)>;

/// How many models' breakers are open in a region.
pub(crate) fn throttled_models(shared: &dyn Shared, region: &str, now: SystemTime) -> usize {
    let now = millis(now);
    let values = (0..KEYS).filter_map(|key| shared.get(&format!("breaker/{region}/{key}")));
    let records = values.flat_map(|(value, _)| read(Some(&value)));
    records.filter(|(_, record)| now < record.open_until).count()
}

impl<'a> Breaker<'a> {
    /// The breaker of a model in a region.
    pub fn new(shared: &'a dyn Shared, region: &str, model: &str, now: SystemTime) -> Self {
        let digest = Sha256::digest(model.as_bytes());
        let id = digest.first_chunk().copied().unwrap_or_default();
        let key = digest.last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail) % KEYS);
        Self { shared, key: format!("breaker/{region}/{key}"), id, now: millis(now) }
    }

    /// Whether a new call may go there: if the breaker is closed, or ready for a trial. It claims nothing.
    pub fn admits(&self) -> bool {
        let record = self.record();
        record.backoff == 0 || self.is_ready(record)
    }

    /// Records that an attempt is sent, complete. Returns whether it is the trial.
    pub fn begin_trial(&self) -> bool {
        // The common case, which writes nothing.
        if self.record().backoff == 0 {
            return false;
        }
        let claim = |record: Record| {
            let claimed = record.backoff != 0 && self.is_ready(record);
            (claimed.then(|| Record { trial_until: self.now + TRIAL_MS, ..record }), claimed)
        };
        self.change(claim).unwrap_or(false)
    }

    /// Records that the trial ended without an outcome: the next call is another.
    pub fn release_trial(&self) {
        let release = |record: Record| ((record.trial_until != 0).then_some(Record { trial_until: 0, ..record }), ());
        // If other workers win every race, the trial expires.
        let _ = self.change(release);
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
        let open = |record: Record| {
            let failing_since = if record.failing_since == 0 { self.now } else { record.failing_since };
            // Calls that were in flight when it opened add nothing.
            if self.now < record.open_until {
                return (Some(Record { failing_since, ..record }), false);
            }
            let backoff = (record.backoff * 2).max(FIRST_MS).max(requested).min(LONGEST_MS);
            (Some(Record { failing_since, open_until: self.now + backoff, backoff, trial_until: 0 }), true)
        };
        self.change(open).unwrap_or(false)
    }

    /// Records an answer of the region: a success, or an error that is the client's.
    pub fn answered(&self) {
        if self.record() == Record::default() {
            return;
        }
        let close = |record: Record| {
            let still_open = self.now < record.open_until;
            let new = if still_open { Record { failing_since: 0, ..record } } else { Record::default() };
            ((new != record).then_some(new), ())
        };
        // If other workers win every race, the next answer closes it.
        let _ = self.change(close);
    }

    fn is_ready(&self, record: Record) -> bool {
        self.now >= record.open_until && self.now >= record.trial_until
    }

    fn is_hopeless(&self, record: Record) -> bool {
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        record.failing_since != 0 && self.now.saturating_sub(record.failing_since) >= patience
    }

    fn record(&self) -> Record {
        self.own(&read(self.shared.get(&self.key).map(|(value, _)| value).as_deref()))
    }

    fn own(&self, records: &Records) -> Record {
        records.iter().find(|(id, _)| *id == self.id).map(|(_, record)| *record).unwrap_or_default()
    }

    /// Changes the record: `change` returns the new one (`None`: it stays) and an outcome.
    fn change<T>(&self, change: impl Fn(Record) -> (Option<Record>, T)) -> Option<T> {
        update(self.shared, &self.key, |value| {
            let mut records = read(value);
            let (new, outcome) = change(self.own(&records));
            let Some(new) = new else { return (None, outcome) };
            records.retain(|(id, _)| *id != self.id);
            if new != Record::default() {
                if records.len() >= MODELS {
                    records.sort_by_key(|(_, record)| record.open_until);
                    records.remove(0);
                }
                records.push((self.id, new));
            }
            (Some(write(&records)), outcome)
        })
    }
}

/// Each id is followed by four numbers of 8 bytes, little endian.
fn write(records: &Records) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(records.len() * 48);
    for (id, record) in records {
        bytes.extend_from_slice(id);
        for number in [record.failing_since, record.open_until, record.backoff, record.trial_until] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes
}

fn read(value: Option<&[u8]>) -> Records {
    let (mut rest, mut records) = (value.unwrap_or_default(), Vec::new());
    while let Some((id, tail)) = rest.split_first_chunk() {
        rest = tail;
        let mut next = || {
            let (head, tail) = rest.split_first_chunk()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let [failing_since, open_until, backoff, trial_until] = [(); 4].map(|()| next().unwrap_or(0));
        records.push((*id, Record { failing_since, open_until, backoff, trial_until }));
    }
    records
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
        assert!(at(&memory, 0).admits() && !at(&memory, 0).begin_trial());
        assert!(at(&memory, 0).failed(None));
        assert!(!at(&memory, 10).failed(None), "it is open already");
        assert!(!at(&memory, 999).admits() && !at(&memory, 999).begin_trial());
        assert!(at(&memory, 1000).admits() && at(&memory, 1000).begin_trial(), "the trial");
        assert!(!at(&memory, 1001).admits() && !at(&memory, 1001).begin_trial(), "one only");
        assert!(at(&memory, 1100).failed(None), "the trial failed");
        assert!(!at(&memory, 3099).admits(), "open for twice as long");
        assert!(at(&memory, 3100).begin_trial());
        at(&memory, 3150).answered();
        assert!(at(&memory, 3151).admits() && !at(&memory, 3151).begin_trial());
        assert!(memory.values.borrow().values().all(|(value, _)| value.is_empty()));
    }

    #[test]
    fn calls_that_never_leave_claim_no_trial() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        for ms in 1000..3000 {
            assert!(at(&memory, ms).admits(), "{ms}");
        }
        assert!(at(&memory, 3000).begin_trial());
    }

    #[test]
    fn a_released_trial_gives_way_at_once() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        assert!(at(&memory, 1000).begin_trial());
        at(&memory, 1010).release_trial();
        assert!(at(&memory, 1010).begin_trial());
        assert!(at(&memory, 1020).failed(None));
        assert!(!at(&memory, 3019).admits(), "open for twice as long: the release forgets nothing");
        at(&memory, 1500).release_trial();
        assert!(!at(&memory, 3019).admits() && at(&memory, 3020).admits());
    }

    #[test]
    fn a_lost_trial_gives_way_to_another() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        assert!(at(&memory, 1000).begin_trial());
        assert!(!at(&memory, 5999).admits() && !at(&memory, 5999).begin_trial());
        assert!(at(&memory, 6000).admits() && at(&memory, 6000).begin_trial());
    }

    #[test]
    fn an_earlier_answer_does_not_close_it() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        at(&memory, 10).answered();
        assert!(!at(&memory, 20).admits());
        at(&memory, 1500).answered();
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
            assert!(at(&memory, now).begin_trial());
        }
    }

    #[test]
    fn two_seconds_of_failures_are_hopeless() {
        let memory = Memory::default();
        at(&memory, 0).failed(None);
        assert!(!at(&memory, 1999).hopeless());
        at(&memory, 1500).failed(None);
        assert!(at(&memory, 2000).hopeless());
        at(&memory, 2001).answered();
        assert!(!at(&memory, 2002).hopeless());
        assert!(!at(&memory, 100).takes_retries() || at(&memory, 60_000).takes_retries());
    }

    #[test]
    fn each_model_has_its_own_breaker() {
        let memory = Memory::default();
        let of = |region: &'static str, nth: u32| {
            Breaker::new(&memory, region, &format!("x.{nth}"), SystemTime::UNIX_EPOCH + Duration::from_secs(1))
        };
        // More models than keys: some share one.
        for nth in 0..400 {
            of("us-east-1", nth).failed(None);
            assert!(of("us-west-2", nth).admits(), "{nth}");
        }
        for nth in 0..800 {
            assert_eq!(of("us-east-1", nth).admits(), nth >= 400, "{nth}");
        }
        of("us-east-1", 7).shared.set(&of("us-east-1", 7).key, &[], None);
        assert!(of("us-east-1", 7).admits());
    }

    #[test]
    fn shared_data_stays_bounded() {
        let memory = Memory::default();
        for nth in 0..5000 {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + nth);
            let breaker = Breaker::new(&memory, "us-east-1", &format!("x.{nth}"), now);
            breaker.failed(None);
            assert!(!breaker.admits(), "{nth}");
        }
        let values = memory.values.borrow();
        assert!(values.len() as u64 <= KEYS);
        assert!(values.values().all(|(value, _)| value.len() <= MODELS * 48));
    }
}
