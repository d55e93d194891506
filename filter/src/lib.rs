//! The Proxy-Wasm module: turns Envoy's callbacks into events of `filter_core`, and carries out its steps.

// A leaf crate: nothing reads its documentation but its own source.

mod apply;
mod buffered;
mod catalogue;
mod collector;
mod connections;
mod downstream;
mod host;
mod memory;
mod metrics;
mod plugin;
mod refresh;
mod relay;
mod relay_state;
mod resolve;
mod root;
mod source;
mod upstream;
mod waiting;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
