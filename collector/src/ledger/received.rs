//! Log entries: which numbers of a VM have come, and which intents have their records.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use audit::AuditMode;

use super::known::Edit;
use super::records::{self, time_of};
use super::{Ledger, Refusal, now_ms, table};
use crate::batch::{Batch, Origin, Written};
use crate::hash::fnv1a;
use crate::report::Notice;

impl Ledger {
    /// What this run reads.
    pub fn expect(&self, file: bool, feed: bool) {
        self.inner().progress.expect(file, feed);
    }

    /// The source has nothing more for now, and all that it had is stored.
    pub fn at_end(&self, origin: Origin) {
        self.inner().progress.at_end(origin, Instant::now());
        self.inner().read_at.store(now_ms(), Ordering::Relaxed);
    }

    /// Notes the numbers of a batch, before it is stored. The access log service does not send again, so its entries are kept
    /// with them until they are stored: after a kill, the next start stores them. Returns that copy's number.
    pub fn receive(&self, batch: &Batch) -> Result<Option<i64>, Refusal> {
        if batch.origin == Origin::Own || batch.seen().all(|record| record.vm.is_none()) {
            return Ok(None);
        }
        let copy = (batch.origin == Origin::Feed && !batch.records.is_empty()).then(|| {
            let content = serde_json::to_string(&batch.records).map_err(|cause| Refusal::Failed(cause.to_string()));
            content.map(|content| (self.inner().next_feed.fetch_add(1, Ordering::Relaxed), content))
        });
        let copy = copy.transpose()?;
        let number = copy.as_ref().map(|(number, _)| *number);
        let edit = |edit: &mut Edit<'_>| batch.seen().for_each(|record| edit.entry(record, batch.origin));
        self.change(edit, move |connection| match copy {
            Some((number, content)) => table::add_feed(connection, number, &content),
            None => Ok(()),
        })?;
        Ok(number)
    }

    /// Closes the intents of a batch that is stored.
    pub fn stored(&self, batch: &Batch, written: &Written, copy: Option<i64>) -> Result<(), Refusal> {
        let required = |audit: &Option<String>| audit.as_deref() == Some(AuditMode::Required.name());
        let refused = |id: &str| written.refused.iter().any(|refused| refused.file == id);
        let ids = batch.records.iter().filter(|record| required(&record.audit) && !refused(&record.request_id));
        let ids: Vec<_> = ids.map(|record| record.request_id.clone()).collect();
        if ids.is_empty() && copy.is_none() {
            return Ok(());
        }
        self.commit(move |connection| {
            for id in &ids {
                table::remove_intent(connection, id)?;
            }
            if let Some(number) = copy {
                table::remove_feed(connection, number)?;
            }
            Ok(())
        })
    }

    /// Lines of the log may be lost.
    pub fn lines_lost(&self, log: &Path, notice: &Notice) -> Result<(), Refusal> {
        let (why, again) = match notice {
            Notice::Truncated { .. } => ("LogTruncated", true),
            Notice::Gone { .. } => ("LogPartMissing", true),
            _ => ("LogPartNotRead", false),
        };
        // A file that is not read is named at each start.
        let when = if again { now_ms() } else { 0 };
        let name = format!("log-{:016x}", fnv1a(format!("{} {when} {notice}", log.display()).as_bytes()));
        self.gap(&name, why)
    }

    /// Notes that records may be missing since the log was last read to its end.
    pub(super) fn gap(&self, name: &str, why: &str) -> Result<(), Refusal> {
        let now = now_ms();
        let since = match self.inner().read_at.load(Ordering::Relaxed) {
            0 => now,
            since => since,
        };
        let mut record = records::gap(name, why, &time_of(since), &time_of(now));
        self.inner().clock.widen(&mut record);
        self.commit(move |connection| Ok(table::add_gap(connection, &record).map(|_| ())?))
    }
}
