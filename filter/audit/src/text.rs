//! Text that clients and upstreams choose, made safe to show: a terminal obeys control characters, right-to-left marks
//! reorder a line, and SQLite's functions end a text at NUL.

use std::borrow::Cow;

/// Most bytes of a text in a record.
pub const MAX_TEXT: usize = 2048;

/// Escapes what cannot be seen: `\u{202e}`. A text that was escaped stays as it is.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`visible`], for text of several lines.
#[must_use]
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escape(text, |char| char == '\n')
}

/// Escapes what cannot be seen in JSON that serde has written, where it can only be part of a string.
#[must_use]
pub fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        if char == '\n' || is_visible(char) {
            out.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// A record's text: visible, and at most [`MAX_TEXT`] bytes.
#[must_use]
pub fn bounded(text: String) -> String {
    let seen = visible(&text);
    if seen.len() <= MAX_TEXT {
        return seen.into_owned();
    }
    let mut end = MAX_TEXT - '…'.len_utf8();
    while !seen.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", seen.get(..end).unwrap_or_default())
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(|char| keep(char) || is_visible(char)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if keep(char) || is_visible(char) {
            out.push(char);
        } else {
            out.extend(char.escape_default());
        }
    }
    Cow::Owned(out)
}

/// The standard library knows what cannot be printed: control and format characters, separators, private and unassigned
/// code points; and what changes the character before it.
fn is_visible(char: char) -> bool {
    matches!(char, ' '..='~') || char.escape_debug().eq([char])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characters that act on a terminal, on the order of a line, or on a reader's eye.
    const HIDDEN: [char; 16] = [
        '\0',
        '\u{7}',
        '\u{1b}',
        '\u{7f}',
        '\u{9b}',
        '\u{ad}',
        '\u{61c}',
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{202e}',
        '\u{2028}',
        '\u{2066}',
        '\u{2069}',
        '\u{feff}',
        '\u{e0041}',
    ];

    #[test]
    fn hidden_characters_are_escaped() {
        for char in HIDDEN {
            let text = format!("a{char}b");
            let wanted = format!("a{}b", char.escape_default());
            assert_eq!(visible(&text), wanted);
            assert_eq!(visible(&wanted), wanted, "twice");
            let json = serde_json::to_string(&text).unwrap();
            let seen = visible_json(&json);
            assert!(seen.is_ascii(), "{seen}");
            assert_eq!(serde_json::from_str::<String>(&seen).unwrap(), text);
        }
        assert_eq!(visible_lines("a\nb\tc"), "a\nb\\tc");
    }

    #[test]
    fn text_that_people_read_stays() {
        for text in ["spiffe://mesh/ns/app/sa/chat", r#"a "b" 'c' \d"#, "größe", "東京", "…"] {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        for char in ['a', 'é', '東', '\u{202e}'] {
            let cut = bounded(char.to_string().repeat(5_000));
            assert!(cut.len() <= MAX_TEXT && cut.len() > MAX_TEXT - 16 && cut.ends_with('…'), "{}", cut.len());
        }
        assert_eq!(bounded("a".repeat(MAX_TEXT)).len(), MAX_TEXT);
    }
}
