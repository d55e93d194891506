//! WASI preview 1 by `wasmtime-wasi`, reduced to what Envoy's host offers.

use wasmtime::{Caller, Linker, Module};
use wasmtime_wasi::p1;

use crate::guest::Guest;
use crate::state::State;

const WASI: &str = "wasi_snapshot_preview1";

/// The functions that Envoy's host offers. A module that imports more would run on `wasmtime-wasi` and fail in Envoy.
const OFFERED: [&str; 15] = [
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_read",
    "fd_seek",
    "fd_write",
    "proc_exit",
    "random_get",
    "sched_yield",
];

/// The name of the first WASI function that the module imports and Envoy's host does not offer.
pub(super) fn not_offered(module: &Module) -> Option<String> {
    let mut imports = module.imports().filter(|import| import.module() == WASI);
    imports.find(|import| !OFFERED.contains(&import.name())).map(|import| format!("{WASI}::{}", import.name()))
}

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    p1::add_to_linker_sync(linker, |state: &mut State| {
        // Runs once a call; the call's name is unknown here.
        *state.counts.entry(WASI).or_default() += 1;
        &mut state.wasi.context
    })?;
    // Envoy defines these for linking only.
    linker.allow_shadowing(true);
    linker.func_wrap(WASI, "fd_read", |caller: Caller<'_, State>, _: u32, _: u32, _: u32, _: u32| {
        no_files(caller, "fd_read")
    })?;
    linker.func_wrap(WASI, "fd_seek", |caller: Caller<'_, State>, _: u32, _: i64, _: u32, _: u32| {
        no_files(caller, "fd_seek")
    })?;
    linker.func_wrap(WASI, "fd_close", |caller: Caller<'_, State>, _: u32| no_files(caller, "fd_close"))?;
    linker.func_wrap(WASI, "proc_exit", |caller: Caller<'_, State>, code: u32| -> wasmtime::Result<()> {
        Err(Guest::enter(caller, "proc_exit").end(&format!("the module exits with {code}")))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn no_files(caller: Caller<'_, State>, call: &'static str) -> wasmtime::Result<u32> {
    Err(Guest::enter(caller, call).end("files are not supported"))
}
