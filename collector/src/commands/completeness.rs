//! `audit-collector completeness`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use audit::{AuditRecord, RecordKind};
use audit_collector::completeness::{Survey, Verdict};
use audit_collector::query::{KindFilter, Progress, Query, Zone, time_argument};
use audit_collector::store::Store;
use audit_collector::store::dynamodb::DynamoStore;
use audit_collector::store::sqlite::SqliteStore;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{Failure, StoreArguments};

/// Holes that began up to this long before the window may reach into it.
const BEFORE: time::Duration = time::Duration::DAY;

#[derive(Args)]
pub(crate) struct CompletenessArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// From this time on: RFC 3339, a day (2026-01-02), or an age (15m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Rejected entries of `run --dynamodb`: LOG.rejected.jsonl
    #[arg(long, value_name = "FILE", conflicts_with = "sqlite")]
    rejected_file: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: CompletenessArguments) -> Result<Verdict, Failure> {
    let CompletenessArguments { store, since, until, rejected_file, json } = arguments;
    let now = OffsetDateTime::now_utc();
    let time = |name: &str, text: Option<String>| match text {
        Some(text) => {
            let time = time_argument(&text, now, &Zone::default());
            time.map(Some).map_err(|error| format!("{name} {text}: {error}"))
        }
        None => Ok(None),
    };
    let (since, until) = (time("--since", since)?, time("--until", until)?);
    let (store, looked) = match (&store.place.sqlite, &store.place.dynamodb) {
        (Some(file), _) => (Store::Sqlite(SqliteStore::open_to_read(file)?), true),
        (None, table) => {
            let mut dynamo =
                DynamoStore::connect(table.as_deref().unwrap_or_default(), store.endpoint_url.as_deref()).await?;
            let looked = rejected_file.is_some();
            if let Some(file) = rejected_file {
                dynamo = dynamo.with_rejected(file);
            }
            (Store::DynamoDb(dynamo), looked)
        }
    };
    let (mut survey, mut progress) = (Survey::default(), Progress::new(io::stderr().is_terminal()));
    let all = Query { since: since.clone(), until: until.clone(), limit: usize::MAX, ..Query::default() };
    let each = |record: AuditRecord| {
        survey.add(record);
        true
    };
    store.scan(&all, now, each, &mut progress).await?;
    if let Some(since) = &since {
        let earlier = OffsetDateTime::parse(since, &Rfc3339)? - BEFORE;
        for kind in [RecordKind::Hole, RecordKind::VmEnd] {
            let query = Query {
                since: audit_collector::timestamp::timestamp(earlier),
                until: Some(since.clone()),
                kind: KindFilter::Is(kind),
                ..all.clone()
            };
            let each = |record: AuditRecord| {
                survey.add_earlier(record, since);
                true
            };
            store.scan(&query, now, each, &mut progress).await?;
        }
    }
    let mut rejected = 0;
    if looked {
        // Of the others, the store has a record under their id.
        store.rejected(|entry| rejected += u64::from(entry.source != "store"))?;
    }
    let findings = survey.findings(since, until, looked.then_some(rejected));
    let mut stdout = io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string(&findings)?)?;
    } else {
        findings.print(&mut stdout)?;
    }
    Ok(findings.verdict)
}
