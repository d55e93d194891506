//! Changes of what is known of VMs and Envoys. A change counts once it is in the ledger.

use std::collections::HashMap;
use std::time::Instant;

use audit::AuditRecord;
use audit::notice::VmReport;

use super::records::{self, time_of};
use super::vms::{Envoy, Known, Vm, VmId};
use super::{MAX_COUNT, Refusal};
use crate::batch::Origin;

/// VMs that are known at a time. An Envoy has one for each worker.
const MAX_VMS: usize = 10_000;

/// A change that is being made: copies of what it touches.
pub(super) struct Edit<'k> {
    known: &'k Known,
    pub(super) vms: HashMap<String, Vm>,
    pub(super) envoys: HashMap<String, Envoy>,
    /// What it has to say.
    pub(super) records: Vec<AuditRecord>,
    pub(super) now: Instant,
    /// The same as a timestamp.
    pub(super) time: String,
}

impl<'k> Edit<'k> {
    pub(super) fn new(known: &'k Known, now: Instant, now_ms: i64) -> Self {
        let (vms, envoys) = (HashMap::new(), HashMap::new());
        Self { known, vms, envoys, records: Vec::new(), now, time: time_of(now_ms) }
    }

    pub(super) fn known(&self) -> &'k Known {
        self.known
    }

    /// A log entry's record. Those that the ledger cannot follow are passed over.
    pub(super) fn entry(&mut self, record: &AuditRecord, origin: Origin) {
        let (Some(vm), Some(envoy), Some(number)) = (&record.vm, &record.envoy, record.vm_logged) else { return };
        if number.max(record.vm_begun.unwrap_or(0)) > MAX_COUNT {
            return;
        }
        let id = VmId { vm, envoy };
        let known = match self.vm(vm) {
            Some(of) => {
                if !of.entry(record, number) {
                    return;
                }
                Some(of.ended)
            }
            None => None,
        };
        let now = self.now;
        if known.is_none_or(|ended| ended.is_some()) && self.begin(id, &record.time).is_err() {
            return;
        }
        let Some(of) = self.vms.get_mut(vm) else { return };
        if known.is_none() {
            of.entry(record, number);
        }
        of.watch.heard = Some(now);
        if origin == Origin::File {
            of.in_log = true;
            if let Some(envoy) = self.envoy(envoy) {
                envoy.logs = Some((envoy.logs.map_or(now, |(first, _)| first), now));
            }
        }
    }

    pub(super) fn report(&mut self, report: &VmReport) -> Result<(), Refusal> {
        let (now, time) = (self.now, self.time.clone());
        let vm = self.alive(VmId { vm: &report.vm, envoy: &report.envoy })?;
        vm.report(report, &time);
        vm.watch.heard = Some(now);
        Ok(())
    }

    /// The VM, which gives a sign of life now.
    pub(super) fn alive(&mut self, id: VmId<'_>) -> Result<&mut Vm, Refusal> {
        let ended = self.vm(id.vm).map(|vm| vm.ended.is_some());
        if ended != Some(false) {
            let time = self.time.clone();
            self.begin(id, &time)?;
        }
        let now = self.now;
        let vm = self.vms.get_mut(id.vm).ok_or(Refusal::TooManyVms)?;
        vm.watch.heard = Some(now);
        Ok(vm)
    }

    pub(super) fn vm(&mut self, id: &str) -> Option<&mut Vm> {
        if !self.vms.contains_key(id) {
            self.vms.insert(id.to_owned(), self.known.vms.get(id)?.clone());
        }
        self.vms.get_mut(id)
    }

    pub(super) fn envoy(&mut self, id: &str) -> Option<&mut Envoy> {
        if !self.envoys.contains_key(id) {
            self.envoys.insert(id.to_owned(), self.known.envoys.get(id)?.clone());
        }
        self.envoys.get_mut(id)
    }

    /// A VM that is seen for the first time, or again after it was taken as ended.
    fn begin(&mut self, VmId { vm: id, envoy }: VmId<'_>, time: &str) -> Result<(), Refusal> {
        if self.vm(id).is_none() && self.known.vms.len() + self.vms.len() >= MAX_VMS {
            return Err(Refusal::TooManyVms);
        }
        let since = time.to_owned();
        let of = self.envoys.entry(envoy.to_owned()).or_insert_with(|| {
            self.known.envoys.get(envoy).cloned().unwrap_or_else(|| Envoy { since: since.clone(), ..Envoy::default() })
        });
        if of.lives == 0 || of.ended.take().is_some() {
            of.lives += 1;
            self.records.push(records::envoy_start(envoy, of, time));
        }
        let new = || Vm { envoy: envoy.to_owned(), since, ..Vm::default() };
        let vm = self.vms.entry(id.to_owned()).or_insert_with(new);
        vm.ended = None;
        vm.lives += 1;
        self.records.push(records::vm_start(id, vm, time));
        Ok(())
    }
}
