//! The ledger's tables.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use audit::AuditRecord;
use rusqlite::types::{ToSql, Type};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;

use super::clock::Kept;
use super::commit::WorkError;
use super::vms::Known;
use super::{LedgerError, Refusal};
use crate::private_file;
use crate::store::paths::with_suffix;

/// Each brings a file one version further.
const STEPS: [fn(&Connection) -> rusqlite::Result<()>; 2] = [create, add_clock];
const VERSION: i64 = STEPS.len() as i64;
/// Pages of SQLite's WAL after which it is copied to the database, 16 MB: meanwhile intents wait for a few milliseconds.
const WAL_PAGES: i64 = 4_000;
/// How long a start may read the file for damage. Meanwhile calls wait.
const CHECK: Duration = Duration::from_secs(2);

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
    let interrupt = connection.get_interrupt_handle();
    let (checked, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if end.recv_timeout(CHECK) == Err(RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let sound: rusqlite::Result<String> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    drop(checked);
    match sound {
        Ok(sound) if sound == "ok" => {}
        Ok(reason) => return Err(LedgerError::Damaged { path: path.to_owned(), reason }),
        // Too large for the time.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {}
        Err(error) => return Err(failed(error)),
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
    transaction
        .execute("INSERT INTO runs (id, count, boot, clean, read_at) VALUES (1, 1, NULL, 1, 0) ON CONFLICT (id) DO UPDATE SET count = count + 1", [])?;
    transaction.commit()?;
    // The commits' own threads flush the WAL, several at a time.
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(found)
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    // Times are milliseconds since 1970, by the ledger's clock; `read_at` by the machine's. `claims`: callers that sent it and did not give up.
    // `content` and `ending`: the JSON of `Intent` and `End`. `recorded`: its call has a record without a number, and
    // nothing waits for it. `records`: what is to be stored; `feed`: batches of the access log service until they are
    // stored; `gaps`: those of the log that have a record; `runs`: how the last run ended, and when it last had read the log
    // to its end.
    connection.execute_batch(
        "CREATE TABLE runs (
           id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL, boot TEXT, clean INTEGER NOT NULL,
           read_at INTEGER NOT NULL) STRICT;
         CREATE TABLE intents (
           id TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL, vm TEXT, content TEXT NOT NULL, claims INTEGER NOT NULL,
           ended_at INTEGER, ending TEXT, recorded INTEGER NOT NULL DEFAULT 0) STRICT;
         CREATE INDEX intents_by_age ON intents (at) WHERE recorded = 0;
         CREATE INDEX intents_by_end ON intents (ended_at) WHERE ended_at IS NOT NULL AND recorded = 0;
         CREATE INDEX intents_by_vm ON intents (vm);
         CREATE TABLE vms (id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL) STRICT;
         CREATE TABLE envoys (id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL) STRICT;
         CREATE TABLE records (id TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL) STRICT;
         CREATE TABLE gaps (id TEXT NOT NULL PRIMARY KEY) STRICT;
         CREATE TABLE feed (number INTEGER PRIMARY KEY, content TEXT NOT NULL) STRICT;",
    )
}

/// `clock`: the JSON of [`Kept`].
fn add_clock(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("ALTER TABLE runs ADD COLUMN clock TEXT")
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

/// Keeps the end of a call, which its record then has, also if it had one without. The intent may be gone: the log was faster.
pub(super) fn end_intent(connection: &Connection, id: &str, at: i64, ending: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE intents SET ended_at = coalesce(ended_at, ?), ending = ?, recorded = 0 WHERE id = ?";
    connection.prepare_cached(sql)?.execute(params![at, ending, id])?;
    Ok(())
}

/// An intent whose call has no record.
pub(super) struct OpenIntent {
    pub(super) id: String,
    /// When it arrived.
    pub(super) at: i64,
    pub(super) vm: Option<String>,
    pub(super) content: String,
    pub(super) ending: Option<String>,
}

/// Intents whose calls ended before this time.
pub(super) fn ended_before(connection: &Connection, time: i64, limit: usize) -> rusqlite::Result<Vec<OpenIntent>> {
    open_intents(connection, "ended_at < ?1 ORDER BY ended_at", &time, limit)
}

/// Intents that arrived before this time, and whose calls have not ended.
pub(super) fn begun_before(connection: &Connection, time: i64, limit: usize) -> rusqlite::Result<Vec<OpenIntent>> {
    open_intents(connection, "at < ?1 AND ended_at IS NULL ORDER BY at", &time, limit)
}

pub(super) fn of_vm(connection: &Connection, vm: &str, limit: usize) -> rusqlite::Result<Vec<OpenIntent>> {
    open_intents(connection, "vm = ?1", &vm, limit)
}

fn open_intents(
    connection: &Connection,
    condition: &str,
    value: &dyn ToSql,
    limit: usize,
) -> rusqlite::Result<Vec<OpenIntent>> {
    let sql = format!("SELECT id, at, vm, content, ending FROM intents WHERE recorded = 0 AND {condition} LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let intents = statement.query_map([value, &limit], |row| {
        let (id, at, vm) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(OpenIntent { id, at, vm, content: row.get(3)?, ending: row.get(4)? })
    })?;
    intents.collect()
}

/// False if there is none.
pub(super) fn remove_intent(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM intents WHERE id = ?")?.execute([id])? > 0)
}

/// Its call has a record without a number. False if that is so already, or if the intent is gone.
pub(super) fn set_recorded(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    let sql = "UPDATE intents SET recorded = 1 WHERE id = ? AND recorded = 0";
    Ok(connection.prepare_cached(sql)?.execute([id])? > 0)
}

/// Calls of a VM that have a record without a number.
pub(super) fn recorded(connection: &Connection, vm: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM intents WHERE vm = ? AND recorded = 1";
    let count: i64 = connection.prepare_cached(sql)?.query_row([vm], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

pub(super) fn set_vm(connection: &Connection, id: &str, state: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO vms VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state";
    connection.prepare_cached(sql)?.execute([id, state])?;
    Ok(())
}

pub(super) fn set_envoy(connection: &Connection, id: &str, state: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO envoys VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state";
    connection.prepare_cached(sql)?.execute([id, state])?;
    Ok(())
}

/// VMs and Envoys.
pub(super) fn known(connection: &Connection) -> rusqlite::Result<Known> {
    fn read<T: DeserializeOwned>(connection: &Connection, sql: &str) -> rusqlite::Result<HashMap<String, T>> {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, parsed(row, 1)?)))?;
        rows.collect()
    }
    let vms = read(connection, "SELECT id, state FROM vms")?;
    Ok(Known { vms, envoys: read(connection, "SELECT id, state FROM envoys")? })
}

/// Forgets VMs and Envoys that ended before this time, and intents that are older and whose calls have a record.
pub(super) fn forget(connection: &Connection, time: i64) -> rusqlite::Result<()> {
    for table in ["vms", "envoys"] {
        let sql = format!("DELETE FROM {table} WHERE state ->> 'ended' < ?");
        connection.execute(&sql, [time])?;
    }
    connection.execute("DELETE FROM intents WHERE recorded = 1 AND at < ?", [time])?;
    Ok(())
}

/// Adds a record that is to be stored. One that is there stays.
pub(super) fn add_record(connection: &Connection, record: &AuditRecord) -> rusqlite::Result<()> {
    let content =
        serde_json::to_string(record).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))?;
    let sql = "INSERT INTO records VALUES (?, ?) ON CONFLICT (id) DO NOTHING";
    connection.prepare_cached(sql)?.execute([&record.request_id, &content])?;
    Ok(())
}

pub(super) fn records(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<AuditRecord>> {
    let mut statement = connection.prepare_cached("SELECT content FROM records ORDER BY rowid LIMIT ?")?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| parsed(row, 0))?;
    rows.collect()
}

pub(super) fn remove_record(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM records WHERE id = ?")?.execute([id])?;
    Ok(())
}

/// A gap of the log gets a record. False if it has one.
pub(super) fn add_gap(connection: &Connection, record: &AuditRecord) -> rusqlite::Result<bool> {
    let new = connection.prepare_cached("INSERT OR IGNORE INTO gaps VALUES (?)")?.execute([&record.request_id])? > 0;
    if new {
        add_record(connection, record)?;
    }
    Ok(new)
}

pub(super) fn add_feed(connection: &Connection, number: i64, content: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT INTO feed VALUES (?, ?)")?.execute(params![number, content])?;
    Ok(())
}

/// A batch up to this number: the oldest one.
pub(super) fn feed(connection: &Connection, up_to: i64) -> rusqlite::Result<Option<(i64, Vec<AuditRecord>)>> {
    let sql = "SELECT number, content FROM feed WHERE number <= ? ORDER BY number LIMIT 1";
    connection.query_row(sql, [up_to], |row| Ok((row.get(0)?, parsed(row, 1)?))).optional()
}

pub(super) fn last_feed(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(number), 0) FROM feed", [], |row| row.get(0))
}

pub(super) fn remove_feed(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM feed WHERE number = ?")?.execute([number])?;
    Ok(())
}

/// How the last run ended.
pub(super) struct LastRun {
    /// The machine's start that it was in.
    pub(super) boot: Option<String>,
    /// It stopped in order.
    pub(super) clean: bool,
    /// When it last had read the log to its end; 0 if it never had.
    pub(super) read_at: i64,
    pub(super) clock: Option<Kept>,
}

pub(super) fn last_run(connection: &Connection) -> rusqlite::Result<LastRun> {
    connection.query_row("SELECT boot, clean, read_at, clock FROM runs", [], |row| {
        let clock = row.get::<_, Option<String>>(3)?.map(|_| parsed(row, 3)).transpose()?;
        Ok(LastRun { boot: row.get(0)?, clean: row.get(1)?, read_at: row.get(2)?, clock })
    })
}

pub(super) fn begin_run(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<()> {
    connection.execute("UPDATE runs SET boot = ?, clean = 0", [boot])?;
    Ok(())
}

pub(super) fn end_run(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE runs SET clean = 1", [])?;
    Ok(())
}

pub(super) fn set_clock(connection: &Connection, kept: &Kept) -> rusqlite::Result<()> {
    let content = serde_json::to_string(kept).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))?;
    connection.prepare_cached("UPDATE runs SET clock = ?")?.execute([content])?;
    Ok(())
}

pub(super) fn set_read(connection: &Connection, at: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE runs SET read_at = ?")?.execute([at])?;
    Ok(())
}

fn parsed<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text).map_err(|cause| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, cause.into()))
}
