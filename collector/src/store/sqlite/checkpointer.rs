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
/// Pages in the WAL (40 MB) at which a commit copies nevertheless.
pub(super) const LIMIT: u32 = 10_000;
/// Pages in the WAL (10 MB) at which it is begun anew.
const LONG: i64 = 2_500;

/// Ends its thread when it is dropped.
#[derive(Debug)]
pub(super) struct Checkpointer {
    wrote: Option<Sender<usize>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// None if there can be no thread; the limit holds then.
    pub(super) fn start(path: &Path) -> Option<Self> {
        let connection = connect(path).ok()?;
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

/// A connection for [`copy_wal`], which never waits for a lock.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    Ok(connection)
}

/// Copies what is in the WAL to the file. SQLite begins the WAL anew only if all of it is copied when a write begins. While
/// others write, there is always more behind what was copied: the WAL would grow to gigabytes, and from [`LIMIT`] on each
/// commit would copy it, and wait for the disk. So a long WAL is begun anew here; that keeps others from writing only while it
/// copies what was written since the first copy. False if another connection copies at the time.
pub(super) fn copy_wal(connection: &Connection) -> rusqlite::Result<bool> {
    let pages: i64 = connection.query_row("PRAGMA wal_checkpoint(passive)", [], |row| row.get(1))?;
    if pages >= LONG {
        connection.query_row("PRAGMA wal_checkpoint(restart)", [], |_| Ok(()))?;
    }
    // -1 if it could not begin.
    Ok(pages >= 0)
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
            // What it does not copy now, it copies later.
            let _ = copy_wal(connection);
            (rows, intervals) = (0, 0);
        }
    }
}
