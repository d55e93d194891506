//! Lines of the access log file → batches. While the store is down nothing is read; the checkpoint is stored with the
//! records, so that a restart continues there.

use std::path::Path;
use std::time::Duration;

use audit::AuditRecord;
use tokio::sync::watch;
use tokio::time::Instant;

use super::log_file::Line;
use super::tail::Tail;
use crate::batch::{BATCH_LINES, BATCH_WAIT, Batch, Origin, Rejected};
use crate::decode;
use crate::deliver::deliver;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::store::Store;

/// How long a stop waits until the lines are stored that were written before. The next start reads the rest.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Places in a line that cannot be decoded where another entry is looked for. Each attempt reads the rest of the line.
const CUTS: usize = 16;

/// Follows the log until `stop`. `path` is also the checkpoint's key.
pub async fn follow(
    path: &Path,
    mut tail: Tail,
    store: &Store,
    ledger: Option<&Ledger>,
    report: &Report,
    mut stop: watch::Receiver<bool>,
) {
    // A lasting failure is reported once, not at each poll.
    let mut last_error = String::new();
    let mut stored = None;
    let mut deadline = None;
    loop {
        report.health().reader_turns();
        let stopping = *stop.borrow();
        if stopping && *deadline.get_or_insert_with(|| Instant::now() + STOP_GRACE) <= Instant::now() {
            report.stopped_in_backlog(path);
            return;
        }
        let mut failed = false;
        let polled = match tail.poll(BATCH_LINES) {
            Ok(polled) => {
                last_error.clear();
                report.health().log_error(None);
                polled
            }
            Err(error) => {
                failed = true;
                let error = error.to_string();
                report.health().log_error(Some(&error));
                if last_error != error {
                    report.failed(&path.display().to_string(), &error);
                    last_error = error;
                }
                Default::default()
            }
        };
        for notice in &polled.notices {
            report.notice(path, notice);
            if let Some(ledger) = ledger.filter(|_| notice.is_gap())
                && let Err(error) = ledger.lines_lost(path, notice)
            {
                report.failed("no record says so", &error);
            }
        }
        let full = polled.lines.len() >= BATCH_LINES;
        let checkpoint = tail.checkpoint();
        let moved = checkpoint != stored;
        let at = checkpoint.clone().map(|checkpoint| (path.to_owned(), checkpoint));
        let mut batch = Batch { origin: Origin::File, checkpoint: at, ..Batch::default() };
        for line in polled.lines {
            decode_into(&mut batch, line);
        }
        if moved || !batch.is_empty() {
            report.health().reader_rests();
            if let Err(error) = deliver(store, ledger, &batch, report, &mut stop, STOP_GRACE).await {
                report
                    .failed("stopped before every line was stored; the next start continues at the checkpoint", &error);
                return;
            }
            report.health().log_is_at(checkpoint.as_ref(), tail.open_parts());
            stored = checkpoint;
        }
        if full {
            continue;
        }
        if let Some(ledger) = ledger.filter(|_| !failed) {
            ledger.at_end(Origin::File);
        }
        // Return only after a poll that began after the stop, so that lines written before the stop are stored.
        if stopping {
            return;
        }
        let _ = tokio::time::timeout(BATCH_WAIT, stop.changed()).await;
    }
}

/// Adds a line's record, or the line to the rejected entries.
pub(crate) fn decode_into(batch: &mut Batch, line: Line) {
    let (reason, content) = match line.content {
        Ok(content) => match decode::line::record(&content) {
            Ok(record) => {
                batch.add(record);
                return;
            }
            Err(error) => match behind_a_cut(&content) {
                Some((cut, record)) => {
                    batch.add(record);
                    let reason = format!("the entry was cut, and another one follows it in the line: {error}");
                    (reason, content.get(..cut).unwrap_or_default().to_vec())
                }
                None => (error.to_string(), content),
            },
        },
        Err(bad) => (bad.to_string(), Vec::new()),
    };
    batch.rejected.push(Rejected::new("file", line.file.display().to_string(), line.offset, reason, &content));
}

/// The last entry of a line that begins with a part of another one, and where it starts. When a disk is full, Envoy writes
/// the beginning of an entry; what it writes once there is room follows without a newline. A text of an entry cannot look
/// like this, since JSON escapes quotes.
fn behind_a_cut(line: &[u8]) -> Option<(usize, AuditRecord)> {
    let pairs = line.windows(2).enumerate().skip(1).rev();
    let starts = pairs.filter(|(_, pair)| pair == b"{\"").map(|(at, _)| at).take(CUTS);
    { starts }.find_map(|at| Some((at, decode::line::record(line.get(at..)?).ok()?)))
}
