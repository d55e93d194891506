//! Memory and CPU time of a collector.

use std::process::{Command, Stdio};
use std::time::Duration;

/// The program, or the one that `AUDIT_COLLECTOR_BIN` names, with credentials for DynamoDB.
pub(crate) fn collector(arguments: &[&str]) -> Command {
    let binary =
        std::env::var("AUDIT_COLLECTOR_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_audit-collector").to_owned());
    let mut command = Command::new(binary);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs([("AWS_REGION", "us-gov-west-1"), ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")]);
    command.envs([("AWS_SECRET_ACCESS_KEY", "example"), ("AWS_EC2_METADATA_DISABLED", "true")]);
    command
}

/// A value of `/proc/PID/status` in KiB: `VmHWM` (the peak) or `VmRSS`.
pub(crate) fn memory_kib(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

/// User and system time of all threads.
pub(crate) fn cpu(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may have spaces: fields 14 and 15 of the line, in ticks of 10 ms.
    let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}
