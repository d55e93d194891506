//! `audit-collector query`.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, ErrorKind, IsTerminal};
use std::num::NonZeroUsize;

use audit::text::visible;
use audit::{AuditRecord, FieldValue};
use audit_collector::print::{Column, Fields, Format, Printer};
use audit_collector::query::condition::{Condition, Test};
use audit_collector::query::groups::{Groups, KeyValue, Keys, SUMS, TooMany};
use audit_collector::query::{Cursor, Found, KindFilter, Progress, Query, Status, Zone, time_argument};
use audit_collector::stderr;
use audit_collector::store::Store;
use audit_collector::store::dynamodb::DynamoStore;
use audit_collector::store::sqlite::SqliteStore;
use clap::builder::NonEmptyStringValueParser as Text;
use clap::{Args, ValueEnum};
use time::OffsetDateTime;

use crate::commands::reads::Logged;
use crate::{Failure, StoreArguments};

/// Fields with a value of their own in each record, or in few: a list of them helps nobody.
const UNIQUE: [&str; 3] = ["upstream_request_id", "access_key_id", "source_address"];
/// Newest records that are looked at for a filter's values, and values that are named.
const SAMPLE: usize = 5_000;
const SHOWN: usize = 20;
/// Records that are printed unless `--limit` says otherwise.
const LIMIT: usize = 50;

#[derive(Args)]
pub(crate) struct QueryArguments {
    #[command(flatten)]
    store: StoreArguments,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    output: Output,
    /// Say on stderr how far a long search is, also if stderr is not a terminal
    #[arg(long)]
    progress: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Which records")]
struct Filters {
    /// At or after this time: RFC 3339, a day (2026-01-02), or an age (15m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time: RFC 3339, a day (2026-01-02), or an age
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Operation (Converse, InvokeModel …), in any case
    #[arg(long, value_parser = Text::new())]
    operation: Option<String>,
    /// Part of the model asked for or sent
    #[arg(long, value_parser = Text::new())]
    model: Option<String>,
    /// Part of the principal
    #[arg(long, value_parser = Text::new())]
    principal: Option<String>,
    /// The client's address
    #[arg(long, value_name = "ADDRESS", value_parser = Text::new())]
    source_address: Option<String>,
    /// Route class
    #[arg(long, value_parser = Text::new())]
    class: Option<String>,
    /// Path (dx, vpn, internet)
    #[arg(long, value_parser = Text::new())]
    path: Option<String>,
    /// Region of the last attempt
    #[arg(long, value_parser = Text::new())]
    region: Option<String>,
    /// HTTP status (503), class (5xx), or 0 for a client that left first
    #[arg(long)]
    status: Option<Status>,
    /// Part of the error type (Throttling) or of Envoy's flags (UF)
    #[arg(long, value_name = "TYPE", value_parser = Text::new())]
    error_type: Option<String>,
    /// Access key id that signed the last attempt
    #[arg(long, value_name = "ID", value_parser = Text::new())]
    access_key_id: Option<String>,
    /// Part of the role session's ARN
    #[arg(long, value_name = "ARN", value_parser = Text::new())]
    session: Option<String>,
    /// Request id
    #[arg(long, value_name = "ID", value_parser = Text::new())]
    request_id: Option<String>,
    /// Bedrock's request id
    #[arg(long, value_name = "ID", value_parser = Text::new())]
    upstream_request_id: Option<String>,
    /// The field `kind` (connection, hole …), exchange for records that have none, calls for these and others of calls, or all
    /// [default: all; with --by, calls]
    #[arg(long)]
    kind: Option<KindFilter>,
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
struct Output {
    /// Form: a table for people, JSON (an object a line), or CSV (RFC 4180) [default: table]
    #[arg(long, value_name = "FORM")]
    format: Option<FormatArgument>,
    /// As --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Fields of each record, separated by commas [default: all; of the table, some]
    #[arg(long, value_name = "FIELDS", conflicts_with = "by")]
    columns: Option<Fields>,
    /// Add up records, errors, tokens and bytes by these, separated by commas: principal, source_address, operation, model,
    /// model_asked, model_sent, model_invoked, class, rule, rule_decision, region, path, attempts, status, error_type,
    /// service_tier, stream_end, access_key_id, session, kind, hour, day, month
    #[arg(long, value_name = "COLUMNS")]
    by: Option<Keys>,
    /// Maximum number of records [default: 50], or of groups [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Go on behind the record at which an earlier query stopped: the cursor that it printed
    #[arg(long, value_name = "CURSOR", conflicts_with = "by")]
    after: Option<Cursor>,
    /// Time zone of days and times without an offset, in the arguments, the table and CSV: a name of the IANA database, such
    /// as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<Zone>,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArgument {
    Table,
    Json,
    Csv,
}

pub(crate) async fn query(arguments: QueryArguments) -> Result<(), Failure> {
    let QueryArguments { store, filters, output, progress } = arguments;
    let now = OffsetDateTime::now_utc();
    let zone = output.time_zone.clone().unwrap_or_default();
    let query = filters.query(&output, now, &zone)?;
    let file = store.place.sqlite.clone();
    let store = match (&store.place.sqlite, &store.place.dynamodb) {
        (Some(file), _) => Store::Sqlite(SqliteStore::open_to_read(file)?),
        (None, table) => {
            let table = table.as_deref().unwrap_or_default();
            Store::DynamoDb(DynamoStore::connect(table, store.endpoint_url.as_deref()).await?)
        }
    };
    let mut progress = Progress::new(progress || io::stderr().is_terminal());
    let (logged, mut rows) = (Logged::begin(file.as_deref(), "query"), 0);
    let printed = match output.by.clone() {
        Some(keys) => groups(&store, &query, keys, &output, now, &mut progress, &mut rows).await,
        None => records(&store, &query, &output, &zone, now, &mut progress, &mut rows).await,
    };
    logged.end(rows);
    match printed {
        // A reader that stops early (`| head`) is not a failure.
        Err(error) if error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == ErrorKind::BrokenPipe) => {
            Ok(())
        }
        printed => printed,
    }
}

async fn records(
    store: &Store,
    query: &Query,
    output: &Output,
    zone: &Zone,
    now: OffsetDateTime,
    progress: &mut Progress,
    printed: &mut u64,
) -> Result<(), Failure> {
    let some = output.format() == Format::Table;
    let fields = output.columns.clone().unwrap_or_else(|| if some { Fields::some() } else { Fields::all() });
    let mut printer = Printer::new(output.format(), fields.columns(), BufWriter::new(io::stdout().lock()));
    // JSON has a record's time as the stores have it.
    let zone = if output.format() == Format::Json { &Zone::default() } else { zone };
    let mut result = Ok(());
    let each = |record: AuditRecord| {
        result = fields.print(&record, zone, &mut printer);
        *printed += u64::from(result.is_ok());
        result.is_ok()
    };
    let Found { count, more, last } = store.scan(query, now, each, progress).await?;
    result?;
    if count > 0 || output.format() == Format::Csv {
        printer.end()?;
    }
    match last.filter(|_| more) {
        Some(last) => {
            let text =
                format!("{count} records printed, more match: go on with --after {last}, or take more with --limit\n");
            stderr::line(text);
        }
        None if count == 0 => none(store, query, now).await?,
        None => {}
    }
    Ok(())
}

async fn groups(
    store: &Store,
    query: &Query,
    keys: Keys,
    output: &Output,
    now: OffsetDateTime,
    progress: &mut Progress,
    printed: &mut u64,
) -> Result<(), Failure> {
    let names = keys.names();
    let mut groups = Groups::new(keys, output.time_zone.clone().unwrap_or_default());
    let fields = groups.fields().to_vec();
    let mut added: Result<(), TooMany> = Ok(());
    let each = |values: &[FieldValue<'_>]| {
        added = groups.add(values);
        added.is_ok()
    };
    store.visit(query, &fields, now, each, progress).await?;
    added?;
    let column = |name, number| Column { name, heading: name, number };
    let keys = names.iter().map(|name| column(name, Keys::is_number(name)));
    let columns = keys.chain(SUMS.into_iter().map(|name| column(name, true))).collect();
    let mut printer = Printer::new(output.format(), columns, BufWriter::new(io::stdout().lock()));
    let rows = groups.rows();
    let limit = output.limit.map_or(rows.len(), NonZeroUsize::get);
    for (keys, sums) in rows.iter().take(limit) {
        let keys = keys.iter().map(|value| match value {
            KeyValue::Null => FieldValue::Null,
            KeyValue::Integer(number) => FieldValue::Integer(*number),
            KeyValue::Text(text) => FieldValue::Text(text),
        });
        printer.row(&keys.chain(sums.iter().copied().map(FieldValue::Integer)).collect::<Vec<_>>())?;
        *printed += 1;
    }
    printer.end()?;
    if rows.len() > limit {
        stderr::line(format!("{limit} of {} groups printed: --limit takes more\n", rows.len()));
    } else if rows.is_empty() {
        none(store, query, now).await?;
    }
    Ok(())
}

/// Says that nothing matches, and for filters that take a whole value which values there are.
async fn none(store: &Store, query: &Query, now: OffsetDateTime) -> Result<(), Failure> {
    let exact = |condition: &Condition<'_>| match condition.test {
        Test::Is(wanted) | Test::IsInAnyCase(wanted) => {
            condition.fields.first().map(|field| (*field, wanted.to_owned()))
        }
        _ => None,
    };
    let asked: Vec<_> =
        query.conditions().iter().filter_map(exact).filter(|(field, _)| !UNIQUE.contains(field)).collect();
    let mut line = "no records match".to_owned();
    if !asked.is_empty() && query.request_id.is_none() {
        let all = Query { since: query.since.clone(), until: query.until.clone(), limit: SAMPLE, ..Query::default() };
        let mut seen = vec![BTreeSet::new(); asked.len()];
        let each = |record: AuditRecord| {
            for ((name, _), seen) in asked.iter().zip(&mut seen) {
                let values = AuditRecord::FIELDS.iter().zip(record.values());
                for (_, value) in values.filter(|(field, _)| field.name == *name) {
                    if let FieldValue::Text(text) = value
                        && seen.len() < SHOWN
                    {
                        seen.insert(text.to_owned());
                    }
                }
            }
            true
        };
        let found = store.scan(&all, now, each, &mut Progress::new(false)).await?;
        for ((name, wanted), seen) in asked.iter().zip(seen) {
            if found.count > 0 && !seen.iter().any(|seen| seen.eq_ignore_ascii_case(wanted)) {
                let seen = Vec::from_iter(seen).join(", ");
                let there_are = if seen.is_empty() { "none".to_owned() } else { seen };
                line += &format!("; {name} of the newest {} records: {there_are}", found.count);
            }
        }
    }
    stderr::line(format!("{}\n", visible(&line)));
    Ok(())
}

impl Filters {
    fn query(self, output: &Output, now: OffsetDateTime, zone: &Zone) -> Result<Query, Failure> {
        let time = |name: &str, text: Option<String>| match text {
            Some(text) => time_argument(&text, now, zone).map(Some).map_err(|error| format!("{name} {text}: {error}")),
            None => Ok(None),
        };
        Ok(Query {
            since: time("--since", self.since)?,
            until: time("--until", self.until)?,
            after: output.after.clone(),
            operation: self.operation,
            model: self.model,
            principal: self.principal,
            source_address: self.source_address,
            class: self.class,
            path: self.path,
            region: self.region,
            status: self.status,
            error_type: self.error_type,
            access_key_id: self.access_key_id,
            session: self.session,
            upstream_request_id: self.upstream_request_id,
            kind: self.kind.unwrap_or(match output.by {
                Some(_) => KindFilter::Calls,
                None => KindFilter::All,
            }),
            request_id: self.request_id,
            limit: output.limit.map_or(LIMIT, NonZeroUsize::get),
        })
    }
}

impl Output {
    fn format(&self) -> Format {
        match self.format {
            Some(FormatArgument::Csv) => Format::Csv,
            Some(FormatArgument::Json) => Format::Json,
            _ if self.json => Format::Json,
            _ => Format::Table,
        }
    }
}
