//! What the gateway decides about a call: pure, so that every path is a table test.
#![forbid(unsafe_code)]

pub mod audit;
