//! A bounded buffer between the access log service's streams and the store. When it is full, the oldest entry is
//! dropped and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::AuditRecord;
use tokio::sync::{Notify, watch};

use crate::batch::{BATCH_ITEMS, BATCH_WAIT, Batch, Rejected};
use crate::deliver::deliver;
use crate::report::Report;
use crate::store::Store;

/// Some 10 MB; a minute at 160 calls a second.
pub const CAPACITY: usize = 10_000;
/// How long a stop waits for a store that is down before the buffer's entries are lost.
const STOP_GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Item {
    Record(Box<AuditRecord>),
    Rejected(Box<Rejected>),
}

#[derive(Debug)]
pub struct Buffer {
    items: Mutex<VecDeque<Item>>,
    pushed: Notify,
    capacity: usize,
    report: Arc<Report>,
}

impl Buffer {
    /// `capacity` is a number of entries.
    pub fn new(capacity: usize, report: Arc<Report>) -> Self {
        Self { items: Mutex::default(), pushed: Notify::new(), capacity, report }
    }

    /// Moves entries to the store until `stop` is true and the buffer is empty. Returns the number of entries lost
    /// because the store stayed down.
    pub async fn drain(&self, store: &Store, mut stop: watch::Receiver<bool>) -> u64 {
        loop {
            if self.len() == 0 {
                if *stop.borrow() {
                    return 0;
                }
                tokio::select! {
                    () = self.pushed.notified() => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            if self.len() < BATCH_ITEMS && !*stop.borrow() {
                let _ = tokio::time::timeout(BATCH_WAIT, async {
                    while self.len() < BATCH_ITEMS {
                        self.pushed.notified().await;
                    }
                })
                .await;
            }
            let batch = self.take();
            if let Err(error) = deliver(store, &batch, &self.report, &mut stop, STOP_GRACE).await {
                let lost = (batch.records.len() + batch.rejected.len() + self.len()) as u64;
                self.report.failed(&format!("stopped, {lost} access log service entries lost"), &error);
                return lost;
            }
        }
    }

    pub(super) fn push(&self, item: Item) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.capacity {
            items.pop_front();
            self.report.dropped();
        }
        items.push_back(item);
        drop(items);
        self.pushed.notify_one();
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    fn take(&self) -> Batch {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let count = items.len().min(BATCH_ITEMS);
        let mut batch = Batch::default();
        for item in items.drain(..count) {
            match item {
                Item::Record(record) => batch.records.push(*record),
                Item::Rejected(rejected) => batch.rejected.push(*rejected),
            }
        }
        batch
    }

    fn len(&self) -> usize {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
