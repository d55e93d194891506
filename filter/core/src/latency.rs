//! Which region answers a model first (`region_order: fastest`), known to all workers.
//!
//! Each response's time from the attempt to its headers moves the average of its region. One region is the current one: new calls
//! try it first, so that prompt caches stay warm. It changes only if another is clearly faster, and then stays for a while. A few calls
//! try another region that was not tried for some time, or its average would stay what it once was.

use crate::names::RegionName;
use crate::shared::{Shared, millis, update};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

/// After so many milliseconds without a call, a region may be tried again by that share of the calls.
const UNTRIED: (u64, f64) = (5000, 1.0 / 25.0);
/// The same, where calls are rare.
const FORGOTTEN: (u64, f64) = (60_000, 1.0 / 4.0);
/// How long a region is the current one at least.
const STAY_MS: u64 = 5000;
/// The time in which a new value takes most of an average.
const DECAY_MS: f64 = 30_000.0;
/// The least share of a new value in an average: one answer that took long is not enough to leave a region.
const SHARE: f64 = 0.1;
/// Longest time that counts: one lost call must not outweigh all others.
const LONGEST_MS: f64 = 60_000.0;
/// Keys of a class: clients cannot create keys without bound.
const KEYS: u64 = 64;
/// Most models under a key.
const MODELS: usize = 8;

/// A model's calls in a route class.
#[derive(Debug)]
pub(crate) struct Latency<'a> {
    shared: &'a dyn Shared,
    key: String,
    id: u64,
    /// How many times slower than the fastest the current region may be. The time of an answer that does not stream depends on its
    /// length, and varies more.
    bearable: f64,
    now: u64,
}

/// What is known of a model.
#[derive(Debug, Clone, Default, PartialEq)]
struct Record {
    /// The current region; 0: the first of the class.
    current: u64,
    /// Since when it is.
    since: u64,
    regions: Vec<Average>,
}

/// What is known of a region.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Average {
    region: u64,
    /// In milliseconds.
    time: f64,
    /// When it was last moved; earlier if it should be tried soon.
    at: u64,
}

// === impl Latency ===

impl<'a> Latency<'a> {
    /// What is known of a model in a class. `streams` says whether the calls stream: the others are measured apart.
    pub(crate) fn new(shared: &'a dyn Shared, class: &str, model: &str, streams: bool, now: SystemTime) -> Self {
        let id = hash(&format!("{model}\0{streams}"));
        let bearable = if streams { 1.3 } else { 3.0 };
        Self { shared, key: format!("latency/{class}/{}", id % KEYS), id, bearable, now: millis(now) }
    }

    /// The regions in the order in which a new call tries them. `draw` is the call's own number between 0 and 1.
    pub(crate) fn order<'r>(&self, regions: &'r [RegionName], draw: f64) -> Vec<&'r RegionName> {
        let record = self.read();
        let current = record.current_of(regions);
        let mut order: Vec<&RegionName> = regions.iter().collect();
        // Regions that were never measured come last, in the class's order.
        order.sort_by(|left, right| record.time(left).total_cmp(&record.time(right)));
        let first = self.probe(&record, regions, current, draw).or(current);
        order.sort_by_key(|region| Some(*region) != first);
        order
    }

    /// The region that the call is to try: of the others the one that has waited longest.
    fn probe<'r>(
        &self,
        record: &Record,
        regions: &'r [RegionName],
        current: Option<&RegionName>,
        draw: f64,
    ) -> Option<&'r RegionName> {
        let waits = |region: &RegionName| self.now.saturating_sub(record.of(region).map_or(0, |average| average.at));
        let longest = regions.iter().filter(|region| Some(*region) != current).max_by_key(|region| waits(region))?;
        // Without a measured current region there is nothing to compare with.
        let measured = current.and_then(|region| record.of(region)).is_some();
        let due = [UNTRIED, FORGOTTEN].iter().any(|(after, share)| waits(longest) >= *after && draw < *share);
        (measured && due).then_some(longest)
    }

    /// Takes the time of a response's first byte.
    pub(crate) fn answered(&self, region: &RegionName, regions: &[RegionName], took: Duration) {
        self.add(region, regions, took, false);
    }

    /// Takes the time of an attempt that ended without a response: it counts if it is longer than what is known.
    pub(crate) fn unanswered(&self, region: &RegionName, regions: &[RegionName], took: Duration) {
        self.add(region, regions, took, true);
    }

    fn add(&self, region: &RegionName, regions: &[RegionName], took: Duration, only_longer: bool) {
        let took = (took.as_secs_f64() * 1000.0).min(LONGEST_MS);
        // If other workers win every race, the next response is taken.
        let _ = update(self.shared, &self.key, |value| {
            let mut records = read(value);
            let mut record = take(&mut records, self.id);
            if only_longer && record.of(region).is_none_or(|average| average.time >= took) {
                return (None, ());
            }
            record.add(region, regions, took, self.now);
            record.choose(regions, self.bearable, self.now);
            records.push((self.id, record));
            let more = records.len().saturating_sub(MODELS);
            records.drain(..more);
            (Some(write(&records)), ())
        });
    }

    fn read(&self) -> Record {
        let value = self.shared.get(&self.key);
        take(&mut read(value.as_ref().map(|(value, _)| value.as_slice())), self.id)
    }
}

// === impl Record ===

impl Record {
    fn of(&self, region: &RegionName) -> Option<&Average> {
        let wanted = hash(region.as_str());
        self.regions.iter().find(|average| average.region == wanted)
    }

    /// In milliseconds; endless if it was never measured.
    fn time(&self, region: &RegionName) -> f64 {
        self.of(region).map_or(f64::INFINITY, |average| average.time)
    }

    fn current_of<'r>(&self, regions: &'r [RegionName]) -> Option<&'r RegionName> {
        regions.iter().find(|region| hash(region.as_str()) == self.current).or_else(|| regions.first())
    }

    fn add(&mut self, region: &RegionName, regions: &[RegionName], took: f64, now: u64) {
        let current = self.current_of(regions).map(|region| hash(region.as_str()));
        let wanted = hash(region.as_str());
        let Some(average) = self.regions.iter_mut().find(|average| average.region == wanted) else {
            self.regions.push(Average { region: wanted, time: took, at: now });
            return;
        };
        let since = now.saturating_sub(average.at) as f64;
        let share = (1.0 - (-since / DECAY_MS).exp()).max(SHARE);
        // A region that got better is tried again soon, so that calls come back before all of its average is new.
        let better = took < average.time * 0.8 && Some(wanted) != current;
        average.at = if better { now.saturating_sub(UNTRIED.0) } else { now };
        average.time += share * (took - average.time);
    }

    /// Makes another region the current one if it is clearly faster, or earlier in the class and nearly as fast.
    fn choose(&mut self, regions: &[RegionName], bearable: f64, now: u64) {
        self.regions.retain(|average| regions.iter().any(|region| hash(region.as_str()) == average.region));
        let Some(current) = self.current_of(regions) else { return };
        if now.saturating_sub(self.since) < STAY_MS && now >= self.since {
            return;
        }
        let (time, fastest) =
            (self.time(current), regions.iter().map(|region| self.time(region)).fold(f64::INFINITY, f64::min));
        let near = |other: &RegionName, to: f64| self.time(other) <= to * 1.1 + 5.0;
        let new = if time.is_finite() && time > fastest * bearable + 20.0 {
            regions.iter().find(|region| near(region, fastest))
        } else {
            regions.iter().take_while(|region| *region != current).find(|region| near(region, time))
        };
        if let Some(new) = new.filter(|new| *new != current) {
            self.current = hash(new.as_str());
            self.since = now;
        }
    }
}

// === shared data ===

fn hash(text: &str) -> u64 {
    Sha256::digest(text.as_bytes()).first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}

/// Takes a model's record out of those of its key.
fn take(records: &mut Vec<(u64, Record)>, id: u64) -> Record {
    let place = records.iter().position(|(known, _)| *known == id);
    place.map(|place| records.remove(place).1).unwrap_or_default()
}

/// Numbers of 8 bytes, little endian: the model's id, its current region, since when, how many regions; of each its name's hash, its
/// time and when.
fn write(records: &[(u64, Record)]) -> Vec<u8> {
    let mut numbers = Vec::new();
    for (id, record) in records {
        numbers.extend([*id, record.current, record.since, record.regions.len() as u64]);
        numbers.extend(record.regions.iter().flat_map(|one| [one.region, one.time.to_bits(), one.at]));
    }
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn read(value: Option<&[u8]>) -> Vec<(u64, Record)> {
    let (chunks, _) = value.unwrap_or_default().as_chunks();
    let mut numbers = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk));
    let mut records = Vec::new();
    while let Some(id) = numbers.next() {
        let mut next = || numbers.next().unwrap_or_default();
        let (current, since, count) = (next(), next(), next());
        let mut average =
            || Some(Average { region: numbers.next()?, time: f64::from_bits(numbers.next()?), at: numbers.next()? });
        let regions = (0..count).map_while(|_| average()).collect();
        records.push((id, Record { current, since, regions }));
    }
    records
}

#[cfg(test)]
#[path = "latency_tests.rs"]
mod tests;
