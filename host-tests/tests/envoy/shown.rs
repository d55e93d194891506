//! What an operator sees of a gateway, searched for secrets: Envoy's admin pages, all files of the run, records and stderr.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Harness, required};

/// Any run of as many bytes of a secret counts as a part of it.
const PART: usize = 12;
/// Admin pages that change something, end Envoy or wait.
const CHANGING: [&str; 14] = [
    "/allocprofiler",
    "/contention",
    "/cpuprofiler",
    "/drain_listeners",
    "/healthcheck/fail",
    "/healthcheck/ok",
    "/heap_dump",
    "/heapprofiler",
    "/logging",
    "/quitquitquit",
    "/reopen_logs",
    "/reset_counters",
    "/runtime_modify",
    "/stats/recentlookups",
];
/// Pages with options of their own.
const MORE: [&str; 5] =
    ["/config_dump?include_eds", "/clusters?format=json", "/listeners?format=json", "/stats?format=json", "/certs"];

/// What is shown, by the name of its place.
pub(crate) struct Shown(Vec<(String, Vec<u8>)>);

impl Shown {
    /// All pages that Envoy lists and that change nothing, and all files.
    pub(crate) fn of(harness: &Harness) -> Shown {
        let help = harness.gateway.admin("/help");
        let listed = help.lines().filter_map(|line| line.trim_start().split(": ").next()?.split(['?', ' ']).next());
        let listed: BTreeSet<&str> = listed.filter(|page| page.starts_with('/') && page.len() > 1).collect();
        for wanted in ["/config_dump", "/stats", "/clusters", "/listeners", "/server_info", "/init_dump", "/certs"] {
            assert!(listed.contains(wanted), "{wanted} is not in {listed:?}");
        }
        let pages = listed.into_iter().filter(|page| !CHANGING.iter().any(|other| page.starts_with(other)));
        let mut shown = Shown::files(harness);
        let show = |page: &str| (page.to_owned(), harness.gateway.admin(page).into_bytes());
        shown.0.extend(pages.chain(MORE).map(show));
        shown
    }

    /// All files of a run, which may be over, and what it said.
    pub(crate) fn files(harness: &Harness) -> Shown {
        let files = files(&harness.gateway.run_dir()).into_iter().chain([harness.access_log()]);
        let mut shown: Vec<_> =
            files.map(|file| (file.display().to_string(), std::fs::read(&file).unwrap_or_default())).collect();
        shown.push(("stderr".to_owned(), harness.gateway.said().into_bytes()));
        Shown(shown)
    }

    /// The records of an audit store: its files and what the collector prints of it.
    pub(crate) fn records(mut self, sqlite: &Path) -> Shown {
        for format in [&["--json"][..], &["--limit", "1000"]] {
            let mut query = Command::new(required("AUDIT_COLLECTOR_BIN"));
            query.args(["query", "--kind", "calls", "--sqlite"]).arg(sqlite).args(format);
            let output = query.output().unwrap();
            assert!(
                output.status.success() && !output.stdout.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            self.0.push((format!("query {}", format.join(" ")), [output.stdout, output.stderr].concat()));
        }
        self.0.push((sqlite.display().to_string(), std::fs::read(sqlite).unwrap()));
        self
    }

    /// Whether a text is somewhere.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.0.iter().any(|(_, shown)| shown.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// Fails if a part of a secret is somewhere. Secrets have their names first.
    pub(crate) fn assert_hides(&self, secrets: &[(&str, &str)]) {
        let mut begins = vec![false; 1 << 16];
        let first = |part: &[u8]| usize::from(u16::from_le_bytes([part[0], part[1]]));
        let mut parts = BTreeSet::new();
        for (name, secret) in secrets {
            assert!(secret.len() >= PART, "{name} is too short");
            parts.extend(secret.as_bytes().windows(PART));
        }
        parts.iter().for_each(|part| begins[first(part)] = true);
        for (place, shown) in &self.0 {
            let mut windows = shown.windows(PART);
            if let Some(part) = windows.find(|part| begins[first(part)] && parts.contains(part)) {
                let secret = secrets.iter().find(|(_, secret)| secret.as_bytes().windows(PART).any(|own| own == part));
                let at = shown.windows(PART).position(|own| own == part).unwrap();
                let line = shown[..at].rsplit(|byte| *byte == b'\n').next().unwrap_or_default().len();
                let context = String::from_utf8_lossy(&shown[at - line..(at + 40).min(shown.len())]).into_owned();
                panic!("{place} shows {:?}: …{context}", secret.map(|(name, _)| name));
            }
        }
    }
}

/// Files below a folder.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
