//! Lines for the person at the terminal.

use std::io::Write;

/// A remark on stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// A line on stderr.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line on stdout.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
