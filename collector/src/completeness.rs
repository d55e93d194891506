//! Whether the store has a record of every call, as far as its records say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use audit::text::visible;
use audit::{AuditRecord, RecordKind};
use serde::Serialize;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Complete,
    Incomplete,
    /// The records do not say.
    Unknown,
}

impl Verdict {
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Incomplete => 1,
            Self::Unknown => 2,
        }
    }
}

/// Collects records, in any order.
#[derive(Debug, Default)]
pub struct Survey {
    records: u64,
    /// Records of calls that name no VM.
    without_vm: u64,
    vms: BTreeMap<String, Vm>,
    envoys: BTreeSet<String>,
    holes: Vec<AuditRecord>,
    ends: Vec<AuditRecord>,
    /// Records of kind `unlogged` and `outcome_unknown`.
    calls: Vec<AuditRecord>,
    newest: Option<String>,
}

#[derive(Debug, Default)]
struct Vm {
    envoy: String,
    /// First and last of each run of numbers.
    numbers: BTreeMap<u64, u64>,
    lives: u32,
    last: String,
}

/// The answer and its reasons.
#[derive(Debug, Serialize)]
pub struct Findings {
    pub verdict: Verdict,
    /// The window that was asked for. Null is open.
    pub since: Option<String>,
    pub until: Option<String>,
    /// The time of the newest record: nothing is known of later calls.
    pub newest: Option<String>,
    pub records: u64,
    pub vms: usize,
    pub envoys: usize,
    /// Calls without a record, at least and at most. Gaps of unknown size are not counted.
    pub lost: u64,
    pub lost_at_most: u64,
    pub missing: Vec<Missing>,
    /// VMs that have not ended.
    pub open: Vec<Open>,
    /// What cannot be known.
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Missing {
    pub kind: String,
    pub request_id: String,
    pub vm: Option<String>,
    pub time: String,
    pub until: Option<String>,
    /// Null is unknown.
    pub lost: Option<u64>,
    pub lost_at_most: Option<u64>,
    pub reason: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Open {
    pub vm: String,
    pub envoy: String,
    /// Its newest record.
    pub last: String,
}

impl Survey {
    pub fn add(&mut self, record: AuditRecord) {
        let is = |kind: RecordKind| record.kind.as_deref() == Some(kind.name());
        let call = record.kind.is_none() || is(RecordKind::Unlogged) || is(RecordKind::OutcomeUnknown);
        if call {
            self.records += 1;
            self.newest = self.newest.take().max(Some(record.time.clone()));
        }
        self.envoys.extend(record.envoy.clone());
        match (&record.vm, &record.envoy) {
            (Some(id), Some(envoy)) => {
                let vm = self.vms.entry(id.clone()).or_default();
                vm.envoy.clone_from(envoy);
                if vm.last < record.time {
                    vm.last.clone_from(&record.time);
                }
                if call && let Some(number) = record.vm_logged {
                    vm.add(number);
                }
                if is(RecordKind::VmStart) || is(RecordKind::VmEnd) {
                    vm.lives = vm.lives.max(life(&record.request_id, id));
                }
            }
            _ if call => self.without_vm += 1,
            _ => {}
        }
        if is(RecordKind::Hole) {
            self.holes.push(record);
        } else if is(RecordKind::VmEnd) {
            self.ends.push(record);
        } else if is(RecordKind::Unlogged) || is(RecordKind::OutcomeUnknown) {
            self.calls.push(record);
        }
    }

    /// A hole or an end that began before the window: it counts if it reaches into it.
    pub fn add_earlier(&mut self, record: AuditRecord, since: &str) {
        let reaches = record.until.as_deref().is_some_and(|until| until >= since);
        match record.kind.as_deref() {
            Some(kind) if reaches && kind == RecordKind::Hole.name() => self.holes.push(record),
            Some(kind) if reaches && kind == RecordKind::VmEnd.name() => self.ends.push(record),
            _ => {}
        }
    }

    /// `rejected`: entries that could not be decoded. None if they were not looked at.
    pub fn findings(self, since: Option<String>, until: Option<String>, rejected: Option<u64>) -> Findings {
        let Self { records, without_vm, vms, envoys, holes, ends, calls, newest } = self;
        let (mut missing, mut notes, mut covered) = (Vec::new(), Vec::new(), 0);
        for hole in holes {
            let Some(lost) = hole.lost else {
                missing.push(Missing::of(hole, None, None));
                continue;
            };
            let vm = hole.vm.as_ref().and_then(|vm| vms.get(vm));
            let found = match (vm, range(&hole.request_id)) {
                (Some(vm), Some((first, last))) => {
                    covered += vm.between(first, last, false);
                    vm.between(first, last, true)
                }
                _ => 0,
            };
            // Entries of it may have come late.
            if found < lost {
                let left = lost - found;
                missing.push(Missing::of(hole, Some(left), Some(left)));
            }
        }
        let life_of = |end: &AuditRecord| end.vm.as_ref().map_or(0, |vm| life(&end.request_id, vm));
        let mut ended = BTreeSet::new();
        for end in ends {
            let Some(vm) = end.vm.clone() else { continue };
            // A VM that came back has another end.
            if vms.get(&vm).is_some_and(|known| life_of(&end) < known.lives) {
                continue;
            }
            ended.insert(vm);
            let (lost, at_most) = (end.lost, end.lost_at_most);
            if lost.is_none_or(|lost| lost > 0) || at_most.is_none_or(|at_most| at_most > 0) {
                missing.push(Missing::of(end, lost, at_most));
            }
        }
        // These have a record, of less than the log would say.
        missing.extend(calls.into_iter().map(|call| Missing::of(call, Some(0), Some(0))));
        match rejected {
            Some(0) => {}
            Some(count) => missing.push(Missing::rejected(count, newest.clone().unwrap_or_default())),
            None => notes.push("rejected entries were not looked at: name their file with --rejected-file".to_owned()),
        }
        missing.sort_by(|a, b| (&a.time, &a.request_id).cmp(&(&b.time, &b.request_id)));

        let undecided = vms.values().map(Vm::unused).sum::<u64>().saturating_sub(covered);
        if undecided > 0 {
            notes.push(format!(
                "{undecided} numbers of VMs have neither a record nor a hole: calls of classes with audit `off`, those of the \
                 last two minutes, or records that were deleted"
            ));
        }
        if without_vm > 0 {
            notes.push(format!(
                "{without_vm} records name no VM: Envoy refused the call before the filter, the filter's VM had failed, or it is \
                 of an older release; more calls like these may be missing"
            ));
        }
        notes.push("an Envoy that never reported and of which no entry came is not known".to_owned());
        let open = vms.iter().filter(|(id, _)| !ended.contains(*id));
        let open = open.map(|(id, vm)| Open { vm: id.clone(), envoy: vm.envoy.clone(), last: vm.last.clone() });
        let verdict = match (missing.is_empty(), vms.is_empty()) {
            (false, _) => Verdict::Incomplete,
            (true, true) => {
                notes
                    .push("no record names a VM: the filter is of an older release, or the window is empty".to_owned());
                Verdict::Unknown
            }
            (true, false) => Verdict::Complete,
        };
        let sum = |count: fn(&Missing) -> Option<u64>| missing.iter().filter_map(count).sum();
        Findings {
            verdict,
            since,
            until,
            newest,
            records,
            vms: vms.len(),
            envoys: envoys.len(),
            lost: sum(|missing| missing.lost),
            lost_at_most: sum(|missing| missing.lost_at_most.or(missing.lost)),
            open: open.collect(),
            missing,
            notes,
        }
    }
}

impl Vm {
    fn add(&mut self, number: u64) {
        let (mut first, mut last) = (number, number);
        if let Some((&before, &end)) = self.numbers.range(..=number).next_back() {
            if end >= number {
                return;
            }
            if end + 1 == number {
                first = before;
            }
        }
        if let Some(end) = self.numbers.remove(&(number + 1)) {
            last = end;
        }
        self.numbers.insert(first, last);
    }

    /// The numbers from first to last that have a record. With `any` false, those that have none and lie between such.
    fn between(&self, first: u64, last: u64, any: bool) -> u64 {
        let runs = self.numbers.range(..=last).filter(|(_, end)| **end >= first);
        let found: u64 = runs.map(|(begin, end)| (*end).min(last) - (*begin).max(first) + 1).sum();
        if any {
            return found;
        }
        let (Some(low), Some(high)) = (self.numbers.keys().next(), self.numbers.values().next_back()) else { return 0 };
        let inside = (last.min(*high) + 1).saturating_sub(first.max(*low));
        inside.saturating_sub(found)
    }

    /// Numbers between those that have a record.
    fn unused(&self) -> u64 {
        let (Some(low), Some(high)) = (self.numbers.keys().next(), self.numbers.values().next_back()) else { return 0 };
        high - low + 1 - self.numbers.iter().map(|(first, last)| last - first + 1).sum::<u64>()
    }
}

impl Missing {
    fn of(record: AuditRecord, lost: Option<u64>, lost_at_most: Option<u64>) -> Self {
        let AuditRecord { request_id, time, kind, vm, until, error_type: reason, .. } = record;
        Self { kind: kind.unwrap_or_default(), request_id, vm, time, until, lost, lost_at_most, reason }
    }

    fn rejected(count: u64, time: String) -> Self {
        let reason = Some(format!("{count} entries could not be decoded: `audit-collector rejected list`"));
        let (kind, request_id) = ("rejected".to_owned(), "-".to_owned());
        Self { kind, request_id, vm: None, time, until: None, lost: Some(0), lost_at_most: Some(count), reason }
    }
}

impl Findings {
    pub fn print(&self, to: &mut impl Write) -> io::Result<()> {
        let verdict = match self.verdict {
            Verdict::Complete => "complete",
            Verdict::Incomplete => "incomplete",
            Verdict::Unknown => "not known",
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let period = match (&self.since, &self.until) {
            (None, None) => ": all that is stored".to_owned(),
            (Some(since), None) => format!(" since {since}"),
            (None, Some(until)) => format!(" until {until}"),
            (Some(since), Some(until)) => format!(" from {since} to {until}"),
        };
        writeln!(to, "{verdict}{period}")?;
        let Self { records, vms, envoys, newest, .. } = self;
        writeln!(to, "{records} records of {vms} VMs of {envoys} Envoys, the newest of {}", text(newest))?;
        for missing in &self.missing {
            let Missing { kind, request_id, time, until, lost, lost_at_most, reason, .. } = missing;
            let lost = match (kind.as_str(), lost, lost_at_most) {
                ("unlogged", ..) => "its end is known from the gateway's report alone".to_owned(),
                ("outcome_unknown", ..) => "it was about to leave; no more is known".to_owned(),
                ("rejected", ..) => String::new(),
                (_, Some(lost), Some(at_most)) if lost == at_most => format!("{lost} calls"),
                (_, Some(lost), at_most) => format!("{lost} calls, at most {}", at_most.unwrap_or(*lost)),
                (_, None, _) => "an unknown number of calls".to_owned(),
            };
            let rest = [Some(lost).filter(|lost| !lost.is_empty()), reason.clone()];
            let rest = rest.into_iter().flatten().collect::<Vec<_>>().join("; ");
            let line = format!("missing  {kind}  {request_id}  {time} to {}  {rest}", text(until));
            writeln!(to, "{}", visible(&line))?;
        }
        for Open { vm, envoy, last } in &self.open {
            writeln!(to, "{}", visible(&format!("open  VM {vm} of Envoy {envoy}: known up to {last}")))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(to, "note  {note}"))
    }
}

/// `vm_end-ID-2` → 2; without a number it is the first.
fn life(request_id: &str, vm: &str) -> u32 {
    let suffix = request_id.rsplit_once(vm).and_then(|(_, suffix)| suffix.strip_prefix('-'));
    suffix.and_then(|suffix| suffix.parse().ok()).unwrap_or(1)
}

/// First and last number of `hole-ID-3-4`.
fn range(request_id: &str) -> Option<(u64, u64)> {
    let mut parts = request_id.rsplit('-');
    let (last, first) = (parts.next()?, parts.next()?);
    Some((first.parse().ok()?, last.parse().ok()?))
}
