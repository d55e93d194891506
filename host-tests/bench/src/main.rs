//! `bedrock-bench`: what the gateway adds to an Envoy, next to Envoy's own signer, in one run.
//!
//! Each contender is the same Envoy with other filters ([`contender`]), with one worker, in front of one upstream over TLS
//! ([`upstream`]). They take turns, so that a machine whose speed drifts is as fast for each. The figure is the CPU time of all
//! of Envoy's threads for a call, less that of the contender without filters. Of other gateways ([`peers`]) it is that of the
//! process.
#![forbid(unsafe_code)]

mod chart;
mod client;
mod contender;
mod error;
mod loading;
mod page;
mod peers;
mod report;
mod slow;
mod stats;
mod streams;
mod turns;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use lexopt::prelude::{Long, Short, ValueExt as _};

use self::client::Calls;
use self::contender::{Contender, Programs, Running};
use self::error::{Error, variable};
use self::report::Report;
use self::upstream::Upstream;

const HELP: &str = "\
bedrock-bench [options]

  --rounds N     turns of each contender (default 5); the figures are medians
  --calls N      calls with 1 KB in a turn (default 4000); fewer of those with more, and of streams
  --only A,B     only these contenders: bare, native, noop, two, direct, combined,
                 bearer, rules, litellm, portkey
  --peers        LiteLLM's proxy and Portkey's gateway too
  --slow N       slow streams at once (default 2000), each takes two open files
                 (ulimit -n); 0 leaves them out
  --seconds N    how long they are all open (default 20, at least 5)
  --json FILE    write the figures there too
  --page FILE    write the tables of docs/performance.md
  --svg FILE     write a chart of what calls add there

Needs ENVOY_BIN, BEDROCK_GATEWAY_BIN and BEDROCK_FILTER_WASM, and for the other gateways
BENCH_LITELLM_PYTHON and BENCH_PORTKEY_DIR; run it by `cargo xtask bench`.";

/// How long a contender may take until it answers.
const START: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Settings {
    rounds: u32,
    calls: u32,
    only: Vec<Contender>,
    /// How many at once, and for how many seconds.
    slow: (u32, u64),
    json: Option<PathBuf>,
    page: Option<PathBuf>,
    svg: Option<PathBuf>,
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
    let report = runtime.block_on(measure(&settings))?;
    report.print();
    if let Some(file) = settings.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(file) = settings.svg {
        std::fs::write(file, chart::svg(&report.calls))?;
    }
    if let Some(file) = settings.page {
        let page = page::rewrite(&std::fs::read_to_string(&file)?, &report)?;
        std::fs::write(file, page)?;
    }
    Ok(())
}

async fn measure(settings: &Settings) -> Result<Report, Error> {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../envoy/base.yaml").into();
    let programs = Programs { envoy: variable("ENVOY_BIN")?, gateway: variable("BEDROCK_GATEWAY_BIN")?, base };
    let loading = loading::measure(&variable("BEDROCK_FILTER_WASM")?)?;
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(&dir.path().join("tls"), streams::stream(streams::LONG)).await?;
    let mut running = Vec::new();
    for contender in &settings.only {
        running.push(Running::start(*contender, &programs, &upstream, dir.path(), free_ports()?)?);
    }
    for contender in &running {
        ready(contender, &upstream).await?;
    }
    let count = settings.calls;
    let sizes = [(1_000, count), (10_000, count), (100_000, count.div_ceil(4)), (1_000_000, count.div_ceil(40))];
    let called: Vec<&Running> = running.iter().filter(|running| running.contender.is_called()).collect();
    let mut calls = Vec::new();
    for (bytes, count) in sizes {
        let converse = |contender: Contender| contender.converse(&upstream, bytes);
        calls.extend(turns::measure(&called, &upstream, converse, bytes, count, settings.rounds).await?);
    }
    let streaming: Vec<&Running> = running.iter().filter(|running| running.contender.streams()).collect();
    let (stream, count) = (|_| Calls::converse_stream(), count.div_ceil(20));
    let streams = turns::measure(&streaming, &upstream, stream, streams::LONG, count, settings.rounds).await?;
    drop(running);
    let (mut slow, (at_once, seconds), dir) = (Vec::new(), settings.slow, dir.path().join("slow"));
    for contender in settings.only.iter().filter(|contender| contender.streams() && at_once > 0) {
        // Started anew: what an Envoy has freed it uses again.
        let running = Running::start(*contender, &programs, &upstream, &dir, free_ports()?)?;
        ready(&running, &upstream).await?;
        slow.push(slow::measure(&running, &upstream, at_once, seconds).await?);
    }
    Ok(Report { calls, streams, slow, loading })
}

/// A port that is free, as the one after it is, below those that the kernel gives to connections (`ip_local_port_range`, ip(7)): a
/// connection that has just ended would still hold it.
fn free_ports() -> Result<u16, Error> {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(2, Ordering::Relaxed);
        let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port >= 32_000 {
            return Err(Error::Ports);
        }
        if is_free(port) && is_free(port + 1) {
            return Ok(port);
        }
    }
}

/// Waits until a call is answered.
async fn ready(contender: &Running, upstream: &Upstream) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        match contender.contender.converse(upstream, 1_000).make(contender.port, 1).await {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > START => {
                let (name, log) = (contender.contender.name(), contender.log());
                return Err(Error::Call(format!("{name} does not answer: {error}\n{log}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// `None` for `--help`.
fn parse(mut args: lexopt::Parser) -> Result<Option<Settings>, Error> {
    let mut settings = Settings {
        rounds: 5,
        calls: 4_000,
        only: Contender::ENVOYS.to_vec(),
        slow: (2_000, 20),
        json: None,
        page: None,
        svg: None,
    };
    let mut peers = false;
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("rounds") => settings.rounds = args.value()?.parse()?,
            Long("calls") => settings.calls = args.value()?.parse()?,
            Long("peers") => peers = true,
            Long("slow") => settings.slow.0 = args.value()?.parse()?,
            Long("seconds") => settings.slow.1 = args.value()?.parse()?,
            Long("json") => settings.json = Some(args.value()?.into()),
            Long("page") => settings.page = Some(args.value()?.into()),
            Long("svg") => settings.svg = Some(args.value()?.into()),
            Long("only") => {
                let names = args.value()?.string()?;
                settings.only = names
                    .split(',')
                    .map(|name| Contender::find(name).ok_or_else(|| Error::Contender(name.to_owned())))
                    .collect::<Result<_, _>>()?;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if peers {
        settings.only.retain(|contender| !contender.is_peer());
        settings.only.extend(Contender::PEERS);
    }
    if settings.slow.1 < 5 {
        return Err(Error::Seconds(settings.slow.1));
    }
    Ok(Some(settings))
}
