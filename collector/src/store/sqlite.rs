//! Records in a SQLite file. A batch is one transaction, the checkpoint in it: however the process ends, log and
//! records agree.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::AuditRecord;
use rusqlite::types::{ToSql, Value as Sql};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params, params_from_iter};
use serde_json::Value;
use time::OffsetDateTime;

use super::{Batch, Rejected, Written};
use crate::query::Query;
use crate::source::tail::Checkpoint;

/// The fields of a record, one column each, in the order of [`AuditRecord`].
const COLUMNS: [(&str, &str); 23] = [
    ("request_id", "TEXT NOT NULL PRIMARY KEY"),
    ("time", "TEXT NOT NULL"),
    ("principal", "TEXT"),
    ("source_address", "TEXT"),
    ("operation", "TEXT"),
    ("model_asked", "TEXT"),
    ("model_sent", "TEXT"),
    ("route_class", "TEXT"),
    ("region", "TEXT"),
    ("path", "TEXT"),
    ("attempts", "INTEGER NOT NULL"),
    ("status", "INTEGER NOT NULL"),
    ("error_type", "TEXT"),
    ("bytes_in", "INTEGER NOT NULL"),
    ("bytes_out", "INTEGER NOT NULL"),
    ("tokens_in", "INTEGER"),
    ("tokens_out", "INTEGER"),
    ("tokens_cache_read", "INTEGER"),
    ("tokens_cache_write", "INTEGER"),
    ("latency_ms", "INTEGER NOT NULL"),
    ("first_byte_ms", "INTEGER"),
    ("upstream_request_id", "TEXT"),
    ("expires_at", "INTEGER NOT NULL"),
];
/// `PRAGMA user_version` of the tables below.
const VERSION: i64 = 1;

/// Why SQLite did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// There is no such file, and none was to be made.
    #[error("{0}: no such file; `audit-collector run --sqlite` makes it")]
    Missing(PathBuf),
    /// The file's tables are of another version of this program, or it is some other program's.
    #[error("{path}: its tables have version {found}, this program knows version {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
    },
    /// SQLite's own error.
    #[error("{path}: {cause}")]
    Sql {
        /// The file.
        path: PathBuf,
        /// What it says.
        cause: rusqlite::Error,
    },
    /// A row is no record.
    #[error("{path}: a row is no record: {cause}")]
    Row {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
}

/// An open SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

// === impl SqliteStore ===

impl SqliteStore {
    /// Opens the file to write, and makes it and its tables where they are missing.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub fn open(path: &Path) -> Result<Self, SqliteError> {
        Self::with(path, OpenFlags::default(), |connection| {
            // With WAL, queries read while the collector writes. NORMAL may lose the last transactions when the machine
            // fails, records and checkpoint together: the log is then read again from there.
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            let columns: Vec<_> = COLUMNS.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            if version(connection)? == 0 {
                connection.execute_batch(&format!(
                    "BEGIN IMMEDIATE;
                     CREATE TABLE IF NOT EXISTS records ({}) STRICT;
                     CREATE INDEX IF NOT EXISTS records_by_time ON records (time);
                     CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires_at);
                     CREATE TABLE IF NOT EXISTS checkpoints (log TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL) STRICT;
                     CREATE TABLE IF NOT EXISTS rejected (
                       seen_at INTEGER NOT NULL, source TEXT NOT NULL, file TEXT NOT NULL, start INTEGER NOT NULL,
                       reason TEXT NOT NULL, content TEXT NOT NULL) STRICT;
                     PRAGMA user_version = {VERSION};
                     COMMIT;",
                    columns.join(", ")
                ))?;
            }
            Ok(())
        })
    }

    /// Opens the file to read.
    ///
    /// # Errors
    /// [`SqliteError`], [`SqliteError::Missing`] where there is none.
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
        let failed = |cause| SqliteError::Sql { path: path.to_owned(), cause };
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        let found = version(&connection).map_err(failed)?;
        if found != VERSION {
            return Err(SqliteError::Version { path: path.to_owned(), found });
        }
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }

    /// Writes a batch, its rejected entries and its checkpoint in one transaction.
    ///
    /// # Errors
    /// [`SqliteError`]; nothing of it is stored then.
    pub fn write(&self, batch: &Batch) -> Result<Written, SqliteError> {
        let mut connection = self.lock();
        let mut write = || {
            let mut written = Written::default();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let seen_at = OffsetDateTime::now_utc().unix_timestamp();
            let mut insert = transaction.prepare(&insert())?;
            let mut taken = transaction.prepare("SELECT time FROM records WHERE request_id = ?")?;
            let mut reject = transaction.prepare("INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?)")?;
            for record in &batch.records {
                // The first record of an exchange stays: both sources tell the same, and what is once written in an
                // audit store is not written over. Another exchange under its id (a client chose it, where Envoy is
                // configured to believe clients) is kept among the rejected.
                if insert.execute(params_from_iter(values(record)))? == 0 {
                    let there: String = taken.query_row([&record.request_id], |row| row.get(0))?;
                    if there != record.time {
                        let reason = format!("its id is that of another exchange, of {there}");
                        let content = serde_json::to_string(record).map_err(to_sql_error)?;
                        reject.execute(params![seen_at, "store", record.request_id, 0, reason, content])?;
                        written.refused.push((record.request_id.clone(), reason));
                        continue;
                    }
                    written.repeated += 1;
                }
                written.stored += 1;
            }
            for Rejected { source, file, offset, reason, content } in &batch.rejected {
                reject.execute(params![seen_at, source, file, offset.cast_signed(), reason, content])?;
            }
            drop((insert, taken, reject));
            if let Some((log, checkpoint)) = &batch.checkpoint {
                let state = serde_json::to_string(checkpoint).map_err(to_sql_error)?;
                transaction
                    .prepare(
                        "INSERT INTO checkpoints VALUES (?, ?) ON CONFLICT (log) DO UPDATE SET state = excluded.state",
                    )?
                    .execute(params![log.display().to_string(), state])?;
            }
            transaction.commit()?;
            Ok(written)
        };
        write().map_err(|cause| self.failed(cause))
    }

    /// How far the log of that path was read.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub fn checkpoint(&self, log: &Path) -> Result<Option<Checkpoint>, SqliteError> {
        let state: Option<String> = self
            .lock()
            .query_row("SELECT state FROM checkpoints WHERE log = ?", [log.display().to_string()], |row| row.get(0))
            .optional()
            .map_err(|cause| self.failed(cause))?;
        state.map(|state| serde_json::from_str(&state)).transpose().map_err(|cause| self.no_record(cause))
    }

    /// Records that match and have not expired, newest first.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, SqliteError> {
        let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
        let sql = format!(
            "SELECT {} FROM records WHERE expires_at > ?1 AND (?2 IS NULL OR request_id = ?2) \
             AND time >= ?3 AND time < ?4 ORDER BY time DESC, request_id",
            names.join(", ")
        );
        let connection = self.lock();
        let mut statement = connection.prepare(&sql).map_err(|cause| self.failed(cause))?;
        let bounds: [&dyn ToSql; 4] = [
            &now.unix_timestamp(),
            &query.request_id,
            &query.since.as_deref().unwrap_or(""),
            // After every time: `~` sorts behind digits.
            &query.until.as_deref().unwrap_or("~"),
        ];
        let mut rows = statement.query(bounds).map_err(|cause| self.failed(cause))?;
        let mut found = Vec::new();
        while found.len() < query.limit
            && let Some(row) = rows.next().map_err(|cause| self.failed(cause))?
        {
            let mut fields = serde_json::Map::new();
            for (at, name) in names.iter().enumerate() {
                let value = match row.get::<_, Sql>(at).map_err(|cause| self.failed(cause))? {
                    Sql::Integer(number) => number.into(),
                    Sql::Text(text) => text.into(),
                    Sql::Null | Sql::Real(_) | Sql::Blob(_) => Value::Null,
                };
                fields.insert((*name).to_owned(), value);
            }
            let record = serde_json::from_value(Value::Object(fields)).map_err(|cause| self.no_record(cause))?;
            if query.matches(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Deletes what has expired, rejected entries of that age too, and tells how many records.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub fn purge(&self, now: OffsetDateTime) -> Result<u64, SqliteError> {
        let retention = i64::try_from(audit::RETENTION_DAYS * 86_400).unwrap_or(i64::MAX);
        let connection = self.lock();
        let purge = || {
            let records = connection.execute("DELETE FROM records WHERE expires_at <= ?", [now.unix_timestamp()])?;
            connection.execute("DELETE FROM rejected WHERE seen_at <= ?", [now.unix_timestamp() - retention])?;
            Ok(records as u64)
        };
        purge().map_err(|cause| self.failed(cause))
    }

    /// A panic in another thread leaves a transaction that was rolled back: the connection is still good.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, cause: rusqlite::Error) -> SqliteError {
        SqliteError::Sql { path: self.path.clone(), cause }
    }

    fn no_record(&self, cause: serde_json::Error) -> SqliteError {
        SqliteError::Row { path: self.path.clone(), cause }
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn insert() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let marks = vec!["?"; COLUMNS.len()];
    format!(
        "INSERT INTO records ({}) VALUES ({}) ON CONFLICT (request_id) DO NOTHING",
        names.join(", "),
        marks.join(", ")
    )
}

/// A record's values in the order of [`COLUMNS`].
fn values(record: &AuditRecord) -> Vec<Sql> {
    let fields = serde_json::to_value(record).unwrap_or_default();
    let value = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Sql::Text(text.clone()),
        // Counts past 2^63 do not occur; cut, they still fit the column.
        Some(Value::Number(number)) => Sql::Integer(number.as_i64().unwrap_or(i64::MAX)),
        _ => Sql::Null,
    };
    COLUMNS.iter().map(|(name, _)| value(name)).collect()
}

fn to_sql_error(cause: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_records_fields() {
        let fields = serde_json::to_value(AuditRecord::default()).unwrap();
        let mut fields: Vec<_> = fields.as_object().unwrap().keys().cloned().collect();
        let mut columns: Vec<_> = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect();
        fields.sort();
        columns.sort();
        assert_eq!(fields, columns);
    }
}
