//! What the gateway role and the relay know of one another's calls.
//!
//! Both run in one VM and share nothing but its memory. There is one [`RelayEntry`] for each call in the relay; it ends with the
//! gateway role's stream.

use filter_core::step::RelayedCall;
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static ENTRIES: RefCell<HashMap<String, RelayEntry>> = RefCell::default();
}

#[derive(Debug, Default)]
struct RelayEntry {
    sent: Option<RelayedCall>,
    progress: RelayProgress,
}

/// How far a call in the relay is.
#[derive(Debug, Clone, Default)]
pub(crate) struct RelayProgress {
    /// The signer's facts of the last attempt: a filter state of the relay's stream.
    pub attempt: Option<Vec<u8>>,
    /// The path of that attempt.
    pub path: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Attempts, that one included.
    pub attempts: u64,
    /// Whether a response came.
    pub answered: bool,
    /// Whether its sender ended it.
    pub complete: bool,
}

impl RelayProgress {
    pub(crate) fn facts(&self) -> audit::Relayed {
        audit::Relayed { path: self.path.clone(), attempts: u32::try_from(self.attempts).unwrap_or(u32::MAX) }
    }
}

/// Leaves a call for the relay, under the exchange's id.
pub(crate) fn send(id: &str, call: RelayedCall) {
    let entry = RelayEntry { sent: Some(call), progress: RelayProgress::default() };
    ENTRIES.with_borrow_mut(|entries| entries.insert(id.to_owned(), entry));
}

/// Takes the call that was left under an id. It is there once: an exchange is one request.
pub(crate) fn take(id: &str) -> Option<RelayedCall> {
    ENTRIES.with_borrow_mut(|entries| entries.get_mut(id)?.sent.take())
}

pub(crate) fn progress(id: &str) -> RelayProgress {
    ENTRIES.with_borrow(|entries| entries.get(id).map(|entry| entry.progress.clone())).unwrap_or_default()
}

/// Changes the progress of a call. There is none after its client has left.
pub(crate) fn update(id: &str, change: impl FnOnce(&mut RelayProgress)) {
    ENTRIES.with_borrow_mut(|entries| {
        if let Some(entry) = entries.get_mut(id) {
            change(&mut entry.progress);
        }
    });
}

pub(crate) fn forget(id: &str) {
    ENTRIES.with_borrow_mut(|entries| entries.remove(id));
}
