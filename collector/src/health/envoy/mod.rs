//! Envoy's own count of what it could not write to its log files. Envoy drops a buffer that it cannot write, on a full disk
//! for example, and only counts it. Its statistics are in
//! <https://www.envoyproxy.io/docs/envoy/v1.35.2/configuration/observability/access_log/stats>; seen with Envoy 1.40:
//!
//! - `write_buffered` grows by one for each entry;
//! - `write_completed` and `write_failed` grow by one for each piece of a buffer that was written or was not, so one failed
//!   write is one entry or many. A piece that was written in part counts as failed.
//!
//! So the number of entries that a failure lost is not known, only that it is at most what Envoy buffered around it.

mod admin;
pub mod losses;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use admin::{Admin, AdminError};
use losses::{Losses, Seen};

use crate::report::Report;

const INTERVAL: Duration = Duration::from_secs(1);
/// How long Envoy may be silent before that is reported. It may be starting.
const SILENCE: Duration = Duration::from_secs(60);

/// Asks Envoy once a second, until it is dropped.
pub(super) async fn watch(admin: Admin, report: Arc<Report>) {
    let mut losses = Losses::default();
    let (mut answered, mut silent) = (Instant::now(), false);
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Envoy's limit for the age of a buffer; read again after Envoy was away.
    let mut flush = None;
    loop {
        interval.tick().await;
        if flush.is_none() {
            flush = admin.flush_interval().await.ok();
        }
        let result = admin.sample().await;
        let up = result.is_ok();
        match result {
            Ok(sample) => {
                if std::mem::take(&mut silent) {
                    report.answers_again();
                }
                answered = Instant::now();
                for event in losses.take(&sample, SystemTime::now(), flush.unwrap_or(admin::DEFAULT_FLUSH)) {
                    report.lost(&event);
                }
            }
            Err(error) => {
                flush = None;
                if !silent && answered.elapsed() >= SILENCE {
                    silent = true;
                    report.failed("Envoy's statistics", &error);
                }
            }
        }
        report.health().set_envoy(Seen { asked: true, up, ..losses.seen() });
    }
}
