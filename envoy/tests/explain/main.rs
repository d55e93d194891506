//! `explain` against the signature vectors, against planted differences, and against whole outputs.
//!
//! `UPDATE_EXPLAIN=1 cargo test -p bedrock-gateway --test explain` writes the outputs of `tests/fixtures/explain` anew.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod differences;
mod outputs;
mod requests;
mod retention;
mod vectors;

use std::path::{Path, PathBuf};

use bedrock_gateway::explain::Explain;
use bedrock_gateway::explain::report::Report;
use clap::Parser;

pub(crate) const CONVERSE: &str =
    "curl http://gw/model/anthropic.claude-opus-5/converse -H 'content-type: application/json' -d {}";

/// The command line of `explain` alone.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    explain: Explain,
}

/// A directory that is removed with the test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("bedrock-gateway-explain-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, content).unwrap();
        file
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn nothing(_: &str) -> Option<String> {
    None
}

pub(crate) fn explain(arguments: &[&str]) -> Result<Explain, clap::Error> {
    let arguments = std::iter::once("explain").chain(arguments.iter().copied());
    Arguments::try_parse_from(arguments).map(|parsed| parsed.explain)
}

pub(crate) fn report(arguments: &[&str]) -> Report {
    explain(arguments).unwrap().report(&nothing).unwrap()
}

pub(crate) fn golden(case: &str, name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain");
    std::fs::read_to_string(dir.join(case).join(name)).unwrap()
}
