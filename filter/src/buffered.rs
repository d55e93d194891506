//! The bodies that this worker's streams buffer, and the streams that give way when there are too many.

use crate::host::{self, SharedData};
use filter_core::buffers::{Budgets, Evicted, Full, Ledger, Owner};
use filter_core::step::RequestBodyMode;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::rc::{Rc, Weak};

thread_local! {
    static BUFFERED: RefCell<Buffered> = RefCell::new(Buffered::new());
}

/// A call whose body may be buffered.
pub(crate) trait Buffering: Debug {
    /// Gives up the body that the stream with this context buffers. Returns whether there was one.
    fn evict(self: Rc<Self>, context: u32, full: Full) -> bool;
    fn is_refused(&self) -> bool;
    /// The caller's name, or its address. In the context of its stream.
    fn caller(&self) -> String;
}

/// All streams of this VM, whichever listener they came through.
#[derive(Debug)]
struct Buffered {
    ledger: Ledger,
    calls: HashMap<u32, Weak<dyn Buffering>>,
    /// Streams that gave way and have not been refused yet.
    evicted: Vec<u32>,
}

impl Buffered {
    fn new() -> Self {
        Self { ledger: Ledger::default(), calls: HashMap::new(), evicted: Vec::new() }
    }
}

/// Counts a call of the stream with this context.
pub(crate) fn begin(context: u32, call: &Rc<dyn Buffering>) {
    BUFFERED.with_borrow_mut(|buffered| {
        buffered.ledger.begin(context);
        buffered.calls.insert(context, Rc::downgrade(call));
    });
}

/// Counts bytes of a call's body.
pub(crate) fn grow(context: u32, call: &dyn Buffering, by: usize) {
    BUFFERED.with_borrow_mut(|buffered| {
        if !buffered.ledger.is_owned(context) {
            buffered.ledger.own(context, owner(call));
        }
        buffered.ledger.grow(context, by as u64);
    });
}

/// Notes what became of a call: `mode` is how its body is handled from now on.
pub(crate) fn follow(context: u32, mode: RequestBodyMode) {
    BUFFERED.with_borrow_mut(|buffered| match mode {
        RequestBodyMode::Hash | RequestBodyMode::Hold => {}
        RequestBodyMode::Discard => buffered.ledger.dropped(context),
        RequestBodyMode::Stream => buffered.ledger.sent(context),
    });
}

/// The call is over.
pub(crate) fn end(context: u32) {
    BUFFERED.with_borrow_mut(|buffered| {
        buffered.ledger.end(context);
        buffered.calls.remove(&context);
    });
}

/// Makes calls give way, but for the current one, of which it says that it has to. `current` is the stream of this callback,
/// `home` its context. The others drop their bodies in their own next callback, or are refused on the next tick: Envoy crashes if
/// a buffer is changed in another stream's callback.
pub(crate) fn enforce(current: Option<u32>, home: u32, budgets: &Budgets) -> Option<Full> {
    BUFFERED.with_borrow_mut(|buffered| {
        // Ticks have no stream, and repeat what others may have missed. Time costs a call of the host.
        if (current.is_none() || buffered.ledger.has_news())
            && let Ok(now) = host::now()
        {
            buffered.ledger.publish(host::worker(), &SharedData, now);
        }
        if buffered.ledger.is_full(budgets) {
            buffered.find_owners(home);
        }
        while let Some(Evicted { stream, full }) = buffered.ledger.full(current, budgets) {
            if current == Some(stream) {
                buffered.ledger.dropped(stream);
                buffered.evicted.push(stream);
                return Some(full);
            }
            buffered.ledger.evict(stream);
            if let Some(call) = buffered.calls.get(&stream).and_then(Weak::upgrade)
                && call.evict(stream, full)
            {
                buffered.evicted.push(stream);
            }
        }
        None
    })
}

/// After waiting calls have looked: counts those that gave way and were refused by now.
pub(crate) fn settle() {
    BUFFERED.with_borrow_mut(|buffered| {
        let Buffered { ledger, calls, evicted, .. } = buffered;
        evicted.retain(|stream| {
            let Some(call) = calls.get(stream).and_then(Weak::upgrade) else { return false };
            if call.is_refused() {
                ledger.stays(*stream);
            }
            !call.is_refused()
        });
    });
}

impl Buffered {
    /// Asks Envoy whose the streams are that had no need of an owner yet.
    fn find_owners(&mut self, home: u32) {
        let unowned = self.ledger.unowned();
        for stream in &unowned {
            let call = self.calls.get(stream).and_then(Weak::upgrade);
            match call {
                Some(call) if host::set_context(*stream).is_ok() => self.ledger.own(*stream, owner(call.as_ref())),
                _ => self.ledger.end(*stream),
            }
        }
        if !unowned.is_empty() {
            let _ = host::set_context(home);
        }
    }
}

/// Whose the stream of the current context is.
fn owner(call: &dyn Buffering) -> Owner {
    let connection =
        host::property(&["connection", "id"]).and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes);
    Owner::new(&call.caller(), connection)
}
