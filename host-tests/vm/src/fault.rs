//! Faults of a module, and refusals of a host call.

use thiserror::Error;

/// What ended a callback and the VM: as in Envoy, a failed VM serves nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The module trapped: a panic, an out-of-bounds access, an endless loop.
    #[error("the module trapped in {callback}: {text}")]
    Trap {
        /// The ABI callback that ran.
        callback: String,
        /// wasmtime's text, with the module's backtrace where it has one.
        text: String,
    },
    /// The module called the host in a way that Envoy accepts silently or that has no meaning.
    #[error("misuse of the host in {callback}: {text}")]
    Misuse {
        /// The ABI callback that ran.
        callback: String,
        /// The host call and what was wrong with it.
        text: String,
    },
    /// An earlier fault ended this VM.
    #[error("an earlier fault ended this VM: {0}")]
    Poisoned(String),
}

/// Passes through wasmtime as an error, so that it differs from a trap.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// Why a host call did not return `Ok`.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The status that Envoy gives; the module goes on.
    Status(super::abi::Status),
    /// The test fails.
    Misuse(String),
}

impl From<super::abi::Status> for Refusal {
    fn from(status: super::abi::Status) -> Self {
        Self::Status(status)
    }
}

pub(super) fn misuse<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Misuse(text.into()))
}
