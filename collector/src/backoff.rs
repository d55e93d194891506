//! Waiting times between attempts.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// The wait after that many failures in a row: exponential, with jitter over its upper half, so that collectors that
/// failed together do not retry together.
pub fn back_off(failures: u32) -> Duration {
    let wait = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    let random = u32::try_from(RandomState::new().hash_one(failures) >> 32).unwrap_or(0);
    wait.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}
