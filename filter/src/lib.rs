//! The Proxy-Wasm module: carries the calls of Envoy to `filter_core` and its steps back.

// The entry point that the macro makes is the ABI's, documented there.
#![allow(missing_docs)]

mod exchange;
mod host;
mod metrics;
mod refresh;
mod relay;
mod root;
mod waiting;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
