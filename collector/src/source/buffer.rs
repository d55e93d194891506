//! A bounded buffer between the access log service's streams and the store. When it is full, the oldest entry is
//! dropped and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::AuditRecord;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::batch::{BATCH_ITEMS, BATCH_LINES, BATCH_WAIT, Batch, Origin, Rejected};
use crate::deliver::deliver;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::store::Store;

/// What the buffer holds at most: a minute at 160 calls a second.
pub const CAPACITY: Capacity = Capacity { entries: 10_000, bytes: 32 << 20 };
/// How often an idle feed says that it is.
const IDLE: Duration = Duration::from_secs(1);
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
    /// because the store stayed down. Those that the ledger has are stored by the next start.
    pub async fn drain(&self, store: &Store, ledger: Option<&Ledger>, mut stop: watch::Receiver<bool>) -> u64 {
        let mut deadline = None;
        loop {
            // A store that is slow, too.
            if *stop.borrow() && *deadline.get_or_insert_with(|| Instant::now() + STOP_GRACE) <= Instant::now() {
                let lost = self.keep(ledger);
                if lost > 0 {
                    self.report.failed("stopped, access log service entries lost", &lost);
                }
                return lost;
            }
            if self.len() == 0 {
                if *stop.borrow() {
                    return 0;
                }
                if let Some(ledger) = ledger {
                    ledger.at_end(Origin::Feed);
                }
                tokio::select! {
                    () = self.pushed.notified() => {}
                    _ = stop.changed() => {}
                    () = tokio::time::sleep(IDLE) => {}
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
            let emptied = self.len() == 0;
            if let Err(error) = deliver(store, ledger, &batch, &self.report, &mut stop, STOP_GRACE).await {
                // Again, if the ledger has it: the next start stores it twice, and the store takes it once.
                let lost = lost_of(&batch, ledger) + self.keep(ledger);
                self.report.failed(&format!("stopped, {lost} access log service entries lost"), &error);
                return lost;
            }
            if let Some(ledger) = ledger.filter(|_| emptied) {
                ledger.at_end(Origin::Feed);
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
        let mut batch = Batch { origin: Origin::Feed, ..Batch::default() };
        let taken: Vec<_> = items.queue.drain(..count).collect();
        items.bytes -= taken.iter().map(Item::bytes).sum::<usize>();
        drop(items);
        for item in taken {
            match item {
                Item::Record(record) => batch.add(*record),
                Item::Rejected(rejected) => batch.rejected.push(*rejected),
            }
        }
        batch
    }

    /// Empties the buffer into the ledger. Returns the number of entries that it does not take.
    fn keep(&self, ledger: Option<&Ledger>) -> u64 {
        let mut lost = 0;
        while self.len() > 0 {
            lost += lost_of(&self.take(), ledger);
        }
        lost
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

/// The entries of a batch that cannot be stored, and that the ledger does not keep either.
fn lost_of(batch: &Batch, ledger: Option<&Ledger>) -> u64 {
    let kept = ledger.is_some_and(|ledger| matches!(ledger.receive(batch), Ok(Some(_))));
    (batch.rejected.len() + if kept { 0 } else { batch.records.len() }) as u64
}
