//! `bedrock-load`: load on a gateway, and a JSON line for each call ([`bedrock_load::Outcome`]).

#![forbid(unsafe_code)]

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bedrock_load::{Load, token};
use lexopt::prelude::{Long, Short, ValueExt as _};

const HELP: &str = "\
bedrock-load --gateway ADDR:PORT --record FILE [options]

  --gateway ADDR:PORT    the gateway's plain listener
  --record FILE          one JSON object for each call, in the order of their ends
  --rate N               Converse calls started each second, whether or not others have ended (default 100)
  --seconds N            how long new calls are started (default 30)
  --streams N            concurrent streams (default 0)
  --pause-ms N           pause before each frame of a stream (default 200)
  --thinkers N           concurrent calls whose model thinks before its first byte (default 0)
  --thought-ms N         how long it thinks (default 20000)
  --bulk N               concurrent uploads (default 0)
  --bulk-bytes N         bytes of an upload (default 20000000)
  --model ID             the model of Converse calls and uploads (default a Claude 3.5 Sonnet)
  --callers N            the calls are those of N callers in turn, p-0000 and so on: each has a JWT with that `sub`,
  --callers-key KEY        signed with this key by HS256 (default: callers send no JWT)

Ends when its last call has ended. The upstream must be bedrock-double: streams and thinking calls name its fault models.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedrock-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let Some((load, record)) = parse(lexopt::Parser::from_env())? else {
        println!("{HELP}");
        return Ok(());
    };
    let mut file = BufWriter::new(
        std::fs::File::create(&record).map_err(|error| format!("--record {}: {error}", record.display()))?,
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (tell, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let running = tokio::spawn(load.run(tell));
        while let Some(outcome) = ended.recv().await {
            serde_json::to_writer(&mut file, &outcome)?;
            file.write_all(b"\n")?;
        }
        running.await?;
        file.flush()?;
        Ok(())
    })
}

/// `None` for `--help`.
fn parse(mut args: lexopt::Parser) -> Result<Option<(Load, PathBuf)>, Box<dyn std::error::Error>> {
    let mut gateway = None;
    let mut record: Option<PathBuf> = None;
    let (mut rate, mut streams, mut thinkers, mut bulk, mut bulk_bytes) = (100, 0, 0, 0, 20_000_000);
    let [mut seconds, mut pause, mut thought] = [30, 200, 20_000_u64];
    let mut model = bedrock_load::MODEL.to_owned();
    let (mut callers, mut key): (u32, Option<String>) = (0, None);
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("gateway") => gateway = Some(args.value()?.parse()?),
            Long("record") => record = Some(args.value()?.into()),
            Long("rate") => rate = args.value()?.parse()?,
            Long("seconds") => seconds = args.value()?.parse()?,
            Long("streams") => streams = args.value()?.parse()?,
            Long("pause-ms") => pause = args.value()?.parse()?,
            Long("thinkers") => thinkers = args.value()?.parse()?,
            Long("thought-ms") => thought = args.value()?.parse()?,
            Long("bulk") => bulk = args.value()?.parse()?,
            Long("bulk-bytes") => bulk_bytes = args.value()?.parse()?,
            Long("model") => model = args.value()?.string()?,
            Long("callers") => callers = args.value()?.parse()?,
            Long("callers-key") => key = Some(args.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let (Some(gateway), Some(record)) = (gateway, record) else {
        return Err("--gateway and --record are needed; see --help".into());
    };
    let callers = match key {
        Some(key) => (0..callers).map(|nth| token::authorization(nth, &key)).collect::<Result<_, _>>()?,
        None if callers == 0 => Vec::new(),
        None => return Err("--callers needs --callers-key".into()),
    };
    let load = Load {
        gateway,
        rate,
        time: Duration::from_secs(seconds),
        streams,
        pause: Duration::from_millis(pause),
        thinkers,
        thought: Duration::from_millis(thought),
        bulk,
        bulk_bytes,
        model,
        callers,
    };
    Ok(Some((load, record)))
}
