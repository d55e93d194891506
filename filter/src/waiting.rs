//! Streams that wait for credentials. A stream cannot wake itself, so its root context does.

use crate::host;
use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::{Rc, Weak};

/// How many streams are woken in one callback. Envoy replies to the first after the callback, inside that reply to the second, and so
/// on: V8's stack has room for some hundred.
const BATCH: usize = 32;

pub(crate) trait Waiter: Debug {
    /// Looks for credentials again, in the context of its own stream. Returns whether it still waits.
    fn look(&self) -> bool;
}

/// The waiting streams of a plugin, by the number of their context.
#[derive(Debug, Default)]
pub(crate) struct Waiting(RefCell<Vec<(u32, Weak<dyn Waiter>)>>);

impl Waiting {
    pub(crate) fn add(&self, context: u32, waiter: &Rc<dyn Waiter>) {
        let mut waiting = self.0.borrow_mut();
        if waiting.iter().all(|(known, _)| *known != context) {
            waiting.push((context, Rc::downgrade(waiter)));
        }
    }

    /// Lets each look again, until [`BATCH`] of them have stopped waiting. `root` is the context that calls. Returns whether some
    /// did not look.
    pub(crate) fn look(&self, root: u32) -> bool {
        let waiting = self.0.take();
        if waiting.is_empty() {
            return false;
        }
        let (mut left, mut kept) = (BATCH, Vec::with_capacity(waiting.len()));
        for (context, waiter) in waiting {
            if left == 0 {
                kept.push((context, waiter));
                continue;
            }
            // A waiter that is gone belongs to a stream that is over.
            let Some(woken) = waiter.upgrade() else { continue };
            if host::set_context(context).is_ok() {
                if woken.look() {
                    kept.push((context, waiter));
                } else {
                    left -= 1;
                }
            }
        }
        // If this fails, the next callback sets its own context.
        let _ = host::set_context(root);
        self.0.borrow_mut().append(&mut kept);
        left == 0
    }
}
