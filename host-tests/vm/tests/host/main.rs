//! The host itself, on small modules written as text.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod bodies;
mod calls;
mod common;
mod faults;
mod headers;
mod modules;
mod shared;
mod streams;
mod wasi;
