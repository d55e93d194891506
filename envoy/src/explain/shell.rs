//! A command line split into words as a POSIX shell does. What a shell would expand is refused, with its place.

use std::fmt;

/// A word of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Its text, without quotes.
    pub text: String,
    /// Where it starts.
    pub at: Place,
}

/// A place in the command line, counted from 1 in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    line: usize,
    column: usize,
}

/// Why a command line cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote without its partner.
    #[error("{0}: the quote {1} is not closed")]
    Quote(Place, char),
    /// `$NAME`, `$(…)` or a backquote.
    #[error("{0}: variables and commands are not expanded; write the value, or quote it with '…'")]
    Expansion(Place),
    /// `|`, `;`, `&`, `<`, `>`, `(` or `)`.
    #[error("{0}: {1} ends the command in a shell; give one curl command, and quote its URL and body with '…'")]
    Operator(Place, char),
    /// An escape of `$'…'` that is not known.
    #[error("{0}: the escape \\{1} is not known in $'…'")]
    Escape(Place, char),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(f, "line {}, ", self.line)?;
        }
        write!(f, "column {}", self.column)
    }
}

/// Splits a command line. Quotes, `$'…'`, backslashes and continued lines are read as in a shell.
///
/// # Errors
/// [`SplitError`] names the place.
pub(super) fn split(text: &str) -> Result<Vec<Word>, SplitError> {
    let mut input = Input { rest: text.trim_end().chars().collect::<Vec<_>>().into_iter().peekable(), at: START };
    let mut words = Vec::new();
    while let Some(next) = input.peek() {
        if next.is_whitespace() {
            input.next();
        } else if let Some(word) = input.word()? {
            words.push(word);
        }
    }
    Ok(words)
}

const START: Place = Place { line: 1, column: 1 };

struct Input {
    rest: std::iter::Peekable<std::vec::IntoIter<char>>,
    at: Place,
}

impl Input {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.at = match next {
            '\n' => Place { line: self.at.line + 1, column: 1 },
            _ => Place { column: self.at.column + 1, ..self.at },
        };
        Some(next)
    }

    /// The next word; `None` for a continued line.
    fn word(&mut self) -> Result<Option<Word>, SplitError> {
        let start = self.at;
        let (mut text, mut quoted) = (String::new(), false);
        while let Some(next) = self.peek().filter(|next| !next.is_whitespace()) {
            let at = self.at;
            self.next();
            match next {
                '\'' => self.single(at, &mut text)?,
                '"' => self.double(at, &mut text)?,
                '$' if self.peek() == Some('\'') => {
                    self.next();
                    self.ansi_c(at, &mut text)?;
                }
                '\\' => {
                    // A backslash before a line break continues the line.
                    text.extend(self.next().filter(|escaped| *escaped != '\n'));
                    continue;
                }
                '`' => return Err(SplitError::Expansion(at)),
                '$' if self.expands() => return Err(SplitError::Expansion(at)),
                '|' | ';' | '&' | '<' | '>' | '(' | ')' => return Err(SplitError::Operator(at, next)),
                next => {
                    text.push(next);
                    continue;
                }
            }
            quoted = true;
        }
        Ok((quoted || !text.is_empty()).then_some(Word { text, at: start }))
    }

    fn expands(&mut self) -> bool {
        self.peek().is_some_and(|next| next.is_ascii_alphanumeric() || "_{(@*#?!-$".contains(next))
    }

    fn single(&mut self, at: Place, text: &mut String) -> Result<(), SplitError> {
        loop {
            match self.next().ok_or(SplitError::Quote(at, '\''))? {
                '\'' => return Ok(()),
                next => text.push(next),
            }
        }
    }

    fn double(&mut self, start: Place, text: &mut String) -> Result<(), SplitError> {
        loop {
            let at = self.at;
            match self.next().ok_or(SplitError::Quote(start, '"'))? {
                '"' => return Ok(()),
                '`' => return Err(SplitError::Expansion(at)),
                '$' if self.expands() => return Err(SplitError::Expansion(at)),
                '\\' => match self.next().ok_or(SplitError::Quote(start, '"'))? {
                    '\n' => {}
                    escaped if "$`\"\\".contains(escaped) => text.push(escaped),
                    other => text.extend(['\\', other]),
                },
                next => text.push(next),
            }
        }
    }

    /// `$'…'`, which browsers write when they copy a request.
    fn ansi_c(&mut self, start: Place, text: &mut String) -> Result<(), SplitError> {
        let unclosed = SplitError::Quote(start, '\'');
        loop {
            let at = self.at;
            match self.next().ok_or_else(|| unclosed.clone())? {
                '\'' => return Ok(()),
                '\\' => {
                    let escape = self.next().ok_or_else(|| unclosed.clone())?;
                    let unknown = SplitError::Escape(at, escape);
                    text.push(match escape {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        '\\' | '\'' | '"' => escape,
                        'x' => self.number(2).ok_or(unknown)?,
                        'u' => self.number(4).ok_or(unknown)?,
                        'U' => self.number(8).ok_or(unknown)?,
                        _ => return Err(unknown),
                    });
                }
                next => text.push(next),
            }
        }
    }

    /// The character of up to so many hexadecimal digits.
    fn number(&mut self, most: usize) -> Option<char> {
        let mut number = None;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|next| next.to_digit(16)) else { break };
            self.next();
            number = Some(number.unwrap_or(0) * 16 + digit);
        }
        char::from_u32(number?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn splits_as_a_shell_does() {
        for (text, wanted) in [
            ("curl  -X POST", vec!["curl", "-X", "POST"]),
            (r#"a 'b c' "d e" f' 'g"#, vec!["a", "b c", "d e", "f g"]),
            (r#""a\"b" "a\nb" 'a\b' a\ b"#, vec!["a\"b", "a\\nb", "a\\b", "a b"]),
            ("curl \\\n  -d '{\n}'", vec!["curl", "-d", "{\n}"]),
            (r"$'a\nb\'c\u00e4\x41'", vec!["a\nb'cäA"]),
            ("''", vec![""]),
            ("a$ 'b$c'", vec!["a$", "b$c"]),
        ] {
            assert_eq!(words(text), wanted, "{text}");
        }
    }

    #[test]
    fn names_the_place_of_a_fault() {
        for (text, wanted) in [
            ("curl 'a", "column 6: the quote ' is not closed"),
            ("curl \\\n -d \"a", "line 2, column 5: the quote \" is not closed"),
            ("curl $URL", "column 6: variables and commands are not expanded; write the value, or quote it with '…'"),
            ("curl \"a$(b)\"", "column 8: variables and commands"),
            ("curl a | jq", "column 8: | ends the command in a shell"),
            ("curl a?b=c&d=e", "column 11: & ends the command in a shell"),
            (r"curl $'\q'", "column 8: the escape \\q is not known"),
        ] {
            let error = split(text).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
    }
}
