//! Who read the records, or changed them by a command: a line in the table `reads`.

use std::fs;
use std::path::{Path, PathBuf};

use audit::text::bounded;
use rusqlite::{Connection, OpenFlags, params};
use time::OffsetDateTime;

use super::{SqliteError, wait_to_write};

/// Lines stay for a year, longer than the records.
pub(super) const KEPT: i64 = 365 * 86_400;

/// Without a version of its own: an older collector that finds the table goes on.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS reads (
    at INTEGER NOT NULL, uid INTEGER NOT NULL, login_uid INTEGER, user TEXT, command TEXT NOT NULL, arguments TEXT NOT NULL,
    rows INTEGER) STRICT";

/// A read that has begun.
#[derive(Debug)]
pub struct Reading {
    path: PathBuf,
    connection: Connection,
    line: i64,
}

impl Reading {
    /// Writes a line before anything is read. `arguments` are kept as they are given, so they hold no secrets.
    pub fn begin(path: &Path, command: &str, arguments: &[String]) -> Result<Self, SqliteError> {
        let begin = || {
            let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_handler(Some(wait_to_write))?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.execute_batch(TABLE)?;
            let uid = rustix::process::getuid().as_raw();
            let login_uid = login_uid();
            let sql = "INSERT INTO reads (at, uid, login_uid, user, command, arguments) VALUES (?, ?, ?, ?, ?, ?)";
            let at = OffsetDateTime::now_utc().unix_timestamp();
            let name = user(login_uid.unwrap_or(uid));
            connection.execute(sql, params![at, uid, login_uid, name, command, bounded(arguments.join(" "))])?;
            let line = connection.last_insert_rowid();
            Ok(Self { path: path.to_owned(), connection, line })
        };
        begin().map_err(|cause| SqliteError::Sql { path: path.to_owned(), cause })
    }

    /// Adds how many rows were printed, stored or deleted.
    pub fn end(self, rows: u64) -> Result<(), SqliteError> {
        let sql = "UPDATE reads SET rows = ? WHERE rowid = ?";
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let updated = self.connection.execute(sql, params![rows, self.line]);
        updated.map(|_| ()).map_err(|cause| SqliteError::Sql { path: self.path, cause })
    }
}

/// Deletes lines that are old. A file that no command read has no table.
pub(super) fn delete_old(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    connection.execute_batch(TABLE)?;
    connection.execute("DELETE FROM reads WHERE at <= ?", [now - KEPT]).map(|_| ())
}

/// Who logged in, which `sudo` does not change. None if nobody did: a service, a container.
fn login_uid() -> Option<u32> {
    let uid = fs::read_to_string("/proc/self/loginuid").ok()?.trim().parse().ok()?;
    (uid != u32::MAX).then_some(uid)
}

/// The name in `/etc/passwd`. Users of directories have none there.
fn user(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let id = uid.to_string();
    let line = lines.find(|fields| fields.get(2) == Some(&id.as_str()))?;
    line.first().map(|name| bounded((*name).to_owned()))
}
