//! Looks for what is missing: calls that ended and are not in the log, calls of whose end nothing is known, holes in the
//! numbers of a VM, and VMs that ended.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use audit::AuditRecord;
use audit::notice::{End, Intent};
use rusqlite::Connection;

use super::known::Edit;
use super::records::{self, time_of};
use super::table::{self, OpenIntent};
use super::vms::{Envoy, Known, Vm};
use super::{Ledger, Refusal, now_ms};

/// Intents that one look takes.
const STEP: usize = 2_000;
/// How often the ledger notes that the collector reads.
const NOTE: Duration = Duration::from_secs(5);

/// How long the collector waits, while the log is read to its end, before it takes something as missing.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For the log entry of a number or of an end.
    pub entry: Duration,
    /// For a sign of life of a VM that has sent reports.
    pub silence: Duration,
    /// For the end of a call.
    pub end: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { entry: seconds(60), silence: seconds(30), end: seconds(3600) }
    }
}

/// What a look decides before it changes anything.
#[derive(Default)]
struct Findings {
    /// Intents that get a record, and whether their calls ended.
    closing: Vec<(OpenIntent, AuditRecord)>,
    /// VMs with numbers up to which everything should have come.
    due: Vec<(String, u64)>,
    /// VMs that ended, and their calls that have a record without a number.
    ended: Vec<(String, u64)>,
}

impl Ledger {
    /// What it finds is in the ledger then, as records that are to be stored.
    pub fn look(&self) -> Result<(), Refusal> {
        let (now, now_ms) = (Instant::now(), now_ms());
        let Some(read) = self.inner().progress.since(now) else { return Ok(()) };
        // A step that is not noted yet: windows wait for it.
        if self.inner().clock.is_off(now_ms) {
            return Ok(());
        }
        self.note(now, now_ms)?;
        let found = self.find(now, read).map_err(|error| Refusal::Failed(error.to_string()))?;
        if found.closing.is_empty() && found.due.is_empty() && found.ended.is_empty() {
            return Ok(());
        }
        // By the ledger's clock.
        let ended = self.inner().clock.now();
        let until = time_of(now_ms);
        let removals: Vec<_> =
            found.closing.iter().map(|(intent, record)| (intent.id.clone(), record.clone())).collect();
        let edit = |edit: &mut Edit<'_>| {
            for (intent, record) in &found.closing {
                close(edit, intent, record);
            }
            for (id, number) in &found.due {
                settle(edit, id, *number, &until);
            }
            for (id, unnumbered) in &found.ended {
                end(edit, id, *unnumbered, ended, &until);
            }
        };
        let remove = move |connection: &Connection| {
            for (id, record) in &removals {
                let is_open = match record.vm_logged {
                    Some(number) if number > 0 => table::remove_intent(connection, id)?,
                    _ => table::set_recorded(connection, id)?,
                };
                // It may have been closed since.
                if is_open {
                    table::add_record(connection, record)?;
                }
            }
            Ok(())
        };
        self.change(edit, remove)
    }

    fn find(&self, now: Instant, read: Duration) -> rusqlite::Result<Findings> {
        let Times { entry, silence, end } = self.inner().times;
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let (at, until) = (self.inner().clock.now(), time_of(now_ms()));
        let mut found = Findings::default();
        let mut closing = Vec::new();
        if read >= entry {
            closing.extend(self.read(|connection| table::ended_before(connection, at - ms(entry), STEP))?);
            closing.extend(self.read(|connection| table::begun_before(connection, at - ms(end), STEP))?);
        }
        let silent: Vec<String> = {
            let mut known = self.known();
            let Known { vms, envoys } = &mut *known;
            for (id, vm) in vms.iter_mut().filter(|(_, vm)| vm.ended.is_none()) {
                vm.watch.heard.get_or_insert(now);
                let highest = vm.known_logged();
                if vm.watch.marks.back().is_none_or(|(_, number)| *number != highest) {
                    vm.watch.marks.push_back((now, highest));
                }
                while let Some((since, number)) = vm.watch.marks.front().copied()
                    && now.saturating_duration_since(since) >= entry
                {
                    // The last one stays: nothing changed since.
                    if vm.numbers.is_short_of(number) {
                        found.due.push((id.clone(), number));
                    }
                    if vm.watch.marks.len() == 1 {
                        break;
                    }
                    vm.watch.marks.pop_front();
                }
            }
            let is_silent = |vm: &Vm| {
                let quiet = vm.watch.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard));
                if vm.reported {
                    return quiet >= silence && read >= silence;
                }
                let own = envoys.get(&vm.envoy);
                let replaces = |envoy: &Envoy| {
                    let newer = own.is_none_or(|own| own.since < envoy.since);
                    newer
                        && envoy.logs.is_some_and(|(first, last)| {
                            now.saturating_duration_since(first) >= entry
                                && vm.watch.heard.is_none_or(|heard| last > heard)
                        })
                };
                vm.in_log && quiet >= entry && read >= entry && envoys.values().any(replaces)
            };
            let open = vms.iter().filter(|(_, vm)| vm.ended.is_none());
            open.filter(|(_, vm)| is_silent(vm)).map(|(id, _)| id.clone()).collect()
        };
        for id in silent {
            let open = self.read(|connection| table::of_vm(connection, &id, STEP))?;
            let gaps = self.known().vms.get(&id).is_some_and(|vm| vm.numbers.is_short_of(vm.known_logged()));
            if open.is_empty() && !gaps {
                let unnumbered = self.read(|connection| table::recorded(connection, &id))?;
                found.ended.push((id, unnumbered));
            }
            // Those that ended wait for their log entries.
            closing.extend(open.into_iter().filter(|intent| intent.ending.is_none()));
        }
        let mut ids = HashSet::new();
        closing.retain(|intent| ids.insert(intent.id.clone()));
        found.closing = closing.into_iter().map(|intent| with_record(intent, &until)).collect();
        Ok(found)
    }

    /// Notes that the log is read, for the next start.
    fn note(&self, now: Instant, now_ms: i64) -> Result<(), Refusal> {
        let mut noted = self.inner().noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if noted.is_none_or(|noted| now.saturating_duration_since(noted) >= NOTE) {
            *noted = Some(now);
            let kept = self.inner().clock.keep();
            self.commit(move |connection| {
                table::set_clock(connection, &kept)?;
                Ok(table::set_read(connection, now_ms)?)
            })?;
        }
        Ok(())
    }
}

fn with_record(intent: OpenIntent, until: &str) -> (OpenIntent, AuditRecord) {
    let parsed = serde_json::from_str::<Intent>(&intent.content).unwrap_or_else(|_| {
        // Another release may have kept another form.
        let exchange = audit::ExchangeFacts { id: intent.id.clone(), ..audit::ExchangeFacts::default() };
        Intent { time_ms: u64::try_from(intent.at).unwrap_or(0), exchange }
    });
    let end = intent.ending.as_deref().and_then(|end| serde_json::from_str::<End>(end).ok());
    let record = match end {
        Some(end) => records::unlogged(parsed.time_ms, end),
        None => records::outcome_unknown(parsed, until),
    };
    (intent, record)
}

/// A call gets a record in place of its log entry.
fn close(edit: &mut Edit<'_>, intent: &OpenIntent, record: &AuditRecord) {
    let Some(vm) = intent.vm.as_deref().and_then(|vm| edit.vm(vm)) else { return };
    vm.begun = vm.begun.max(record.vm_begun.unwrap_or(0));
    if let Some(number) = record.vm_logged.filter(|number| *number > 0) {
        vm.numbers.add(number, &record.time, record.latency_ms);
    }
}

fn settle(edit: &mut Edit<'_>, id: &str, number: u64, until: &str) {
    let Some(vm) = edit.vm(id) else { return };
    let holes = vm.numbers.settle(number);
    let records: Vec<_> = holes.iter().map(|hole| records::hole(id, vm, hole, until)).collect();
    edit.records.extend(records);
}

fn end(edit: &mut Edit<'_>, id: &str, unnumbered: u64, ended: i64, until: &str) {
    let heard = edit.known().vms.get(id).and_then(|vm| vm.watch.heard);
    let Some(vm) = edit.vm(id) else { return };
    // It may have given a sign since.
    if vm.watch.heard != heard || vm.ended.is_some() {
        return;
    }
    (vm.lost, vm.lost_at_most) = vm.missing(unnumbered);
    vm.ended = Some(ended);
    vm.watch.marks.clear();
    let (record, envoy) = (records::vm_end(id, vm, until), vm.envoy.clone());
    edit.records.push(record);

    let touched: Vec<_> = edit.vms.values().filter(|vm| vm.envoy == envoy).cloned().collect();
    let others = edit.known().vms.iter().filter(|(id, vm)| vm.envoy == envoy && !edit.vms.contains_key(*id));
    let all: Vec<_> = touched.iter().chain(others.map(|(_, vm)| vm)).collect();
    if all.iter().any(|vm| vm.ended.is_none()) {
        return;
    }
    let sum = |count: fn(&Vm) -> u64| all.iter().map(|vm| count(vm)).sum::<u64>();
    let sums = (sum(|vm| vm.lost), sum(|vm| vm.lost_at_most));
    let windows = all.iter().map(|vm| vm.complete.as_ref().map_or(&vm.since, |seen| &seen.time));
    let time = windows.min().cloned().unwrap_or_else(|| until.to_owned());
    let Some(of) = edit.envoy(&envoy) else { return };
    of.ended = Some(ended);
    let record = records::envoy_end(&envoy, of, sums, &time, until);
    edit.records.push(record);
}
