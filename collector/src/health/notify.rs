//! Tells systemd that the run serves, works and stops: sd_notify(3), `Type=notify` and `WatchdogSec=` of a unit. Without
//! systemd (`NOTIFY_SOCKET`) nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch::Receiver;

use crate::report::Report;

/// How often the status is told.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Tells systemd until the stop. The watchdog is fed only while the log's reader goes round and no write hangs, so that a
/// task that hangs for the unit's `WatchdogSec=` ends the program.
pub(super) async fn watch(report: Arc<Report>, mut stop: Receiver<bool>) {
    send(&[NotifyState::Ready, NotifyState::Status(&status(&report))]);
    let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    // Several times in the limit, as sd_watchdog_enabled(3) recommends.
    let mut feed = tokio::time::interval(watchdog.map_or(STATUS_INTERVAL, |limit| limit / 4));
    let mut statuses = tokio::time::interval(STATUS_INTERVAL);
    loop {
        tokio::select! {
            _ = feed.tick() => {
                if let Some(limit) = watchdog {
                    match report.health().stuck(limit / 2) {
                        None => send(&[NotifyState::Watchdog]),
                        Some(what) => report.failed("systemd's watchdog is not fed", &what),
                    }
                }
            }
            _ = statuses.tick() => send(&[NotifyState::Status(&status(&report))]),
            stopped = stop.wait_for(|stop| *stop) => {
                if stopped.is_ok() {
                    report.health().stopping();
                    stopping();
                }
                break;
            }
        }
    }
    // The stop may take longer than the watchdog's limit.
    if let Some(limit) = watchdog {
        let mut feed = tokio::time::interval(limit / 4);
        loop {
            feed.tick().await;
            if report.health().stuck(limit / 2).is_none() {
                send(&[NotifyState::Watchdog]);
            }
        }
    }
}

/// At the stop, and again at the end, which may come before the task of this module sees the stop.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stores what is read")]);
}

/// A manager that is gone is not an error.
fn send(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

fn status(report: &Report) -> String {
    let counts = report.counts();
    let backlog = report.health().log().backlog;
    match report.health().ready() {
        Ok(()) | Err(super::state::NotReady::Starting) => format!(
            "stored {}, rejected {}, gaps {}; {} bytes of the log not stored",
            counts.stored, counts.rejected, counts.gaps, backlog.bytes
        ),
        Err(reason) => reason.to_string(),
    }
}
