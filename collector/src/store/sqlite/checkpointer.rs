//! Copies SQLite's WAL to the file from a thread of its own. A commit that finds a thousand pages in the WAL would do it
//! itself, and wait for the disk: up to some 300 ms next to a purge, by measurement.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How often the thread looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// Written rows after which it copies.
const MANY: usize = 500;
/// Intervals after which it copies fewer.
const PATIENCE: u32 = 25;
/// Pages in the WAL (40 MB) at which a commit copies nevertheless: while another writes without a pause, the thread never
/// reaches the WAL's end, and SQLite starts again at its beginning only then.
pub(super) const LIMIT: u32 = 10_000;

/// Ends its thread when it is dropped.
#[derive(Debug)]
pub(super) struct Checkpointer {
    wrote: Option<Sender<usize>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// None if there can be no thread; the limit holds then.
    pub(super) fn start(path: &Path) -> Option<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).ok()?;
        let (wrote, written) = channel();
        let work = move || run(&connection, &written);
        let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(work).ok()?;
        Some(Self { wrote: Some(wrote), thread: Some(thread) })
    }

    /// Rows were committed.
    pub(super) fn wrote(&self, rows: usize) {
        if let Some(wrote) = &self.wrote {
            // Without the thread, the limit holds.
            let _ = wrote.send(rows);
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wrote = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, written: &Receiver<usize>) {
    let (mut rows, mut intervals) = (0_usize, 0);
    loop {
        match written.recv_timeout(INTERVAL) {
            Ok(more) => rows = rows.saturating_add(more),
            Err(RecvTimeoutError::Timeout) => intervals += 1,
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if rows >= MANY || (rows > 0 && intervals >= PATIENCE) {
            // It never waits for a lock. What it does not copy now, it copies later.
            let _ = connection.query_row("PRAGMA wal_checkpoint(passive)", [], |_| Ok(()));
            (rows, intervals) = (0, 0);
        }
    }
}
