//! AWS's documented example keys; the doubles verify every signature against them.

/// The access key's id.
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
/// Its secret.
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// The region of runs that have one.
pub const REGION: &str = "us-east-1";
