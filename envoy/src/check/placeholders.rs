//! What a template leaves to be filled in: `@{STACK.Output}` (by `infra/deploy`) and digests of zeros.

use filter_core::config::Position;

use super::Fault;

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What is left in a text.
pub(super) fn faults(file: &str, text: &str) -> Vec<Fault> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let mut fault = |column: usize, problem: String| {
            let position = Some(Position { line: number + 1, column: column + 1 });
            found.push(Fault { file: file.to_owned(), position, key: String::new(), problem, is_note: false });
        };
        for (column, rest) in
            line.match_indices("@{").map(|(column, _)| (column, line.get(column..).unwrap_or_default()))
        {
            let end = rest.find('}').map_or(rest.len(), |end| end + 1);
            let name = rest.get(..end).unwrap_or_default();
            fault(column, format!("{name} is a placeholder, which infra/deploy fills in; or pass --placeholders"));
        }
        if let Some(column) = line.find(ZEROS) {
            fault(
                column,
                "the digest of zeros is a placeholder: write the image's own; or pass --placeholders".to_owned(),
            );
        }
    }
    found
}

/// The text with values of the right form in place of `@{…}`.
pub(super) fn fill(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("@{") {
        let Some((name, after)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(if name.ends_with("Arn") { "arn:aws:iam::111122223333:role/placeholder" } else { "placeholder" });
        rest = after;
    }
    out.push_str(rest);
    out
}
