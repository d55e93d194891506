//! Streams that wait for credentials. A stream cannot wake itself, so its root context does.

use crate::host;
use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::{Rc, Weak};

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

    /// Lets each look again. `root` is the context that calls.
    pub(crate) fn look(&self, root: u32) {
        let mut waiting = self.0.take();
        if waiting.is_empty() {
            return;
        }
        // A waiter that is gone belongs to a stream that is over.
        waiting.retain(|(context, waiter)| {
            waiter.upgrade().is_some_and(|waiter| host::set_context(*context).is_ok() && waiter.look())
        });
        // If this fails, the next callback sets its own context.
        let _ = host::set_context(root);
        self.0.borrow_mut().append(&mut waiting);
    }
}
