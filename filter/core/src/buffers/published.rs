//! What workers tell each other, in shared data.

use super::counts::Sums;
use std::collections::BTreeMap;

/// So many callers of each worker are published: those with most bytes.
pub(super) const CALLERS: usize = 16;

/// What one worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub worker: u64,
    /// In milliseconds since 1970.
    pub at: u64,
    pub sums: Sums,
    pub callers: Vec<(u64, Sums)>,
}

/// What the other workers had when this one last looked.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub workers: u64,
    pub sums: Sums,
    pub callers: BTreeMap<u64, Sums>,
}

// === impl Report, Others ===

impl Report {
    /// Numbers of 8 bytes, little endian: worker, time, bytes, calls, the number of callers, then each with its bytes
    /// and calls.
    pub(super) fn write(&self) -> Vec<u8> {
        let Sums { bytes, calls } = self.sums;
        let head = [self.worker, self.at, bytes, calls, self.callers.len() as u64];
        let callers = self.callers.iter().flat_map(|(caller, sums)| [*caller, sums.bytes, sums.calls]);
        head.into_iter().chain(callers).flat_map(u64::to_le_bytes).collect()
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut next = || {
            let (head, tail) = bytes.split_first_chunk()?;
            *bytes = tail;
            Some(u64::from_le_bytes(*head))
        };
        let (worker, at) = (next()?, next()?);
        let sums = Sums { bytes: next()?, calls: next()? };
        let caller_count = next()?.min(CALLERS as u64);
        let mut caller = |_| Some((next()?, Sums { bytes: next()?, calls: next()? }));
        let callers = (0..caller_count).map(&mut caller).collect::<Option<_>>()?;
        Some(Self { worker, at, sums, callers })
    }

    pub(super) fn read_all(mut bytes: &[u8]) -> Vec<Self> {
        std::iter::from_fn(|| Self::read(&mut bytes)).collect()
    }
}

impl Others {
    pub(super) fn sum(reports: &[Report]) -> Self {
        let mut others = Self::default();
        for report in reports.iter().filter(|report| report.sums != Sums::default()) {
            others.workers += 1;
            others.sums.add(report.sums);
            for (caller, sums) in &report.callers {
                others.callers.entry(*caller).or_default().add(*sums);
            }
        }
        others
    }
}
