//! The expressions that the project's style retires are in no comment, message, page or test name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Command;

/// An expression, and what to write instead.
const RETIRED: [(&str, &str); 14] = [
    ("is no", "is not a"),
    ("are no", "are not"),
    ("what came", "name it: the response, the bytes"),
    ("mend", "fix, repair, restore"),
    ("mended", "fixed, repaired, restored"),
    ("mends", "fixes, repairs, restores"),
    ("to be had", "available"),
    ("whoever", "name who"),
    ("heeded", "obeyed, used"),
    ("tells of", "reports, says"),
    ("tell of", "report, say"),
    ("one's own", "your own"),
    ("beside", "next to; besides"),
    ("walk through the versions", "upgrade test"),
];
/// Files whose words are not the project's: data, generated files, licences; and this list.
const EXEMPT: [&str; 11] = [
    "Cargo.lock",
    "LICENSE",
    "docs/configuration.schema.json",
    "envoy/istio/egress/envoyfilter.yaml",
    "envoy/standalone.yaml",
    "host-tests/clients/matrix/package-lock.json",
    "host-tests/clients/matrix/rust/Cargo.lock",
    "host-tests/clients/package-lock.json",
    "host-tests/vectors/",
    "xtask/tests/prose.rs",
    "xtask/tests/fixtures/",
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The project's text files, with their texts.
fn files() -> Vec<(String, String)> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "the files are listed by git");
    let listed = String::from_utf8(output.stdout).unwrap();
    let own =
        listed.split('\0').filter(|file| !file.is_empty() && !EXEMPT.iter().any(|exempt| file.starts_with(exempt)));
    // What is not UTF-8 is not prose; a file that is listed may have been deleted.
    own.filter_map(|file| Some((file.to_owned(), std::fs::read_to_string(root().join(file)).ok()?))).collect()
}

/// Whether `line` has `expression` as whole words.
fn has(line: &str, expression: &str) -> bool {
    let line = line.to_lowercase();
    let word =
        |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric() || character == '_');
    line.match_indices(expression).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        let after = line.get(at + expression.len()..).and_then(|after| after.chars().next());
        !word(before) && !word(after)
    })
}

#[test]
fn retired_expressions_are_found_as_words() {
    assert!(has("// it is mended here", "mended") && has("Whoever calls", "whoever") && has("is no.", "is no"));
    assert!(
        !has("recommend", "mend") && !has("besides", "beside") && !has("is not", "is no") && !has("is none", "is no")
    );
}

#[test]
fn no_file_has_a_retired_expression() {
    let mut found = Vec::new();
    for (file, text) in files() {
        // An expression may go over the end of a line.
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let next = lines.get(number + 1).copied().unwrap_or_default();
            let next = next.trim_start().trim_start_matches(['/', '!', '#', '*', ' ']);
            let first = next.split(' ').next().unwrap_or_default();
            let joined = format!("{line} {first}");
            for (expression, instead) in RETIRED {
                let over = expression.contains(' ') && has(&joined, expression);
                if has(line, expression) || over {
                    found.push(format!("{file}:{}: `{expression}`; write: {instead}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} retired expressions:\n{}", found.len(), found.join("\n"));
}

/// `stand` for a harness or a mock: in identifiers and headings.
#[test]
fn nothing_is_called_a_stand() {
    let mut found = Vec::new();
    for (file, text) in files() {
        for (number, line) in text.lines().enumerate() {
            let heading = file.ends_with(".md") && line.starts_with('#');
            let words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
            let is_identifier = |word: &str| {
                word == "Stand" || word.starts_with("stand_") || word.ends_with("_stand") || word.contains("_stand_")
            };
            let named = words.clone().any(is_identifier) || line.contains("stand.") || line.contains("stand::");
            let code = [".rs", ".py", ".sh"].iter().any(|kind| file.ends_with(kind));
            let comment = line.trim_start().starts_with("//") || line.trim_start().starts_with('#');
            if heading && words.clone().any(|word| word.eq_ignore_ascii_case("stand")) || code && !comment && named {
                found.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A test name has less than 45 characters (CONTRIBUTING.md).
#[test]
fn test_names_are_short() {
    let mut found = Vec::new();
    for (file, text) in files().into_iter().filter(|(file, _)| file.ends_with(".rs")) {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            let is_test = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let signature = is_test.then(|| lines.find(|line| line.contains("fn "))).flatten();
            let name = signature.and_then(|line| line.split("fn ").nth(1)?.split('(').next());
            found.extend(name.filter(|name| name.len() >= 45).map(|name| format!("{file}: {name}")));
        }
    }
    assert!(found.is_empty(), "test names of 45 characters or more:\n{}", found.join("\n"));
}
