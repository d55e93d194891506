//! What the tests stand on.

#[cfg(feature = "vm")]
pub mod vm;
