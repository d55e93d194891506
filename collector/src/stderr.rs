//! Writes lines to stderr from a thread of its own: a pipe that nobody reads must not stop the collector.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that wait for a slow reader. Later ones are dropped and counted.
const WAITING: usize = 1_000;

static WRITER: OnceLock<Option<SyncSender<Task>>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

enum Task {
    Line(String),
    Flush(SyncSender<()>),
}

/// Writes a line, which ends with its newline. Never waits.
pub fn line(text: String) {
    match writer().map(|writer| writer.try_send(Task::Line(text))) {
        Some(Err(TrySendError::Full(_))) => {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        // Without a thread; a reader that is gone is not an error.
        None => {}
        Some(_) => {}
    }
}

/// The number of lines dropped so far.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Waits until all lines are written, for at most a second.
pub fn flush() {
    let (done, written) = sync_channel(1);
    if let Some(writer) = writer()
        && writer.try_send(Task::Flush(done)).is_ok()
    {
        let _ = written.recv_timeout(Duration::from_secs(1));
    }
}

fn writer() -> Option<&'static SyncSender<Task>> {
    let start = || {
        let (send, receive) = sync_channel(WAITING);
        std::thread::Builder::new().name("stderr".to_owned()).spawn(move || write(&receive)).ok().map(|_| send)
    };
    WRITER.get_or_init(start).as_ref()
}

fn write(tasks: &Receiver<Task>) {
    for task in tasks {
        let mut stderr = std::io::stderr().lock();
        match task {
            // The reader may be gone.
            Task::Line(text) => {
                let _ = stderr.write_all(text.as_bytes());
            }
            Task::Flush(done) => {
                let _ = done.try_send(());
            }
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(stderr, "audit-collector warn {dropped} lines of this log are missing: it is not read");
        }
    }
}
