//! The tables of a SQLite file.

use audit::{AuditRecord, Field, Kind, table};
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Each brings a file one version further. The first creates the tables.
const STEPS: [fn(&Connection) -> rusqlite::Result<()>; 3] = [create, add_clock, keep_rejected];
/// `PRAGMA user_version` of the file. A new record field does not change it: [`prepare`] adds the column.
pub(super) const VERSION: i64 = STEPS.len() as i64;

pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings a file of an older release, or an empty one, to this version. A newer file stays as it is.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    if version(connection)? < VERSION {
        // Asked again inside the transaction: another collector may have done it.
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let found = usize::try_from(version(&transaction)?).unwrap_or(0);
        for step in STEPS.iter().skip(found) {
            step(&transaction)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    if version(connection)? == VERSION { add_columns(connection) } else { Ok(()) }
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    let columns: Vec<_> = AuditRecord::FIELDS.iter().map(column).collect();
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS records ({}) STRICT;
         CREATE INDEX IF NOT EXISTS records_by_time ON records (time);
         CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires_at);
         CREATE TABLE IF NOT EXISTS checkpoints (log TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS rejected (
           seen_at INTEGER NOT NULL, source TEXT NOT NULL, file TEXT NOT NULL, start INTEGER NOT NULL,
           reason TEXT NOT NULL, content TEXT NOT NULL) STRICT;",
        columns.join(", ")
    ))
}

/// The last reading of the clock that a purge believed; at first the time of the newest record. The indexes are those that
/// purges need.
fn add_clock(connection: &Connection) -> rusqlite::Result<()> {
    let retention = audit::RETENTION_DAYS * 86_400;
    connection.execute_batch(&format!(
        "CREATE TABLE clock (
           id INTEGER PRIMARY KEY CHECK (id = 1), wall INTEGER NOT NULL, boot TEXT, since_boot INTEGER NOT NULL) STRICT;
         INSERT INTO clock SELECT 1, max(expires_at) - {retention}, NULL, 0 FROM records HAVING count(*) > 0;
         CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires_at);
         CREATE INDEX IF NOT EXISTS records_by_time ON records (time);
         CREATE INDEX IF NOT EXISTS rejected_by_age ON rejected (seen_at);"
    ))
}

/// Older releases kept the first 4 KiB as text.
fn keep_rejected(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "ALTER TABLE rejected ADD COLUMN raw BLOB;
         ALTER TABLE rejected ADD COLUMN whole INTEGER NOT NULL DEFAULT 0;
         UPDATE rejected SET raw = CAST(content AS BLOB), whole = length(CAST(content AS BLOB)) BETWEEN 1 AND 4095
           WHERE source <> 'als';",
    )
}

fn add_columns(connection: &Connection) -> rusqlite::Result<()> {
    if missing(connection)?.is_empty() {
        return Ok(());
    }
    // Asked again inside the transaction: another collector may have added them.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    for field in missing(&transaction)? {
        transaction.execute_batch(&format!("ALTER TABLE records ADD COLUMN {}", column(field)))?;
    }
    transaction.commit()
}

fn missing(connection: &Connection) -> rusqlite::Result<Vec<&'static Field>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('records')")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(AuditRecord::FIELDS.iter().filter(|field| !names.iter().any(|name| name == field.name)).collect())
}

fn column(field: &Field) -> String {
    let kind = match field.kind {
        Kind::Text => "TEXT",
        Kind::Integer => "INTEGER",
    };
    let null = if field.optional { "" } else { " NOT NULL" };
    let key = if field.name == table::KEY { " PRIMARY KEY" } else { "" };
    format!("{} {kind}{null}{key}", field.name)
}
