//! How far a log was read.

use serde::{Deserialize, Serialize};

/// Stored as JSON with the records. `infra/instance/rotate` reads its `inode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub inode: u64,
    /// Where the first unread line starts, in bytes.
    pub offset: u64,
    /// FNV-1a of the file's first `head_bytes` bytes. It tells the file from a later one with the same inode.
    pub head: u64,
    /// At most 256.
    pub head_bytes: u64,
}
