//! Prints rows: records, or groups of them.

mod csv;
mod table;

use std::io::{self, Write};

use audit::text::visible_json;
use audit::{AuditRecord, FieldValue, Kind};

use self::table::Table;
use crate::query::{ArgumentError, Zone, nearest};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// An object a line.
    Json,
    /// RFC 4180.
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The key in JSON, and the heading in CSV.
    pub name: &'static str,
    /// In the table.
    pub heading: &'static str,
    pub number: bool,
}

/// Writes rows as they come.
#[derive(Debug)]
pub struct Printer<W> {
    columns: Vec<Column>,
    to: W,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Table(Table),
    Json,
    /// Whether the headings are written.
    Csv(bool),
}

impl<W: Write> Printer<W> {
    pub fn new(format: Format, columns: Vec<Column>, to: W) -> Self {
        let form = match format {
            Format::Table => Form::Table(Table::default()),
            Format::Json => Form::Json,
            Format::Csv => Form::Csv(false),
        };
        Self { columns, to, form }
    }

    /// Writes a row, of a value for each column.
    pub fn row(&mut self, values: &[FieldValue<'_>]) -> io::Result<()> {
        match &mut self.form {
            Form::Table(table) => table.add(&self.columns, values, &mut self.to),
            Form::Json => writeln!(self.to, "{}", json(&self.columns, values)?),
            Form::Csv(begun) => {
                if !std::mem::replace(begun, true) {
                    csv::headings(&self.columns, &mut self.to)?;
                }
                csv::row(values, &mut self.to)
            }
        }
    }

    /// Writes what still waits.
    pub fn end(&mut self) -> io::Result<()> {
        match &mut self.form {
            Form::Table(table) => table.end(&self.columns, &mut self.to)?,
            Form::Csv(false) => csv::headings(&self.columns, &mut self.to)?,
            Form::Json | Form::Csv(true) => {}
        }
        self.to.flush()
    }
}

fn json(columns: &[Column], values: &[FieldValue<'_>]) -> io::Result<String> {
    let mut line = String::from("{");
    for (column, value) in columns.iter().zip(values) {
        let comma = if line.len() > 1 { "," } else { "" };
        let value = match value {
            FieldValue::Null => "null".to_owned(),
            FieldValue::Integer(number) => number.to_string(),
            FieldValue::Text(text) => serde_json::to_string(text)?,
        };
        line += &format!("{comma}\"{}\":{value}", column.name);
    }
    line.push('}');
    Ok(visible_json(&line))
}

/// A choice of a record's fields.
#[derive(Debug, Clone)]
pub struct Fields(Vec<usize>);

/// The table's, unless others are asked for. Field and heading.
const TABLE: [(&str, &str); 11] = [
    ("time", "TIME"),
    ("operation", "OPERATION"),
    ("model_sent", "MODEL SENT"),
    ("path", "PATH"),
    ("attempts", "TRIES"),
    ("status", "STATUS"),
    ("error_type", "ERROR"),
    ("tokens_in", "TOKENS IN"),
    ("tokens_out", "OUT"),
    ("latency_ms", "MS"),
    ("principal", "PRINCIPAL"),
];

impl Fields {
    pub fn all() -> Self {
        Self((0..AuditRecord::FIELDS.len()).collect())
    }

    /// Those of the table.
    pub fn some() -> Self {
        let place = |(name, _): &(&str, &str)| AuditRecord::FIELDS.iter().position(|field| field.name == *name);
        Self(TABLE.iter().filter_map(place).collect())
    }

    pub fn columns(&self) -> Vec<Column> {
        let fields = self.0.iter().filter_map(|at| AuditRecord::FIELDS.get(*at));
        let heading =
            |name: &'static str| TABLE.iter().find(|(known, _)| *known == name).map_or(name, |(_, text)| text);
        let column = |field: &audit::Field| Column {
            name: field.name,
            heading: heading(field.name),
            number: field.kind == Kind::Integer,
        };
        fields.map(column).collect()
    }

    /// Writes a record, with its time in that zone. The table shows a kind in place of the operation.
    pub fn print<W: Write>(&self, record: &AuditRecord, zone: &Zone, printer: &mut Printer<W>) -> io::Result<()> {
        let local = zone.local(&record.time);
        let values = record.values();
        let row = self.0.iter().filter_map(|at| Some((AuditRecord::FIELDS.get(*at)?, values.get(*at)?)));
        let is_table = matches!(printer.form, Form::Table(_));
        let kind = record.kind.as_deref().filter(|_| is_table && record.operation.is_none());
        let value = |(field, value): (&audit::Field, &_)| match (field.name, kind) {
            ("time", _) => FieldValue::Text(&local),
            ("operation", Some(kind)) => FieldValue::Text(kind),
            _ => *value,
        };
        printer.row(&row.map(value).collect::<Vec<_>>())
    }
}

impl std::str::FromStr for Fields {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let names = || AuditRecord::FIELDS.iter().map(|field| field.name);
        let find = |name: &str| {
            let unknown = || ArgumentError::Column {
                nearest: nearest(name.trim(), names()).map(str::to_owned),
                all: names().collect(),
            };
            names().position(|known| known == name.trim()).ok_or_else(unknown)
        };
        text.split(',').map(find).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_a_field() {
        assert_eq!(Fields::some().columns().len(), TABLE.len());
        let error = "time,modle_sent".parse::<Fields>().unwrap_err().to_string();
        assert!(error.contains("did you mean model_sent?"), "{error}");
    }

    #[test]
    fn json_is_that_of_the_record() {
        let record = AuditRecord { principal: Some("a\"\u{202e}\n".to_owned()), status: 9, ..AuditRecord::default() };
        let mut out = Vec::new();
        let fields = Fields::all();
        let mut printer = Printer::new(Format::Json, fields.columns(), &mut out);
        fields.print(&record, &Zone::default(), &mut printer).unwrap();
        let wanted = visible_json(&serde_json::to_string(&record).unwrap()) + "\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
