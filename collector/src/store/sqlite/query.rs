//! Finds records. A statement reads a part of the table only and its rows are handed on when it has ended: a query that
//! its reader does not read must not keep SQLite from shortening its WAL.

use std::collections::HashSet;
use std::fmt::Write as _;

use audit::{AuditRecord, FieldValue};
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use time::OffsetDateTime;

use super::{SqliteError, SqliteStore};
use crate::query::condition::{Condition, Test};
use crate::query::{Cursor, Found, Progress, Query};

/// Records that one statement searches.
const SLICE: u32 = 20_000;
/// Records that are in memory.
const PAGE: usize = 200;

/// A `WHERE` and its values.
#[derive(Debug, Clone, Default)]
struct Where {
    sql: String,
    values: Vec<Sql>,
}

impl SqliteStore {
    /// Hands matching records that have not expired to `each`, newest first, until it returns false.
    pub fn scan(
        &self,
        query: &Query,
        now: OffsetDateTime,
        mut each: impl FnMut(AuditRecord) -> bool,
        progress: &mut Progress,
    ) -> Result<Found, SqliteError> {
        let condition = self.condition(query, now).map_err(|cause| self.failed(cause))?;
        let mut found = Found::default();
        // Everything older than this is still to be searched.
        let mut bound = Bound::first(query);
        let since = query.since.as_deref().unwrap_or("");
        loop {
            // A request id needs no slices: its index finds it.
            let low = match &query.request_id {
                Some(_) => None,
                None => self.low_end(&bound, since).map_err(|cause| self.failed(cause))?,
            };
            loop {
                let page = self.page(&condition, &bound, low.as_deref().unwrap_or(since))?;
                let full = page.len() == PAGE;
                for record in page {
                    bound = Bound::Behind(Cursor::of(&record));
                    if !found.next(query.limit, record, &mut each) {
                        return Ok(found);
                    }
                }
                if !full {
                    break;
                }
            }
            let Some(low) = low else { return Ok(found) };
            progress.searched(SLICE.into(), Some(&low));
            bound = Bound::Before(low);
        }
    }

    /// The records that [`Self::scan`] finds.
    pub fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, SqliteError> {
        let mut records = Vec::new();
        let each = |record| {
            records.push(record);
            true
        };
        self.scan(query, now, each, &mut Progress::new(false))?;
        Ok(records)
    }

    /// Hands the values of those fields of each matching record to `each`, in any order, until it returns false.
    pub fn visit(
        &self,
        query: &Query,
        fields: &[&'static str],
        now: OffsetDateTime,
        mut each: impl FnMut(&[FieldValue<'_>]) -> bool,
        progress: &mut Progress,
    ) -> Result<(), SqliteError> {
        let mut visit = || -> rusqlite::Result<()> {
            let condition = self.condition(query, now)?;
            let connection = self.lock();
            let known = columns(&connection)?;
            let wanted: Vec<_> = fields.iter().map(|name| if known.contains(*name) { *name } else { "NULL" }).collect();
            let (first, last): (i64, i64) = connection.query_row(
                "SELECT coalesce(min(rowid), 1), coalesce(max(rowid), 0) FROM records",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            // Recent records are found by the index on time; all records faster by their place in the file.
            let by_time = query.since.is_some();
            let place = if by_time { "time >= ? AND time < ?" } else { "rowid >= ? AND rowid < ?" };
            let sql = format!("SELECT {} FROM records WHERE {place} AND {}", wanted.join(", "), condition.sql);
            let mut statement = connection.prepare(&sql)?;
            let mut slice = |from: Sql, to: Sql| -> rusqlite::Result<bool> {
                let values = [from, to].into_iter().chain(condition.values.iter().cloned());
                let mut rows = statement.query(params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    let values = (0..fields.len()).map(|at| value(row, at)).collect::<rusqlite::Result<Vec<_>>>()?;
                    if !each(&values) {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            if by_time {
                let since = query.since.clone().unwrap_or_default();
                let mut until = Bound::first(query).until();
                loop {
                    let low = low_end(&connection, &Bound::Before(until.clone()), &since)?;
                    let from = low.clone().unwrap_or_else(|| since.clone());
                    if !slice(Sql::Text(from), Sql::Text(until))? {
                        return Ok(());
                    }
                    let Some(low) = low else { return Ok(()) };
                    progress.searched(SLICE.into(), Some(&low));
                    until = low;
                }
            }
            progress.of_about(last.abs_diff(first) + 1);
            let mut from = first;
            while from <= last {
                let to = from.saturating_add(SLICE.into());
                if !slice(Sql::Integer(from), Sql::Integer(to))? {
                    return Ok(());
                }
                progress.searched(SLICE.into(), None);
                from = to;
            }
            Ok(())
        };
        visit().map_err(|cause| self.failed(cause))
    }

    /// What every statement of the query asks for. `+` keeps SQLite from choosing the index of that column.
    fn condition(&self, query: &Query, now: OffsetDateTime) -> rusqlite::Result<Where> {
        let known = columns(&self.lock())?;
        let mut all = Where { sql: "+expires_at > ?".to_owned(), values: vec![Sql::Integer(now.unix_timestamp())] };
        if let Some(id) = &query.request_id {
            all.and("request_id = ?", [Sql::Text(id.clone())]);
        }
        if let Some(since) = &query.since {
            all.and("+time >= ?", [Sql::Text(since.clone())]);
        }
        if let Some(until) = &query.until {
            all.and("+time < ?", [Sql::Text(until.clone())]);
        }
        for condition in query.conditions() {
            all.require(&condition, &known);
        }
        Ok(all)
    }

    /// The time down to which the next [`SLICE`] records go. None if there are fewer.
    fn low_end(&self, bound: &Bound, since: &str) -> rusqlite::Result<Option<String>> {
        low_end(&self.lock(), bound, since)
    }

    /// The newest records between a bound and a time.
    fn page(&self, condition: &Where, bound: &Bound, low: &str) -> Result<Vec<AuditRecord>, SqliteError> {
        let by_id = condition.sql.contains("request_id =");
        let plus = if by_id { "+" } else { "" };
        let mut all = Where::default();
        match bound {
            Bound::Before(time) => all.and(&format!("{plus}time < ?"), [Sql::Text(time.clone())]),
            Bound::Behind(Cursor { time, request_id }) => {
                let (time, id) = (Sql::Text(time.clone()), Sql::Text(request_id.clone()));
                all.and(&format!("{plus}time <= ?"), [time.clone()]);
                all.and("(+time < ? OR +request_id > ?)", [time, id]);
            }
        }
        all.and(&format!("{plus}time >= ?"), [Sql::Text(low.to_owned())]);
        // `*`: a file that an older release wrote lacks columns until a collector opens it to write.
        let sql = format!(
            "SELECT * FROM records WHERE {} AND {} ORDER BY time DESC, request_id LIMIT {PAGE}",
            all.sql, condition.sql
        );
        let connection = self.lock();
        let read = || -> rusqlite::Result<Vec<AuditRecord>> {
            let mut statement = connection.prepare(&sql)?;
            let places = places(&statement);
            let mut rows = statement.query(params_from_iter(all.values.iter().chain(&condition.values)))?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                page.push(record(row, &places)?);
            }
            Ok(page)
        };
        read().map_err(|cause| self.failed(cause))
    }
}

/// Newer records than this were searched.
#[derive(Debug)]
enum Bound {
    Before(String),
    Behind(Cursor),
}

impl Bound {
    fn first(query: &Query) -> Self {
        // `~` sorts after every digit, so after every time.
        let until = query.until.as_deref().unwrap_or("~");
        match &query.after {
            Some(after) if after.time.as_str() < until => Self::Behind(after.clone()),
            _ => Self::Before(until.to_owned()),
        }
    }

    fn until(self) -> String {
        match self {
            Self::Before(time) | Self::Behind(Cursor { time, .. }) => time,
        }
    }
}

fn low_end(connection: &Connection, bound: &Bound, since: &str) -> rusqlite::Result<Option<String>> {
    let (sign, time) = match bound {
        Bound::Before(time) => ("<", time),
        Bound::Behind(cursor) => ("<=", &cursor.time),
    };
    // The newest of them may have the cursor's own time: the slice is then a little shorter.
    let sql =
        format!("SELECT time FROM records WHERE time {sign} ? AND time >= ? ORDER BY time DESC LIMIT 1 OFFSET {SLICE}");
    let mut statement = connection.prepare(&sql)?;
    statement.query_row(params![time, since], |row| row.get(0)).optional()
}

impl Where {
    fn and(&mut self, sql: &str, values: impl IntoIterator<Item = Sql>) {
        let and = if self.sql.is_empty() { "" } else { " AND " };
        let _ = write!(self.sql, "{and}{sql}");
        self.values.extend(values);
    }

    /// A column that an older file lacks is null in all its records.
    fn require(&mut self, condition: &Condition<'_>, known: &HashSet<String>) {
        let mut any = Vec::new();
        let mut values = Vec::new();
        let text = |text: &str| Sql::Text(text.to_owned());
        for field in condition.fields {
            if !known.contains(*field) {
                let holds = matches!(condition.test, Test::Absent | Test::AbsentOr(_));
                any.push(if holds { "1" } else { "0" }.to_owned());
                continue;
            }
            match condition.test {
                Test::Is(wanted) => {
                    any.push(format!("{field} = ?"));
                    values.push(text(wanted));
                }
                Test::IsInAnyCase(wanted) => {
                    any.push(format!("{field} = ? COLLATE NOCASE"));
                    values.push(text(wanted));
                }
                Test::Contains(part) => {
                    any.push(format!("instr({field}, ?) > 0"));
                    values.push(text(part));
                }
                Test::Between(first, last) => {
                    any.push(format!("{field} BETWEEN ? AND ?"));
                    values.extend([first, last].map(|bound| Sql::Integer(i64::try_from(bound).unwrap_or(i64::MAX))));
                }
                Test::Absent => any.push(format!("{field} IS NULL")),
                Test::AbsentOr(others) => {
                    any.push(format!("{field} IS NULL OR {field} IN ({})", vec!["?"; others.len()].join(", ")));
                    values.extend(others.iter().map(|other| text(other)));
                }
            }
        }
        self.and(&format!("({})", any.join(" OR ")), values);
    }
}

/// The names of the columns of `records`.
fn columns(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('records')")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

/// For each field of a record its column, if there is one.
pub(super) fn places(statement: &rusqlite::Statement<'_>) -> Vec<Option<usize>> {
    let names: Vec<_> = statement.column_names().collect();
    let place = |field: &audit::Field| names.iter().position(|name| *name == field.name);
    AuditRecord::FIELDS.iter().map(place).collect()
}

/// A record of the columns at `places`.
pub(super) fn record(row: &Row<'_>, places: &[Option<usize>]) -> rusqlite::Result<AuditRecord> {
    let (mut failed, mut places) = (None, places.iter());
    let read = AuditRecord::read(|_| match places.next() {
        Some(Some(at)) => value(row, *at).unwrap_or_else(|error| {
            failed = Some(error);
            FieldValue::Null
        }),
        _ => FieldValue::Null,
    });
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Ok(record)) => Ok(record),
        (None, Err(field)) => Err(rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Null,
            format!("the column {field} has a value of another type").into(),
        )),
    }
}

fn value<'r>(row: &'r Row<'_>, at: usize) -> rusqlite::Result<FieldValue<'r>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Integer(number) => FieldValue::Integer(number.unsigned_abs()),
        ValueRef::Text(text) => FieldValue::Text(std::str::from_utf8(text).map_err(|cause| {
            rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(cause))
        })?),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => FieldValue::Null,
    })
}
