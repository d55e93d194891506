//! The figures of a run in Prometheus's text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::report::Report;

static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// Name, kind, help. `docs/audit.md` lists the names.
type Row = (&'static str, &'static str, &'static str, f64);

/// Takes the time of the start.
pub(super) fn begin() {
    LazyLock::force(&STARTED);
}

pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "# HELP audit_collector_build_info The release, with value 1.\n# TYPE audit_collector_build_info gauge\n\
         audit_collector_build_info{{version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    for (name, kind, help, value) in rows(report) {
        let _ = writeln!(
            text,
            "# HELP audit_collector_{name} {help}\n# TYPE audit_collector_{name} {kind}\naudit_collector_{name} {value}"
        );
    }
    text
}

fn rows(report: &Report) -> Vec<Row> {
    let counts = report.counts();
    let (state, log, store) = (report.health(), report.health().log(), report.health().store());
    let counter = |name, help, value: u64| (name, "counter", help, value as f64);
    let gauge = |name, help, value: f64| (name, "gauge", help, value);
    let refused = counts.refused;
    let mut rows = vec![
        gauge("start_time_seconds", "When the run began, in seconds since 1970.", seconds(Some(*STARTED))),
        gauge("ready", "1 if /ready answers 200.", f64::from(u8::from(state.ready().is_ok()))),
        counter("records_stored_total", "Records that the store accepted, repeated ones included.", counts.stored),
        counter("records_repeated_total", "Records that the store was seen to have already.", counts.repeated),
        counter("records_expired_total", "Stored records that had expired by then.", counts.expired),
        counter("records_refused_total", "Records that the store can never accept.", refused),
        counter(
            "entries_rejected_total",
            "Entries that cannot be decoded; they are kept.",
            counts.rejected.saturating_sub(refused),
        ),
        counter("feed_entries_dropped_total", "Feed entries dropped from a full buffer.", counts.dropped),
        counter("feed_entries_skipped_total", "Feed entries that end no HTTP exchange.", counts.skipped),
        counter("gaps_total", "Places where entries may be lost.", counts.gaps),
        counter("calls_lost_total", "Calls that a gateway logged, and that have no record.", counts.lost),
        counter("calls_unlogged_total", "Calls that the log does not have; a gateway reported them.", counts.unlogged),
        counter("calls_unknown_total", "Calls with an intent, of whose end nothing is known.", counts.unknown),
        counter(
            "log_lines_lost_total",
            "Lines of the program's own log that nobody read in time.",
            crate::stderr::lost(),
        ),
        gauge(
            "store_last_success_timestamp_seconds",
            "When the store last accepted a write, in seconds since 1970; 0 before.",
            seconds(store.last_success),
        ),
        gauge(
            "store_wait_seconds",
            "How long the store has not accepted what was handed to it; 0 if nothing waits.",
            store.waiting.as_secs_f64(),
        ),
        gauge("store_failures", "Failed writes in a row.", f64::from(store.failures)),
        gauge("log_unread_bytes", "Bytes of all parts of the log that are not stored.", log.backlog.bytes as f64),
        gauge("log_unread_parts", "Parts of the log that have such bytes.", log.backlog.parts as f64),
        gauge(
            "log_lag_seconds",
            "Age of the oldest line that is not stored; 0 if all are.",
            log.backlog.lag().as_secs_f64(),
        ),
        gauge("log_open_parts", "Parts of the log that are open.", log.open_parts as f64),
    ];
    if let Some(disk) = log.disk {
        rows.extend([
            gauge("log_disk_free_bytes", "Free bytes of the log's file system.", disk.free as f64),
            gauge("log_disk_size_bytes", "Size of the log's file system.", disk.size as f64),
        ]);
    }
    let envoy = state.envoy();
    if envoy.asked {
        let window = envoy.window;
        rows.extend([
            gauge("envoy_up", "1 if Envoy's admin address answered the last time.", f64::from(u8::from(envoy.up))),
            counter(
                "envoy_write_failed_total",
                "Writes of Envoy's to its log files that failed; one may be many entries.",
                envoy.failed_writes,
            ),
            counter("envoy_entries_lost_max_total", "At most so many entries were lost in failed writes.", envoy.lost),
            gauge(
                "envoy_loss_start_timestamp_seconds",
                "When the last window of failed writes began; 0 without one.",
                seconds(window.map(|window| window.from)),
            ),
            gauge(
                "envoy_loss_end_timestamp_seconds",
                "When it ended; 0 while it lasts.",
                seconds(window.and_then(|window| window.to)),
            ),
            counter(
                "envoy_feed_dropped_total",
                "Entries that Envoy's logger dropped and did not send to the access log service.",
                envoy.feed_dropped,
            ),
        ]);
    }
    rows
}

fn seconds(time: Option<SystemTime>) -> f64 {
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |time| time.as_secs_f64())
}
