//! A host call: access to the module's memory, and its result.

use wasmtime::Caller;

use super::abi::Status;
use super::effects::Refused;
use super::fault::{Misuse, Refusal, misuse};
use super::state::State;

/// A host call under way.
pub(super) struct Guest<'a> {
    caller: Caller<'a, State>,
    call: &'static str,
}

impl<'a> Guest<'a> {
    /// Counts the call.
    pub(super) fn enter(mut caller: Caller<'a, State>, call: &'static str) -> Self {
        *caller.data_mut().counts.entry(call).or_default() += 1;
        Self { caller, call }
    }

    /// Runs a function of `env`: its status for the module, or the error that ends it.
    pub(super) fn answer(self, body: impl FnOnce(&mut Self) -> Result<(), Refusal>) -> wasmtime::Result<u32> {
        self.run(|guest| body(guest).map(|()| Status::Ok as u32))
    }

    /// Runs a function that returns a number.
    pub(super) fn run(mut self, body: impl FnOnce(&mut Self) -> Result<u32, Refusal>) -> wasmtime::Result<u32> {
        match body(&mut self) {
            Ok(number) => Ok(number),
            Err(Refusal::Status(status)) => {
                let call = self.call;
                self.state().refused.push(Refused { call, status });
                Ok(status as u32)
            }
            Err(Refusal::Misuse(text)) => Err(self.end(&text)),
        }
    }

    pub(super) fn end(&self, text: &str) -> wasmtime::Error {
        Misuse(format!("{}: {text}", self.call)).into()
    }

    pub(super) fn state(&mut self) -> &mut State {
        self.caller.data_mut()
    }

    /// `what` names the argument in the error.
    pub(super) fn read(&self, pointer: u32, size: u32, what: &str) -> Result<Vec<u8>, Refusal> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let memory = match self.caller.data().memory {
            Some(memory) => memory.data(&self.caller),
            None => return misuse("called before the module was set up"),
        };
        let start = pointer as usize;
        match memory.get(start..start.saturating_add(size as usize)) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => misuse(format!("{what}: {size} bytes at {pointer:#x} are outside the module's memory")),
        }
    }

    pub(super) fn text(&self, pointer: u32, size: u32, what: &str) -> Result<String, Refusal> {
        String::from_utf8(self.read(pointer, size, what)?)
            .or_else(|error| misuse(format!("{what} is not UTF-8: {error}")))
    }

    pub(super) fn write(&mut self, pointer: u32, bytes: &[u8], what: &str) -> Result<(), Refusal> {
        let Some(memory) = self.caller.data().memory else {
            return misuse("called before the module was set up");
        };
        let start = pointer as usize;
        if start == 0 && !bytes.is_empty() {
            return misuse(format!("{what}: a null pointer"));
        }
        match memory.data_mut(&mut self.caller).get_mut(start..start.saturating_add(bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => misuse(format!("{what}: {} bytes at {pointer:#x} are outside the module's memory", bytes.len())),
        }
    }

    pub(super) fn write_u32(&mut self, pointer: u32, value: u32, what: &str) -> Result<(), Refusal> {
        self.write(pointer, &value.to_le_bytes(), what)
    }

    pub(super) fn write_u64(&mut self, pointer: u32, value: u64, what: &str) -> Result<(), Refusal> {
        self.write(pointer, &value.to_le_bytes(), what)
    }

    /// Writes bytes into memory that the module allocates; empty bytes are a null pointer and size 0, as in Envoy.
    pub(super) fn give(&mut self, bytes: &[u8], pointer_to: u32, size_to: u32) -> Result<(), Refusal> {
        let size = u32::try_from(bytes.len()).or_else(|_| misuse("over 4 GiB to hand over"))?;
        let mut pointer = 0;
        if size > 0 {
            let Some(allocate) = self.caller.data().allocate.clone() else {
                return misuse("the module exports neither proxy_on_memory_allocate nor malloc");
            };
            pointer = allocate
                .call(&mut self.caller, size)
                .or_else(|error| misuse(format!("allocating {size} bytes in the module: {error:#}")))?;
            self.write(pointer, bytes, "memory the module allocated")?;
        }
        self.write_u32(pointer_to, pointer, "pointer result")?;
        self.write_u32(size_to, size, "size result")
    }
}
