//! Notices a clock that jumped: a purge that believed it would delete records that have not expired.

use std::fmt;
use std::fs;

use time::OffsetDateTime;

/// How far the clock may be from where it was plus the time that passed.
const TOLERANCE: i64 = 86_400;
/// The longest gap that is believed if nothing measured it: the machine was off, or started again.
const MAX_GAP: i64 = 7 * 86_400;
/// 2026-01-01. A clock that is behind it was never set, as after the start of a machine without a battery.
const EARLIEST: i64 = 1_767_225_600;

/// The wall clock and, where the system has one, a clock that only goes forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Seconds since 1970.
    pub wall: i64,
    pub since_boot: Option<SinceBoot>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinceBoot {
    /// Another one after each start of the machine.
    pub boot: String,
    pub seconds: i64,
}

/// The clock is not where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// How far it is ahead; negative if it is behind.
    pub seconds: i64,
    /// A clock that only goes forward measured it.
    pub measured: bool,
}

impl Reading {
    pub fn now() -> Self {
        let wall = OffsetDateTime::now_utc().unix_timestamp();
        let read = |file| fs::read_to_string(file).ok();
        let since_boot = || {
            let boot = read("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
            let seconds = read("/proc/uptime")?.split('.').next()?.parse().ok()?;
            Some(SinceBoot { boot, seconds })
        };
        Self { wall, since_boot: since_boot() }
    }

    /// Compares with the last reading that was believed. Returns the one to compare with next: it goes ahead no faster than
    /// the time that was measured, so that small jumps do not add up.
    pub fn check(&self, last: Option<&Self>) -> Result<Self, Jump> {
        let expected = last.map_or(EARLIEST, |last| last.wall.max(EARLIEST));
        let measured = match (&self.since_boot, last.and_then(|last| last.since_boot.as_ref())) {
            (Some(now), Some(then)) if now.boot == then.boot => Some(now.seconds - then.seconds),
            _ => None,
        };
        let seconds = self.wall - expected - measured.unwrap_or(0);
        let limit = if measured.is_some() { TOLERANCE } else { MAX_GAP };
        if seconds < -TOLERANCE || (last.is_some() && seconds > limit) {
            return Err(Jump { seconds, measured: measured.is_some() });
        }
        let wall = measured.map_or(self.wall, |passed| self.wall.min(expected + passed));
        Ok(Self { wall, since_boot: self.since_boot.clone() })
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.seconds.unsigned_abs() / 3600;
        match (self.seconds < 0, self.measured) {
            (false, true) => write!(f, "the clock jumped {hours} hours ahead"),
            (false, false) => write!(f, "the clock is {hours} hours ahead of when it was last seen"),
            (true, _) => write!(
                f,
                "the clock is {hours} hours behind where it was: if it is wrong now, records get a wrong time and expire that \
                 much earlier"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, boot: &str, seconds: i64) -> Reading {
        Reading { wall, since_boot: Some(SinceBoot { boot: boot.to_owned(), seconds }) }
    }

    #[test]
    fn a_jump_is_refused_both_ways() {
        let (day, start) = (86_400, 1_800_000_000);
        let last = at(start, "a", 50);
        for (now, jump) in [
            (at(start + 90 * day, "a", 50 + 90 * day), None),
            (at(start + 2 * day, "a", 100), Some(2 * day - 50)),
            (at(start - 9 * day, "a", 100), Some(-9 * day - 50)),
            (at(start - day / 2, "a", 100), None),
            (at(start + 6 * day, "b", 10), None),
            (at(start + 31 * day, "b", 10), Some(31 * day)),
            (at(start - 31 * day, "b", 10), Some(-31 * day)),
            (Reading { wall: start + 31 * day, since_boot: None }, Some(31 * day)),
        ] {
            assert_eq!(now.check(Some(&last)).err().map(|jump| jump.seconds), jump, "{now:?}");
        }
        assert!(at(start, "a", 50).check(None).is_ok() && at(10, "a", 50).check(None).is_err());
    }

    #[test]
    fn small_jumps_do_not_add_up() {
        let hour = 3600;
        let mut last = at(1_800_000_000, "a", 0);
        for n in 1..=2 {
            let now = at(1_800_000_000 + n * 24 * hour, "a", n * hour);
            match now.check(Some(&last)) {
                Ok(next) => last = next,
                Err(jump) => assert_eq!((n, jump.seconds), (2, 46 * hour)),
            }
        }
        assert_eq!(last, at(1_800_000_000 + hour, "a", hour));
    }

    #[test]
    fn linux_has_both_clocks() {
        if cfg!(target_os = "linux") {
            assert!(Reading::now().since_boot.is_some_and(|boot| boot.boot.len() == 36));
        }
    }
}
