//! Where a key is in a document's text, YAML or JSON.

use filter_core::config::{self, Position};
use filter_core::route::ENVIRONMENT_KEY;
use saphyr::{LoadableYamlNode as _, MarkedYaml, YamlData};

/// `rules.yaml:3:5`
pub(crate) fn place(file: &str, position: Option<Position>) -> String {
    position.map_or_else(|| file.to_owned(), |position| format!("{file}:{}:{}", position.line, position.column))
}

/// The position of a key, given as a path from the top (`route_classes[0].paths[1]`). For a key that is missing, the object
/// that lacks it; `None` for a text that cannot be read, and for a key that is not the document's.
pub(crate) fn locate(text: &str, key: &str) -> Option<Position> {
    if key == ENVIRONMENT_KEY {
        return None;
    }
    if is_json(text) {
        return config::locate(text.as_bytes(), key);
    }
    let documents = MarkedYaml::load_from_str(text).ok()?;
    Some(within(documents.first()?, key))
}

/// The same in the document of a stream of several.
pub(crate) fn locate_in(text: &str, document: usize, key: &str) -> Option<Position> {
    let documents = MarkedYaml::load_from_str(text).ok()?;
    Some(within(documents.get(document)?, key))
}

/// Where a text stops being YAML, and why. The parser's advice to programmers is left out.
pub(crate) fn not_yaml(text: &str, error: &serde_saphyr::Error) -> (Option<Position>, String) {
    let said = error.without_snippet().to_string();
    let said = said.lines().next().unwrap_or_default();
    // "error: line 2 column 24: …": the position is given apart.
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let said = if said.starts_with("line ") { said.split_once(": ").map_or(said, |(_, rest)| rest) } else { said };
    let mut position = error.location().map(|at| Position { line: at.line() as usize, column: at.column() as usize });
    let problem = if let Some(rest) = said.strip_prefix("duplicate mapping key: ") {
        format!("the key `{}` is there twice", rest.split(',').next().unwrap_or(rest))
    } else if said.starts_with("multiple YAML documents") {
        "a second YAML document begins here (`---`); want one".to_owned()
    } else if said.contains("unknown anchor") {
        "`*` at the start of a value means an alias in YAML: put the value in quotes".to_owned()
    } else if let Some(tab) = tab_in_indentation(text).filter(|_| said.contains("tab")) {
        position = Some(tab);
        "a tab in the indentation: YAML wants spaces".to_owned()
    } else if let Some((at, key)) = position.and_then(|position| colon_without_space(text, position.line)) {
        position = Some(at);
        format!("not YAML: {}", no_space(key))
    } else {
        format!("not YAML: {said}")
    };
    (position, problem)
}

/// What is wrong with a colon that YAML takes for a part of the text before it.
pub(crate) fn no_space(key: &str) -> String {
    format!("no space after `{key}:`; write `{key}: ` before the value")
}

/// A key without a space after its colon, on the line at which a text stops being YAML or the one before.
fn colon_without_space(text: &str, line: usize) -> Option<(Position, &str)> {
    let lines: Vec<(usize, &str)> = (1..).zip(text.lines()).collect();
    let near = [line, line.saturating_sub(1)];
    near.into_iter().find_map(|number| {
        let (_, line) = lines.iter().find(|(own, _)| *own == number)?;
        let start = line.find(|letter: char| !matches!(letter, ' ' | '-'))?;
        let (key, rest) = line.get(start..)?.split_once(':')?;
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let is_value = rest.starts_with(|letter: char| !letter.is_whitespace() && !matches!(letter, '/' | ':'));
        (is_key && is_value && key != "arn").then_some((Position { line: number, column: start + 1 }, key))
    })
}

fn tab_in_indentation(text: &str) -> Option<Position> {
    text.lines().zip(1..).find_map(|(line, number)| {
        let column = line.find(|letter: char| letter != ' ')?;
        line[column..].starts_with('\t').then_some(Position { line: number, column: column + 1 })
    })
}

/// Whether a text is JSON rather than YAML of another form: its own parser has better messages.
pub(crate) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

fn within(node: &MarkedYaml<'_>, key: &str) -> Position {
    let here = Position { line: node.span.start.line(), column: node.span.start.col() + 1 };
    let rest = key.strip_prefix('.').unwrap_or(key);
    if rest.is_empty() {
        return here;
    }
    match &node.data {
        YamlData::Mapping(entries) => {
            // Names may hold dots: the longest that fits is meant.
            let fits = entries.iter().filter_map(|(name, value)| {
                let name_text = name.data.as_str()?;
                let rest = rest.strip_prefix(name_text)?;
                (rest.is_empty() || rest.starts_with(['.', '['])).then_some((name_text.len(), name, value, rest))
            });
            match fits.max_by_key(|(length, ..)| *length) {
                Some((_, name, _, "")) => Position { line: name.span.start.line(), column: name.span.start.col() + 1 },
                Some((_, _, value, rest)) => within(value, rest),
                None => here,
            }
        }
        YamlData::Sequence(values) => {
            let found = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            match found.and_then(|(index, rest)| Some((values.get(index.parse::<usize>().ok()?)?, rest))) {
                Some((value, rest)) => within(value, rest),
                None => here,
            }
        }
        YamlData::Tagged(_, inner) => within(inner, rest),
        _ => here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A comment.
regions:
  us-east-1: {}
inference_profiles:
  amazon.nova-pro-v1:0: us.amazon.nova-pro-v1:0
route_classes:
  - name: any
    paths: [dx, vpn]
";

    #[test]
    fn keys_of_yaml_are_found() {
        for (key, line, column) in [
            ("regions.us-east-1", 3, 3),
            ("inference_profiles.amazon.nova-pro-v1:0", 5, 3),
            ("route_classes[0].paths[1]", 8, 17),
            ("route_classes[0].dscp", 7, 5),
            ("auth", 2, 1),
        ] {
            assert_eq!(locate(TEXT, key), Some(Position { line, column }), "{key}");
        }
        assert_eq!(locate(TEXT, "BEDROCK_PATHS (environment)"), None);
        assert_eq!(locate("{ \"a\": 1 }", "a"), Some(Position { line: 1, column: 3 }));
    }
}
