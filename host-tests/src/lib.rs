//! What the tests stand on.

pub mod double;
#[cfg(feature = "vm")]
pub mod vm;
