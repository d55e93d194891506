//! The functions that a module can import from `env` and `wasi_snapshot_preview1`.

mod control;
mod http_call;
mod maps;
mod shared;
mod wasi;

use wasmtime::{Linker, Module};

use super::state::State;

/// Defines `env` functions: each gets the [`Guest`](super::guest::Guest) of its call and answers `Result<(), Refusal>`.
macro_rules! env {
    ($linker:expr; $(fn $name:ident($guest:ident $(, $arg:ident: $type:ty)* $(,)?) $body:block)+) => {
        $(
            $linker.func_wrap(
                "env",
                stringify!($name),
                |caller: wasmtime::Caller<'_, $crate::state::State>, $($arg: $type),*| -> wasmtime::Result<u32> {
                    $crate::guest::Guest::enter(caller, stringify!($name))
                        .answer(|$guest| -> Result<(), $crate::fault::Refusal> { $body })
                },
            )?;
        )+
    };
}
use env;

/// The first WASI import that Envoy does not offer; the module must not load. For `env`, [`link`] defines only what Envoy
/// offers.
pub(super) fn not_offered(module: &Module) -> Option<String> {
    wasi::not_offered(module)
}

/// Defines everything that a module may import, and more of WASI: see [`not_offered`].
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    control::link(linker)?;
    http_call::link(linker)?;
    maps::link(linker)?;
    shared::link(linker)?;
    wasi::link(linker)
}
