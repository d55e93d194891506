//! Fifty requests, and what the tests compare: the client's response, and the request that Bedrock got.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use bedrock_double::{Received, Running};
use serde_json::Value;

const CONVERSE: &str = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;
const CLAUDE: &str =
    r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}"#;
const TITAN: &str = r#"{"inputText":"hello there"}"#;
const COUNT: &str = r#"{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}}}"#;
const GUARDED: &str = r#"{"source":"INPUT","content":[{"text":{"text":"hello there"}}]}"#;
const ASYNC: &str = r#"{"modelId":"amazon.nova-reel-v1:0","modelInput":{},"outputDataConfig":{"s3OutputDataConfig":{"s3Uri":"s3://b"}}}"#;

/// The rules for the calls, with the profiles of the shipped document.
pub(super) const RULES: &str = r#"{
  "regions": { "us-east-1": {} },
  "principal": [{ "from": "mtls" }],
  "aliases": { "fast": "anthropic.claude-3-5-haiku-20241022-v1:0", "chat": "anthropic.claude-3-5-sonnet-20241022-v2:0" },
  "models": { "allow": ["*"], "deny": ["cohere.*", "*rerank*"] },
  "inference_profiles": {
    "anthropic.claude-3-5-haiku-20241022-v1:0": "us.anthropic.claude-3-5-haiku-20241022-v1:0",
    "anthropic.claude-3-5-sonnet-20241022-v2:0": "us.anthropic.claude-3-5-sonnet-20241022-v2:0"
  },
  "route_classes": [
    { "name": "large", "operations": ["InvokeModel"], "body_bytes": { "min": 1000000 }, "paths": ["internet"], "priority": "high" },
    { "name": "private-only", "models": ["amazon.*"], "paths": ["vpn", "dx"] },
    { "name": "any", "models": ["anthropic.*", "meta.*", "fault.*", "unknown.*"], "paths": ["dx", "vpn", "internet"] },
    { "name": "lists", "operations": [
        "ListFoundationModels", "GetFoundationModel", "GetFoundationModelAvailability", "ListInferenceProfiles", "GetInferenceProfile",
        "ListImportedModels", "ListCustomModels", "ListProvisionedModelThroughputs", "ListMarketplaceModelEndpoints",
        "ApplyGuardrail", "ListAsyncInvokes", "GetAsyncInvoke", "StartAsyncInvoke"
      ], "paths": ["dx", "internet"] }
  ]
}"#;

/// The rules for one path.
pub(super) const ONE_CLASS: &str = r#"{
  "regions": { "us-east-1": {} },
  "aliases": { "fast": "anthropic.claude-3-5-haiku-20241022-v1:0", "chat": "anthropic.claude-3-5-sonnet-20241022-v2:0" },
  "models": { "allow": ["*"], "deny": ["cohere.*", "*rerank*"] },
  "inference_profiles": {
    "anthropic.claude-3-5-haiku-20241022-v1:0": "us.anthropic.claude-3-5-haiku-20241022-v1:0",
    "anthropic.claude-3-5-sonnet-20241022-v2:0": "us.anthropic.claude-3-5-sonnet-20241022-v2:0"
  },
  "route_classes": [{ "name": "any", "paths": ["internet"] }]
}"#;

/// A request's body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    None,
    Text(&'static str),
    /// In two chunks, without a content-length.
    Chunked(&'static str),
    /// JSON with this many bytes of text.
    Bytes(usize),
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub name: &'static str,
    method: &'static str,
    target: &'static str,
    headers: &'static str,
    body: Body,
}

const fn get(name: &'static str, target: &'static str) -> Call {
    Call { name, method: "GET", target, headers: "", body: Body::None }
}

const fn post(name: &'static str, target: &'static str, body: &'static str) -> Call {
    Call { name, method: "POST", target, headers: "", body: Body::Text(body) }
}

const fn of(name: &'static str, target: &'static str, headers: &'static str, body: Body) -> Call {
    Call { name, method: "POST", target, headers, body }
}

/// Responses that the role `combined` does not change: it has no second listener.
pub(super) const BREAKS_OFF: &str = "a stream that breaks off";

/// The table.
pub(super) const CALLS: [Call; 55] = [
    // Operations, and the ways to write a model.
    post("converse", "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse", CONVERSE),
    post("a colon as it is", "/model/anthropic.claude-3-5-sonnet-20241022-v2:0/converse", CONVERSE),
    post("every letter escaped", "/model/%61nthropic%2Eclaude-3-5-sonnet-20241022-v2%3a0/converse", CONVERSE),
    post("a profile", "/model/us.anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse", CONVERSE),
    post("GovCloud's profile", "/model/us-gov.anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse", CONVERSE),
    post("an alias", "/model/fast/converse", CONVERSE),
    post("converse-stream", "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse-stream", CONVERSE),
    post("an alias streams", "/model/chat/converse-stream", CONVERSE),
    post("invoke", "/model/anthropic.claude-3-5-haiku-20241022-v1%3A0/invoke", CLAUDE),
    post("invoke-stream", "/model/anthropic.claude-3-5-haiku-20241022-v1%3A0/invoke-with-response-stream", CLAUDE),
    post("another class", "/model/amazon.titan-text-express-v1/invoke", TITAN),
    post("count-tokens", "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/count-tokens", COUNT),
    post(
        "a model's ARN",
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Famazon.titan-text-express-v1/invoke",
        TITAN,
    ),
    post(
        "a profile's ARN",
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse",
        CONVERSE,
    ),
    post(
        "an ARN half escaped",
        "/model/arn:aws:bedrock:us-east-1::foundation-model%2Famazon.titan-text-express-v1/invoke",
        TITAN,
    ),
    post(
        "an ARN of GovCloud",
        "/model/arn%3Aaws-us-gov%3Abedrock%3Aus-gov-west-1%3A%3Afoundation-model%2Famazon.titan-text-express-v1/invoke",
        TITAN,
    ),
    post(
        "an ARN of GovCloud alone",
        "/model/arn%3Aaws-us-gov%3Abedrock%3Aus-gov-west-1%3A123456789012%3Aprovisioned-model%2Fabc/invoke",
        TITAN,
    ),
    post("apply a guardrail", "/guardrail/abc123/version/1/apply", GUARDED),
    post("start an async invoke", "/async-invoke", ASYNC),
    get("async invokes", "/async-invoke"),
    get(
        "an async invoke",
        "/async-invoke/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aasync-invoke%2Fabc123def456",
    ),
    get("models", "/foundation-models"),
    get("models of a provider", "/foundation-models?byProvider=Anthropic&byOutputModality=TEXT"),
    get("a model", "/foundation-models/anthropic.claude-3-5-sonnet-20241022-v2%3A0"),
    get("a model's availability", "/foundation-model-availability/anthropic.claude-3-5-sonnet-20241022-v2%3A0"),
    get("a page of profiles", "/inference-profiles?maxResults=2&type=SYSTEM_DEFINED"),
    get("a profile's own page", "/inference-profiles/us.anthropic.claude-3-5-sonnet-20241022-v2%3A0"),
    get("imported models", "/imported-models"),
    get("custom models", "/custom-models"),
    get("throughputs", "/provisioned-model-throughputs"),
    get("marketplace", "/marketplace-model/endpoints"),
    // The gateway refuses these.
    get("no class", "/prompt-routers"),
    post("a denied model", "/model/cohere.command-r-v1%3A0/converse", CONVERSE),
    post(
        "a denied model's ARN",
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Fcohere.command-r-v1%3A0/converse",
        CONVERSE,
    ),
    post("a model of no class", "/model/mistral.mistral-large-2402-v1%3A0/converse", CONVERSE),
    get("no operation", "/elsewhere"),
    get("another method", "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse"),
    post("a double slash", "/model//converse", CONVERSE),
    post("a broken escape", "/model/anthropic%3/converse", CONVERSE),
    get("a broken query", "/foundation-models?byProvider=%zz"),
    post("a bidirectional stream", "/model/amazon.nova-sonic-v1%3A0/invoke-with-bidirectional-stream", ""),
    of("a compressed body", "/model/fast/converse", "content-encoding: gzip\r\n", Body::Text(CONVERSE)),
    of(
        "a header twice",
        "/model/fast/invoke",
        "accept: a/b\r\ncontent-type: a/b\r\ncontent-type: c/d\r\n",
        Body::Text(CLAUDE),
    ),
    of("a body over the limit", "/model/amazon.titan-text-express-v1/invoke", "", Body::Bytes(26_214_401)),
    // Bedrock refuses these, or breaks off.
    post("throttled", "/model/fault.status-429/converse", CONVERSE),
    post("unavailable on every path", "/model/fault.status-503/converse", CONVERSE),
    post("a model's error", "/model/fault.status-424/converse", CONVERSE),
    post("an unknown model", "/model/unknown.model-v1%3A0/converse", CONVERSE),
    post("an exception in the stream", "/model/fault.stream-exception/converse-stream", CONVERSE),
    post(BREAKS_OFF, "/model/fault.reset-midstream/converse-stream", CONVERSE),
    post("no JSON", "/model/fast/converse", "hello"),
    // Bodies and headers.
    of("2 MB", "/model/amazon.titan-text-express-v1/invoke", "", Body::Bytes(2_000_000)),
    of("20 MB", "/model/amazon.titan-text-express-v1/invoke", "", Body::Bytes(20_000_000)),
    of("a body of unknown length", "/model/fast/converse", "", Body::Chunked(CONVERSE)),
    of(
        "headers that cross and headers that must not",
        "/model/fast/invoke",
        "accept: application/json\r\nx-amzn-bedrock-trace: ENABLED\r\nx-amzn-bedrock-performanceconfig-latency: optimized\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=AKIDCLIENT/20260101/us-gov-west-1/bedrock/aws4_request\r\n\
         x-amz-security-token: the-clients\r\nx-amz-date: 20260101T000000Z\r\nx-amz-user-agent: sdk\r\n\
         x-bedrock-gateway-cluster: audit-als\r\nx-bedrock-gateway-class: private-only\r\nx-forwarded-for: 10.9.9.9\r\n\
         x-forwarded-client-cert: URI=spiffe://cluster.local/ns/restricted/sa/app\r\ncookie: a=b\r\nx-envoy-max-retries: 9\r\n",
        Body::Text(CLAUDE),
    ),
];

/// Istio resolves it before the filter sees it.
pub(super) const DOTTED: Call =
    post("dot segments", "/model/any/../anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse", CONVERSE);

/// The response that a client got.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub status: u16,
    /// `content-type`, and those that begin with `x-amzn-`; ids and latencies without their values.
    pub headers: Vec<(String, String)>,
    pub body: Content,
}

/// A body without its times.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Json(Value),
    /// Frames of an event stream: their headers, and their JSON.
    Events(Vec<(Vec<u8>, Value)>),
    Bytes(Vec<u8>),
}

/// The request that Bedrock got, with a valid signature: everything that does not depend on the time.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    path: String,
    request: String,
    host: String,
    sni: Option<String>,
    headers: Vec<(String, String)>,
    body: (u64, String),
    called: (Option<String>, Option<String>, Vec<String>),
    verdict: String,
    status: u16,
}

impl Call {
    /// Makes the call at `address`, as a client of `host`, and returns the response.
    pub(super) fn make(&self, address: SocketAddr, host: &str) -> Answer {
        read(&exchange(address, &self.request(host), Duration::from_secs(60)), self.name)
    }

    /// Whether a response comes.
    pub(super) fn is_answered_within(&self, time: Duration, address: SocketAddr, host: &str) -> bool {
        !exchange(address, &self.request(host), time).is_empty()
    }

    fn request(&self, host: &str) -> Vec<u8> {
        let mut request = format!("{} {} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n", self.method, self.target);
        if !self.headers.contains("content-type") && !matches!(self.body, Body::None) {
            request += "content-type: application/json\r\n";
        }
        request += self.headers;
        let mut request = request.into_bytes();
        match self.body {
            Body::None => request.extend(b"\r\n"),
            Body::Text(text) => request.extend(format!("content-length: {}\r\n\r\n{text}", text.len()).bytes()),
            Body::Chunked(text) => {
                let (first, second) = text.split_at(text.len() / 2);
                let (one, two) = (first.len(), second.len());
                let chunks =
                    format!("transfer-encoding: chunked\r\n\r\n{one:x}\r\n{first}\r\n{two:x}\r\n{second}\r\n0\r\n\r\n");
                request.extend(chunks.bytes());
            }
            Body::Bytes(length) => {
                let (start, end) = (br#"{"inputText":""#, br#"","max_tokens":9,"messages":[]}"#);
                request.extend(format!("content-length: {length}\r\n\r\n").bytes());
                request.extend(start);
                request.resize(request.len() + length - start.len() - end.len(), b'x');
                request.extend(end);
            }
        }
        request
    }
}

/// The requests that the doubles got for the last call; clears them.
pub(super) fn seen(doubles: &[Running]) -> Vec<Seen> {
    let all: Vec<Received> = doubles.iter().flat_map(Running::requests).collect();
    doubles.iter().for_each(Running::clear);
    all.into_iter().filter(|one| one.operation.is_some() || one.is_violation()).map(comparable).collect()
}

fn comparable(one: Received) -> Seen {
    let of_the_time = ["authorization", "x-amz-date", "x-amz-security-token"];
    let mut headers = one.headers.clone();
    headers.iter_mut().filter(|(name, _)| of_the_time.contains(&name.as_str())).for_each(|(_, value)| value.clear());
    // HTTP/1.1 framing; HTTP/2 has none.
    headers.retain(|(name, _)| name != "transfer-encoding");
    headers.sort();
    Seen {
        path: one.path_name,
        request: format!("{} {}?{}", one.method, one.path, one.query),
        host: one.host,
        sni: one.sni,
        headers,
        body: (one.body_bytes, one.body_sha256),
        called: (one.region, one.operation, one.labels),
        verdict: format!("{:?}", one.verdict),
        status: one.status,
    }
}

fn exchange(address: SocketAddr, request: &[u8], time: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(time)).unwrap();
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    // To the end of the response, not of the connection: Envoy waits a second for unread bytes of the request.
    let (mut response, mut piece) = (Vec::new(), [0; 65536]);
    while !is_whole(&response) {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => response.extend(&piece[..length]),
            _ => break,
        }
    }
    response
}

fn is_whole(response: &[u8]) -> bool {
    let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let (head, body) = (String::from_utf8_lossy(&response[..end]).to_ascii_lowercase(), &response[end + 4..]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.map_or_else(|| body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n", |length| body.len() >= length)
}

fn read(response: &[u8], name: &str) -> Answer {
    let end = response.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{name}: no answer: {:?}", String::from_utf8_lossy(response)));
    let head = String::from_utf8_lossy(&response[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let all: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let is = |name: &str, part: &str| all.iter().any(|(known, value)| known == name && value.contains(part));
    let mut body = response[end + 4..].to_vec();
    if is("transfer-encoding", "chunked") {
        body = unchunked(&body);
    }
    let body = if is("content-type", "vnd.amazon.eventstream") {
        Content::Events(frames(&body))
    } else if let Ok(mut json) = serde_json::from_slice(&body) {
        without_times(&mut json);
        Content::Json(json)
    } else {
        Content::Bytes(body)
    };
    let mut headers: Vec<(String, String)> =
        all.into_iter().filter(|(name, _)| name == "content-type" || name.starts_with("x-amzn-")).collect();
    let of_the_time = |name: &str| name == "x-amzn-requestid" || name.ends_with("latency");
    headers
        .iter_mut()
        .filter(|(name, value)| of_the_time(name) && !value.is_empty())
        .for_each(|(_, value)| value.clear());
    headers.sort();
    Answer { status, headers, body }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|size| *size > 0) else { break };
        let Some(chunk) = bytes.get(end + 2..end + 2 + size) else { break };
        whole.extend(chunk);
        bytes = bytes.get(end + 2 + size + 2..).unwrap_or_default();
    }
    whole
}

fn frames(mut bytes: &[u8]) -> Vec<(Vec<u8>, Value)> {
    let number = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut all = Vec::new();
    while bytes.len() >= 16 {
        let (total, headers) = (number(bytes, 0), number(bytes, 4));
        let mut json: Value = serde_json::from_slice(&bytes[12 + headers..total - 4]).unwrap();
        let inner = json
            .get("bytes")
            .and_then(Value::as_str)
            .map(|text| base64::prelude::BASE64_STANDARD.decode(text).unwrap());
        if let Some(inner) = inner {
            json["bytes"] = serde_json::from_slice(&inner).unwrap();
        }
        without_times(&mut json);
        all.push((bytes[12..12 + headers].to_vec(), json));
        bytes = &bytes[total..];
    }
    all
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.iter_mut().filter(|(name, _)| name.contains("atency")).for_each(|(_, value)| *value = Value::Null);
            object.values_mut().for_each(without_times);
        }
        Value::Array(values) => values.iter_mut().for_each(without_times),
        _ => {}
    }
}
