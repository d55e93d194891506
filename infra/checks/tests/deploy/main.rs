//! `infra/deploy`, run with the AWS CLI against the mock of AWS, with small templates of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conditions;
mod deployment;
mod evidence;
mod landing;
mod local;
mod models;
mod plans;
mod preflight;
mod rollback;
mod scripts;
mod smoke;
mod tunnels;
