//! Lines for the person at the terminal.

use std::io::Write;

use audit::text::visible_lines;

/// A remark on stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "note: {}", visible_lines(text));
}

/// A line on stderr.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible_lines(text));
}

/// A line on stdout.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
