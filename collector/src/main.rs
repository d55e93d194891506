//! The command line of `audit-collector`.
#![forbid(unsafe_code)]

mod commands;

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use audit::text::visible;
use audit_collector::clock::Reading;
use audit_collector::completeness::Verdict;
use audit_collector::health::Options;
use audit_collector::health::envoy::Admin;
use audit_collector::ledger::{Ledger, Times};
use audit_collector::rejected::{RejectedError, list_file, list_sqlite, retry_file, retry_sqlite};
use audit_collector::report::Report;
use audit_collector::run::{Sources, run};
use audit_collector::stderr;
use audit_collector::store::dynamodb::{DynamoError, DynamoStore};
use audit_collector::store::sqlite::{PurgeLimits, Purged, SqliteError, SqliteStore};
use audit_collector::store::{Checked, Store};
use clap::{Args, Parser, Subcommand};
use commands::reads::Logged;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long a start may read SQLite's file for damage. Meanwhile the log waits.
const CHECK_AT_START: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error>;

/// Stores audit records of Envoy's access logs, and queries them.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read access logs and store a record of each exchange, until SIGTERM or SIGINT
    Run(RunArguments),
    /// Print records, newest first, or sums of them
    Query(Box<commands::query::QueryArguments>),
    /// Store what a store lacks of old access logs, and keep it from now on
    Import(commands::import::ImportArguments),
    /// Say whether every call has its record, or what is missing. Exit status: 0 complete, 1 incomplete, 2 not known
    Completeness(commands::completeness::CompletenessArguments),
    /// Delete expired records now, which `run` does every hour
    Purge(PurgeArguments),
    /// Entries that could not be decoded, and records that a store refused
    Rejected {
        #[command(subcommand)]
        action: RejectedAction,
    },
}

#[derive(Subcommand)]
enum RejectedAction {
    /// Print them, oldest first
    List {
        #[command(flatten)]
        place: RejectedArguments,
        /// Print JSON, one entry a line, with its content
        #[arg(long)]
        json: bool,
    },
    /// Store those that can be decoded now, by a newer release perhaps; the others stay
    Retry {
        #[command(flatten)]
        place: RejectedArguments,
        /// DynamoDB table for the records of --rejected-file
        #[arg(long, value_name = "TABLE", requires = "rejected_file")]
        dynamodb: Option<String>,
        /// DynamoDB endpoint, instead of the region's own
        #[arg(long, value_name = "URL", requires = "dynamodb")]
        endpoint_url: Option<String>,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct RejectedArguments {
    /// SQLite file that holds them
    #[arg(long, value_name = "FILE")]
    sqlite: Option<PathBuf>,
    /// File that `run --dynamodb` keeps them in: LOG.rejected.jsonl
    #[arg(long, value_name = "FILE")]
    rejected_file: Option<PathBuf>,
}

#[derive(Args)]
struct PurgeArguments {
    /// SQLite file that holds the records; DynamoDB deletes expired items by itself
    #[arg(long, value_name = "FILE")]
    sqlite: PathBuf,
    #[command(flatten)]
    share: ShareArguments,
    /// Believe the clock although it jumped ahead
    #[arg(long)]
    trust_clock: bool,
}

#[derive(Args)]
struct ShareArguments {
    /// Percent of the records that one purge may delete; it deletes nothing if more have expired
    #[arg(long = "purge-share", visible_alias = "share", value_name = "PERCENT", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    share: u8,
}

#[derive(Args)]
struct RunArguments {
    #[command(flatten)]
    sources: SourceArguments,
    #[command(flatten)]
    store: StoreArguments,
    /// Create the DynamoDB table if it does not exist
    #[arg(long, conflicts_with = "sqlite")]
    create_table: bool,
    /// Write this file when logs are read and the store is found, for a container's startup probe
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Keep rejected entries in this file, with --dynamodb [default: LOG.rejected.jsonl, or TABLE.rejected.jsonl without
    /// --file]
    #[arg(long, value_name = "FILE", conflicts_with = "sqlite")]
    rejected_file: Option<PathBuf>,
    #[command(flatten)]
    share: ShareArguments,
    #[command(flatten)]
    ledger: LedgerArguments,
    #[command(flatten)]
    health: HealthArguments,
}

#[derive(Args)]
struct LedgerArguments {
    /// Take intents and reports of gateways at this Unix socket
    #[arg(long, value_name = "SOCKET")]
    intents: Option<PathBuf>,
    /// SQLite file for intents, and for what each gateway has logged [default: LOG.ledger.db, or DATABASE.ledger.db without
    /// --file]
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Seconds, while the log is read to its end, after which a log entry that is not there is missing
    #[arg(long, value_name = "SECONDS", default_value_t = Times::default().entry.as_secs())]
    missing_after: u64,
    /// Seconds without a report or an entry after which a worker of Envoy that sends reports has ended
    #[arg(long, value_name = "SECONDS", default_value_t = Times::default().silence.as_secs())]
    ended_after: u64,
    /// Seconds after which the outcome of a call is unknown of which only the intent has come
    #[arg(long, value_name = "SECONDS", default_value_t = Times::default().end.as_secs())]
    unknown_after: u64,
}

impl LedgerArguments {
    fn times(&self) -> Times {
        let Self { missing_after, ended_after, unknown_after, .. } = *self;
        let seconds = Duration::from_secs;
        Times { entry: seconds(missing_after), silence: seconds(ended_after), end: seconds(unknown_after) }
    }
}

#[derive(Args)]
struct HealthArguments {
    /// Serve /metrics (Prometheus), /ready and /live at this address, without TLS; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    /// Envoy's admin address: count the entries that Envoy could not write to its log
    #[arg(long, value_name = "HOST:PORT")]
    envoy_admin: Option<Admin>,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct SourceArguments {
    /// Serve Envoy's access log service (gRPC without TLS) at this address; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS")]
    als: Option<SocketAddr>,
    /// Follow this JSON access log
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

#[derive(Args)]
struct StoreArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// DynamoDB endpoint, instead of the region's own
    #[arg(long, value_name = "URL", conflicts_with = "sqlite")]
    endpoint_url: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct PlaceArguments {
    /// SQLite file that holds the records
    #[arg(long, value_name = "FILE")]
    sqlite: Option<PathBuf>,
    /// DynamoDB table that holds the records; region and credentials from AWS's standard places
    #[arg(long, value_name = "TABLE")]
    dynamodb: Option<String>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => collect(arguments).await,
        Command::Query(arguments) => commands::query::query(*arguments).await,
        Command::Completeness(arguments) => match commands::completeness::run(arguments).await {
            Ok(verdict) => return ExitCode::from(verdict.exit_status()),
            Err(error) => {
                stderr::line(format!("audit-collector: {}\n", visible(&error.to_string())));
                stderr::flush();
                return ExitCode::from(Verdict::Unknown.exit_status());
            }
        },
        Command::Import(arguments) => commands::import::run(arguments).await,
        Command::Purge(arguments) => purge(&arguments),
        Command::Rejected { action } => rejected(action).await,
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::line(format!("audit-collector: {}\n", visible(&error.to_string())));
            ExitCode::FAILURE
        }
    };
    stderr::flush();
    code
}

async fn collect(arguments: RunArguments) -> Result<(), Failure> {
    let ready_file = arguments.ready_file.as_deref();
    // That of an earlier run, which says nothing about this one.
    if let Some(file) = ready_file.filter(|file| file.exists()) {
        std::fs::remove_file(file).map_err(|error| format!("--ready-file {}: {error}", file.display()))?;
    }
    let report = Arc::new(Report::default());
    let (store, name) = match (&arguments.store.place.sqlite, &arguments.store.place.dynamodb) {
        (Some(file), _) => (Store::Sqlite(SqliteStore::open(file)?), format!("sqlite={}", file.display())),
        (None, table) => {
            let table = table.as_deref().unwrap_or_default();
            let mut store = DynamoStore::connect(table, arguments.store.endpoint_url.as_deref()).await?;
            let next_to = |log: &PathBuf| PathBuf::from(format!("{}.rejected.jsonl", log.display()));
            let log = arguments.sources.file.as_ref();
            if let Some(file) = arguments.rejected_file.clone().or_else(|| log.map(next_to)) {
                store = store.with_rejected(file);
            }
            if arguments.create_table {
                store.create_table().await?;
            }
            match store.check().await {
                Err(error @ DynamoError::NoTable { .. }) => return Err(error.into()),
                // DynamoDB may be down, or DescribeTable denied. Start anyway: the log is read when writes succeed.
                Err(error) => {
                    report.health().store_unchecked(&error);
                    report.failed("store", &error);
                }
                Ok(()) => {}
            }
            (Store::DynamoDb(store), format!("dynamodb={table}"))
        }
    };
    if store.check_pages(Some(CHECK_AT_START))? == Checked::Unfinished {
        report.failed("store", &"it is too large to be checked for damage at the start; the next check is in a day");
    }
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = stop.send(true);
    });
    let next_to = arguments.sources.file.as_ref().or(arguments.store.place.sqlite.as_ref());
    let next_to = next_to.map(|file| PathBuf::from(format!("{}.ledger.db", file.display())));
    let times = arguments.ledger.times();
    let Some(ledger) = arguments.ledger.ledger.or(next_to) else {
        return Err("--als with --dynamodb needs --ledger FILE: which calls are recorded is kept there".into());
    };
    let sources = Sources {
        als: arguments.sources.als,
        file: arguments.sources.file,
        health: Options { listen: arguments.health.health, envoy: arguments.health.envoy_admin },
        purge: PurgeLimits { share: arguments.share.share, trust_clock: false },
        ledger: Some(Ledger::open(&ledger, times)?),
        intents: arguments.ledger.intents,
    };
    run(&sources, &store, report, stopped, |sources| {
        if let Some(file) = ready_file
            && let Err(error) = std::fs::write(file, sources)
        {
            stderr::line(format!("audit-collector: --ready-file {}: {error}\n", file.display()));
        }
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "ready {sources} {name}").and_then(|()| stdout.flush());
    })
    .await?;
    Ok(())
}

fn purge(arguments: &PurgeArguments) -> Result<(), Failure> {
    if !arguments.sqlite.exists() {
        return Err(SqliteError::Missing(arguments.sqlite.clone()).into());
    }
    let store = SqliteStore::open(&arguments.sqlite)?;
    let limits = PurgeLimits { share: arguments.share.share, trust_clock: arguments.trust_clock };
    let logged = Logged::begin(Some(&arguments.sqlite), "purge");
    match store.purge(&Reading::now(), limits, || false)? {
        deleted @ Purged::Deleted(count) => {
            logged.end(count);
            writeln!(std::io::stdout(), "{deleted}")?;
        }
        refused => return Err(refused.to_string().into()),
    }
    Ok(())
}

async fn rejected(action: RejectedAction) -> Result<(), Failure> {
    let stdout = &mut std::io::stdout().lock();
    let retried = match action {
        RejectedAction::List { place, json } => {
            let store = place.sqlite.as_deref().map(SqliteStore::open_to_read).transpose()?;
            let logged = Logged::begin(place.sqlite.as_deref(), "rejected list");
            let listed = match (&store, &place.rejected_file) {
                (Some(store), _) => list_sqlite(store, json, stdout),
                (None, file) => list_file(file.as_deref().unwrap_or(Path::new("")), json, stdout),
            };
            logged.end(*listed.as_ref().unwrap_or(&0));
            return match listed {
                Err(RejectedError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                Ok(0) => {
                    stderr::line("no rejected entries\n".to_owned());
                    Ok(())
                }
                listed => Ok(listed.map(|_| ())?),
            };
        }
        RejectedAction::Retry { place, dynamodb, endpoint_url } => {
            match (&place.sqlite, &place.rejected_file, dynamodb) {
                (Some(file), ..) if file.exists() => {
                    let store = SqliteStore::open(file)?;
                    let logged = Logged::begin(Some(file), "rejected retry");
                    let retried = retry_sqlite(&store)?;
                    logged.end(retried.stored);
                    retried
                }
                (Some(file), ..) => return Err(SqliteError::Missing(file.clone()).into()),
                (None, Some(file), Some(table)) => {
                    let store = DynamoStore::connect(&table, endpoint_url.as_deref()).await?;
                    retry_file(&store.with_rejected(file.clone()), file).await?
                }
                _ => return Err("--rejected-file needs --dynamodb TABLE for the records".into()),
            }
        }
    };
    writeln!(stdout, "stored {}, still rejected {}", retried.stored, retried.left)?;
    Ok(())
}
