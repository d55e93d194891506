//! SIGINT and SIGTERM, counted instead of ending the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Error;

/// The number of signals so far.
#[derive(Debug, Clone)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Counts from now on.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn listen() -> Result<Signals, Error> {
        let failed = |error| Error::Failed(format!("cannot handle signals: {error}"));
        let count = Arc::new(AtomicUsize::new(0));
        let mut signals =
            signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
                .map_err(failed)?;
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for _ in signals.forever() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Signals(count))
    }

    /// How many arrived.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
