//! The Bedrock double over real TLS connections: what it refuses, what it answers and how it fails.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod answers;
mod client;
mod faults;
mod judge;
mod process;
mod sources;
