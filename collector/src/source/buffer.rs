//! A bounded buffer between the access log service's streams and the store. When it is full, the oldest entry is
//! dropped and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::AuditRecord;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::batch::{BATCH_ITEMS, BATCH_LINES, BATCH_WAIT, Batch, Rejected};
use crate::deliver::deliver;
use crate::report::Report;
use crate::store::Store;

/// What the buffer holds at most: a minute at 160 calls a second.
pub const CAPACITY: Capacity = Capacity { entries: 10_000, bytes: 32 << 20 };
/// How long a stop waits for a store that is down or slow before the buffer's entries are lost.
const STOP_GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Item {
    Record(Box<AuditRecord>),
    Rejected(Box<Rejected>),
}

#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub entries: usize,
    /// Of the entries' texts. Clients choose some of these.
    pub bytes: usize,
}

#[derive(Debug, Default)]
struct Items {
    queue: VecDeque<Item>,
    bytes: usize,
}

#[derive(Debug)]
pub struct Buffer {
    items: Mutex<Items>,
    pushed: Notify,
    capacity: Capacity,
    report: Arc<Report>,
}

impl Buffer {
    pub fn new(capacity: Capacity, report: Arc<Report>) -> Self {
        Self { items: Mutex::default(), pushed: Notify::new(), capacity, report }
    }

    /// Moves entries to the store until `stop` is true and the buffer is empty. Returns the number of entries lost
    /// because the store stayed down.
    pub async fn drain(&self, store: &Store, mut stop: watch::Receiver<bool>) -> u64 {
        let mut deadline = None;
        loop {
            // A store that is slow, too.
            if *stop.borrow() && *deadline.get_or_insert_with(|| Instant::now() + STOP_GRACE) <= Instant::now() {
                let lost = self.len() as u64;
                if lost > 0 {
                    self.report.failed("stopped, access log service entries lost", &lost);
                }
                return lost;
            }
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
        let mut items = self.lock();
        let bytes = item.bytes();
        while items.queue.len() >= self.capacity.entries || items.bytes + bytes > self.capacity.bytes {
            let Some(oldest) = items.queue.pop_front() else { break };
            items.bytes -= oldest.bytes();
            self.report.dropped();
        }
        items.bytes += bytes;
        items.queue.push_back(item);
        drop(items);
        self.pushed.notify_one();
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    fn take(&self) -> Batch {
        let mut items = self.lock();
        let count = items.queue.len().min(BATCH_LINES);
        let mut batch = Batch::default();
        let taken: Vec<_> = items.queue.drain(..count).collect();
        items.bytes -= taken.iter().map(Item::bytes).sum::<usize>();
        drop(items);
        for item in taken {
            match item {
                Item::Record(record) => batch.records.push(*record),
                Item::Rejected(rejected) => batch.rejected.push(*rejected),
            }
        }
        batch
    }

    fn len(&self) -> usize {
        self.lock().queue.len()
    }

    fn lock(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Record(record) => size_of::<AuditRecord>() + record.text_bytes(),
            Self::Rejected(rejected) => size_of::<Rejected>() + rejected.content.len() + rejected.reason.len(),
        }
    }
}
