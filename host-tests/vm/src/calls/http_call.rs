//! HTTP calls, which tests answer, and gRPC calls, which are not supported.

use wasmtime::Linker;

use super::env;
use crate::abi::{Status, decode_pairs};
use crate::effects::OutCall;
use crate::fault::misuse;
use crate::state::State;

const NO_GRPC: &str = "gRPC calls are not supported";

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    env! { linker;
        fn proxy_http_call(
            guest, cluster: u32, cluster_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32,
            trailers: u32, trailers_size: u32, timeout_ms: u32, token_to: u32,
        ) {
            let cluster = guest.text(cluster, cluster_size, "cluster")?;
            let headers = decode_pairs(&guest.read(headers, headers_size, "headers")?).or_else(misuse)?;
            let body = guest.read(body, body_size, "body")?;
            let trailers = decode_pairs(&guest.read(trailers, trailers_size, "trailers")?).or_else(misuse)?;
            guest.write_u32(token_to, 0, "token result")?;
            let state = guest.state();
            let complete = [":method", ":path", ":authority"]
                .iter()
                .all(|wanted| headers.iter().any(|(name, _)| name == wanted));
            if !complete || !state.clusters.contains(&cluster) {
                return Err(Status::BadArgument.into());
            }
            let context = state.active();
            state.next_token += 1;
            let token = state.next_token;
            state.calls.push(OutCall { token, cluster, headers, body: body.into(), trailers, timeout_ms, context });
            guest.write_u32(token_to, token, "token result")
        }
        fn proxy_grpc_call(
            _guest, _service: u32, _service_size: u32, _name: u32, _name_size: u32, _method: u32, _method_size: u32,
            _metadata: u32, _metadata_size: u32, _message: u32, _message_size: u32, _timeout: u32, _token_to: u32,
        ) {
            misuse(NO_GRPC)
        }
        fn proxy_grpc_stream(
            _guest, _service: u32, _service_size: u32, _name: u32, _name_size: u32, _method: u32, _method_size: u32,
            _metadata: u32, _metadata_size: u32, _token_to: u32,
        ) {
            misuse(NO_GRPC)
        }
        fn proxy_grpc_send(_guest, _token: u32, _message: u32, _message_size: u32, _end: u32) {
            misuse(NO_GRPC)
        }
        fn proxy_grpc_cancel(_guest, _token: u32) {
            misuse(NO_GRPC)
        }
        fn proxy_grpc_close(_guest, _token: u32) {
            misuse(NO_GRPC)
        }
    }
    Ok(())
}
