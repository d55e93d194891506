//! The tables of a SQLite file.

use audit::{AuditRecord, Field, Kind, table};
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// `PRAGMA user_version` of the file. A new record field does not change it: [`prepare`] adds the column.
pub(super) const VERSION: i64 = 1;

pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Creates the tables in an empty file, and adds columns that an older release did not have. A file of another version
/// stays as it is.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    match version(connection)? {
        0 => create(connection),
        VERSION => add_columns(connection),
        _ => Ok(()),
    }
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    let columns: Vec<_> = AuditRecord::FIELDS.iter().map(column).collect();
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
    ))
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
