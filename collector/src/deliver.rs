//! Writes a batch to the store until it succeeds.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::backoff::back_off;
use crate::batch::{Batch, Written};
use crate::ledger::Ledger;
use crate::report::Report;
use crate::store::{Store, StoreError};

/// Retries with back-off. The ledger notes the batch before it is stored, and closes its intents afterwards. Once `stop` is true it gives up after `grace`, in the middle of an attempt too.
///
/// # Errors
/// The last [`StoreError`], after `stop` only. The batch is not stored then.
pub async fn deliver(
    store: &Store,
    ledger: Option<&Ledger>,
    batch: &Batch,
    report: &Report,
    stop: &mut watch::Receiver<bool>,
    grace: Duration,
) -> Result<(), StoreError> {
    let mut stopped = stop.clone();
    let given_up = async {
        if stopped.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(grace).await;
    };
    let mut last = StoreError::Stopped;
    tokio::select! {
        () = attempts(store, ledger, batch, report, stop, &mut last) => Ok(()),
        () = given_up => Err(last),
    }
}

async fn attempts(
    store: &Store,
    ledger: Option<&Ledger>,
    batch: &Batch,
    report: &Report,
    stop: &mut watch::Receiver<bool>,
    last: &mut StoreError,
) {
    let mut failures = 0;
    let mut received = None;
    let delivery = report.health().deliver();
    loop {
        delivery.attempt();
        let error = match write(store, ledger, batch, &mut received).await {
            Ok(written) => {
                delivery.succeeded();
                if let Some(ledger) = ledger
                    && let Err(error) = block_in_place(|| ledger.stored(batch, &written, received.flatten()))
                {
                    report.failed("the intents of stored calls stay open", &error);
                }
                report.skipped(batch.off.len() as u64);
                report.stored(written.stored, written.repeated);
                let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0);
                report.expired(batch.records.iter().filter(|record| record.expires_at <= now).count() as u64);
                for rejected in &batch.rejected {
                    report.rejected(&rejected.source, &rejected.file, rejected.offset, &rejected.reason);
                }
                for refused in &written.refused {
                    report.refused(&refused.file, &refused.reason);
                }
                if let Some((count, error)) = &written.lost {
                    report.failed(&format!("{count} rejected entries are not kept"), error);
                }
                if failures > 0 {
                    report.store_up(failures);
                }
                return;
            }
            Err(error) => error,
        };
        failures += 1;
        delivery.failed(&error);
        let wait = back_off(failures);
        report.store_down(&error, wait);
        *last = error;
        if *stop.borrow() {
            tokio::time::sleep(wait).await;
        } else {
            // A stop ends the wait early, for one more attempt.
            let _ = tokio::time::timeout(wait, stop.changed()).await;
        }
    }
}

/// `received`: what [`Ledger::receive`] returned, once it has.
async fn write(
    store: &Store,
    ledger: Option<&Ledger>,
    batch: &Batch,
    received: &mut Option<Option<i64>>,
) -> Result<Written, StoreError> {
    if let (Some(ledger), None) = (ledger, &received) {
        *received =
            Some(block_in_place(|| ledger.receive(batch)).map_err(|refusal| StoreError::Ledger(refusal.to_string()))?);
    }
    store.write(batch).await
}
