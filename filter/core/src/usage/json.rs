//! A push scanner for JSON (RFC 8259): reports numbers and strings with their path, keeps nothing else.
//!
//! It follows structure only and does not validate: it stops reporting where a body stops being JSON.

/// Keys that are remembered; deeper values are skipped. A guardrail's units are eight keys deep.
const DEPTH: usize = 8;
/// Longest key that is remembered; no longer key is looked for.
const KEY: usize = 40;
/// Nesting whose objects and arrays are told apart (a bit each). Deeper, only brackets and strings matter.
const MAX_NESTING: u32 = 64;

/// Receives what the scanner finds.
pub trait Sink {
    /// A whole, non-negative number.
    fn number(&mut self, path: &Path, value: u64);
    /// Some bytes of a string value, unescaped; a string comes in any number of pieces.
    fn string(&mut self, _path: &Path, _piece: &[u8]) {}
}

/// The object keys from the top down to a value. An array element has the key `None`.
#[derive(Debug, Default)]
pub struct Path {
    keys: [Key; DEPTH],
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    bytes: [u8; KEY],
    /// Bytes seen, which may be more than are kept.
    len: usize,
}

/// Reads a JSON text piece by piece.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    path: Path,
    /// Bit n: the container at nesting n is an object.
    objects: u64,
    nesting: u32,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// Before a value, or between a value and what follows it.
    #[default]
    Between,
    /// In an object, before a key.
    BeforeKey,
    String(Role, Escape),
    /// In a number: its value so far, `None` if it is not a whole number of 64 bits.
    Number(Option<u64>),
    /// Not JSON.
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

#[derive(Debug, Clone, Copy)]
enum Escape {
    None,
    Started,
    /// `\u`: digits left, value so far.
    Unicode(u8, u32),
}

// === impl Scanner ===

impl Scanner {
    /// Reads on.
    pub fn feed(&mut self, mut chunk: &[u8], sink: &mut impl Sink) {
        while let Some((&byte, rest)) = chunk.split_first() {
            match self.state {
                State::GivenUp => return,
                State::String(role, Escape::None) => {
                    let plain = chunk.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(chunk.len());
                    let (piece, after) = chunk.split_at(plain);
                    self.string(role, piece, sink);
                    chunk = match after.split_first() {
                        None => return,
                        Some((b'"', rest)) => {
                            self.state = State::Between;
                            rest
                        }
                        Some((_, rest)) => {
                            self.state = State::String(role, Escape::Started);
                            rest
                        }
                    };
                    continue;
                }
                State::String(role, escape) => self.escaped(role, escape, byte, sink),
                State::Number(value) if byte.is_ascii_digit() => {
                    let digit = u64::from(byte - b'0');
                    self.state = State::Number(value.and_then(|v| v.checked_mul(10)?.checked_add(digit)));
                }
                State::Number(_) if matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-') => {
                    self.state = State::Number(None);
                }
                State::Number(value) => {
                    if let (Some(value), true) = (value, self.path_is_whole()) {
                        sink.number(&self.path, value);
                    }
                    self.state = State::Between;
                    continue;
                }
                State::BeforeKey if byte == b'"' => {
                    self.path.start_key();
                    self.state = State::String(Role::Key, Escape::None);
                }
                State::BeforeKey if byte == b'}' => self.leave(),
                State::BeforeKey if byte.is_ascii_whitespace() => {}
                State::BeforeKey => self.state = State::GivenUp,
                State::Between => self.between(byte),
            }
            chunk = rest;
        }
    }

    /// Whether it stopped because the text is not JSON.
    pub fn gave_up(&self) -> bool {
        matches!(self.state, State::GivenUp)
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'{' => self.enter(true),
            b'[' => self.enter(false),
            b'}' | b']' => self.leave(),
            b',' if self.in_object() => self.state = State::BeforeKey,
            b'"' => self.state = State::String(Role::Value, Escape::None),
            b'0'..=b'9' => self.state = State::Number(Some(u64::from(byte - b'0'))),
            b'-' => self.state = State::Number(None),
            // Separators, white space and the letters of true, false and null.
            _ => {}
        }
    }

    fn enter(&mut self, object: bool) {
        let Some(nesting) = self.nesting.checked_add(1) else {
            self.state = State::GivenUp;
            return;
        };
        let followed = self.nesting < MAX_NESTING;
        if followed {
            let bit = 1 << self.nesting;
            self.objects = if object { self.objects | bit } else { self.objects & !bit };
        }
        self.nesting = nesting;
        self.path.push();
        self.state = if object && followed { State::BeforeKey } else { State::Between };
    }

    fn leave(&mut self) {
        match self.nesting.checked_sub(1) {
            Some(nesting) => {
                self.nesting = nesting;
                self.path.depth = self.path.depth.saturating_sub(1);
                self.state = State::Between;
            }
            None => self.state = State::GivenUp,
        }
    }

    fn in_object(&self) -> bool {
        let top = self.nesting.checked_sub(1).filter(|top| *top < MAX_NESTING);
        top.is_some_and(|top| self.objects >> top & 1 == 1)
    }

    fn path_is_whole(&self) -> bool {
        self.path.depth <= DEPTH
    }

    fn string(&mut self, role: Role, piece: &[u8], sink: &mut impl Sink) {
        if piece.is_empty() || !self.path_is_whole() {
            return;
        }
        match role {
            Role::Key => self.path.extend_key(piece),
            Role::Value => sink.string(&self.path, piece),
        }
    }

    fn escaped(&mut self, role: Role, escape: Escape, byte: u8, sink: &mut impl Sink) {
        let done = State::String(role, Escape::None);
        self.state = match (escape, byte) {
            (Escape::Started, b'u') => State::String(role, Escape::Unicode(4, 0)),
            (Escape::Unicode(left, value), _) => match char::from(byte).to_digit(16) {
                Some(digit) if left > 1 => State::String(role, Escape::Unicode(left - 1, value << 4 | digit)),
                Some(digit) => {
                    // The keys that are looked for are ASCII; other characters only have to differ.
                    let unit = u8::try_from(value << 4 | digit).ok().filter(u8::is_ascii).unwrap_or(b'?');
                    self.string(role, &[unit], sink);
                    done
                }
                None => State::GivenUp,
            },
            (_, b'"' | b'\\' | b'/') => {
                self.string(role, &[byte], sink);
                done
            }
            (_, b'b' | b'f' | b'n' | b'r' | b't') => {
                self.string(role, b" ", sink);
                done
            }
            _ => State::GivenUp,
        };
    }
}

// === impl Path ===

impl Path {
    /// Whether the keys are exactly these.
    pub fn is(&self, keys: &[&str]) -> bool {
        self.depth == keys.len() && self.keys.iter().zip(keys).all(|(key, wanted)| key.is(wanted))
    }

    /// Whether the keys are exactly these, from the top or in the object `parent`.
    pub fn is_in(&self, parent: &str, keys: &[&str]) -> bool {
        let [first, below @ ..] = &self.keys;
        let below = below.iter().zip(keys).all(|(key, wanted)| key.is(wanted));
        self.is(keys) || (below && first.is(parent) && self.depth == keys.len() + 1)
    }

    /// The last key, if those before it are `parents`.
    pub fn last_under(&self, parents: &[&str]) -> Option<&str> {
        let above = self.keys.get(..parents.len())?;
        if self.depth != parents.len() + 1 || !above.iter().zip(parents).all(|(key, wanted)| key.is(wanted)) {
            return None;
        }
        self.keys.get(parents.len())?.as_str()
    }

    /// The first key.
    pub fn first(&self) -> Option<&str> {
        self.keys.first().filter(|_| self.depth > 0)?.as_str()
    }

    /// The last key, if the two before it are these.
    pub fn last_behind(&self, parents: [&str; 2]) -> Option<&str> {
        let from = self.depth.checked_sub(3)?;
        let [first, second, last] = self.keys.get(from..self.depth)? else { return None };
        (first.is(parents[0]) && second.is(parents[1])).then(|| last.as_str())?
    }

    fn push(&mut self) {
        if let Some(key) = self.keys.get_mut(self.depth) {
            *key = Key::default();
        }
        self.depth += 1;
    }

    fn top(&mut self) -> Option<&mut Key> {
        self.keys.get_mut(self.depth.checked_sub(1)?)
    }

    fn start_key(&mut self) {
        if let Some(key) = self.top() {
            *key = Key::default();
        }
    }

    fn extend_key(&mut self, piece: &[u8]) {
        if let Some(key) = self.top() {
            for (slot, byte) in key.bytes.iter_mut().skip(key.len).zip(piece) {
                *slot = *byte;
            }
            key.len = key.len.saturating_add(piece.len());
        }
    }
}

impl Default for Key {
    fn default() -> Self {
        Self { bytes: [0; KEY], len: 0 }
    }
}

impl Key {
    /// `None` if the key was too long to keep; an array element has the empty key.
    fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(..self.len)?).ok()
    }

    fn is(&self, wanted: &str) -> bool {
        self.as_str() == Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Seen(Vec<(String, u64)>, String);

    impl Sink for Seen {
        fn number(&mut self, path: &Path, value: u64) {
            let keys = path.keys.iter().take(path.depth).map(|key| key.as_str().unwrap_or("…"));
            self.0.push((keys.collect::<Vec<_>>().join("."), value));
        }
        fn string(&mut self, path: &Path, piece: &[u8]) {
            if path.is(&["bytes"]) {
                self.1.push_str(std::str::from_utf8(piece).unwrap());
            }
        }
    }

    fn scan(text: &str, chunk: usize) -> Seen {
        let (mut scanner, mut seen) = (Scanner::default(), Seen::default());
        for piece in text.as_bytes().chunks(chunk) {
            scanner.feed(piece, &mut seen);
        }
        seen
    }

    #[test]
    fn finds_numbers_by_path_in_any_chunks() {
        let text = r#" {"a": {"usage": {"x": 1, "deep": {"no": 2}}}, "s\u0074r": "\"}{[1,\\", "l": [3, {"m": 4}, [], 5.5, -6, 1e3],
            "usage" : {"inputTokens":9,"outputTokens":30 }, "t": true, "n": null, "big": 18446744073709551616, "last":7}"#;
        for chunk in 1..=text.len() {
            let found: Vec<_> = scan(text, chunk).0;
            let found: Vec<_> = found.iter().map(|(path, value)| (path.as_str(), *value)).collect();
            let wanted = [
                ("a.usage.x", 1),
                ("a.usage.deep.no", 2),
                ("l.", 3),
                ("l..m", 4),
                ("usage.inputTokens", 9),
                ("usage.outputTokens", 30),
                ("last", 7),
            ];
            assert_eq!(found, wanted, "in chunks of {chunk}");
        }
    }

    #[test]
    fn strings_come_unescaped() {
        for chunk in 1..40 {
            assert_eq!(scan(r#"{"bytes":"ab\/cd\u003d\u003D\n", "x":"y"}"#, chunk).1, "ab/cd== ");
        }
    }

    #[test]
    fn garbage_and_depth_are_survived() {
        let deep = "[".repeat(100) + r#"{"usage":{"inputTokens":1}}"#;
        let nested = |open: &str, close: &str| {
            format!(r#"{{"a":{}1{},"usage":{{"inputTokens":3}}}}"#, open.repeat(500), close.repeat(500))
        };
        let (arrays, objects) = (nested("[", "]"), nested(r#"{"usage":"#, "}"));
        let long = format!(r#"{{"{}":1,"usage":{{"inputTokens":2}}}}"#, "k".repeat(1000));
        for (text, wanted) in [
            ("", None),
            ("}}}}", None),
            (r#"}{"usage":{"inputTokens":1}}"#, None),
            ("{1:2}", None),
            (r#"{"usage":{"inputTokens":1"#, None),
            ("\u{0}\u{1}\u{7f}", None),
            (deep.as_str(), None),
            (long.as_str(), Some(2)),
            (arrays.as_str(), Some(3)),
            (objects.as_str(), Some(3)),
        ] {
            let seen = scan(text, 7);
            let input = seen.0.iter().find(|(path, _)| path == "usage.inputTokens").map(|(_, value)| *value);
            assert_eq!(input, wanted, "{text}");
        }
    }
}
