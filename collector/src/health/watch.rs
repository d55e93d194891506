//! Looks at the log from outside its reader, which stands still while the store is down: what is not stored, and how full
//! the disk is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::statvfs;

use super::state::Disk;
use crate::report::Report;
use crate::source::backlog::backlog;

const INTERVAL: Duration = Duration::from_secs(1);
/// Percent of the disk that are free: below the first it is reported, from the second on it may be reported again.
const LOW: u64 = 5;
const ENOUGH: u64 = 7;
/// Free bytes that are enough on a disk of any size: hours of calls.
const PLENTY: u64 = 4 << 30;

/// Looks at the log once a second, until it is dropped.
pub(super) async fn log(log: PathBuf, report: Arc<Report>) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut low = false;
    loop {
        interval.tick().await;
        let (path, state) = (log.clone(), report.health().log());
        let look = move || {
            let left = backlog(&path, state.checkpoint.as_ref()).unwrap_or(state.backlog);
            (left, disk(&path))
        };
        let Ok((left, disk)) = tokio::task::spawn_blocking(look).await else { return };
        report.health().log_is_left(left, disk);
        let Some(Disk { free, size }) = disk.filter(|disk| disk.size > 0) else { continue };
        let less_than = |percent: u64| free < (size / 100 * percent).min(PLENTY);
        if !low && less_than(LOW) {
            let left = format!("{free} of {size} bytes are free; when it is full, Envoy loses entries");
            report.failed("the disk of the log is nearly full", &left);
        }
        low = less_than(if low { ENOUGH } else { LOW });
    }
}

fn disk(log: &Path) -> Option<Disk> {
    let folder = log.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let found = statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Disk { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
}
