//! Finds records.

use audit::AuditRecord;
use rusqlite::Row;
use rusqlite::types::{ToSql, Value as Sql};
use serde_json::Value;
use time::OffsetDateTime;

use super::{SqliteError, SqliteStore};
use crate::query::{Found, Query};

impl SqliteStore {
    /// Hands matching records that have not expired to `each`, newest first.
    pub fn scan(
        &self,
        query: &Query,
        now: OffsetDateTime,
        mut each: impl FnMut(AuditRecord) -> bool,
    ) -> Result<Found, SqliteError> {
        // `*`: a file that an older release wrote lacks columns until a collector opens it to write.
        let sql = "SELECT * FROM records WHERE expires_at > ?1 AND (?2 IS NULL OR request_id = ?2) \
                   AND time >= ?3 AND time < ?4 ORDER BY time DESC, request_id";
        let connection = self.lock();
        let mut statement = connection.prepare(sql).map_err(|cause| self.failed(cause))?;
        let bounds: [&dyn ToSql; 4] = [
            &now.unix_timestamp(),
            &query.request_id,
            &query.since.as_deref().unwrap_or(""),
            // `~` sorts after every digit, so after every time.
            &query.until.as_deref().unwrap_or("~"),
        ];
        let mut rows = statement.query(bounds).map_err(|cause| self.failed(cause))?;
        let mut found = Found::default();
        while let Some(row) = rows.next().map_err(|cause| self.failed(cause))? {
            let record = self.record(row)?;
            if query.matches(&record) && !found.next(query.limit, record, &mut each) {
                break;
            }
        }
        Ok(found)
    }

    /// The records that [`Self::scan`] finds.
    pub fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, SqliteError> {
        let mut records = Vec::new();
        self.scan(query, now, |record| {
            records.push(record);
            true
        })?;
        Ok(records)
    }

    fn record(&self, row: &Row<'_>) -> Result<AuditRecord, SqliteError> {
        let fields = fields(row).map_err(|cause| self.failed(cause))?;
        serde_json::from_value(fields).map_err(|cause| self.bad_row(cause))
    }
}

/// A record's row as JSON.
pub(super) fn fields(row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut fields = serde_json::Map::new();
    for (at, name) in row.as_ref().column_names().enumerate() {
        let value = match row.get::<_, Sql>(at)? {
            Sql::Integer(number) => number.into(),
            Sql::Text(text) => text.into(),
            Sql::Null | Sql::Real(_) | Sql::Blob(_) => Value::Null,
        };
        fields.insert(name.to_owned(), value);
    }
    Ok(Value::Object(fields))
}
