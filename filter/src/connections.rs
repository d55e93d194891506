//! The network filter that limits clients' connections (`filter_core::connections`).

use crate::host::{self, HostError};
use filter_core::caller::Address;
use filter_core::connections::OpenConnections;
use proxy_wasm::traits::{Context, StreamContext};
use proxy_wasm::types::{Action, LogLevel};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The open connections of the root context's listeners on this worker.
pub(crate) type Shared = Rc<RefCell<OpenConnections>>;

thread_local! {
    /// The connections without a request, by Envoy's number.
    static SILENT: RefCell<HashMap<u64, (Shared, u32)>> = RefCell::default();
}

/// A client's connection. Dropped when the connection ends.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u32,
    open: Shared,
    /// Set while it is counted.
    client: Option<Address>,
    /// Envoy's number.
    number: Option<u64>,
}

impl Connection {
    pub(crate) fn new(id: u32, open: &Shared) -> Self {
        Self { id, open: Rc::clone(open), client: None, number: None }
    }

    fn begin(&mut self) -> Result<Action, HostError> {
        let Some(client) = host::source_address() else { return Ok(Action::Continue) };
        if self.open.borrow_mut().open(self.id, client, host::now()?) {
            self.client = Some(client);
            self.number = host::connection();
            match self.number {
                Some(number) => {
                    SILENT.with_borrow_mut(|silent| silent.insert(number, (Rc::clone(&self.open), self.id)));
                }
                // Its requests could not be told from others'.
                None => self.open.borrow_mut().hear(self.id),
            }
            return Ok(Action::Continue);
        }
        host::close_connection()?;
        Ok(Action::Pause)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            SILENT.with_borrow_mut(|silent| silent.remove(&number));
        }
        if let Some(client) = self.client {
            self.open.borrow_mut().close(self.id, client);
        }
    }
}

impl Context for Connection {}

impl StreamContext for Connection {
    fn on_new_connection(&mut self) -> Action {
        self.begin().unwrap_or_else(|error| {
            host::log(LogLevel::Error, &format!("a client's connection is not counted: {error}"));
            Action::Continue
        })
    }
}

/// The connection of the current stream has sent a request. Its bytes alone prove nothing: a line end, or a part of HTTP/2's
/// preface, begins no request, and Envoy waits for one without limit.
pub(crate) fn hear() {
    SILENT.with_borrow_mut(|silent| {
        if !silent.is_empty()
            && let Some((open, id)) = host::connection().and_then(|number| silent.remove(&number))
        {
            open.borrow_mut().hear(id);
        }
    });
}

/// Ends the connections that have sent no request for too long, and reports how many were refused. `root` is the context that calls.
pub(crate) fn tick(open: &Shared, root: u32) {
    let Ok(now) = host::now() else { return };
    let late = open.borrow_mut().take_silent(now);
    for id in &late {
        let _ = host::set_context(*id).and_then(|()| host::close_connection());
    }
    if !late.is_empty() {
        // If this fails, the next callback sets its own context.
        let _ = host::set_context(root);
    }
    let refused = open.borrow_mut().take_refused();
    if refused > 0 {
        host::log(LogLevel::Warn, &format!("refused {refused} connections: their clients have as many as they may"));
    }
}
