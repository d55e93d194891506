//! Deletes expired records, in steps that leave time for writes.

use std::fmt;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::checkpointer;
use super::{SqliteError, SqliteStore};
use crate::clock::{Jump, Reading, SinceBoot};

/// How long a step may keep others from writing: one that takes longer is followed by smaller ones. Most of it is the index
/// of request ids, of which each row is on another page.
const STEP: Duration = Duration::from_millis(5);
const MAX_ROWS: u32 = 1_000;
/// The shortest pause between steps. Others look every millisecond whether they may write.
const PAUSE: Duration = Duration::from_millis(4);
/// Rows that may be deleted whatever share they are.
const FEW: u64 = 10;

/// What a purge may do without being told.
#[derive(Debug, Clone, Copy)]
pub struct PurgeLimits {
    /// Percent of a table's rows that one purge may delete.
    pub share: u8,
    /// Believe the clock, whatever it says.
    pub trust_clock: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Purged {
    /// The number of records.
    Deleted(u64),
    ClockJumped(Jump),
    TooMany {
        table: &'static str,
        expired: u64,
        rows: u64,
        share: u8,
    },
}

impl Default for PurgeLimits {
    fn default() -> Self {
        Self { share: 10, trust_clock: false }
    }
}

impl fmt::Display for Purged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted(records) => write!(f, "deleted {records} expired records"),
            Self::ClockJumped(jump) => write!(
                f,
                "nothing is deleted: {jump}; if it is right now, run `audit-collector purge --trust-clock` once"
            ),
            Self::TooMany { table, expired, rows, share } => write!(
                f,
                "nothing is deleted: {expired} of {rows} rows of {table} have expired, more than {share} percent; if that \
                 is right, run `audit-collector purge --share 100` once"
            ),
        }
    }
}

impl SqliteStore {
    /// Deletes expired records and rejected entries as old, until `stopped`.
    pub fn purge(&self, now: &Reading, limits: PurgeLimits, stopped: impl Fn() -> bool) -> Result<Purged, SqliteError> {
        let failed = |cause| self.failed(cause);
        let retention = i64::try_from(audit::RETENTION_DAYS * 86_400).unwrap_or(i64::MAX);
        let last = last_reading(&self.lock()).map_err(failed)?;
        let believed = match now.check(last.as_ref()) {
            Ok(believed) => believed,
            Err(_) if limits.trust_clock => now.clone(),
            Err(jump) => return Ok(Purged::ClockJumped(jump)),
        };
        let tables = [("records", "expires_at", now.wall), ("rejected", "seen_at", now.wall - retention)];
        // Another connection counts, so that writes do not wait.
        let reader = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        for (table, column, limit) in tables {
            let count = |condition: &str| -> rusqlite::Result<u64> {
                let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
                reader.query_row(&sql, [], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))
            };
            let expired = count(&format!("{column} <= {limit}")).map_err(failed)?;
            let rows = if expired > FEW { count("1").map_err(failed)? } else { expired };
            let share = limits.share;
            if expired > FEW && expired.saturating_mul(100) > rows.saturating_mul(share.into()) {
                return Ok(Purged::TooMany { table, expired, rows, share });
            }
        }
        save_reading(&self.lock(), &believed).map_err(failed)?;
        let mut deleted = 0;
        for (table, column, limit) in tables {
            let count = self.delete_in_steps(table, column, limit, &stopped).map_err(failed)?;
            deleted += if table == "records" { count } else { 0 };
        }
        super::reads::delete_old(&self.lock(), now.wall).map_err(failed)?;
        Ok(Purged::Deleted(deleted))
    }

    /// A connection of its own deletes: writes of this process would wait for steps that wait for another process. What a
    /// step wrote to the WAL is copied to the file behind it, without the lock, so that no write has to do that.
    fn delete_in_steps(
        &self,
        table: &str,
        column: &str,
        limit: i64,
        stopped: &impl Fn() -> bool,
    ) -> rusqlite::Result<u64> {
        let mut connection = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_handler(Some(super::wait_to_write))?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        let checkpoints = checkpointer::connect(self.path())?;
        let sql = format!(
            "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {column} <= ? ORDER BY {column} LIMIT ?)"
        );
        let (mut deleted, mut step) = (0, 50_u32);
        while !stopped() {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let start = Instant::now();
            let count = transaction.execute(&sql, params![limit, step])?;
            transaction.commit()?;
            let took = start.elapsed();
            deleted += count as u64;
            if count < step as usize {
                break;
            }
            step = if took > STEP { (step / 2).max(5) } else { (step + step / 4).min(MAX_ROWS) };
            // The WAL does not grow while it cannot be copied.
            while !checkpointer::copy_wal(&checkpoints)? && !stopped() {
                std::thread::sleep(PAUSE);
            }
            std::thread::sleep(start.elapsed().clamp(PAUSE, 4 * STEP));
        }
        checkpointer::copy_wal(&checkpoints)?;
        Ok(deleted)
    }
}

/// None in a file that no release with a purge guard opened.
fn last_reading(connection: &Connection) -> rusqlite::Result<Option<Reading>> {
    let read = |row: &rusqlite::Row<'_>| {
        let boot: Option<String> = row.get(1)?;
        let seconds = row.get(2)?;
        Ok(Reading { wall: row.get(0)?, since_boot: boot.map(|boot| SinceBoot { boot, seconds }) })
    };
    connection.query_row("SELECT wall, boot, since_boot FROM clock", [], read).optional()
}

fn save_reading(connection: &Connection, now: &Reading) -> rusqlite::Result<()> {
    let boot = now.since_boot.as_ref();
    let (boot, seconds) = (boot.map(|boot| &boot.boot), boot.map_or(0, |boot| boot.seconds));
    connection.execute("REPLACE INTO clock VALUES (1, ?, ?, ?)", params![now.wall, boot, seconds])?;
    Ok(())
}
