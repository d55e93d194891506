//! A set of a class's regions.

use crate::names::RegionName;

/// A set of a class's regions: bit n stands for the n-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSet(u64);

impl RegionSet {
    /// Those that `has` takes. A class has far fewer regions than a number has bits.
    pub(super) fn of(regions: &[RegionName], has: impl Fn(&RegionName) -> bool) -> Self {
        Self((0..u64::BITS).zip(regions).filter(|(_, region)| has(region)).fold(0, |set, (bit, _)| set | 1 << bit))
    }

    /// Every set of these regions.
    pub(super) fn all(regions: &[RegionName]) -> impl Iterator<Item = Self> {
        let bits = u32::try_from(regions.len()).unwrap_or(u32::MAX);
        (0..1_u64.checked_shl(bits).unwrap_or(0)).map(Self)
    }

    /// How many regions.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its regions, in the class's order.
    pub fn members(self, regions: &[RegionName]) -> impl Iterator<Item = &RegionName> {
        let has = move |bit: u32| self.0 & (1 << bit) != 0;
        (0..u64::BITS).zip(regions).filter(move |(bit, _)| has(*bit)).map(|(_, region)| region)
    }
}
