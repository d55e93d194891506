//! `bedrock-double serve`: the Bedrock double as a process. Killing it cuts its path.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bedrock_double::{Builder, Double, Endpoints, PathFault, Running};
use lexopt::prelude::{Long, Short, Value, ValueExt as _};

const HELP: &str = "\
bedrock-double serve --listen ADDR:PORT --tls-dir DIR [options]

  --listen ADDR:PORT     where to listen; port 0 takes a free one (default 127.0.0.1:0)
  --tls-dir DIR          the certificate authority's folder, made if missing; clients trust DIR/ca.pem
  --region R             a region to serve; repeat for more (default us-east-1 and us-west-2)
  --endpoints KIND       any, standard or fips: the host names to serve (default any)
  --path-name NAME       the name of its path, for the records (default direct)
  --delay-ms N           delay of every answer
  --access-key ID        the key that signs (default AWS's documented example key), with --secret-key and,
  --secret-key KEY         for temporary keys, --session-token
  --session-token TOKEN
  --bearer KEY           the API key that it accepts as bearer token
  --record FILE          append every request, one JSON object a line; keys and tokens are masked
  --models FILE          a list of models (CSV) instead of the one built in
  --no-h2                offer http/1.1 only
  --lenient-headers      accept any header, for SDKs that call without a gateway
  --fault-file FILE      the fault of the path, read 50 times a second: status-N, refuse, reset, silent, mute,
                           slow-DURATION, or throttle-N-MODEL (calls to models whose id contains MODEL get status N);
                           no fault while the file does not exist

Prints `ready ADDR:PORT` when it serves, and serves until SIGINT or SIGTERM.";

/// How often the fault file is read.
const LOOK: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedrock-double: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let Some((builder, fault_file)) = parse(lexopt::Parser::from_env())? else {
        println!("{HELP}");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before `ready` is printed: a reader of it may send the signal at once.
    let ended = {
        let _within = runtime.enter();
        until_signal()?
    };
    // Nothing reads requests from the memory of this process; `--record` has them.
    let running = builder.keep(0).start()?;
    println!("ready {}", running.addr());
    std::io::stdout().flush()?;
    runtime.block_on(async {
        tokio::select! {
            () = ended => {}
            () = follow(fault_file, &running) => {}
        }
    });
    running.stop();
    Ok(())
}

/// What to serve, and the file of faults.
type Asked = (Builder, Option<PathBuf>);

/// `None` for `--help`.
fn parse(mut args: lexopt::Parser) -> Result<Option<Asked>, Box<dyn std::error::Error>> {
    let mut builder = Double::builder();
    let mut fault_file: Option<PathBuf> = None;
    let (mut access_key, mut secret_key, mut session_token, mut command) = (None, None, None, None);
    while let Some(arg) = args.next()? {
        builder = match arg {
            Long("help") | Short('h') => return Ok(None),
            Value(value) if command.is_none() => {
                command = Some(value.string()?);
                builder
            }
            Long("listen") => builder.listen(args.value()?.parse()?),
            Long("tls-dir") => builder.tls_dir(args.value()?),
            Long("region") => builder.region(args.value()?.string()?),
            Long("path-name") => builder.path_name(args.value()?.string()?),
            Long("delay-ms") => builder.delay(Duration::from_millis(args.value()?.parse()?)),
            Long("bearer") => builder.bearer(args.value()?.string()?),
            Long("record") => builder.record(args.value()?),
            Long("no-h2") => builder.h2(false),
            Long("lenient-headers") => builder.lenient_headers(true),
            Long("models") => {
                let path = args.value()?;
                builder.models(std::fs::read_to_string(&path).map_err(|e| format!("--models {}: {e}", path.display()))?)
            }
            Long("endpoints") => builder.endpoints(match args.value()?.string()?.as_str() {
                "any" => Endpoints::Any,
                "standard" => Endpoints::Standard,
                "fips" => Endpoints::Fips,
                other => {
                    return Err(format!("--endpoints is any, standard or fips, not {other:?}").into());
                }
            }),
            Long("fault-file") => {
                fault_file = Some(args.value()?.into());
                builder
            }
            Long("access-key") => {
                access_key = Some(args.value()?.string()?);
                builder
            }
            Long("secret-key") => {
                secret_key = Some(args.value()?.string()?);
                builder
            }
            Long("session-token") => {
                session_token = Some(args.value()?.string()?);
                builder
            }
            other => return Err(other.unexpected().into()),
        };
    }
    if command.as_deref() != Some("serve") {
        return Err("the command is `serve`; see --help".into());
    }
    match (access_key, secret_key) {
        (Some(id), Some(secret)) => Ok(Some((builder.access_key(id, secret, session_token), fault_file))),
        (None, None) if session_token.is_none() => Ok(Some((builder, fault_file))),
        _ => Err("--access-key and --secret-key go together".into()),
    }
}

/// Applies the file's fault whenever the file changes.
async fn follow(file: Option<PathBuf>, running: &Running) {
    let Some(file) = file else { return std::future::pending().await };
    let mut known = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let said = std::fs::read_to_string(&file).unwrap_or_default();
        if said != known {
            match PathFault::from_name(said.trim()) {
                Some(fault) => running.set_fault(fault),
                None => eprintln!("bedrock-double: {}: unknown fault {:?}", file.display(), said.trim()),
            }
            known = said;
        }
    }
}

/// Listens for the signals from now on; the future is ready at the first one.
#[cfg(unix)]
fn until_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Listens for Ctrl-C from now on.
#[cfg(windows)]
fn until_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move { drop(interrupt.recv().await) })
}
