//! The ledger: a SQLite file that has the intents of calls that are not in the store yet.
//!
//! [`server`] takes them from the gateway over a Unix socket, [`commit`] brings them to the disk, several in one
//! transaction, and [`table`] has the SQL.

mod commit;
pub mod server;
mod socket;
mod table;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::notice::{Intent, VmReport};
use time::OffsetDateTime;

use self::commit::{Commits, Job};
pub use self::socket::SocketError;
use crate::store::sqlite::{Place, PlaceError};

/// How long a caller waits until its intent is on disk.
pub const DEADLINE: Duration = Duration::from_secs(2);

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
    #[error("the collector stops")]
    Stopped,
}

#[derive(Debug, Clone)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    commits: Commits,
    /// Locked while the ledger is open.
    _lock: File,
}

impl Ledger {
    /// Opens the file, or creates it with mode 0600.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let lock = table::lock(path)?;
        let connection = table::open(path)?;
        let place = Place::of(path).map_err(|error| match error {
            PlaceError::Replaced => LedgerError::Replaced(path.to_owned()),
            PlaceError::Io(cause) => LedgerError::File { path: path.to_owned(), cause },
        })?;
        let commits = Commits::start(connection, place.clone(), &table::wal(path));
        let commits = commits.map_err(|cause| LedgerError::File { path: path.to_owned(), cause })?;
        Ok(Self(Arc::new(Inner { place, commits, _lock: lock })))
    }

    /// Returns once the intent is on disk. `content` is its JSON. The same intent may come again.
    ///
    /// # Errors
    /// The caller must not send its call. An intent that reaches the disk after the deadline is withdrawn; if the
    /// collector is killed in between, it stays, as the intent of a call that never left.
    pub async fn intent(&self, intent: &Intent, content: String) -> Result<(), Refusal> {
        let id = intent.exchange.id.clone();
        let vm = intent.exchange.vm.as_ref().map(|vm| vm.id.clone());
        let bytes = id.len() + content.len();
        let (at, undone) = (now_ms(), id.clone());
        let job = Job::new(move |connection| table::add_intent(connection, &id, at, vm.as_deref(), &content));
        let job = job.of_bytes(bytes).until(Instant::now() + DEADLINE);
        let job = job.or_undo(move |connection| table::withdraw(connection, &undone));
        self.wait(self.0.commits.push(job)?).await
    }

    /// Returns once the report is on disk.
    pub async fn report(&self, report: &VmReport) -> Result<(), Refusal> {
        let at = now_ms();
        let failed = |cause: serde_json::Error| Refusal::Failed(cause.to_string());
        let ends = report.ends.iter().map(|end| Ok((end.exchange.id.clone(), serde_json::to_string(end)?)));
        let ends = ends.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let counters = VmReport { ends: Vec::new(), ..report.clone() };
        let counters = serde_json::to_string(&counters).map_err(failed)?;
        let vm = report.vm.clone();
        let bytes = counters.len() + ends.iter().map(|(id, end)| id.len() + end.len()).sum::<usize>();
        let job = Job::new(move |connection| {
            for (id, end) in &ends {
                table::end_intent(connection, id, at, end)?;
            }
            Ok(table::set_vm(connection, &vm, &counters)?)
        });
        self.wait(self.0.commits.push(job.of_bytes(bytes).until(Instant::now() + DEADLINE))?).await
    }

    /// Fails if the file was deleted or replaced: what is written then is lost.
    pub fn check_place(&self) -> Result<(), LedgerError> {
        match self.0.place.check() {
            Err(PlaceError::Replaced) => Err(LedgerError::Replaced(self.0.place.path().to_owned())),
            // Not known; the next look may be.
            Ok(()) | Err(PlaceError::Io(_)) => Ok(()),
        }
    }

    async fn wait(&self, done: tokio::sync::oneshot::Receiver<Result<(), Refusal>>) -> Result<(), Refusal> {
        match tokio::time::timeout(DEADLINE, done).await {
            Ok(result) => result.unwrap_or(Err(Refusal::Stopped)),
            Err(_) => Err(Refusal::Slow),
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
