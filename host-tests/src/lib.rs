//! What the tests stand on.

pub mod double;
pub mod load;
pub mod sources;
#[cfg(feature = "vm")]
pub mod vm;
