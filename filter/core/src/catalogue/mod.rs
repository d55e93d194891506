//! The live catalogue: which models and inference profiles each region offers, by its own lists.
//!
//! One worker polls a region ([`poll`]), reads its lists within bounds ([`lists`]) and shares what it offers ([`offers`]). Each VM
//! keeps a copy ([`CatalogueStore`]). By it the gateway chooses regions, and the signer the profile ([`choice`]). What a region
//! refuses, though it offers it, is shared too ([`learnt`]).

pub(crate) mod age;
pub(crate) mod choice;
pub mod details;
pub(crate) mod govcloud;
mod learnt;
pub mod lists;
pub mod offers;
pub mod poll;

use crate::metrics::{Sample, catalogue_age, catalogue_models};
use crate::names::RegionName;
use crate::polls::{Task, Work, age, generation};
use crate::resolve::asked::Resolver;
use crate::retention::RetentionStore;
use crate::shared::{Shared, millis};
use learnt::Learnt;
use offers::Offers;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Counts up with each change of a region's lists.
const GENERATION: &str = "catalogue/generation";

/// The poll of a region's lists.
pub fn task(region: &RegionName, refresh: Duration) -> Task {
    let value = lists_key(region);
    Task { work: format!("{value}/work"), value, generation: GENERATION, refresh }
}

fn lists_key(region: &RegionName) -> String {
    format!("catalogue/{region}")
}

/// A VM's copy of what the regions offer, and of how they retain data.
#[derive(Debug, Default)]
pub struct CatalogueStore {
    regions: RefCell<BTreeMap<RegionName, Known>>,
    /// What regions refuse, though they offer it.
    learnt: Learnt,
    /// The regions' data retention.
    pub retention: RetentionStore,
    /// What the account's resources run.
    pub resources: Resolver,
}

/// What is known of a region.
#[derive(Debug, Default)]
struct Known {
    /// Absent before the first poll.
    offers: Option<Arc<Offers>>,
    models: usize,
    /// In milliseconds since 1970.
    polled_at: u64,
    /// When it was read. Of its own, because documents with other regions follow, too, while their calls last.
    generation: u64,
}

impl CatalogueStore {
    /// What a region offers; `None`: it was not polled yet.
    pub fn offers(&self, region: &RegionName) -> Option<Arc<Offers>> {
        self.regions.borrow().get(region)?.offers.clone()
    }

    /// The time since a region's last poll that succeeded. `None`: none has, or the clock was set back since.
    pub fn age(&self, region: &RegionName, now: SystemTime) -> Option<Duration> {
        age(self.polled_at(region)?, now)
    }

    /// When a region's last poll succeeded, in milliseconds since 1970.
    pub(crate) fn polled_at(&self, region: &RegionName) -> Option<u64> {
        self.regions.borrow().get(region).map(|known| known.polled_at).filter(|at| *at != 0)
    }

    /// Takes what was shared since. Asks for two values while nothing was.
    pub fn follow<'a>(&self, regions: impl Iterator<Item = &'a RegionName>, shared: &dyn Shared) {
        self.learnt.follow(shared);
        let generation = generation(shared.get(GENERATION).map(|(value, _)| value).as_deref());
        let mut all = self.regions.borrow_mut();
        for region in regions {
            if all.get(region).is_some_and(|known| known.generation == generation) {
                continue;
            }
            let known = all.entry(region.clone()).or_default();
            known.generation = generation;
            if let Some(offers) = shared.get(&lists_key(region)).and_then(|(value, _)| Offers::read(value)) {
                known.models = offers.len();
                known.offers = Some(Arc::new(offers));
                known.polled_at = Work::of(&task(region, Duration::ZERO), shared).polled_at;
            }
        }
    }

    /// Takes when the regions were polled, and gives that to the metrics.
    pub fn look(&self, shared: &dyn Shared, now: SystemTime) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (region, known) in &mut *self.regions.borrow_mut() {
            if known.offers.is_none() {
                continue;
            }
            known.polled_at = Work::polled_at(&task(region, Duration::ZERO), shared, now);
            let age = Duration::from_millis(millis(now).saturating_sub(known.polled_at));
            samples.push(catalogue_age(region.as_str(), age));
            samples.push(catalogue_models(region.as_str(), known.models));
        }
        samples
    }
}

#[cfg(test)]
pub(crate) mod tests;
