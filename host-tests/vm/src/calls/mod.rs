//! The functions a module imports from `env` and `wasi_snapshot_preview1`, and no others.

mod control;
mod maps;
mod outside;
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

/// What the module imports of WASI and Envoy has not: it must not load. Of `env`, [`link`] defines no more than Envoy has.
pub(super) fn not_offered(module: &Module) -> Option<String> {
    wasi::not_offered(module)
}

/// Defines everything that a module may import, and WASI functions that it may not: see [`not_offered`].
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    control::link(linker)?;
    maps::link(linker)?;
    outside::link(linker)?;
    shared::link(linker)?;
    wasi::link(linker)
}
