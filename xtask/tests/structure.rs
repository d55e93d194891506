//! The structure of the workspace: dependencies run one way, between crates and between files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A crate, and the crates of the workspace that it may depend on. Those of tests alone are not counted.
const MAY_DEPEND: [(&str, &[&str]); 15] = [
    ("api-drift", &["filter-core"]),
    ("audit", &[]),
    ("audit-collector", &["audit"]),
    ("bedrock-bench", &["bedrock-double", "bedrock-load", "proxy-wasm-vm"]),
    ("bedrock-double", &[]),
    ("bedrock-filter", &["audit", "filter-core"]),
    ("bedrock-gateway", &["audit", "filter-core"]),
    ("bedrock-load", &["bedrock-double"]),
    ("filter-core", &["audit"]),
    ("host-tests", &[]),
    ("infra-checks", &["audit", "bedrock-gateway", "filter-core", "lab"]),
    ("lab", &["bedrock-gateway"]),
    ("proxy-wasm-vm", &[]),
    ("stepped-clock", &[]),
    ("xtask", &[]),
];
/// Crates whose files have no cycles, by their folders.
const CRATES: [&str; 14] = [
    "collector",
    "envoy",
    "filter",
    "filter/audit",
    "filter/core",
    "host-tests/api",
    "host-tests/bench",
    "host-tests/clock",
    "host-tests/double",
    "host-tests/lab",
    "host-tests/load",
    "host-tests/vm",
    "infra/checks",
    "xtask",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn crates_depend_one_way() {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let own: BTreeSet<String> = packages.iter().map(name).collect();
    let expected: BTreeSet<String> = MAY_DEPEND.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(own, expected, "a new crate has its line here");
    for package in packages {
        let (_, may) = MAY_DEPEND.iter().find(|(known, _)| *known == name(package)).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let of_tests = dependency["kind"] == "dev";
            assert!(of_tests || !own.contains(on) || may.contains(&on), "{} must not depend on {on}", name(package));
        }
    }
}

#[test]
fn source_files_have_no_cycles() {
    let mut found = Vec::new();
    for folder in CRATES {
        let files = modules(&root().join(folder).join("src"));
        let edges: BTreeMap<&String, BTreeSet<String>> =
            files.iter().map(|(module, file)| (module, uses(module, file, &files))).collect();
        for module in files.keys() {
            if let Some(way) = cycle(module, &edges) {
                found.push(format!("{folder}: {}", way.join(" → ")));
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "cycles between files:\n{}", found.join("\n"));
}

#[test]
fn a_cycle_is_found() {
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            edges.entry((*to).to_owned()).or_default();
        }
        edges
    };
    let has = |pairs: &[(&str, &str)]| {
        let edges = edges(pairs);
        let borrowed: BTreeMap<&String, BTreeSet<String>> = edges.iter().map(|(from, to)| (from, to.clone())).collect();
        edges.keys().any(|module| cycle(module, &borrowed).is_some())
    };
    assert!(has(&[("a", "b"), ("b", "c"), ("c", "a")]));
    assert!(!has(&[("a", "b"), ("b", "c"), ("a", "c")]));
}

/// The files of a crate by their modules' paths (`route::compile`); the crate's own file is left out, since all are below it.
fn modules(source: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![source.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(source).unwrap().with_extension("");
            let mut parts: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if parts.last().is_some_and(|last| last == "mod") {
                parts.pop();
            }
            let is_code = path.extension().is_some_and(|kind| kind == "rs");
            let root = ["lib", "main"].iter().any(|root| parts == [*root]);
            if is_code && !root && !parts.last().is_some_and(|last| last.ends_with("_tests")) {
                found.insert(parts.join("::"), code(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The text up to its tests, without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules that a module names, except those above and below it.
fn uses(module: &str, text: &str, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    for (prefix, base) in [("crate::", ""), ("super::", parent)] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            for path in paths(rest) {
                // `crate::Error` is what the crate's root exports of `error`.
                let path = if path == "Error" { "error".to_owned() } else { path };
                let path = if base.is_empty() { path } else { format!("{base}::{path}") };
                // The longest prefix of the path that is a file.
                let mut end = path.as_str();
                while !end.is_empty() && !files.contains_key(end) {
                    end = end.rsplit_once("::").map_or("", |(shorter, _)| shorter);
                }
                let related = |one: &str, other: &str| one == other || one.starts_with(&format!("{other}::"));
                if !end.is_empty() && !related(module, end) && !related(end, module) {
                    found.insert(end.to_owned());
                }
            }
        }
    }
    found
}

/// The paths that begin here: `a::b`, or each of `{a, b::c}`.
fn paths(text: &str) -> Vec<String> {
    if let Some(list) = text.strip_prefix('{') {
        let mut depth = 1;
        let end = list.find(|character| {
            depth += match character {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        let inner = &list[..end.unwrap_or(0)];
        return inner.split(',').map(|part| head(part.trim())).filter(|part| !part.is_empty()).collect();
    }
    vec![head(text)]
}

/// Names joined by `::` at the start of a text.
fn head(text: &str) -> String {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_' && character != ':');
    text[..end.unwrap_or(text.len())].trim_end_matches(':').to_owned()
}

/// A way from a module back to itself.
fn cycle(start: &String, edges: &BTreeMap<&String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in edges.get(way.last()?).into_iter().flatten() {
            if next == start {
                // Each cycle once, from its first name.
                return way
                    .iter()
                    .all(|module| module >= start)
                    .then(|| [&way[..], std::slice::from_ref(start)].concat());
            }
            if seen.insert(next.clone()) {
                ways.push([&way[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}
