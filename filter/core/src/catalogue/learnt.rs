//! What Bedrock's refusals teach: a region lists on-demand throughput of a model, and refuses the bare id. Its answer counts more
//! than its list, for as long as the list says the same of the model.

use super::offers::Offer;
use crate::names::RegionName;
use crate::shared::{Shared, update};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// What was learnt: a line for each model of a region, the oldest first.
const KEY: &str = "catalogue/learnt";
/// Most lines. One more takes the place of the oldest.
const MAX_LINES: usize = 256;

/// A VM's copy of what was learnt.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    /// The version of the shared lines that this is a copy of.
    version: Cell<Option<u32>>,
    lines: RefCell<BTreeSet<String>>,
}

/// `REGION ID KIND GEOGRAPHIES`, the last two as the list has them. So a line holds no more once the list says something else.
fn line(region: &RegionName, id: &str, offer: Option<Offer<'_>>) -> String {
    format!("{region} {id} {}", offer.map(Offer::text).unwrap_or_default())
}

impl Learnt {
    /// Takes what other workers have learnt.
    pub(super) fn follow(&self, shared: &dyn Shared) {
        let Some((value, version)) = shared.get(KEY) else { return };
        if self.version.replace(Some(version)) != Some(version) {
            *self.lines.borrow_mut() = String::from_utf8_lossy(&value).lines().map(str::to_owned).collect();
        }
    }

    /// Whether nothing was learnt.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.borrow().is_empty()
    }

    /// Whether a region has refused the bare id of a model that it offers so.
    pub(super) fn has(&self, region: &RegionName, id: &str, offer: Option<Offer<'_>>) -> bool {
        !self.is_empty() && self.lines.borrow().contains(&line(region, id, offer))
    }

    /// Learns it. Returns whether no worker knew it.
    pub(super) fn add(&self, region: &RegionName, id: &str, offer: Option<Offer<'_>>, shared: &dyn Shared) -> bool {
        let new = line(region, id, offer);
        let add = |value: Option<&[u8]>| {
            let text = value.map(String::from_utf8_lossy).unwrap_or_default();
            let known: Vec<&str> = text.lines().collect();
            if known.contains(&new.as_str()) {
                return (None, false);
            }
            let kept = known.iter().copied().skip((known.len() + 1).saturating_sub(MAX_LINES));
            let lines: Vec<&str> = kept.chain([new.as_str()]).collect();
            (Some(lines.join("\n").into_bytes()), true)
        };
        // If other workers win every race, the next refusal teaches it.
        let is_new = update(shared, KEY, add).unwrap_or(false);
        self.follow(shared);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::{offers, region};
    use crate::shared::tests::Memory;

    #[test]
    fn every_worker_learns_it_until_lists_change() {
        let (memory, own, other) = (Memory::default(), Learnt::default(), Learnt::default());
        let east = region("us-east-1");
        let listed = offers(&[("a.b", &["ON_DEMAND"])], &["us.a.b"]);
        let offer = listed.find("a.b");
        assert!(!own.has(&east, "a.b", offer));
        assert!(own.add(&east, "a.b", offer, &memory));
        assert!(own.has(&east, "a.b", offer) && !other.has(&east, "a.b", offer));
        other.follow(&memory);
        assert!(other.has(&east, "a.b", offer));
        assert!(!other.add(&east, "a.b", offer, &memory), "once");
        assert!(!other.has(&region("us-west-2"), "a.b", offer) && !other.has(&east, "a.c", offer));
        let changed = offers(&[("a.b", &["ON_DEMAND"])], &["us.a.b", "global.a.b"]);
        assert!(!other.has(&east, "a.b", changed.find("a.b")) && !other.has(&east, "a.b", None));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let (memory, learnt, east) = (Memory::default(), Learnt::default(), region("us-east-1"));
        let has = |nth: usize| learnt.has(&east, &format!("a.{nth}"), None);
        for nth in 0..MAX_LINES + 3 {
            assert!(learnt.add(&east, &format!("a.{nth}"), None, &memory) && has(nth));
        }
        assert!(!has(0) && !has(2) && has(3) && has(MAX_LINES));
        assert_eq!(learnt.lines.borrow().len(), MAX_LINES);
        memory.races.set(1000);
        assert!(!learnt.add(&east, "a.lost", None, &memory) && !learnt.has(&east, "a.lost", None));
    }
}
