//! The file source: lines of the access log → batches. The log is the ledger: while the store is down nothing is read,
//! and how far it was read is stored with the records, so a restart neither loses nor repeats.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::deliver;
use super::tail::Tail;
use crate::report::Report;
use crate::store::{Batch, Rejected, Store};
use crate::{BATCH_ITEMS, BATCH_WAIT, decode};

/// Follows `tail` until `stop`. The log's path is the checkpoint's name.
pub async fn run(path: &Path, mut tail: Tail, store: &Store, report: &Report, mut stop: watch::Receiver<bool>) {
    // What reading said last, so that a lasting failure is told once and not five times a second.
    let mut told = String::new();
    loop {
        let stopping = *stop.borrow();
        let polled = match tail.poll(BATCH_ITEMS) {
            Ok(polled) => {
                told.clear();
                polled
            }
            Err(error) => {
                let now = error.to_string();
                if told != now {
                    report.failed(&path.display().to_string(), &now);
                    told = now;
                }
                Default::default()
            }
        };
        for notice in &polled.notices {
            report.notice(path, notice);
        }
        let full = polled.lines.len() >= BATCH_ITEMS;
        let mut batch = Batch { checkpoint: tail.checkpoint().map(|at| (path.to_owned(), at)), ..Batch::default() };
        for line in polled.lines {
            let reason = match line.content {
                Ok(content) => match decode::line(&content) {
                    Ok(record) => {
                        batch.records.push(record);
                        continue;
                    }
                    Err(error) => (error.to_string(), content),
                },
                Err(bad) => (bad.to_string(), Vec::new()),
            };
            batch.rejected.push(Rejected::new(
                "file",
                line.file.display().to_string(),
                line.offset,
                reason.0,
                &reason.1,
            ));
        }
        if !batch.is_empty() || !polled.notices.is_empty() {
            let last = deliver(store, &batch, report, &mut stop, Duration::ZERO).await;
            if let Err(error) = last {
                report.failed("stopped with lines unread, which the next start reads", &error);
                return;
            }
        }
        if full {
            continue;
        }
        // Read to its end after the stop was asked for: what was written before it is stored.
        if stopping {
            return;
        }
        let _ = tokio::time::timeout(BATCH_WAIT, stop.changed()).await;
    }
}
