//! `bedrock-bench`: what the gateway adds to an Envoy, next to Envoy's own signer, in one run.
//!
//! Each contender is the same Envoy with other filters ([`contender`]), with one worker, in front of one upstream over TLS
//! ([`upstream`]). They take turns, so that a machine whose speed drifts is as fast for each. The figure is the CPU time of all
//! of Envoy's threads for a call, less that of the contender without filters.
#![forbid(unsafe_code)]

mod client;
mod contender;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lexopt::prelude::{Long, Short, ValueExt as _};
use serde::Serialize;

use self::client::Calls;
use self::contender::{Contender, Programs, Running};
use self::upstream::Upstream;

const HELP: &str = "\
bedrock-bench [options]

  --rounds N     turns of each contender (default 5); the figures are medians
  --calls N      calls with 1 KB in a turn (default 4000); fewer of those with more
  --only A,B     only these contenders: bare, native, noop, two, combined, bearer, rules
  --json FILE    write the figures there too

Needs ENVOY_BIN and BEDROCK_GATEWAY_BIN; run it by `cargo xtask bench`.";

/// How long Envoy may take until it answers.
const START: Duration = Duration::from_secs(30);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Arguments(#[from] lexopt::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Tls(#[from] bedrock_double::tls::TlsError),
    #[error(transparent)]
    Wat(#[from] wat::Error),
    #[error("a call failed: {0}")]
    Call(String),
    #[error("bedrock-gateway: {0}")]
    Gateway(String),
    #[error("{0} is not set; run `cargo xtask bench`")]
    Variable(&'static str),
    #[error("no contender is called {0}")]
    Contender(String),
}

/// What a contender costs with bodies of a size.
#[derive(Debug, Serialize)]
struct Figure {
    contender: &'static str,
    bytes: usize,
    /// CPU time of Envoy for a call, in microseconds: the median of the rounds, and the least and the most.
    cpu_us: [f64; 3],
    /// The same, less that of `bare` in the same round: the median.
    added_us: Option<f64>,
    /// How long a call took, in microseconds: the median of the rounds' medians and 99th percentiles.
    took_us: [f64; 2],
}

#[derive(Debug)]
struct Settings {
    rounds: u32,
    calls: u32,
    only: Vec<Contender>,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedrock-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let Some(settings) = parse(lexopt::Parser::from_env())? else {
        println!("{HELP}");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(measure(&settings))?;
    println!("{:<10} {:>8} {:>10} {:>10} {:>8} {:>8}", "", "bytes", "CPU µs", "added µs", "p50 µs", "p99 µs");
    for figure in &figures {
        let Figure { contender, bytes, cpu_us: [median, ..], added_us, took_us: [p50, p99] } = figure;
        let added = added_us.map_or_else(|| "-".to_owned(), |added| format!("{added:.1}"));
        println!("{contender:<10} {bytes:>8} {median:>10.1} {added:>10} {p50:>8.0} {p99:>8.0}");
    }
    if let Some(file) = settings.json {
        std::fs::write(file, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}

async fn measure(settings: &Settings) -> Result<Vec<Figure>, Error> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).ok_or(Error::Variable(name));
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../envoy/base.yaml").into();
    let programs = Programs { envoy: variable("ENVOY_BIN")?, gateway: variable("BEDROCK_GATEWAY_BIN")?, base };
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(&dir.path().join("tls"), Bytes::new()).await?;
    let mut running = Vec::new();
    for contender in &settings.only {
        running.push(Running::start(*contender, &programs, &upstream, dir.path(), free_ports()?)?);
    }
    for contender in &running {
        ready(contender).await?;
    }
    let sizes = [(1_000, settings.calls), (10_000, settings.calls), (100_000, settings.calls / 4)];
    let mut figures = Vec::new();
    for (bytes, count) in sizes {
        let calls = Calls::converse(bytes);
        let mut rounds: Vec<Vec<Turn>> = running.iter().map(|_| Vec::new()).collect();
        for _ in 0..settings.rounds {
            for (contender, turns) in running.iter().zip(&mut rounds) {
                calls.make(contender.port, count / 10).await?;
                let before = contender.cpu()?;
                let mut times = calls.make(contender.port, count).await?;
                let cpu = contender.cpu()?.saturating_sub(before);
                times.sort_unstable();
                let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
                let took = [at(50), at(99)].map(|time| time.as_secs_f64() * 1e6);
                turns.push(Turn { cpu: cpu as f64 / 1e3 / f64::from(count), took });
            }
        }
        let bare = running.iter().zip(&rounds).find(|(running, _)| running.contender == Contender::Bare);
        for (contender, turns) in running.iter().zip(&rounds) {
            let added = bare
                .filter(|_| contender.contender != Contender::Bare)
                .map(|(_, bare)| median(turns.iter().zip(bare).map(|(turn, bare)| turn.cpu - bare.cpu)));
            let cpu = || turns.iter().map(|turn| turn.cpu);
            figures.push(Figure {
                contender: contender.contender.name(),
                bytes,
                cpu_us: [median(cpu()), cpu().fold(f64::MAX, f64::min), cpu().fold(0.0, f64::max)],
                added_us: added,
                took_us: [0, 1]
                    .map(|which: usize| median(turns.iter().filter_map(|turn| turn.took.get(which).copied()))),
            });
        }
    }
    Ok(figures)
}

/// One turn of a contender.
#[derive(Debug)]
struct Turn {
    /// CPU time for a call, in microseconds.
    cpu: f64,
    /// The median and the 99th percentile of the calls' times, in microseconds.
    took: [f64; 2],
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A port that is free, as the one after it is.
fn free_ports() -> Result<u16, Error> {
    loop {
        let first = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let port = first.local_addr()?.port();
        if port < u16::MAX && std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

/// Waits until a call is answered.
async fn ready(contender: &Running) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        match Calls::converse(1_000).make(contender.port, 1).await {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > START => {
                let (name, said) = (contender.contender.name(), contender.said());
                return Err(Error::Call(format!("{name} does not answer: {error}\n{said}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// `None` for `--help`.
fn parse(mut args: lexopt::Parser) -> Result<Option<Settings>, Error> {
    let mut settings = Settings { rounds: 5, calls: 4_000, only: Contender::ALL.to_vec(), json: None };
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("rounds") => settings.rounds = args.value()?.parse()?,
            Long("calls") => settings.calls = args.value()?.parse()?,
            Long("json") => settings.json = Some(args.value()?.into()),
            Long("only") => {
                let names = args.value()?.string()?;
                let find = |name: &str| Contender::ALL.into_iter().find(|contender| contender.name() == name);
                settings.only = names
                    .split(',')
                    .map(|name| find(name).ok_or_else(|| Error::Contender(name.to_owned())))
                    .collect::<Result<_, _>>()?;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(settings))
}
