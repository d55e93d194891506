//! `audit-collector import`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use audit_collector::import::{Imported, Terms, import};
use audit_collector::query::Progress;
use audit_collector::stderr;
use audit_collector::store::Store;
use audit_collector::store::dynamodb::DynamoStore;
use audit_collector::store::sqlite::SqliteStore;
use clap::Args;
use time::OffsetDateTime;

use crate::commands::reads::Logged;
use crate::{Failure, StoreArguments};

const DAY: u64 = 86_400;

#[derive(Args)]
pub(crate) struct ImportArguments {
    /// Access logs, plain or compressed by gzip or zstd; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    store: StoreArguments,
    /// Days from now that the records are kept at least
    #[arg(long, value_name = "N", default_value_t = audit::RETENTION_DAYS, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    keep_days: u64,
    /// Keep rejected lines in this file, with --dynamodb [default: FILE.rejected.jsonl of the first FILE, or
    /// TABLE.rejected.jsonl]
    #[arg(long, value_name = "FILE", conflicts_with = "sqlite")]
    rejected_file: Option<PathBuf>,
    /// Say on stderr how far it is, also if stderr is not a terminal
    #[arg(long)]
    progress: bool,
}

pub(crate) async fn run(arguments: ImportArguments) -> Result<(), Failure> {
    let ImportArguments { files, store, keep_days, rejected_file, progress } = arguments;
    // A name that is wrong is noticed before anything is stored.
    for file in files.iter().filter(|file| *file != Path::new("-")) {
        let data = std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
        if data.is_dir() {
            return Err(format!("{}: it is a folder; name its files", file.display()).into());
        }
    }
    let file = store.place.sqlite.clone();
    let store = match (&store.place.sqlite, &store.place.dynamodb) {
        (Some(file), _) => Store::Sqlite(SqliteStore::open(file)?),
        (None, table) => {
            let table = table.as_deref().unwrap_or_default();
            let mut dynamo = DynamoStore::connect(table, store.endpoint_url.as_deref()).await?;
            let next_to = files.first().filter(|file| *file != Path::new("-"));
            let next_to = next_to.map(|file| PathBuf::from(format!("{}.rejected.jsonl", file.display())));
            if let Some(file) = rejected_file.or(next_to) {
                dynamo = dynamo.with_rejected(file);
            }
            dynamo.check().await?;
            Store::DynamoDb(dynamo)
        }
    };
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp())?;
    let terms = Terms { now, keep: keep_days * DAY };
    let logged = Logged::begin(file.as_deref(), "import");
    let mut progress = Progress::new(progress || io::stderr().is_terminal());
    let Imported { stored, repeated, rejected, expired, not_audited } =
        import(&store, &files, terms, &mut progress).await?;
    logged.end(stored);
    writeln!(
        io::stdout(),
        "stored {stored}, repeated {repeated}, rejected {rejected}, already expired {expired}, not audited {not_audited}"
    )?;
    if rejected > 0 {
        stderr::line("`audit-collector rejected list` prints the rejected lines\n".to_owned());
    }
    Ok(())
}
