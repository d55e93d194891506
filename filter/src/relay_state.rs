//! What the gateway role and the relay know of one another's calls.
//!
//! Both run in one VM and share nothing but its memory. There is one [`RelayEntry`] for each call in the relay; it ends with the
//! gateway role's stream. Polls of the catalogue and lookups of resources go the same way.

use filter_core::step::RelayedCall;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

/// How many calls are remembered whose client left before the relay took them. The relay takes a call, or never gets it, within
/// milliseconds.
const MAX_LEFT: usize = 1024;

thread_local! {
    static ENTRIES: RefCell<HashMap<String, RelayEntry>> = RefCell::default();
    static LEFT: RefCell<VecDeque<String>> = RefCell::default();
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

/// A call of the module's own, left for the relay. A root context may end while such calls are under way.
#[derive(Debug)]
pub(crate) struct Left(String);

impl Left {
    /// Leaves a call under an id of its own.
    pub(crate) fn send(id: String, call: RelayedCall) -> Self {
        send(&id, call);
        Self(id)
    }

    /// Whether the relay has not taken it.
    pub(crate) fn is_there(&self) -> bool {
        is_left(&self.0)
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        forget(&self.0);
    }
}

fn is_left(id: &str) -> bool {
    ENTRIES.with_borrow(|entries| entries.get(id).is_some_and(|entry| entry.sent.is_some()))
}

/// Ends a call. If the relay has not taken it, its client has left.
pub(crate) fn forget(id: &str) {
    let Some(RelayEntry { sent: Some(_), .. }) = ENTRIES.with_borrow_mut(|entries| entries.remove(id)) else { return };
    LEFT.with_borrow_mut(|left| {
        if left.len() >= MAX_LEFT {
            left.pop_front();
        }
        left.push_back(id.to_owned());
    });
}

/// Whether the client of a call left before the relay took it.
pub(crate) fn has_left(id: &str) -> bool {
    LEFT.with_borrow(|left| left.iter().any(|known| known == id))
}
