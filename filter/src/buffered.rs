//! What this worker's streams occupy, and the streams that give way when it is too much.

use crate::host::{self, SharedData};
use filter_core::buffers::{Budgets, Evicted, Full, Ledger, Owner, Phase};
use filter_core::caller::Caller;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::rc::{Rc, Weak};

thread_local! {
    static BUFFERED: RefCell<Buffered> = RefCell::new(Buffered::new());
}

/// A call whose body may be buffered.
pub(crate) trait Buffering: Debug {
    /// Gives up the body that the call buffers, in the callback of another.
    fn evict(self: Rc<Self>, full: Full);
    /// Who calls. In the context of its stream.
    fn caller(&self) -> Caller;
}

/// All streams of this VM, whichever listener they came through.
#[derive(Debug)]
struct Buffered {
    ledger: Ledger,
    calls: HashMap<u32, Weak<dyn Buffering>>,
}

impl Buffered {
    fn new() -> Self {
        Self { ledger: Ledger::default(), calls: HashMap::new() }
    }
}

/// Counts a call of the stream with this context, and these bytes of its headers.
pub(crate) fn begin(context: u32, call: &Rc<dyn Buffering>, headers: usize) {
    BUFFERED.with_borrow_mut(|buffered| {
        buffered.ledger.begin(context, headers as u64);
        buffered.calls.insert(context, Rc::downgrade(call));
        if headers > 0 {
            buffered.ledger.own(context, owner(call.as_ref()));
        }
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

/// Notes how far a call is.
pub(crate) fn note(context: u32, phase: Phase) {
    BUFFERED.with_borrow_mut(|buffered| buffered.ledger.note(context, phase));
}

/// Whether the current call, which gives way, may wait for its reply until the client has sent what it is sending.
pub(crate) fn may_wait(context: u32, budgets: &Budgets) -> bool {
    BUFFERED.with_borrow(|buffered| buffered.ledger.may_wait(context, budgets))
}

/// Whether Envoy may keep a reply to the current stream until its client has read it. If not, the stream has to be reset.
pub(crate) fn may_reply(context: u32, budgets: &Budgets) -> bool {
    BUFFERED.with_borrow_mut(|buffered| {
        if !buffered.ledger.has_unread(budgets) {
            return true;
        }
        buffered.find_owners(context);
        buffered.ledger.may_reply(context, budgets)
    })
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
                return Some(full);
            }
            buffered.ledger.note(stream, Phase::Leaving);
            if let Some(call) = buffered.calls.get(&stream).and_then(Weak::upgrade) {
                call.evict(full);
            }
        }
        None
    })
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
    Owner::new(&call.caller(), host::connection().unwrap_or_default())
}
