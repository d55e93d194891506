//! The ledger's tables.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::commit::WorkError;
use super::{LedgerError, Refusal};
use crate::private_file;
use crate::store::paths::with_suffix;

/// Each brings a file one version further.
const STEPS: [fn(&Connection) -> rusqlite::Result<()>; 1] = [create];
const VERSION: i64 = STEPS.len() as i64;
/// Pages of SQLite's WAL after which it is copied to the database, 16 MB: meanwhile intents wait for a few milliseconds.
const WAL_PAGES: i64 = 4_000;

/// Holds a lock as long as the file is open.
pub(super) fn lock(ledger: &Path) -> Result<File, LedgerError> {
    let path = with_suffix(ledger, ".lock");
    let file = private_file::append(&path).map_err(|cause| LedgerError::File { path: path.clone(), cause })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse(ledger.to_owned())),
        Err(TryLockError::Error(cause)) => Err(LedgerError::File { path, cause }),
    }
}

/// Opens the file, or creates it, and the WAL next to it.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerError> {
    let io = |cause| LedgerError::File { path: path.to_owned(), cause };
    // SQLite gives its WAL files the mode of the database when it creates them.
    private_file::append(path).map_err(io)?;
    for suffix in ["-wal", "-shm"] {
        private_file::close_to_others(&with_suffix(path, suffix)).map_err(io)?;
    }
    let failed = |cause: rusqlite::Error| match cause.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            LedgerError::Damaged { path: path.to_owned(), reason: cause.to_string() }
        }
        _ => LedgerError::Sql { path: path.to_owned(), cause },
    };
    let connection = Connection::open(path).map_err(failed)?;
    let found = prepare(&connection).map_err(failed)?;
    if found > VERSION {
        return Err(LedgerError::Newer { path: path.to_owned(), found });
    }
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(LedgerError::Damaged { path: path.to_owned(), reason: sound });
    }
    // The names of new files must be on disk too.
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(connection)
}

/// The file that a commit writes.
pub(super) fn wal(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

/// Returns the version that it found, at most [`VERSION`] unless a newer release wrote the file.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Ok(found);
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        step(&transaction)?;
    }
    // Written each time: so that there is a WAL.
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.execute("INSERT INTO opened VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET times = times + 1", [])?;
    transaction.commit()?;
    // The commits' own threads flush the WAL, several at a time.
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(found)
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    // `at` and `ended_at`: milliseconds since 1970, by the collector's clock. `claims`: callers that sent it and did not
    // give up. `content` and `ending`: the JSON of `Intent` and `End`.
    connection.execute_batch(
        "CREATE TABLE opened (id INTEGER PRIMARY KEY CHECK (id = 1), times INTEGER NOT NULL) STRICT;
         CREATE TABLE intents (
           id TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL, vm TEXT, content TEXT NOT NULL, claims INTEGER NOT NULL,
           ended_at INTEGER, ending TEXT) STRICT;
         CREATE INDEX intents_by_age ON intents (at);
         CREATE INDEX intents_by_end ON intents (ended_at) WHERE ended_at IS NOT NULL;
         CREATE TABLE vms (id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL) STRICT;",
    )
}

pub(super) fn add_intent(
    connection: &Connection,
    id: &str,
    at: i64,
    vm: Option<&str>,
    content: &str,
) -> Result<(), WorkError> {
    let sql = "INSERT INTO intents (id, at, vm, content, claims) VALUES (?, ?, ?, ?, 1) \
               ON CONFLICT (id) DO UPDATE SET claims = claims + 1 WHERE content = excluded.content";
    match connection.prepare_cached(sql)?.execute(params![id, at, vm, content])? {
        0 => Err(WorkError::Refused(Refusal::Conflict)),
        _ => Ok(()),
    }
}

/// Takes a caller's claim back. An intent without claims is deleted.
pub(super) fn withdraw(connection: &Connection, id: &str) -> Result<(), WorkError> {
    connection.prepare_cached("UPDATE intents SET claims = claims - 1 WHERE id = ?")?.execute([id])?;
    connection.prepare_cached("DELETE FROM intents WHERE id = ? AND claims <= 0")?.execute([id])?;
    Ok(())
}

/// Keeps the end of a call. The intent may be gone: the log was faster.
pub(super) fn end_intent(connection: &Connection, id: &str, at: i64, ending: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE intents SET ended_at = coalesce(ended_at, ?), ending = ? WHERE id = ?";
    connection.prepare_cached(sql)?.execute(params![at, ending, id])?;
    Ok(())
}

pub(super) fn set_vm(connection: &Connection, id: &str, state: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO vms VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state";
    connection.prepare_cached(sql)?.execute([id, state])?;
    Ok(())
}
