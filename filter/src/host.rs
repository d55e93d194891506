//! The only file that calls the Proxy-Wasm host (ABI 0.2.1): its bytes variants, with statuses as typed errors.
//!
//! The SDK's own wrappers panic on unexpected statuses and on header values that are not UTF-8. A panic would end the streams
//! of other callers.
#![allow(unsafe_code)]

use filter_core::caller::Address;
use filter_core::credentials::call::Call;
use filter_core::envoy_names::ATTEMPTS;
use filter_core::headers::Headers;
use filter_core::shared::Shared;
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, StreamType};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// A call of the host failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostError {
    call: &'static str,
    status: u32,
}

impl HostError {
    /// The host has less of a body than it announced.
    pub(crate) const SHORT_BODY: Self = Self { call: "proxy_get_buffer_bytes", status: NOT_FOUND };
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered status {}", self.call, self.status)
    }
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;

// The signatures are those of the ABI; `usize` is 32 bits on wasm32.
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: LogLevel, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_buffer_bytes(kind: BufferType, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(kind: BufferType, start: usize, length: usize, data: *const u8, size: usize) -> u32;
    fn proxy_get_header_map_pairs(map: MapType, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(map: MapType, data: *const u8, size: usize) -> u32;
    fn proxy_add_header_map_value(
        map: MapType,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: MapType, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, data: *const u8, size: usize, version: u32) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, data: *const u8, size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_define_metric(kind: MetricType, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_close_stream(stream: StreamType) -> u32;
    fn proxy_continue_stream(stream: StreamType) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
}

/// Writes a line to Envoy's log.
pub(crate) fn log(level: LogLevel, message: &str) {
    // A failure to log cannot be reported anywhere.
    let _ = unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// The wall clock.
pub(crate) fn now() -> Result<SystemTime, HostError> {
    let mut nanoseconds = 0;
    check("proxy_get_current_time_nanoseconds", unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) })?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds))
}

/// The plugin's configuration.
pub(crate) fn plugin_configuration(size: usize) -> Result<Vec<u8>, HostError> {
    buffer(BufferType::PluginConfiguration, 0, size)
}

/// Bytes of the request body that the host buffers.
pub(crate) fn request_body(start: usize, max: usize) -> Result<Vec<u8>, HostError> {
    buffer(BufferType::HttpRequestBody, start, max)
}

/// Drops the part of the request body that the host buffers. Only in the body callback.
pub(crate) fn discard_request_body() -> Result<(), HostError> {
    replace_request_body(&[])
}

/// Replaces the part of the request body that the host buffers. Only in the body callback.
pub(crate) fn replace_request_body(bytes: &[u8]) -> Result<(), HostError> {
    replace(BufferType::HttpRequestBody, bytes)
}

/// Bytes of the part of the response body that is here.
pub(crate) fn response_body(start: usize, max: usize) -> Result<Vec<u8>, HostError> {
    buffer(BufferType::HttpResponseBody, start, max)
}

/// Replaces the part of the response body that is here. Only in the body callback.
pub(crate) fn replace_response_body(bytes: &[u8]) -> Result<(), HostError> {
    replace(BufferType::HttpResponseBody, bytes)
}

/// The bytes that arrived on a connection, in its callback.
pub(crate) fn connection_data(size: usize) -> Result<Vec<u8>, HostError> {
    buffer(BufferType::DownstreamData, 0, size)
}

/// Replaces the bytes that arrived on a connection, in its callback.
pub(crate) fn replace_connection_data(bytes: &[u8]) -> Result<(), HostError> {
    replace(BufferType::DownstreamData, bytes)
}

/// All request headers.
pub(crate) fn request_headers() -> Result<Headers, HostError> {
    headers(MapType::HttpRequestHeaders)
}

/// All response headers.
pub(crate) fn response_headers() -> Result<Headers, HostError> {
    headers(MapType::HttpResponseHeaders)
}

/// Replaces all request headers.
pub(crate) fn set_request_headers(headers: &Headers) -> Result<(), HostError> {
    set_map(MapType::HttpRequestHeaders, headers.iter())
}

/// Replaces all response headers.
pub(crate) fn set_response_headers(headers: &Headers) -> Result<(), HostError> {
    set_map(MapType::HttpResponseHeaders, headers.iter())
}

/// Adds a header to the response.
pub(crate) fn add_response_header(name: &str, value: &str) -> Result<(), HostError> {
    let status = unsafe {
        proxy_add_header_map_value(MapType::HttpResponseHeaders, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    };
    check("proxy_add_header_map_value", status)
}

/// Removes a header from the response.
pub(crate) fn remove_response_header(name: &str) -> Result<(), HostError> {
    let status = unsafe { proxy_remove_header_map_value(MapType::HttpResponseHeaders, name.as_ptr(), name.len()) };
    check("proxy_remove_header_map_value", status)
}

/// The data that all workers share whose VMs have the same id.
#[derive(Debug)]
pub(crate) struct SharedData;

impl Shared for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        let mut version = 0;
        let value = received("proxy_get_shared_data", |data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version)
        });
        // No value has version 0.
        value.ok().filter(|_| version != 0).map(|value| (value, version))
    }

    fn set(&self, key: &str, value: &[u8], version: Option<u32>) -> bool {
        // 0 sets the value at any version.
        let version = version.unwrap_or(0);
        let status = unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) };
        status == OK
    }
}

/// Lets a held request go on.
pub(crate) fn continue_request() -> Result<(), HostError> {
    check("proxy_continue_stream", unsafe { proxy_continue_stream(StreamType::HttpRequest) })
}

/// Makes later calls apply to another context of this VM.
pub(crate) fn set_context(context: u32) -> Result<(), HostError> {
    check("proxy_set_effective_context", unsafe { proxy_set_effective_context(context) })
}

/// Requests ticks.
pub(crate) fn set_tick_period(period: Duration) -> Result<(), HostError> {
    let period = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    check("proxy_set_tick_period_milliseconds", unsafe { proxy_set_tick_period_milliseconds(period) })
}

/// Makes an HTTP call through one of Envoy's clusters, from a root context's callback. The token that it returns identifies
/// the response.
pub(crate) fn dispatch(call: &Call, timeout: Duration) -> Result<u32, HostError> {
    let headers: Vec<(&str, &str)> =
        call.headers.iter().filter_map(|(name, value)| Some((name, std::str::from_utf8(value).ok()?))).collect();
    // The SDK's function, because the SDK has to know the token. It panics only on statuses that Envoy never returns here.
    let body = (!call.body.is_empty()).then_some(call.body.as_slice());
    proxy_wasm::hostcalls::dispatch_http_call(&call.cluster, headers, body, Vec::new(), timeout)
        .map_err(|status| HostError { call: "proxy_http_call", status: status as u32 })
}

/// The response to a call, in its callback. Its body, which holds keys, is wiped when it is dropped.
pub(crate) fn call_response(body_size: usize) -> Result<(Headers, Zeroizing<Vec<u8>>), HostError> {
    let body = Zeroizing::new(buffer(BufferType::HttpCallResponseBody, 0, body_size)?);
    Ok((headers(MapType::HttpCallResponseHeaders)?, body))
}

/// The status of the response to a call, in its callback.
pub(crate) fn call_status() -> Option<u16> {
    headers(MapType::HttpCallResponseHeaders).ok()?.get_str(":status")?.parse().ok()
}

/// 64 random bits.
pub(crate) fn random() -> u64 {
    // The standard library seeds each hasher from WASI's random source, which saves a crate.
    RandomState::new().hash_one(0_u8)
}

thread_local! {
    static WORKER: u64 = random();
}

/// A number of this VM's own.
pub(crate) fn worker() -> u64 {
    WORKER.with(|worker| *worker)
}

/// 128 random bits in the form of a UUID (version 4).
pub(crate) fn unique_id() -> String {
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// Removes all request trailers.
pub(crate) fn clear_request_trailers() -> Result<(), HostError> {
    set_map(MapType::HttpRequestTrailers, std::iter::empty())
}

/// A property of the stream. `None` if it is absent, or of a type that Envoy cannot give to a module.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    received("proxy_get_property", |data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
        .ok()
        .filter(|value| !value.is_empty())
}

/// A property of the stream; empty if it is absent.
pub(crate) fn required_property(path: &[&str]) -> Result<Vec<u8>, HostError> {
    let path = path.join("\0");
    received("proxy_get_property", |data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// The status of the response, as Envoy knows it.
pub(crate) fn response_code() -> Option<u16> {
    let code = property(&["response", "code"])?.try_into().ok().map(u64::from_le_bytes)?;
    u16::try_from(code).ok()
}

/// Envoy's number for the client's connection.
pub(crate) fn connection() -> Option<u64> {
    property(&["connection", "id"])?.try_into().ok().map(u64::from_le_bytes)
}

/// The client's address.
pub(crate) fn source_address() -> Option<Address> {
    property(&["source", "address"]).as_deref().and_then(Address::of)
}

/// Attempts up to now, the current one included.
pub(crate) fn attempts() -> u64 {
    property(ATTEMPTS).and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Sets a filter state (`wasm.{name}` for Envoy).
pub(crate) fn set_property(name: &str, value: &[u8]) -> Result<(), HostError> {
    let status = unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    check("proxy_set_property", status)
}

/// The id of a metric, which is created if it is new: a name has one id in all of Envoy.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    check("proxy_define_metric", unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Adds to a counter.
pub(crate) fn increment_metric(id: u32, by: u64) -> Result<(), HostError> {
    let by = i64::try_from(by).unwrap_or(i64::MAX);
    check("proxy_increment_metric", unsafe { proxy_increment_metric(id, by) })
}

/// Adds a value to a histogram.
pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    check("proxy_record_metric", unsafe { proxy_record_metric(id, value) })
}

/// Replies to the client.
pub(crate) fn send_reply(
    status: u16,
    details: &str,
    headers: &[(&str, Vec<u8>)],
    body: &[u8],
) -> Result<(), HostError> {
    let map = serialise(headers.iter().map(|(name, value)| (*name, value.as_slice())));
    let status = unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            map.as_ptr(),
            map.len(),
            -1,
        )
    };
    check("proxy_send_local_response", status)
}

/// Ends the request without a reply.
pub(crate) fn reset_request() {
    // If this fails too, Envoy's timeouts end the paused request.
    let _ = unsafe { proxy_close_stream(StreamType::HttpRequest) };
}

/// Closes the connection of a network filter's context, after the callback that runs.
pub(crate) fn close_connection() -> Result<(), HostError> {
    check("proxy_close_stream", unsafe { proxy_close_stream(StreamType::Downstream) })
}

/// Resets the response.
pub(crate) fn reset_response() {
    // If this fails, Envoy's timeouts end the paused response.
    let _ = unsafe { proxy_close_stream(StreamType::HttpResponse) };
}

// === parts ===

fn check(call: &'static str, status: u32) -> Result<(), HostError> {
    if status == OK { Ok(()) } else { Err(HostError { call, status }) }
}

/// Takes the bytes that the host put into memory of `proxy_on_memory_allocate`.
fn received(call: &'static str, ask: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let (mut data, mut size) = (std::ptr::null_mut::<u8>(), 0);
    let status = ask(&raw mut data, &raw mut size);
    if status == NOT_FOUND {
        return Ok(Vec::new());
    }
    check(call, status)?;
    // SAFETY: the SDK's allocator gave this memory to the host as a boxed slice of `size` bytes, and it is ours now.
    Ok(if data.is_null() { Vec::new() } else { unsafe { Vec::from_raw_parts(data, size, size) } })
}

fn replace(kind: BufferType, bytes: &[u8]) -> Result<(), HostError> {
    // Longer than any buffer: all of it.
    let all = usize::MAX >> 1;
    let status = unsafe { proxy_set_buffer_bytes(kind, 0, all, bytes.as_ptr(), bytes.len()) };
    check("proxy_set_buffer_bytes", status)
}

fn buffer(kind: BufferType, start: usize, max: usize) -> Result<Vec<u8>, HostError> {
    received("proxy_get_buffer_bytes", |data, size| unsafe { proxy_get_buffer_bytes(kind, start, max, data, size) })
}

fn headers(map: MapType) -> Result<Headers, HostError> {
    let bytes =
        received("proxy_get_header_map_pairs", |data, size| unsafe { proxy_get_header_map_pairs(map, data, size) })?;
    deserialise(&bytes).ok_or(HostError { call: "proxy_get_header_map_pairs", status: OK })
}

fn set_map<'a>(map: MapType, headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Result<(), HostError> {
    let bytes = serialise(headers);
    check("proxy_set_header_map_pairs", unsafe { proxy_set_header_map_pairs(map, bytes.as_ptr(), bytes.len()) })
}

/// The ABI's form of a map: u32 count; u32 name length and u32 value length of each; then each name and value, each
/// followed by a zero byte. Little endian.
fn serialise<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Vec<u8> {
    let texts = headers.flat_map(|(name, value)| [name.as_bytes(), value]);
    let (count, length) = texts.clone().fold((0, 0), |(count, length), text| (count + 1, length + text.len()));
    let mut bytes = Vec::with_capacity(size_of::<u32>() + count * (size_of::<u32>() + 1) + length);
    bytes.extend_from_slice(&(count as u32 / 2).to_le_bytes());
    texts.clone().for_each(|text| bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()));
    for text in texts {
        bytes.extend_from_slice(text);
        bytes.push(0);
    }
    bytes
}

fn deserialise(bytes: &[u8]) -> Option<Headers> {
    if bytes.is_empty() {
        return Some(Headers::default());
    }
    let (count, rest) = word(bytes)?;
    let (mut lengths, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
    // What are names and what values is not known yet.
    let mut headers = Headers::with_capacity(count, texts.len() / 2, texts.len());
    let mut text = |lengths: &mut &[u8]| {
        let (length, rest) = word(lengths)?;
        *lengths = rest;
        let (text, rest) = texts.split_at_checked(length)?;
        texts = rest.get(1..)?;
        Some(text)
    };
    for _ in 0..count {
        let name = text(&mut lengths)?;
        let value = text(&mut lengths)?;
        // A name that is not text is unknown, but must stay visible to the check for repetition.
        headers.push(String::from_utf8_lossy(name), value);
    }
    Some(headers)
}

fn word(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word) as usize, rest))
}
