//! The clock that requests are signed with: the machine's, corrected by the dates of AWS's responses.
//!
//! AWS refuses signatures that are more than five minutes off ("Troubleshoot Signature Version 4"). The correction is in shared
//! data, for all workers.

use crate::headers::Headers;
use crate::shared::Shared;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

const KEY: &str = "clock";
/// A smaller offset cannot be the reason for a refusal.
const LEAST: Duration = Duration::from_secs(60);
/// Ignore larger offsets; fix the host's clock.
const MOST: Duration = Duration::from_secs(3600);

/// The machine's time and the corrected one. A correction comes from a single response, which may be wrong: it may make a
/// signature wrong, which the next refusal corrects, but must not make credentials expire, without which no call is sent and
/// nothing is learned any more.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// As the machine has it.
    pub machine: SystemTime,
    /// What requests are signed with.
    pub signing: SystemTime,
}

impl Times {
    /// The corrected time of a moment.
    pub fn at(shared: &dyn Shared, now: SystemTime) -> Self {
        Self { machine: now, signing: corrected(shared, now) }
    }

    /// Whether something ended by both clocks.
    pub fn are_after(self, end: SystemTime) -> bool {
        end <= self.machine && end <= self.signing
    }
}

impl From<SystemTime> for Times {
    fn from(now: SystemTime) -> Self {
        Self { machine: now, signing: now }
    }
}

/// How far the machine's clock is behind (positive) or ahead (negative), in milliseconds; 0 if not known.
pub fn offset_ms(shared: &dyn Shared) -> i64 {
    let kept = shared.get(KEY).and_then(|(value, _)| value.try_into().ok());
    kept.map_or(0, i64::from_le_bytes)
}

/// The time to sign with.
pub fn corrected(shared: &dyn Shared, now: SystemTime) -> SystemTime {
    let offset = offset_ms(shared);
    let by = Duration::from_millis(offset.unsigned_abs());
    let corrected = if offset < 0 { now.checked_sub(by) } else { now.checked_add(by) };
    corrected.unwrap_or(now)
}

/// Learns from the `date` (RFC 9110) of a response that refused a signature. Returns whether the correction changed enough that
/// a new signature may succeed.
pub fn learn(shared: &dyn Shared, headers: &Headers, now: SystemTime) -> bool {
    let date = headers.get_str("date").and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let Some(date) = date.map(SystemTime::from) else { return false };
    let apart = |from: SystemTime| from.duration_since(date).unwrap_or_else(|error| error.duration());
    if apart(now) > MOST || apart(corrected(shared, now)) < LEAST {
        return false;
    }
    let ms = i64::try_from(apart(now).as_millis()).unwrap_or(i64::MAX);
    let offset = if date < now { -ms } else { ms };
    shared.set(KEY, &offset.to_le_bytes(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::Memory;

    /// Sun, 06 Nov 1994 08:49:37 GMT, and so many seconds.
    fn at(seconds: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777_u64.saturating_add_signed(seconds))
    }

    #[test]
    fn learns_offsets_from_a_minute_to_an_hour() {
        for (behind, learnt) in
            [(0, false), (-59, false), (61, true), (-600, true), (3599, true), (3601, false), (-9999, false)]
        {
            let memory = Memory::default();
            let mut headers = Headers::default();
            headers.push("date", "Sun, 06 Nov 1994 08:49:37 GMT");
            assert_eq!(learn(&memory, &headers, at(-behind)), learnt, "{behind}");
            let wanted = if learnt { at(0) } else { at(-behind) };
            assert_eq!(corrected(&memory, at(-behind)), wanted, "{behind}");
            // The same response again teaches nothing new.
            assert!(!learn(&memory, &headers, at(-behind)) || !learnt, "{behind}");
        }
    }

    #[test]
    fn ignores_malformed_dates() {
        for date in ["", "yesterday", "1994-11-06T08:49:37Z"] {
            let memory = Memory::default();
            let mut headers = Headers::default();
            headers.push("date", date);
            assert!(!learn(&memory, &headers, at(600)), "{date}");
        }
        assert!(!learn(&Memory::default(), &Headers::default(), at(600)));
    }
}
