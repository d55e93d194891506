//! Logs, time, streams, properties, contexts.

use wasmtime::Linker;

use super::env;
use crate::abi::{Direction, Status, decode_pairs};
use crate::effects::{LocalReply, Log};
use crate::fault::misuse;
use crate::state::{Context, Deferred, Property, State};

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    env! { linker;
        fn proxy_log(guest, level: u32, data: u32, size: u32) {
            if level > 5 {
                return misuse(format!("log level {level} does not exist"));
            }
            // Envoy writes any bytes to its log; a reader of these wants text.
            let text = String::from_utf8_lossy(&guest.read(data, size, "message")?).into_owned();
            guest.state().log(Log { level, text });
            Ok(())
        }
        fn proxy_get_log_level(guest, level_to: u32) {
            let level = guest.state().log_level;
            guest.write_u32(level_to, level, "level result")
        }
        fn proxy_get_current_time_nanoseconds(guest, time_to: u32) {
            let now = guest.state().wasi.clock.get();
            guest.write_u64(time_to, now, "time result")
        }
        fn proxy_set_tick_period_milliseconds(guest, period: u32) {
            let state = guest.state();
            let id = state.active();
            match state.root(id) {
                Some(root) => {
                    root.tick_ms = period;
                    Ok(())
                }
                None => misuse("a stream context has no ticks"),
            }
        }
        fn proxy_get_property(guest, path: u32, path_size: u32, value_to: u32, size_to: u32) {
            let path = guest.read(path, path_size, "path")?;
            let state = guest.state();
            let value = property(state, &path);
            match value {
                Some(Property::Value(value)) => guest.give(&value, value_to, size_to),
                Some(Property::Status(status)) => Err(status.into()),
                None => Err(Status::NotFound.into()),
            }
        }
        fn proxy_set_property(guest, path: u32, path_size: u32, value: u32, value_size: u32) {
            let path = guest.read(path, path_size, "path")?;
            let value = guest.read(value, value_size, "value")?;
            if path.contains(&0) {
                // Envoy says Ok and keeps it under a name that neither a property nor an access log can read.
                return misuse("a path of more than one segment cannot be read back in Envoy");
            }
            let Ok(name) = String::from_utf8(path) else { return misuse("the path is not UTF-8") };
            let state = guest.state();
            let Some(exchange) = state.active_stream().map(|stream| stream.exchange) else {
                return Err(Status::NotFound.into());
            };
            let Some(filter_state) = state.filter_states.get_mut(exchange) else {
                return Err(Status::InternalFailure.into());
            };
            filter_state.insert(format!("wasm.{name}"), value);
            Ok(())
        }
        fn proxy_continue_stream(guest, stream_type: u32) {
            let direction = match stream_type {
                0 => Direction::Request,
                1 => Direction::Response,
                _ => return Err(Status::BadArgument.into()),
            };
            let state = guest.state();
            let id = state.active();
            if state.stream(id).is_none() {
                return misuse("no stream in this context to continue");
            }
            state.deferred.push(Deferred::Resume(id, direction));
            Ok(())
        }
        fn proxy_close_stream(guest, stream_type: u32) {
            let state = guest.state();
            let id = state.active();
            if stream_type > 1 || state.stream(id).is_none() {
                return misuse(format!("no stream of type {stream_type} in this context to close"));
            }
            state.deferred.push(Deferred::Reset(id));
            Ok(())
        }
        fn proxy_send_local_response(
            guest, status: u32, details: u32, details_size: u32, body: u32, body_size: u32,
            headers: u32, headers_size: u32, _grpc_status: i32,
        ) {
            let details = guest.text(details, details_size, "details")?;
            let body = guest.read(body, body_size, "body")?;
            let headers = decode_pairs(&guest.read(headers, headers_size, "headers")?).or_else(misuse)?;
            if !(200..=599).contains(&status) {
                return misuse(format!("{status} is not a status of a final response"));
            }
            let state = guest.state();
            let id = state.active();
            let callback = state.callback;
            let Some(stream) = state.stream(id) else { return misuse("no stream in this context to answer") };
            if stream.local_reply.is_some()
                || state.deferred.iter().any(|action| matches!(action, Deferred::Reply(to, _) if *to == id))
            {
                return misuse("the stream has a local reply already");
            }
            if matches!(callback, "proxy_on_log" | "proxy_on_done" | "proxy_on_delete") {
                return misuse("too late for a local reply");
            }
            state.deferred.push(Deferred::Reply(id, LocalReply { status, headers, body: body.into(), details }));
            Ok(())
        }
        fn proxy_set_effective_context(guest, id: u32) {
            let state = guest.state();
            if !state.contexts.contains_key(&id) {
                return Err(Status::BadArgument.into());
            }
            state.effective = Some(id);
            Ok(())
        }
        fn proxy_done(_guest) {
            misuse("proxy_done: this host ends contexts at once, as Envoy does for streams")
        }
        fn proxy_get_status(_guest, _code_to: u32, _text_to: u32, _size_to: u32) {
            misuse("gRPC calls are not supported")
        }
        fn proxy_call_foreign_function(
            guest, name: u32, name_size: u32, _arguments: u32, _arguments_size: u32, result_to: u32, size_to: u32,
        ) {
            let name = guest.text(name, name_size, "name")?;
            match name.as_str() {
                "clear_route_cache" => {
                    // Envoy writes an empty result where the module asked for one.
                    if result_to != 0 {
                        guest.write_u32(result_to, 0, "result")?;
                    }
                    if size_to != 0 {
                        guest.write_u32(size_to, 0, "result size")?;
                    }
                    Ok(())
                }
                "set_envoy_filter_state" | "declare_property" | "compress" | "uncompress" | "sign"
                | "verify_signature" | "expr_create" | "expr_evaluate" | "expr_delete" => {
                    misuse(format!("Envoy has {name}, which this host does not support"))
                }
                _ => Err(Status::NotFound.into()),
            }
        }
    }
    Ok(())
}

/// In Envoy's order: what the stream and plugin show, else (one segment) filter state.
fn property(state: &mut State, path: &[u8]) -> Option<Property> {
    let id = state.active();
    let (root_id, exchange) = match state.contexts.get(&id)? {
        Context::Root(_) => (id, None),
        Context::Stream(stream) => {
            if let Some(found) = stream.properties.get(path) {
                return Some(found.clone());
            }
            (stream.root, Some(stream.exchange))
        }
    };
    let root = state.root(root_id)?;
    if let Some(found) = root.properties.get(path) {
        return Some(found.clone());
    }
    if path == b"plugin_root_id" || path == b"plugin_name" {
        return Some(Property::Value(root.name.clone().into_bytes()));
    }
    let name = std::str::from_utf8(path).ok()?;
    let value = state.filter_states.get(exchange?)?.get(&format!("wasm.{name}"))?;
    Some(Property::Value(value.clone()))
}
