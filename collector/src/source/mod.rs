//! Where entries come from: [`als`] is a live feed, [`file`] the ledger. Both hand batches to [`deliver`].

pub mod als;
pub mod file;
pub mod tail;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::report::Report;
use crate::store::{Batch, Store, StoreError};

/// First and longest wait between tries of a write.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Writes a batch, again and again until the store takes it. Once `stop` is true it gives up after `grace`.
///
/// # Errors
/// The last [`StoreError`], only after `stop`: the batch is not stored then.
pub async fn deliver(
    store: &Store,
    batch: &Batch,
    report: &Report,
    stop: &mut watch::Receiver<bool>,
    grace: Duration,
) -> Result<(), StoreError> {
    let mut failures = 0;
    let mut deadline = None;
    loop {
        let error = match store.write(batch).await {
            Ok(written) => {
                report.stored(written.stored, written.repeated);
                for refused in &batch.rejected {
                    report.rejected(&refused.source, &refused.file, refused.offset, &refused.reason);
                }
                for (id, reason) in &written.refused {
                    report.refused(id, reason);
                }
                if failures > 0 {
                    report.store_back(failures);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        failures += 1;
        let stopping = *stop.borrow();
        if stopping && *deadline.get_or_insert_with(|| Instant::now() + grace) <= Instant::now() {
            return Err(error);
        }
        let wait = back_off(failures);
        report.store_down(&error, wait);
        if stopping {
            tokio::time::sleep(wait.min(grace)).await;
        } else {
            // A stop cuts the wait short, for one more try.
            let _ = tokio::time::timeout(wait, stop.changed()).await;
        }
    }
}

/// Exponential, with jitter over its upper half, so that collectors that failed together do not come back together.
pub fn back_off(failures: u32) -> Duration {
    let (first, longest) = BACK_OFF;
    let wait = first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest);
    let share =
        f64::from(u32::try_from(RandomState::new().hash_one(failures) >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    wait.mul_f64(0.5 + share / 2.0)
}
