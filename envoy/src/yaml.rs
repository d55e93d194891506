//! Writes YAML that is easy to read: values that fit are on one line, and multi-line strings are blocks.

use serde_json::{Map, Value};

/// Maximum length of a line.
const WIDTH: usize = 120;

/// Renders an object as a document, with a blank line before each key.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    for (name, value) in value.as_object().into_iter().flat_map(named_first) {
        out.push('\n');
        entry(&mut out, name, value, 0);
    }
    out
}

/// Writes the value after a key's colon: on the same line, of which `used` columns are taken, or below the key at
/// `indent`.
pub(crate) fn write(out: &mut String, value: &Value, indent: usize, used: usize) {
    if let Value::String(text) = value
        && text.contains('\n')
    {
        out.push_str(" |\n");
        for line in text.trim_end().lines() {
            pad(out, indent + 2);
            out.push_str(line);
            out.push('\n');
        }
        return;
    }
    let flow = flow(value);
    let is_block = flow.contains('\n') || used + 1 + flow.len() > WIDTH;
    match value {
        Value::Object(object) if is_block && !object.is_empty() => {
            out.push('\n');
            for (name, value) in named_first(object) {
                pad(out, indent + 2);
                entry(out, name, value, indent + 2);
            }
        }
        Value::Array(values) if is_block && !values.is_empty() => {
            out.push('\n');
            for value in values {
                pad(out, indent + 2);
                item(out, value, indent + 2);
            }
        }
        _ => {
            out.push(' ');
            out.push_str(&flow);
            out.push('\n');
        }
    }
}

/// Writes an entry of a list at `indent`. The caller has written the indentation.
pub(crate) fn item(out: &mut String, value: &Value, indent: usize) {
    out.push('-');
    let flow = flow(value);
    if !flow.contains('\n') && indent + 2 + flow.len() <= WIDTH {
        out.push(' ');
        out.push_str(&flow);
        out.push('\n');
        return;
    }
    match value {
        Value::Object(object) => {
            for (number, (name, value)) in named_first(object).enumerate() {
                if number == 0 {
                    out.push(' ');
                } else {
                    pad(out, indent + 2);
                }
                entry(out, name, value, indent + 2);
            }
        }
        _ => write(out, value, indent, indent + 1),
    }
}

fn entry(out: &mut String, name: &str, value: &Value, indent: usize) {
    let name = scalar(name);
    out.push_str(&name);
    out.push(':');
    write(out, value, indent, indent + name.len() + 1);
}

/// The key `name` first, then the others.
fn named_first(object: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let is_name = |entry: &(&String, &Value)| entry.0 == "name";
    object.iter().filter(move |entry| is_name(entry)).chain(object.iter().filter(move |entry| !is_name(entry)))
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A value on one line. A multi-line string keeps its line breaks, which tells the caller that it does not fit.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(object) if object.is_empty() => "{}".to_owned(),
        Value::Object(object) => {
            let entries: Vec<String> =
                named_first(object).map(|(name, value)| format!("{}: {}", scalar(name), flow(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) if text.contains('\n') => text.clone(),
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Quotes a string, unless YAML reads it as a string without quotes. JSON's quoting is valid in YAML.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
    // YAML reads a text that starts with a letter or a slash as a string, except these words.
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let is_word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    let is_duration = text.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok());
    if (starts && !is_word || is_duration) && text.bytes().all(plain) {
        return text.to_owned();
    }
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_to_the_value_that_was_written() {
        let long = "x".repeat(150);
        let value = json!({
            "@type": "type.googleapis.com/a.b.C", "time": "1.5s", "zero": "0s", "number": "12", "word": "no", "empty": {}, "none": [],
            "text": "{\n  \"a\": \"b: c # d\"\n}\n", "nested": { "long": [long.clone(), { "a": [1, 2.5, true, null], "b": long }] },
            "colon": "a: b", "quote": "it's \"so\"", "list": [["a", "b"], []],
            "blocks": [{ "text": "one\ntwo\n", "then": 1 }],
        });
        let mut text = "value:".to_owned();
        let used = text.len();
        write(&mut text, &value, 0, used);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["value"], value, "{text}");
        assert!(text.contains("\n  time: 1.5s\n") && text.contains("\n  none: []\n"), "{text}");
    }
}
