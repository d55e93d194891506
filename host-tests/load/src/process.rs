//! What a process of this machine takes (`/proc/PID`, proc(5)).

use std::io;

/// The CPU time of its threads, in nanoseconds, without those that have ended (`/proc/PID/task/TID/schedstat`, "Schedstat in
/// /proc/<pid>" of the kernel's documentation).
///
/// # Errors
///
/// If the process does not exist.
pub fn cpu(pid: u32) -> io::Result<u64> {
    let mut all = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended since.
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        all += text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(all)
}

/// Its memory (`VmRSS` in `/proc/PID/status`), in KiB.
///
/// # Errors
///
/// If the process does not exist, or has ended.
pub fn memory(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.ok_or_else(|| io::Error::other(format!("process {pid} has ended")))
}

/// The medians of the second and of the last tenth of samples: after the warm-up and at the end.
#[must_use]
pub fn second_and_last_tenth(samples: &[u64]) -> (u64, u64) {
    let tenth = (samples.len() / 10).max(1);
    let median = |mut part: Vec<u64>| {
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or(0)
    };
    let second = samples.iter().skip(tenth).take(tenth).copied().collect();
    (median(second), median(samples.iter().rev().take(tenth).copied().collect()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn tenths_of_any_number_of_samples() {
        let samples: Vec<u64> = (0..40).collect();
        assert_eq!(super::second_and_last_tenth(&samples), (6, 38));
        for length in 2..30 {
            let (second, last) = super::second_and_last_tenth(&samples[..length]);
            assert!(second > 0 && last >= second, "{length}: {second} {last}");
        }
    }

    #[test]
    fn this_process_takes_time_and_memory() {
        let before = super::cpu(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while super::cpu(std::process::id()).unwrap() < before + 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(super::memory(std::process::id()).unwrap() > 100);
        assert!(super::cpu(0).is_err() && super::memory(0).is_err());
    }
}
