//! Typographic quotes, which word processors put in place of straight ones.

use filter_core::config::Position;
use serde_json::Value;

const QUOTES: [char; 5] = ['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}'];

/// What is wrong with a text that is not JSON because of them.
pub(crate) const NOT_STRAIGHT: &str = "typographic quotes (\u{201c} \u{201d}); write straight ones (\")";

/// The keys whose name or text begins or ends with a typographic quote, in order, and the text.
pub(crate) fn texts(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    below("", value, &mut found);
    found
}

/// What is wrong with a text that YAML or JSON reads, quotes and all.
pub(crate) fn part_of_the_text(text: &str) -> String {
    format!("`{text}` has typographic quotes, which are part of the text here; write straight ones (\")")
}

/// Where JSON has a typographic quote in place of a straight one: at the position at which it stops being JSON.
pub(crate) fn in_json(text: &str, at: Position) -> Option<Position> {
    let line = text.lines().nth(at.line.checked_sub(1)?)?;
    // The parser's column is that of a byte of the character, which has three.
    let near = |column: &usize| column.abs_diff(at.column) < 3;
    let mut columns = line.char_indices().filter(|(_, letter)| QUOTES.contains(letter)).map(|(index, _)| index + 1);
    columns.find(near).map(|column| Position { line: at.line, column })
}

fn is_quoted(text: &str) -> bool {
    text.starts_with(QUOTES) || text.ends_with(QUOTES)
}

fn below(key: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                if is_quoted(name) {
                    found.push((key, name.clone()));
                } else {
                    below(&key, value, found);
                }
            }
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| below(&format!("{key}[{index}]"), value, found));
        }
        Value::String(text) if is_quoted(text) => found.push((key.to_owned(), text.clone())),
        _ => {}
    }
}
