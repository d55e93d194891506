//! Group commit: one thread writes, in one transaction all that waits; others flush the WAL to the disk, and answer what
//! it holds by then.
//!
//! SQLite would flush in the writing thread, so that a caller that comes during a flush waits for two. Here flushes
//! overlap: the transaction is in the WAL (`synchronous=normal` writes it and does not flush), and a flush that begins
//! after that has it on disk. Where the file system does one flush at a time, this is the usual group commit.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;

use super::Refusal;
use crate::store::sqlite::Place;

/// Flushes at a time.
const FLUSHES: usize = 4;
/// What may wait for the writing thread.
const MAX_JOBS: usize = 10_000;
const MAX_BYTES: usize = 32 << 20;
/// Jobs of one transaction.
const MAX_GROUP: usize = 1_000;

pub(super) enum WorkError {
    /// This job alone fails.
    Refused(Refusal),
    /// The transaction fails.
    Sql(rusqlite::Error),
}

type Work = Box<dyn FnOnce(&Connection) -> Result<(), WorkError> + Send>;
/// Takes the result. False if nobody waits for it.
type Done = Box<dyn FnOnce(Result<(), Refusal>) -> bool + Send>;

/// A part of a transaction.
pub(super) struct Job {
    work: Work,
    /// What it takes in memory, about.
    bytes: usize,
    /// After this, nobody waits for it.
    deadline: Option<Instant>,
    /// Whether it must be on disk when it is answered. Otherwise only the machine's failure undoes it.
    flush: bool,
    /// Runs in a later transaction if nobody waited for this one's end.
    undo: Option<Work>,
}

/// A job whose work is done, and not flushed yet.
struct Written {
    done: Done,
    undo: Option<Work>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Job, Done)>,
    bytes: usize,
    undo: Vec<Work>,
    /// Written, and to be flushed.
    written: Vec<Written>,
    flushing: usize,
    /// No more jobs come.
    stopped: bool,
    /// The writing thread has ended.
    finished: bool,
    /// A flush failed. What the file holds then is not known.
    broken: Option<Refusal>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    to_write: Condvar,
    to_flush: Condvar,
}

pub(super) struct Commits {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

// === impl Job ===

impl Job {
    pub(super) fn new(work: impl FnOnce(&Connection) -> Result<(), WorkError> + Send + 'static) -> Self {
        Self { work: Box::new(work), bytes: 0, deadline: None, flush: true, undo: None }
    }

    #[must_use]
    pub(super) fn of_bytes(self, bytes: usize) -> Self {
        Self { bytes: bytes + size_of::<Self>(), ..self }
    }

    #[must_use]
    pub(super) fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    #[must_use]
    pub(super) fn or_undo(self, undo: impl FnOnce(&Connection) -> Result<(), WorkError> + Send + 'static) -> Self {
        Self { undo: Some(Box::new(undo)), ..self }
    }
}

// === impl Commits ===

impl Commits {
    /// `wal` is the file next to the database that a transaction writes.
    pub(super) fn start(connection: Connection, place: Place, wal: &Path) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for _ in 0..FLUSHES {
            // The file stays the same as long as the connection is open.
            let (shared, wal) = (Arc::clone(&shared), File::open(wal)?);
            let thread = std::thread::Builder::new().name("flush".to_owned());
            threads.push(thread.spawn(move || shared.flush(&wal))?);
        }
        let to_write = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("commit".to_owned());
        threads.push(thread.spawn(move || to_write.write(connection, &place))?);
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// The receiver gets the result once it is on disk.
    ///
    /// # Errors
    /// Too much waits; or the collector stops.
    pub(super) fn push(&self, job: Job) -> Result<oneshot::Receiver<Result<(), Refusal>>, Refusal> {
        let (done, result) = oneshot::channel();
        self.add(job, Box::new(move |answer| done.send(answer).is_ok()))?;
        Ok(result)
    }

    /// Waits until it is written, for a moment: the file system has it then, and the disk later.
    pub(super) fn write(
        &self,
        work: impl FnOnce(&Connection) -> Result<(), WorkError> + Send + 'static,
    ) -> Result<(), Refusal> {
        let (done, result) = mpsc::sync_channel(1);
        let job = Job { flush: false, ..Job::new(work) };
        self.add(job, Box::new(move |answer| done.send(answer).is_ok()))?;
        result.recv().unwrap_or(Err(Refusal::Stopped))
    }

    fn add(&self, job: Job, done: Done) -> Result<(), Refusal> {
        let mut waiting = self.shared.lock();
        if waiting.stopped {
            return Err(Refusal::Stopped);
        }
        // Jobs without a deadline are the collector's own: few, and none may be refused.
        if job.deadline.is_some() && (waiting.jobs.len() >= MAX_JOBS || waiting.bytes + job.bytes > MAX_BYTES) {
            return Err(Refusal::Busy);
        }
        waiting.bytes += job.bytes;
        waiting.jobs.push_back((job, done));
        drop(waiting);
        self.shared.to_write.notify_one();
        Ok(())
    }
}

impl Drop for Commits {
    /// Waits until all that was pushed is on disk.
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.to_write.notify_all();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// No thread panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writing thread.
    fn write(&self, mut connection: Connection, place: &Place) {
        loop {
            let mut waiting = self.lock();
            while waiting.jobs.is_empty() && waiting.undo.is_empty() && !(waiting.stopped && waiting.is_flushed()) {
                waiting = self.to_write.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if waiting.jobs.is_empty() && waiting.undo.is_empty() {
                waiting.finished = true;
                drop(waiting);
                self.to_flush.notify_all();
                return;
            }
            let count = waiting.jobs.len().min(MAX_GROUP);
            let jobs: Vec<_> = waiting.jobs.drain(..count).collect();
            waiting.bytes -= jobs.iter().map(|(job, _)| job.bytes).sum::<usize>();
            let undo = std::mem::take(&mut waiting.undo);
            let broken = waiting.broken.clone();
            drop(waiting);

            let now = Instant::now();
            let (jobs, late): (Vec<_>, Vec<_>) =
                jobs.into_iter().partition(|(job, _)| job.deadline.is_none_or(|deadline| deadline > now));
            for (_, done) in late {
                done(Err(Refusal::Slow));
            }
            let usable = match broken {
                Some(refusal) => Err(refusal),
                None => place.check().map_err(|_| Refusal::Replaced),
            };
            let written = match usable {
                Ok(()) => transact(&mut connection, undo, jobs),
                Err(refusal) => {
                    refuse(jobs.into_iter().map(|(_, done)| done), &refusal);
                    Vec::new()
                }
            };
            if !written.is_empty() {
                self.lock().written.extend(written);
                self.to_flush.notify_one();
            }
        }
    }

    /// A flushing thread.
    fn flush(&self, wal: &File) {
        loop {
            let mut waiting = self.lock();
            while waiting.written.is_empty() {
                if waiting.finished {
                    return;
                }
                waiting = self.to_flush.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let written = std::mem::take(&mut waiting.written);
            waiting.flushing += 1;
            drop(waiting);

            let flushed = wal.sync_data();
            let mut undo = Vec::new();
            match &flushed {
                Ok(()) => {
                    for job in written {
                        if !(job.done)(Ok(())) {
                            undo.extend(job.undo);
                        }
                    }
                }
                Err(error) => {
                    let refusal = Refusal::Failed(format!("flush: {error}. Start the collector again"));
                    self.lock().broken = Some(refusal.clone());
                    refuse(written.into_iter().map(|job| job.done), &refusal);
                }
            }
            let mut waiting = self.lock();
            waiting.flushing -= 1;
            waiting.undo.extend(undo);
            drop(waiting);
            self.to_write.notify_one();
        }
    }
}

impl Waiting {
    fn is_flushed(&self) -> bool {
        self.written.is_empty() && self.flushing == 0
    }
}

/// Does the jobs' work in one transaction. Returns those that are to be flushed; the others have their answers.
fn transact(connection: &mut Connection, undo: Vec<Work>, jobs: Vec<(Job, Done)>) -> Vec<Written> {
    let (mut written, mut unflushed, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut pending = jobs.into_iter();
    let work = || -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for undo in undo {
            // Otherwise the intent stays.
            if let Err(WorkError::Sql(error)) = undo(&transaction) {
                return Err(error);
            }
        }
        for (job, done) in pending.by_ref() {
            match (job.work)(&transaction) {
                Ok(()) if job.flush => written.push(Written { done, undo: job.undo }),
                Ok(()) => unflushed.push(done),
                Err(WorkError::Refused(refusal)) => refused.push((done, refusal)),
                Err(WorkError::Sql(error)) => {
                    refused.push((done, refusal_of(&error)));
                    return Err(error);
                }
            }
        }
        transaction.commit()
    };
    let result = work();
    for (done, refusal) in refused {
        done(Err(refusal));
    }
    match result {
        Ok(()) => {
            for done in unflushed {
                done(Ok(()));
            }
            written
        }
        Err(error) => {
            let all = written.into_iter().map(|job| job.done).chain(unflushed).chain(pending.map(|(_, done)| done));
            refuse(all, &refusal_of(&error));
            Vec::new()
        }
    }
}

fn refuse(jobs: impl Iterator<Item = Done>, refusal: &Refusal) {
    for done in jobs {
        done(Err(refusal.clone()));
    }
}

fn refusal_of(error: &rusqlite::Error) -> Refusal {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Refusal::DiskFull,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Refusal::Damaged(error.to_string()),
        _ => Refusal::Failed(error.to_string()),
    }
}

impl From<rusqlite::Error> for WorkError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}
