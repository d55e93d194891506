//! Header maps and buffers.

use wasmtime::Linker;

use super::env;
use crate::abi::{Direction, MapType, Status, decode_pairs, encode_pairs, header_name};
use crate::fault::{Refusal, misuse};
use crate::state::State;

fn map_type(number: u32) -> Result<MapType, Refusal> {
    MapType::from_abi(number).map_or_else(|| misuse(format!("map type {number} is not supported")), Ok)
}

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    env! { linker;
        fn proxy_get_header_map_pairs(guest, map: u32, data_to: u32, size_to: u32) {
            let kind = map_type(map)?;
            let pairs = match guest.state().map(kind) {
                Ok(pairs) => encode_pairs(pairs),
                // Envoy says Ok and gives an empty map, which a module cannot tell from a request without headers.
                Err(Refusal::Status(_)) if !matches!(kind, MapType::CallTrailers | MapType::Trailers(_)) => {
                    return misuse(format!("{kind:?} cannot be read in this phase: Envoy returns an empty map"));
                }
                Err(Refusal::Status(_)) => Vec::new(),
                Err(refusal) => return Err(refusal),
            };
            guest.give(&pairs, data_to, size_to)
        }
        fn proxy_set_header_map_pairs(guest, map: u32, data: u32, size: u32) {
            let kind = map_type(map)?;
            let pairs = decode_pairs(&guest.read(data, size, "pairs")?).or_else(misuse)?;
            *guest.state().map_mut(kind)? = pairs;
            Ok(())
        }
        fn proxy_get_header_map_value(guest, map: u32, key: u32, key_size: u32, value_to: u32, size_to: u32) {
            let kind = map_type(map)?;
            let key = header_name(guest.read(key, key_size, "name")?).or_else(misuse)?;
            let found = guest.state().map(kind)?.iter().find(|(name, _)| *name == key);
            let value = found.map(|(_, value)| value.clone());
            match value {
                Some(value) => guest.give(&value, value_to, size_to),
                None => Err(Status::NotFound.into()),
            }
        }
        fn proxy_add_header_map_value(guest, map: u32, key: u32, key_size: u32, value: u32, value_size: u32) {
            let kind = map_type(map)?;
            let key = header_name(guest.read(key, key_size, "name")?).or_else(misuse)?;
            let value = guest.read(value, value_size, "value")?;
            guest.state().map_mut(kind)?.push((key, value.into()));
            Ok(())
        }
        fn proxy_replace_header_map_value(guest, map: u32, key: u32, key_size: u32, value: u32, value_size: u32) {
            let kind = map_type(map)?;
            let key = header_name(guest.read(key, key_size, "name")?).or_else(misuse)?;
            let value = guest.read(value, value_size, "value")?;
            let map = guest.state().map_mut(kind)?;
            map.retain(|(name, _)| *name != key);
            map.push((key, value.into()));
            Ok(())
        }
        fn proxy_remove_header_map_value(guest, map: u32, key: u32, key_size: u32) {
            let kind = map_type(map)?;
            let key = header_name(guest.read(key, key_size, "name")?).or_else(misuse)?;
            guest.state().map_mut(kind)?.retain(|(name, _)| *name != key);
            Ok(())
        }
        fn proxy_get_header_map_size(guest, map: u32, size_to: u32) {
            let kind = map_type(map)?;
            let bytes: usize = guest.state().map(kind)?.iter().map(|(name, value)| name.len() + value.len()).sum();
            guest.write_u32(size_to, u32::try_from(bytes).unwrap_or(u32::MAX), "size result")
        }
        fn proxy_get_buffer_bytes(guest, buffer: u32, start: u32, max: u32, data_to: u32, size_to: u32) {
            let data = buffer_mut(guest.state(), buffer)?;
            let start = start as usize;
            if start > data.len() {
                return misuse(format!("a read from {start} in a buffer of {} bytes", data.len()));
            }
            let end = start.saturating_add(max as usize).min(data.len());
            let bytes = data.get(start..end).unwrap_or_default().to_vec();
            if bytes.is_empty() {
                // Envoy leaves the results untouched.
                return Ok(());
            }
            guest.give(&bytes, data_to, size_to)
        }
        fn proxy_get_buffer_status(guest, buffer: u32, size_to: u32, flags_to: u32) {
            let size = buffer_mut(guest.state(), buffer)?.len();
            guest.write_u32(size_to, u32::try_from(size).unwrap_or(u32::MAX), "size result")?;
            guest.write_u32(flags_to, 0, "flags result")
        }
        fn proxy_set_buffer_bytes(guest, buffer: u32, start: u32, size: u32, data: u32, data_size: u32) {
            let bytes = guest.read(data, data_size, "data")?;
            if buffer > 1 {
                return misuse(format!("buffer {buffer} cannot be written"));
            }
            let body = buffer_mut(guest.state(), buffer)?;
            let start = (start as usize).min(body.len());
            let end = start.saturating_add(size as usize).min(body.len());
            body.splice(start..end, bytes);
            Ok(())
        }
    }
    Ok(())
}

/// The buffer for a number of the ABI in this phase.
fn buffer_mut(state: &mut State, number: u32) -> Result<&mut Vec<u8>, Refusal> {
    let direction = match number {
        0 => Direction::Request,
        1 => Direction::Response,
        4 => {
            let active = state.active();
            return match &mut state.answer {
                Some(answer) if answer.context != active => Err(Status::NotFound.into()),
                Some(answer) => Ok(&mut answer.body),
                // As in Envoy, where a call that failed has no response message.
                None if state.callback == "proxy_on_http_call_response" => Err(Status::NotFound.into()),
                None => misuse("no HTTP call is being answered"),
            };
        }
        6 => return Ok(&mut state.vm_configuration),
        7 => {
            let id = state.active();
            return match state.root(id) {
                Some(root) if root.configuring => Ok(&mut root.configuration),
                _ => Err(Status::NotFound.into()),
            };
        }
        _ => return misuse(format!("buffer {number} is not supported")),
    };
    let Some(stream) = state.active_stream() else {
        return misuse("no stream and no body in this context");
    };
    match stream.half(direction).data() {
        Some(data) => Ok(data),
        None => misuse(format!("no {direction:?} body in this phase: Envoy returns an empty one")),
    }
}
