//! The two ways a module can be wrong beyond a status code.

use thiserror::Error;

/// What ended a callback, and with it the VM: as in Envoy, a failed VM serves nothing more.
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
    /// The module called the host in a way that Envoy would accept silently or that has no meaning: a mistake.
    #[error("misuse of the host in {callback}: {text}")]
    Misuse {
        /// The ABI callback that ran.
        callback: String,
        /// The host call and what was wrong with it.
        text: String,
    },
    /// An earlier fault ended this VM.
    #[error("the VM is dead since an earlier fault: {0}")]
    Poisoned(String),
}

/// Carried through wasmtime as an error, to be told from a trap when it arrives.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// Why a host call did not answer `Ok`.
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
