//! The Proxy-Wasm module: carries the calls of Envoy to `filter_core` and its steps back.
