//! Sums over calls.

/// Calls and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sums {
    pub bytes: u64,
    pub calls: u64,
}

/// Sums over the calls of a connection, a caller or a worker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// All but those that give way. Of these, only the headers count.
    pub all: Sums,
    /// Calls that give way.
    pub leaving: u64,
    /// Those of `all` that were refused.
    pub refused: Sums,
}

// === impl Sums, Counts ===

impl Sums {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.calls += other.calls;
    }

    fn subtract(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.calls = self.calls.saturating_sub(other.calls);
    }
}

impl Counts {
    /// All calls, those that give way too.
    pub(super) fn calls(&self) -> u64 {
        self.all.calls + self.leaving
    }

    pub(super) fn add(&mut self, other: Self) {
        self.all.add(other.all);
        self.leaving += other.leaving;
        self.refused.add(other.refused);
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.all.subtract(other.all);
        self.leaving = self.leaving.saturating_sub(other.leaving);
        self.refused.subtract(other.refused);
    }
}
