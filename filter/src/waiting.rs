//! Streams that wait for credentials: they cannot wake themselves, so their root context does.

use crate::host;
use crate::root::Plugin;
use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::{Rc, Weak};

/// What may wait.
pub trait Sleeper: Debug {
    /// Looks again, in the context of its own stream. Says whether it waits still.
    fn look(&self, plugin: &Plugin) -> bool;
}

/// The streams of a plugin that wait.
#[derive(Debug, Default)]
pub struct Waiting(RefCell<Vec<(u32, Weak<dyn Sleeper>)>>);

impl Waiting {
    /// Adds a stream, by the number of its context.
    pub fn add(&self, context: u32, sleeper: &Rc<dyn Sleeper>) {
        let mut waiting = self.0.borrow_mut();
        if waiting.iter().all(|(known, _)| *known != context) {
            waiting.push((context, Rc::downgrade(sleeper)));
        }
    }

    /// Lets each look again. `root` is the context that calls.
    pub fn look(&self, plugin: &Plugin, root: u32) {
        let mut waiting = self.0.take();
        if waiting.is_empty() {
            return;
        }
        // A stream that is over has left nobody behind.
        waiting.retain(|(context, sleeper)| {
            sleeper.upgrade().is_some_and(|sleeper| host::set_context(*context).is_ok() && sleeper.look(plugin))
        });
        // Should it fail, the next callback sets its own.
        let _ = host::set_context(root);
        self.0.borrow_mut().append(&mut waiting);
    }
}
