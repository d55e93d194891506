//! Moves the records that the ledger has made to the store, and the batches that an earlier run received and did not store.

use std::time::Duration;

use tokio::sync::watch;

use super::{Ledger, Refusal, table};
use crate::batch::{BATCH_LINES, Batch, Origin};
use crate::deliver::deliver;
use crate::report::Report;
use crate::store::Store;

/// How often the ledger is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop waits for a store that is down. The next start stores the rest.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Runs until `stop`.
pub async fn run(ledger: &Ledger, store: &Store, report: &Report, mut stop: watch::Receiver<bool>) {
    let mut last = None;
    loop {
        let result = match tokio::task::block_in_place(|| ledger.look()) {
            Ok(()) => move_all(ledger, store, report, &mut stop).await,
            Err(refusal) => Err(refusal),
        };
        // A lasting failure is reported once.
        if result.as_ref().err() != last.as_ref()
            && let Err(refusal) = &result
        {
            report.failed("ledger", refusal);
        }
        last = result.err();
        if *stop.borrow() {
            return;
        }
        let _ = tokio::time::timeout(INTERVAL, stop.changed()).await;
    }
}

async fn move_all(
    ledger: &Ledger,
    store: &Store,
    report: &Report,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Refusal> {
    let failed = |cause: rusqlite::Error| Refusal::Failed(cause.to_string());
    let old_feed = ledger.inner().old_feed;
    while let Some((number, records)) = ledger.read(|connection| table::feed(connection, old_feed)).map_err(failed)? {
        let batch = Batch { records, origin: Origin::Own, ..Batch::default() };
        if deliver(store, None, &batch, report, stop, STOP_GRACE).await.is_err() {
            return Ok(());
        }
        ledger.stored(&batch, &Default::default(), Some(number))?;
    }
    loop {
        let records = ledger.read(|connection| table::records(connection, BATCH_LINES)).map_err(failed)?;
        if records.is_empty() {
            return Ok(());
        }
        let batch = Batch { records, origin: Origin::Own, ..Batch::default() };
        if deliver(store, None, &batch, report, stop, STOP_GRACE).await.is_err() {
            return Ok(());
        }
        report.found(&batch.records);
        let ids: Vec<_> = batch.records.into_iter().map(|record| record.request_id).collect();
        ledger.commit(move |connection| {
            for id in &ids {
                table::remove_record(connection, id)?;
            }
            Ok(())
        })?;
    }
}
