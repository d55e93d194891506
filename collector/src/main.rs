//! Turns Envoy's access logs into audit records.

fn main() {}
