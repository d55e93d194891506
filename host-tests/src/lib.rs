//! What the tests stand on.

pub mod double;
pub mod load;
#[cfg(feature = "vm")]
pub mod vm;
