//! Notices a clock that jumped: a purge that believed it would delete records that have not expired.

use std::fmt;
use std::fs;

use time::OffsetDateTime;

/// How far the clock may be ahead of where it was plus the time that passed.
const TOLERANCE: i64 = 86_400;
/// The longest gap that is believed if nothing measured it: the machine was off, or started again.
const MAX_GAP: i64 = 7 * 86_400;

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

/// The clock is ahead of where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
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

    /// Compares with the last reading that was believed.
    pub fn check(&self, last: &Self) -> Result<(), Ahead> {
        let passed = match (&self.since_boot, &last.since_boot) {
            (Some(now), Some(then)) if now.boot == then.boot => Some(now.seconds - then.seconds),
            _ => None,
        };
        let ahead = self.wall - last.wall - passed.unwrap_or(0);
        let limit = if passed.is_some() { TOLERANCE } else { MAX_GAP };
        if ahead > limit { Err(Ahead { seconds: ahead, measured: passed.is_some() }) } else { Ok(()) }
    }
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.seconds / 3600;
        if self.measured {
            write!(f, "the clock jumped {hours} hours ahead")
        } else {
            write!(f, "the clock is {hours} hours ahead of when it was last seen")
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
    fn only_a_jump_ahead_is_refused() {
        let (day, last) = (86_400, at(1_000_000, "a", 50));
        for (now, ahead) in [
            (at(1_000_000 + 90 * day, "a", 50 + 90 * day), None),
            (at(1_000_000 + 2 * day, "a", 100), Some(2 * day - 50)),
            (at(1_000_000 - 9 * day, "a", 100), None),
            (at(1_000_000 + 6 * day, "b", 10), None),
            (at(1_000_000 + 31 * day, "b", 10), Some(31 * day)),
            (Reading { wall: 1_000_000 + 31 * day, since_boot: None }, Some(31 * day)),
        ] {
            assert_eq!(now.check(&last).err().map(|ahead| ahead.seconds), ahead, "{now:?}");
        }
    }

    #[test]
    fn linux_has_both_clocks() {
        if cfg!(target_os = "linux") {
            assert!(Reading::now().since_boot.is_some_and(|boot| boot.boot.len() == 36));
        }
    }
}
