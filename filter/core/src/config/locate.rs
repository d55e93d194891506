//! Where a key is in the text of a document, for messages that name a position.

use super::error::Position;

/// The position of a key, given as the path that a [`ConfigError`](super::ConfigError) has. For a key that is missing, the
/// object that lacks it; `None` if the text is not JSON or has not even that.
pub fn locate(json: &[u8], key: &str) -> Option<Position> {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).ok()?;
    let key = if key == "." { "" } else { key };
    let mut scanner = Scanner { text: json, at: 0, best: None };
    scanner.value(&mut String::new(), key);
    let (_, offset) = scanner.best?;
    let before = json.get(..offset)?;
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Some(Position { line, column })
}

/// Scans a text that is known to be JSON.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// The longest path up to now that leads to the key, by its length, and its offset. Of equal ones the last: a repeated
    /// key is reported where it is repeated.
    best: Option<(usize, usize)>,
}

impl Scanner<'_> {
    fn value(&mut self, path: &mut String, key: &str) {
        self.white_space();
        self.note(path, key, self.at);
        match self.peek() {
            Some(b'{') => self.entries(path, key),
            Some(b'[') => self.elements(path, key),
            Some(b'"') => drop(self.string()),
            _ => {
                while self.peek().is_some_and(|byte| !b",]}".contains(&byte) && !byte.is_ascii_whitespace()) {
                    self.at += 1;
                }
            }
        }
    }

    fn entries(&mut self, path: &mut String, key: &str) {
        let length = path.len();
        self.at += 1;
        loop {
            self.white_space();
            match self.peek() {
                Some(b'"') => {
                    let start = self.at;
                    let name = self.string();
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&name);
                    self.white_space();
                    // The colon.
                    self.at += 1;
                    self.value(path, key);
                    self.note(path, key, start);
                    path.truncate(length);
                }
                Some(b',') => self.at += 1,
                _ => break,
            }
        }
        self.at += 1;
    }

    fn elements(&mut self, path: &mut String, key: &str) {
        let length = path.len();
        self.at += 1;
        for index in 0_usize.. {
            self.white_space();
            match self.peek() {
                Some(b']') | None => break,
                Some(b',') => self.at += 1,
                _ => {}
            }
            path.push_str(&format!("[{index}]"));
            self.value(path, key);
            path.truncate(length);
            self.white_space();
        }
        self.at += 1;
    }

    /// Remembers a path that is the key, or that the key continues.
    fn note(&mut self, path: &str, key: &str, offset: usize) {
        let leads = key
            .strip_prefix(path)
            .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('.') || rest.starts_with('['));
        if leads && self.best.is_none_or(|(length, _)| path.len() >= length) {
            self.best = Some((path.len(), offset));
        }
    }

    /// The content of the string that begins here, unescaped.
    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_slice(quoted).unwrap_or_default()
    }

    fn white_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "role": "gateway",
  "regions": { "us-east-1": {}, "us-west-2": { "hosts": {} } },
  "route_classes": [
    { "name": "a\"}b", "paths": [] },
    { "name": "any", "paths": ["dx",
        "vpn"], "dscp": 64 }
  ],
  "n": [ -1.5e3 , [true , null ] ], "role": 1
}"#;

    #[test]
    fn keys_are_found_by_their_path() {
        for (key, line, column) in [
            (".", 1, 1),
            ("regions", 3, 3),
            ("regions.us-west-2", 3, 33),
            ("regions.us-west-2.hosts", 3, 48),
            ("route_classes[1]", 6, 5),
            ("route_classes[1].paths[1]", 7, 9),
            ("route_classes[1].dscp", 7, 17),
            ("n[1][1]", 9, 27),
            // A missing key is reported at its object, a repeated one where it is repeated.
            ("route_classes[0].regions", 5, 5),
            ("auth", 1, 1),
            ("role", 9, 37),
            ("rout", 1, 1),
        ] {
            assert_eq!(locate(TEXT.as_bytes(), key), Some(Position { line, column }), "{key}");
        }
        assert_eq!(locate(b"{", "role"), None);
    }
}
