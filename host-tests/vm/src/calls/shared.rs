//! Shared data, queues and metrics: what outlives a stream.

use std::collections::VecDeque;

use wasmtime::Linker;

use super::env;
use crate::abi::Status;
use crate::fault::{Refusal, misuse};
use crate::state::{Metric, State};

const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const HISTOGRAM: u32 = 2;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    env! { linker;
        fn proxy_get_shared_data(guest, key: u32, key_size: u32, value_to: u32, size_to: u32, cas_to: u32) {
            let key = guest.read(key, key_size, "key")?;
            let Some((value, cas)) = guest.state().shared.get(&key).cloned() else {
                return Err(Status::NotFound.into());
            };
            guest.give(&value, value_to, size_to)?;
            guest.write_u32(cas_to, cas, "cas result")
        }
        fn proxy_set_shared_data(guest, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32) {
            let key = guest.read(key, key_size, "key")?;
            let value = guest.read(value, value_size, "value")?;
            let state = guest.state();
            if cas != 0 && state.shared.get(&key).is_some_and(|(_, held)| *held != cas) {
                return Err(Status::CasMismatch.into());
            }
            state.next_cas += 1;
            let next = state.next_cas;
            state.shared.insert(key, (value, next));
            Ok(())
        }
        fn proxy_register_shared_queue(guest, name: u32, name_size: u32, id_to: u32) {
            let name = guest.read(name, name_size, "name")?;
            let queues = &mut guest.state().queues;
            let at = queues.iter().position(|(held, _)| *held == name).unwrap_or_else(|| {
                queues.push((name, VecDeque::new()));
                queues.len() - 1
            });
            guest.write_u32(id_to, queue_id(at), "queue result")
        }
        fn proxy_resolve_shared_queue(guest, _vm: u32, _vm_size: u32, name: u32, name_size: u32, id_to: u32) {
            let name = guest.read(name, name_size, "name")?;
            match guest.state().queues.iter().position(|(held, _)| *held == name) {
                Some(at) => guest.write_u32(id_to, queue_id(at), "queue result"),
                None => Err(Status::NotFound.into()),
            }
        }
        fn proxy_dequeue_shared_queue(guest, id: u32, value_to: u32, size_to: u32) {
            let value = queue(guest.state(), id)?.pop_front();
            match value {
                Some(value) => guest.give(&value, value_to, size_to),
                None => Err(Status::Empty.into()),
            }
        }
        fn proxy_enqueue_shared_queue(guest, id: u32, value: u32, value_size: u32) {
            let value = guest.read(value, value_size, "value")?;
            queue(guest.state(), id)?.push_back(value);
            Ok(())
        }
        fn proxy_define_metric(guest, kind: u32, name: u32, name_size: u32, id_to: u32) {
            let name = guest.text(name, name_size, "name")?;
            if kind > HISTOGRAM {
                return Err(Status::BadArgument.into());
            }
            let state = guest.state();
            state.metrics.entry(name.clone()).or_default();
            state.metric_ids.push((kind, name));
            // Envoy keeps the type in the two low bits of the id.
            let id = (u32::try_from(state.metric_ids.len()).unwrap_or(u32::MAX) << 2) | kind;
            guest.write_u32(id_to, id, "metric result")
        }
        fn proxy_get_metric(guest, id: u32, value_to: u32) {
            let (kind, metric) = metric(guest.state(), id)?;
            if kind == HISTOGRAM {
                return Err(Status::BadArgument.into());
            }
            let value = metric.value;
            guest.write_u64(value_to, value, "value result")
        }
        fn proxy_record_metric(guest, id: u32, value: u64) {
            let (kind, metric) = metric(guest.state(), id)?;
            match kind {
                COUNTER => metric.value = metric.value.wrapping_add(value),
                GAUGE => metric.value = value,
                _ => metric.records.push(value),
            }
            Ok(())
        }
        fn proxy_increment_metric(guest, id: u32, offset: i64) {
            let (kind, metric) = metric(guest.state(), id)?;
            match kind {
                COUNTER if offset > 0 => metric.value = metric.value.wrapping_add_signed(offset),
                GAUGE => match metric.value.checked_add_signed(offset) {
                    Some(value) => metric.value = value,
                    None => return misuse(format!("the gauge at {} goes below zero by {offset}", metric.value)),
                },
                _ => return Err(Status::BadArgument.into()),
            }
            Ok(())
        }
    }
    Ok(())
}

fn queue_id(at: usize) -> u32 {
    u32::try_from(at).map_or(u32::MAX, |at| at + 1)
}

fn queue(state: &mut State, id: u32) -> Result<&mut VecDeque<Vec<u8>>, Refusal> {
    let at = (id as usize).checked_sub(1).ok_or(Status::NotFound)?;
    state.queues.get_mut(at).map(|(_, queue)| queue).ok_or(Status::NotFound.into())
}

fn metric(state: &mut State, id: u32) -> Result<(u32, &mut Metric), Refusal> {
    let at = ((id >> 2) as usize).checked_sub(1).ok_or(Status::NotFound)?;
    let (kind, name) = state.metric_ids.get(at).ok_or(Status::NotFound)?;
    if *kind != id & 3 {
        return Err(Status::NotFound.into());
    }
    let metric = state.metrics.get_mut(name).ok_or(Status::NotFound)?;
    Ok((*kind, metric))
}
