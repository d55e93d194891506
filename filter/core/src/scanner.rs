//! A push scanner for JSON (RFC 8259): checks the text as it passes, reports values with their path, keeps nothing else.
//!
//! It reads what `serde_json` reads, but for strings: halves of surrogate pairs pass. Bytes that are not UTF-8 do not: a lenient
//! reader takes `C1 A1` for an `a`, and would see a key where this one sees none.

/// Keys that are remembered; deeper values are checked, not reported. An image in a tool's result may be ten keys
/// deep.
const DEPTH: usize = 10;
/// Longest key that is remembered; no longer key is looked for.
const KEY: usize = 40;
/// The deepest nesting: a bit for each level says whether it is an object.
const NESTING: usize = 1024;
const BITS: usize = u64::BITS as usize;

/// Receives what the scanner finds.
pub trait Sink {
    /// A value begins with the byte `at`, counted from the text's start.
    fn begin(&mut self, _path: &Path, _at: u64) {}
    /// A whole, non-negative number.
    fn number(&mut self, _path: &Path, _value: u64) {}
    /// Some bytes of a string value, unescaped; a string comes in any number of pieces.
    fn string(&mut self, _path: &Path, _piece: &[u8]) {}
}

/// The object keys from the top down to a value. An array element has the empty key.
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

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A byte that cannot stand there.
    #[error("byte {0} cannot stand there")]
    Byte(u64),
    /// Deeper than [`NESTING`].
    #[error("it is nested deeper than {NESTING} levels at byte {0}")]
    Nesting(u64),
    /// The text ends before its value does.
    #[error("it ends early")]
    End,
}

/// Reads a JSON text piece by piece.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    path: Path,
    objects: [u64; NESTING / BITS],
    nesting: usize,
    /// Bytes read.
    read: u64,
    /// The first half of a surrogate pair.
    surrogate: Option<u32>,
    utf8: Utf8,
}

/// Checks the bytes of a string, in pieces (Unicode 16, table 3-7: well-formed UTF-8 byte sequences).
#[derive(Debug, Clone, Copy, Default)]
struct Utf8 {
    /// Bytes that the character still has.
    left: u8,
    /// The bounds of the next one.
    bounds: (u8, u8),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Value,
    /// Behind `[`.
    FirstElement,
    /// Behind `{`.
    FirstKey,
    /// Behind a comma in an object.
    Key,
    Colon,
    /// Behind a value.
    After,
    String(Role, Escape),
    Number(Part, Option<u64>),
    /// The letters that `true`, `false` or `null` still has.
    Word(&'static [u8]),
    Broken(Problem),
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

/// The last byte of a number: what may follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

// === impl Scanner ===

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Value,
            path: Path::default(),
            objects: [0; NESTING / BITS],
            nesting: 0,
            read: 0,
            surrogate: None,
            utf8: Utf8::default(),
        }
    }
}

// === impl Utf8 ===

impl Utf8 {
    /// The place of the first byte that is not UTF-8.
    fn wrong(&mut self, piece: &[u8]) -> Option<usize> {
        if self.left == 0 && piece.is_ascii() {
            return None;
        }
        piece.iter().position(|byte| !self.takes(*byte))
    }

    fn takes(&mut self, byte: u8) -> bool {
        const NEXT: (u8, u8) = (0x80, 0xbf);
        if self.left > 0 {
            let (least, most) = std::mem::replace(&mut self.bounds, NEXT);
            self.left -= 1;
            return (least..=most).contains(&byte);
        }
        (self.left, self.bounds) = match byte {
            0x00..=0x7f => (0, NEXT),
            0xc2..=0xdf => (1, NEXT),
            0xe0 => (2, (0xa0, 0xbf)),
            0xed => (2, (0x80, 0x9f)),
            0xe1..=0xef => (2, NEXT),
            0xf0 => (3, (0x90, 0xbf)),
            0xf1..=0xf3 => (3, NEXT),
            0xf4 => (3, (0x80, 0x8f)),
            _ => return false,
        };
        true
    }

    fn is_complete(self) -> bool {
        self.left == 0
    }
}

impl Scanner {
    /// Reads on.
    pub fn feed(&mut self, mut chunk: &[u8], sink: &mut impl Sink) {
        while let Some((&byte, rest)) = chunk.split_first() {
            let state = self.state;
            let used = match state {
                State::Broken(_) => return,
                State::String(role, Escape::None) => {
                    let plain = chunk.iter().position(|b| matches!(b, b'"' | b'\\' | ..0x20)).unwrap_or(chunk.len());
                    let (piece, _) = chunk.split_at(plain);
                    if let Some(wrong) = self.utf8.wrong(piece) {
                        self.read += wrong as u64;
                        return self.fail();
                    }
                    self.string(role, piece, sink);
                    if piece.is_empty() {
                        self.special(role, byte, sink);
                    }
                    plain.max(1)
                }
                State::Number(part, value) => {
                    if self.number(part, value, byte) {
                        1
                    } else {
                        self.end_number(part, value, sink);
                        // The byte behind a number is not a part of it.
                        0
                    }
                }
                _ => {
                    self.step(state, byte, sink);
                    1
                }
            };
            self.read += used as u64;
            chunk = if used == 1 { rest } else { chunk.get(used..).unwrap_or_default() };
        }
    }

    /// The text is complete.
    ///
    /// # Errors
    /// [`Problem`] says why it is not JSON.
    pub fn finish(&self) -> Result<(), Problem> {
        match self.state {
            State::Broken(problem) => Err(problem),
            State::After if self.nesting == 0 => Ok(()),
            State::Number(Part::Zero | Part::Whole | Part::Fraction | Part::Exponent, _) if self.nesting == 0 => Ok(()),
            _ => Err(Problem::End),
        }
    }

    /// Whether it stopped because the text is not JSON.
    pub fn gave_up(&self) -> bool {
        matches!(self.state, State::Broken(_))
    }

    /// A byte that is neither in a number nor plain text of a string.
    fn step(&mut self, state: State, byte: u8, sink: &mut impl Sink) {
        match (state, byte) {
            (State::String(role, escape), _) => self.escaped(role, escape, byte, sink),
            (State::Word([next, rest @ ..]), _) if byte == *next => {
                self.state = if rest.is_empty() { State::After } else { State::Word(rest) };
            }
            (State::Word(_), _) => self.fail(),
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (State::FirstElement, b']') | (State::FirstKey, b'}') => self.leave(),
            (State::FirstKey | State::Key, b'"') => {
                self.path.start_key();
                self.state = State::String(Role::Key, Escape::None);
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') if self.nesting > 0 => {
                self.state = if self.in_object() { State::Key } else { State::Value };
            }
            (State::After, b'}') if self.nesting > 0 && self.in_object() => self.leave(),
            (State::After, b']') if self.nesting > 0 && !self.in_object() => self.leave(),
            (State::Value | State::FirstElement, _) => self.value(byte, sink),
            _ => self.fail(),
        }
    }

    fn value(&mut self, byte: u8, sink: &mut impl Sink) {
        if self.path_is_whole() {
            sink.begin(&self.path, self.read);
        }
        match byte {
            b'{' => self.enter(true),
            b'[' => self.enter(false),
            b'"' => self.state = State::String(Role::Value, Escape::None),
            b'-' => self.state = State::Number(Part::Minus, None),
            b'0' => self.state = State::Number(Part::Zero, Some(0)),
            b'1'..=b'9' => self.state = State::Number(Part::Whole, Some(u64::from(byte - b'0'))),
            b't' => self.state = State::Word(b"rue"),
            b'f' => self.state = State::Word(b"alse"),
            b'n' => self.state = State::Word(b"ull"),
            _ => self.fail(),
        }
    }

    /// Takes a byte of a number; `false` if it is behind it.
    fn number(&mut self, part: Part, value: Option<u64>, byte: u8) -> bool {
        use Part::{E, Exponent, Fraction, Minus, Point, Sign, Whole, Zero};
        let next = match (part, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Whole, b'0'..=b'9') => Whole,
            (Zero | Whole, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Whole | Fraction, b'e' | b'E') => E,
            (E, b'+' | b'-') => Sign,
            (E | Sign | Exponent, b'0'..=b'9') => Exponent,
            _ => return false,
        };
        let value = value.filter(|_| next == Whole);
        self.state = State::Number(next, value.and_then(|v| v.checked_mul(10)?.checked_add(u64::from(byte - b'0'))));
        true
    }

    fn end_number(&mut self, part: Part, value: Option<u64>, sink: &mut impl Sink) {
        if matches!(part, Part::Minus | Part::Point | Part::E | Part::Sign) {
            return self.fail();
        }
        if let (Some(value), true) = (value, self.path_is_whole()) {
            sink.number(&self.path, value);
        }
        self.state = State::After;
    }

    fn enter(&mut self, object: bool) {
        let Some(word) = self.objects.get_mut(self.nesting / BITS) else {
            self.state = State::Broken(Problem::Nesting(self.read));
            return;
        };
        let bit = 1 << (self.nesting % BITS);
        *word = if object { *word | bit } else { *word & !bit };
        self.nesting += 1;
        self.path.push();
        self.state = if object { State::FirstKey } else { State::FirstElement };
    }

    /// The caller knows that a container is open.
    fn leave(&mut self) {
        self.nesting = self.nesting.saturating_sub(1);
        self.path.depth = self.path.depth.saturating_sub(1);
        self.state = State::After;
    }

    fn in_object(&self) -> bool {
        let top = self.nesting.saturating_sub(1);
        self.objects.get(top / BITS).is_some_and(|word| word >> (top % BITS) & 1 == 1)
    }

    fn path_is_whole(&self) -> bool {
        self.path.depth <= DEPTH
    }

    fn fail(&mut self) {
        self.state = State::Broken(Problem::Byte(self.read));
    }

    /// A string's text.
    fn string(&mut self, role: Role, piece: &[u8], sink: &mut impl Sink) {
        if piece.is_empty() {
            return;
        }
        if self.surrogate.take().is_some() {
            self.pass(role, REPLACEMENT, sink);
        }
        self.pass(role, piece, sink);
    }

    fn pass(&mut self, role: Role, piece: &[u8], sink: &mut impl Sink) {
        if !self.path_is_whole() {
            return;
        }
        match role {
            Role::Key => self.path.extend_key(piece),
            Role::Value => sink.string(&self.path, piece),
        }
    }

    /// A byte of a string that is not plain text.
    fn special(&mut self, role: Role, byte: u8, sink: &mut impl Sink) {
        match byte {
            _ if !self.utf8.is_complete() => self.fail(),
            b'\\' => self.state = State::String(role, Escape::Started),
            b'"' => {
                if self.surrogate.take().is_some() {
                    self.pass(role, REPLACEMENT, sink);
                }
                self.state = if role == Role::Key { State::Colon } else { State::After };
            }
            _ => self.fail(),
        }
    }

    fn escaped(&mut self, role: Role, escape: Escape, byte: u8, sink: &mut impl Sink) {
        let plain: &[u8] = match (escape, byte) {
            (Escape::Started, b'u') => return self.state = State::String(role, Escape::Unicode(4, 0)),
            (Escape::Unicode(left, value), _) => {
                let Some(digit) = char::from(byte).to_digit(16) else { return self.fail() };
                let value = value << 4 | digit;
                if left > 1 {
                    self.state = State::String(role, Escape::Unicode(left - 1, value));
                } else {
                    self.state = State::String(role, Escape::None);
                    self.unit(role, value, sink);
                }
                return;
            }
            (_, b'"') => b"\"",
            (_, b'\\') => b"\\",
            (_, b'/') => b"/",
            (_, b'b') => b"\x08",
            (_, b'f') => b"\x0c",
            (_, b'n') => b"\n",
            (_, b'r') => b"\r",
            (_, b't') => b"\t",
            _ => return self.fail(),
        };
        self.state = State::String(role, Escape::None);
        self.string(role, plain, sink);
    }

    /// A unit of UTF-16.
    fn unit(&mut self, role: Role, unit: u32, sink: &mut impl Sink) {
        const FIRST: std::ops::Range<u32> = 0xd800..0xdc00;
        const SECOND: std::ops::Range<u32> = 0xdc00..0xe000;
        let code = match self.surrogate {
            Some(first) if SECOND.contains(&unit) => {
                self.surrogate = None;
                0x1_0000 + ((first - FIRST.start) << 10) + (unit - SECOND.start)
            }
            _ => unit,
        };
        let mut bytes = [0; 4];
        let text = char::from_u32(code).map_or(REPLACEMENT, |c| c.encode_utf8(&mut bytes).as_bytes());
        if FIRST.contains(&code) {
            // A first half behind a first half.
            if self.surrogate.replace(code).is_some() {
                self.pass(role, REPLACEMENT, sink);
            }
        } else {
            self.string(role, text, sink);
        }
    }
}

/// Stands for half of a surrogate pair (U+FFFD).
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
// === impl Path ===

impl Path {
    /// How many keys there are.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the keys are exactly these.
    pub fn is(&self, keys: &[&str]) -> bool {
        self.depth == keys.len() && self.keys.iter().zip(keys).all(|(key, wanted)| key.is(wanted))
    }

    /// Whether these are the keys, joined by dots.
    pub fn is_at(&self, keys: &str) -> bool {
        self.leads_to(keys) && keys.split('.').count() == self.depth
    }

    /// Whether these keys, joined by dots, are the same or go on below.
    pub fn leads_to(&self, keys: &str) -> bool {
        let mut wanted = keys.split('.');
        self.depth <= DEPTH
            && self.keys.iter().take(self.depth).all(|key| wanted.next().is_some_and(|keys| key.is(keys)))
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
            assert_eq!(scan(r#"{"bytes":"ab\/cd\u003d\u003D\n", "x":"y"}"#, chunk).1, "ab/cd==\n");
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
