//! Progress of slow steps, on stderr.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints the name of `step` before it and its duration after it.
pub(crate) fn step<T, E>(name: &str, step: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let mut err = std::io::stderr();
    let terminal = err.is_terminal();
    let _ = if terminal { write!(err, "{name} …") } else { writeln!(err, "{name} …") };
    let _ = err.flush();
    let start = Instant::now();
    let result = step();
    let seconds = start.elapsed().as_secs_f64();
    let outcome = if result.is_ok() { "" } else { "failed, " };
    let _ = if terminal {
        writeln!(err, "\r{name}: {outcome}{seconds:.1} s")
    } else if seconds >= 1.0 {
        writeln!(err, "{name}: {outcome}{seconds:.1} s")
    } else {
        Ok(())
    };
    result
}

pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
