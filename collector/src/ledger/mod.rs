//! The ledger: a SQLite file that has the intents of calls that are not in the store yet, and what is known of each VM.
//!
//! [`server`] takes intents and reports from the gateway over a Unix socket, [`commit`] brings them to the disk, several in
//! one transaction, and [`table`] has the SQL. Log entries are received in `received.rs`; `watch.rs` looks for what is
//! missing. What it finds is a record in the ledger first, which [`outbox`] moves to the store.

mod clock;
mod commit;
mod known;
mod numbers;
pub mod outbox;
mod progress;
mod received;
mod records;
pub mod server;
mod socket;
mod table;
mod vms;
mod watch;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use audit::VmFacts;
use audit::notice::{Intent, VmReport};
use rusqlite::{Connection, OpenFlags};
use time::OffsetDateTime;
use tokio::task::block_in_place;

use self::clock::Clock;
pub use self::clock::Step;
use self::commit::{Commits, Job, WorkError};
use self::known::Edit;
use self::progress::Progress;
pub use self::socket::SocketError;
use self::vms::{Known, VmId};
pub use self::watch::Times;
use crate::clock::Reading;
use crate::store::sqlite::{Place, PlaceError};

/// How long a caller waits until its intent is on disk.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// The highest counter of a VM that is believed: sums of these fit their type.
const MAX_COUNT: u64 = 1 << 53;
/// How long a VM that ended is remembered, in milliseconds, for entries of it that come late.
const FORGET: i64 = 7 * 86_400_000;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
    #[error("{path}: {cause}")]
    Sql { path: PathBuf, cause: rusqlite::Error },
    #[error("{0}: another audit-collector uses this ledger. Each needs its own (--ledger)")]
    InUse(PathBuf),
    #[error(
        "{path}: the ledger is damaged: {reason}. Move it away and start again: intents in it that have no record yet are \
         lost. `sqlite3 FILE .recover` may save them"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{path}: version {found} of the ledger: a newer release of audit-collector wrote it. Use the newer release"
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("{0}: {1}")]
    Refused(PathBuf, Refusal),
    #[error("{0}: the ledger was deleted or replaced. Intents that it had are lost. Start again")]
    Replaced(PathBuf),
}

/// Why something is not in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the ledger has another intent with this id")]
    Conflict,
    #[error("too slow: it was not on disk within {} s", DEADLINE.as_secs())]
    Slow,
    #[error("too many intents wait for the disk")]
    Busy,
    #[error("the ledger's disk is full")]
    DiskFull,
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    #[error("the ledger was deleted or replaced")]
    Replaced,
    #[error("the ledger cannot be written: {0}")]
    Failed(String),
    #[error("too many VMs are known")]
    TooManyVms,
    #[error("the collector stops")]
    Stopped,
}

#[derive(Debug, Clone)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    /// Reads what commits wrote. Closed first: the last connection, which writes, tidies the file up.
    reader: Mutex<Connection>,
    commits: Commits,
    known: Mutex<Known>,
    progress: Progress,
    clock: Clock,
    times: Times,
    /// When the log was last read to its end, in milliseconds since 1970; 0 if it never was.
    read_at: AtomicI64,
    /// When that was last noted in the file.
    noted: Mutex<Option<Instant>>,
    /// Batches of the access log service up to this number are of earlier runs.
    old_feed: i64,
    next_feed: AtomicI64,
    /// Locked while the ledger is open.
    _lock: File,
}

impl Ledger {
    /// Opens the file, or creates it with mode 0600.
    pub fn open(path: &Path, times: Times) -> Result<Self, LedgerError> {
        let failed = |cause| LedgerError::Sql { path: path.to_owned(), cause };
        let lock = table::lock(path)?;
        let connection = table::open(path)?;
        let place = Place::of(path).map_err(|error| match error {
            PlaceError::Replaced => LedgerError::Replaced(path.to_owned()),
            PlaceError::Io(cause) => LedgerError::File { path: path.to_owned(), cause },
        })?;
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        let known = table::known(&connection).map_err(failed)?;
        let old_feed = table::last_feed(&connection).map_err(failed)?;
        let last = table::last_run(&connection).map_err(failed)?;
        let reading = Reading::now();
        let clock = Clock::resume(last.clock, &reading, now_ms());
        table::forget(&connection, clock.now() - FORGET).map_err(failed)?;
        let boot = reading.since_boot.map(|since| since.boot);
        table::begin_run(&connection, boot.as_deref()).map_err(failed)?;
        let commits = Commits::start(connection, place.clone(), &table::wal(path));
        let commits = commits.map_err(|cause| LedgerError::File { path: path.to_owned(), cause })?;
        let ledger = Self(Arc::new(Inner {
            place,
            reader: Mutex::new(reader),
            commits,
            known: Mutex::new(known),
            progress: Progress::default(),
            clock,
            times,
            read_at: AtomicI64::new(last.read_at),
            noted: Mutex::default(),
            old_feed,
            next_feed: AtomicI64::new(old_feed + 1),
            _lock: lock,
        }));
        if !last.clean && last.boot.is_some() && last.boot != boot {
            let name = format!("machine-{}", last.boot.unwrap_or_default());
            ledger.gap(&name, "MachineFailed").map_err(|refusal| LedgerError::Refused(path.to_owned(), refusal))?;
        }
        Ok(ledger)
    }

    /// The run ends in order.
    pub fn close(&self) -> Result<(), Refusal> {
        self.commit(|connection| Ok(table::end_run(connection)?))
    }

    /// Returns once the intent is on disk, in a runtime of several threads. `content` is its JSON. The same intent may come again.
    ///
    /// # Errors
    /// The caller must not send its call. An intent that reaches the disk after the deadline is withdrawn; if the
    /// collector is killed in between, it stays, as the intent of a call that never left.
    pub async fn intent(&self, intent: &Intent, content: String) -> Result<(), Refusal> {
        if let Some(facts) = &intent.exchange.vm {
            self.sign(facts)?;
        }
        let id = intent.exchange.id.clone();
        let vm = intent.exchange.vm.as_ref().map(|vm| vm.id.clone());
        let bytes = id.len() + content.len();
        let (at, undone) = (self.0.clock.now(), id.clone());
        let job = Job::new(move |connection| table::add_intent(connection, &id, at, vm.as_deref(), &content));
        let job = job.of_bytes(bytes).until(Instant::now() + DEADLINE);
        let job = job.or_undo(move |connection| table::withdraw(connection, &undone));
        self.wait(self.0.commits.push(job)?).await
    }

    /// Returns once the report is on disk, in a runtime of several threads.
    pub async fn report(&self, report: &VmReport) -> Result<(), Refusal> {
        let at = self.0.clock.now();
        let failed = |cause: serde_json::Error| Refusal::Failed(cause.to_string());
        let ends = report.ends.iter().map(|end| Ok((end.exchange.id.clone(), serde_json::to_string(end)?)));
        let ends = ends.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let bytes = ends.iter().map(|(id, end)| id.len() + end.len()).sum::<usize>();
        block_in_place(|| self.change(|edit| edit.report(report), |_| Ok(())))?;
        let job = Job::new(move |connection| {
            for (id, end) in &ends {
                table::end_intent(connection, id, at, end)?;
            }
            Ok(())
        });
        // The flush has the change as well.
        self.wait(self.0.commits.push(job.of_bytes(bytes).until(Instant::now() + DEADLINE))?).await
    }

    /// A call begins in a VM.
    fn sign(&self, facts: &VmFacts) -> Result<(), Refusal> {
        let now = Instant::now();
        // While something else changes what is known, the intent does not wait: the VM gives more signs than this.
        let Ok(mut known) = self.0.known.try_lock() else { return Ok(()) };
        if let Some(vm) = known.vms.get_mut(&facts.id).filter(|vm| vm.ended.is_none() && vm.reported) {
            // Kept with the VM's next report or entry, and in the intent until then.
            vm.begun = vm.begun.max(facts.begun);
            vm.watch.heard = Some(now);
            return Ok(());
        }
        drop(known);
        let id = VmId { vm: &facts.id, envoy: &facts.envoy };
        let begin = |edit: &mut Edit<'_>| {
            let vm = edit.alive(id)?;
            vm.reported = true;
            vm.begun = vm.begun.max(facts.begun);
            Ok(())
        };
        block_in_place(|| self.change(begin, |_| Ok(())))
    }

    /// Looks whether the machine's clock stepped. To be called each second.
    pub fn check_clock(&self) -> Result<Option<Step>, Refusal> {
        let step = self.0.clock.compare(now_ms());
        if step.is_some() {
            let kept = self.0.clock.keep();
            self.commit(move |connection| Ok(table::set_clock(connection, &kept)?))?;
        }
        Ok(step)
    }

    /// Fails if the file was deleted or replaced: what is written then is lost.
    pub fn check_place(&self) -> Result<(), LedgerError> {
        match self.0.place.check() {
            Err(PlaceError::Replaced) => Err(LedgerError::Replaced(self.0.place.path().to_owned())),
            // Not known; the next look may be.
            Ok(()) | Err(PlaceError::Io(_)) => Ok(()),
        }
    }

    /// Blocks while it changes what is known of VMs, and keeps the records that come of it. If it cannot be written, nothing changes.
    fn change<O: Outcome>(
        &self,
        edit: impl FnOnce(&mut Edit<'_>) -> O,
        more: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), Refusal> {
        let mut known = self.known();
        let mut editing = Edit::new(&known, Instant::now(), now_ms());
        edit(&mut editing).result()?;
        let Edit { vms, envoys, mut records, .. } = editing;
        records.iter_mut().for_each(|record| self.0.clock.widen(record));
        let failed = |cause: serde_json::Error| Refusal::Failed(cause.to_string());
        let vm_rows: Vec<_> = vms
            .iter()
            .map(|(id, vm)| Ok((id.clone(), serde_json::to_string(vm)?)))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let envoy_rows: Vec<_> = envoys
            .iter()
            .map(|(id, envoy)| Ok((id.clone(), serde_json::to_string(envoy)?)))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        self.commit(move |connection| {
            for (id, state) in &vm_rows {
                table::set_vm(connection, id, state)?;
            }
            for (id, state) in &envoy_rows {
                table::set_envoy(connection, id, state)?;
            }
            for record in &records {
                table::add_record(connection, record)?;
            }
            Ok(more(connection)?)
        })?;
        known.vms.extend(vms);
        known.envoys.extend(envoys);
        Ok(())
    }

    /// Waits until it is written, not until it is on disk.
    fn commit(&self, work: impl FnOnce(&Connection) -> Result<(), WorkError> + Send + 'static) -> Result<(), Refusal> {
        self.0.commits.write(work)
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        read(&self.0.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An edit is a copy: a panic leaves what was known.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&self) -> &Inner {
        &self.0
    }

    async fn wait(&self, done: tokio::sync::oneshot::Receiver<Result<(), Refusal>>) -> Result<(), Refusal> {
        match tokio::time::timeout(DEADLINE, done).await {
            Ok(result) => result.unwrap_or(Err(Refusal::Stopped)),
            Err(_) => Err(Refusal::Slow),
        }
    }
}

/// What an edit of the known VMs may return.
trait Outcome {
    fn result(self) -> Result<(), Refusal>;
}

impl Outcome for () {
    fn result(self) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Outcome for Result<(), Refusal> {
    fn result(self) -> Result<(), Refusal> {
        self
    }
}

/// Milliseconds since 1970, by the machine's clock.
fn now_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
