//! Records in a SQLite file. A batch and its checkpoint are one transaction, so that they agree after a crash.

mod checkpointer;
mod health;
mod purge;
mod query;
mod reads;
mod rejected;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::{AuditRecord, FieldValue};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Statement, TransactionBehavior, params, params_from_iter,
};
use time::OffsetDateTime;

use self::checkpointer::Checkpointer;
pub use self::health::Checked;
pub(crate) use self::health::{Place, PlaceError};
pub use self::purge::{PurgeLimits, Purged};
pub use self::reads::Reading;
use self::rejected::Reject;
pub use self::rejected::{KeptEntry, Retried};
use self::schema::{VERSION, version};
use crate::batch::{Batch, Inserted, Written, replaced_by};
use crate::checkpoint::Checkpoint;
use crate::private_file;
use crate::store::paths::with_suffix;

#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("{0}: no such file; `audit-collector run --sqlite` creates it")]
    Missing(PathBuf),
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
    #[error(
        "{path}: schema version {found}: a newer release of audit-collector wrote it; this one reads versions up to \
         {VERSION}. Use the newer release"
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("{0}: it holds no audit records: `audit-collector run --sqlite` creates its tables")]
    Empty(PathBuf),
    #[error("{path}: {cause}")]
    Sql { path: PathBuf, cause: rusqlite::Error },
    #[error(
        "{path}: the database is damaged: {reason}. Move it away and start again: a new one is made of the log, as far back \
         as its parts go. `sqlite3 FILE .recover` may save older records"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{0}: the database was deleted or replaced. Put it back, or start again: a new one is made of the log, as far back as \
         its parts go"
    )]
    Replaced(PathBuf),
    #[error("{path}: cannot read a row: {cause}")]
    Row { path: PathBuf, cause: serde_json::Error },
}

#[derive(Debug, Clone)]
pub struct SqliteStore {
    place: Place,
    /// Of a file that is written. Before the connection, so that it is dropped first: the last connection that closes copies
    /// the rest of the WAL.
    checkpointer: Option<Arc<Checkpointer>>,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteStore {
    /// Opens the file to write. Creates the file, its tables and missing columns.
    pub fn open(path: &Path) -> Result<Self, SqliteError> {
        // SQLite gives its WAL files the mode of the database when it creates them.
        let suffixed = |suffix| with_suffix(path, suffix);
        private_file::append(path)
            .and_then(|_| private_file::close_to_others(&suffixed("-wal")))
            .and_then(|()| private_file::close_to_others(&suffixed("-shm")))
            .map_err(|cause| SqliteError::File { path: path.to_owned(), cause })?;
        let store = Self::with(path, OpenFlags::default(), |connection| {
            // WAL lets queries read while the collector writes. NORMAL may lose the last transactions when the machine
            // fails, records and checkpoint together: the log is then read again from the older checkpoint.
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.pragma_update(None, "wal_autocheckpoint", checkpointer::LIMIT)?;
            schema::prepare(connection)
        })?;
        Ok(Self { checkpointer: Checkpointer::start(path).map(Arc::new), ..store })
    }

    /// Opens an existing file to read.
    pub fn open_to_read(path: &Path) -> Result<Self, SqliteError> {
        if !path.exists() {
            return Err(SqliteError::Missing(path.to_owned()));
        }
        Self::with(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX, |_| Ok(()))
    }

    fn with(
        path: &Path,
        flags: OpenFlags,
        prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<Self, SqliteError> {
        let failed = |cause: rusqlite::Error| match cause.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                SqliteError::Damaged { path: path.to_owned(), reason: cause.to_string() }
            }
            _ => SqliteError::Sql { path: path.to_owned(), cause },
        };
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_handler(Some(wait_to_write)).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        let found = version(&connection).map_err(failed)?;
        if found > VERSION {
            return Err(SqliteError::Newer { path: path.to_owned(), found });
        }
        if found < 1 {
            return Err(SqliteError::Empty(path.to_owned()));
        }
        let place = Place::of(path).map_err(|error| match error {
            PlaceError::Replaced => SqliteError::Replaced(path.to_owned()),
            PlaceError::Io(cause) => SqliteError::File { path: path.to_owned(), cause },
        })?;
        Ok(Self { place, checkpointer: None, connection: Arc::new(Mutex::new(connection)) })
    }

    /// Writes records, rejected entries and the checkpoint in one transaction: all of them, or on error none.
    pub fn write(&self, batch: &Batch) -> Result<Written, SqliteError> {
        self.write_or_import(batch, false)
    }

    /// As [`Self::write`]. A record that is stored already expires when this one does, if that is later.
    pub fn import(&self, batch: &Batch) -> Result<Written, SqliteError> {
        self.write_or_import(batch, true)
    }

    fn write_or_import(&self, batch: &Batch, prolong: bool) -> Result<Written, SqliteError> {
        let mut connection = self.lock();
        let mut write = || {
            let mut written = Written::default();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let seen_at = OffsetDateTime::now_utc().unix_timestamp();
            let mut insert = Insert::prepare(&transaction)?;
            let mut reject = Reject::prepare(&transaction)?;
            for record in &batch.records {
                let inserted = insert.execute(record)?;
                if prolong && inserted == Inserted::Repeated {
                    let expires = i64::try_from(record.expires_at).unwrap_or(i64::MAX);
                    transaction
                        .prepare("UPDATE records SET expires_at = ?1 WHERE request_id = ?2 AND expires_at < ?1")?
                        .execute(params![expires, record.request_id])?;
                }
                written.count(record, inserted);
            }
            for rejected in &batch.rejected {
                reject.execute(seen_at, rejected)?;
            }
            for refused in &written.refused {
                // An import that is repeated does not refuse a record again.
                if !prolong || !reject.has(refused)? {
                    reject.execute(seen_at, refused)?;
                }
            }
            drop((insert, reject));
            if let Some((log, checkpoint)) = &batch.checkpoint {
                let state = serde_json::to_string(checkpoint).map_err(to_sql_error)?;
                transaction
                    .prepare(
                        "INSERT INTO checkpoints VALUES (?, ?) ON CONFLICT (log) DO UPDATE SET state = excluded.state",
                    )?
                    .execute(params![log.display().to_string(), state])?;
            }
            transaction.commit()?;
            if let Some(checkpointer) = &self.checkpointer {
                checkpointer.wrote(batch.records.len() + 1);
            }
            Ok(written)
        };
        write().map_err(|cause| self.failed(cause))
    }

    /// How far the log at that path was read.
    pub fn checkpoint(&self, log: &Path) -> Result<Option<Checkpoint>, SqliteError> {
        let state: Option<String> = self
            .lock()
            .query_row("SELECT state FROM checkpoints WHERE log = ?", [log.display().to_string()], |row| row.get(0))
            .optional()
            .map_err(|cause| self.failed(cause))?;
        state.map(|state| serde_json::from_str(&state)).transpose().map_err(|cause| self.bad_row(cause))
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    /// A poisoned lock is safe to use: the panic rolled its transaction back.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, cause: rusqlite::Error) -> SqliteError {
        SqliteError::Sql { path: self.path().to_owned(), cause }
    }

    fn bad_row(&self, cause: serde_json::Error) -> SqliteError {
        SqliteError::Row { path: self.path().to_owned(), cause }
    }
}

/// A stored record is never overwritten, except one that the collector made for want of a log entry ([`replaced_by`]). The
/// same exchange arrives again from the other source or after a restart. A
/// different one under the same id (Envoy may be configured to trust clients' ids) goes to the rejected entries.
struct Insert<'c> {
    insert: Statement<'c>,
    stored: Statement<'c>,
    /// The places of a record's fields in `stored`.
    places: Vec<Option<usize>>,
}

impl<'c> Insert<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let names: Vec<_> = AuditRecord::FIELDS.iter().map(|field| field.name).collect();
        let marks = vec!["?"; names.len()];
        let replace: Vec<_> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let insert = format!(
            "INSERT INTO records ({}) VALUES ({}) ON CONFLICT (request_id) DO UPDATE SET {} WHERE kind IN (?, ?)",
            names.join(", "),
            marks.join(", "),
            replace.join(", ")
        );
        let stored = connection.prepare("SELECT * FROM records WHERE request_id = ?")?;
        let places = query::places(&stored);
        Ok(Self { insert: connection.prepare(&insert)?, stored, places })
    }

    fn execute(&mut self, record: &AuditRecord) -> rusqlite::Result<Inserted> {
        let replaced = replaced_by(record);
        let kinds =
            [0, 1].map(|at| Param(replaced.get(at).map_or(FieldValue::Null, |kind| FieldValue::Text(kind.name()))));
        if self.insert.execute(params_from_iter(record.values().map(Param).into_iter().chain(kinds)))? > 0 {
            return Ok(Inserted::New);
        }
        let stored = self.stored.query_row([&record.request_id], |row| query::record(row, &self.places))?;
        Ok(Inserted::compare(&stored, record))
    }
}

/// A value as SQLite takes it. Its integers are signed; no count comes near 2^63.
struct Param<'a>(FieldValue<'a>);

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            FieldValue::Null => ValueRef::Null,
            FieldValue::Text(text) => ValueRef::Text(text.as_bytes()),
            FieldValue::Integer(number) => ValueRef::Integer(i64::try_from(number).unwrap_or(i64::MAX)),
        }))
    }
}

/// Waits for another connection's write, for some 5 seconds. SQLite's own handler soon looks only every 100 ms, and misses the
/// pauses between the steps of a purge.
fn wait_to_write(looked: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    looked < 4_500
}

fn to_sql_error(cause: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(cause))
}
