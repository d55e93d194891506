//! What becomes of streams when `bedrock-gateway up` is told to end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{javascript_with, python_with};
use crate::harness::{Harness, Keys, eventually};

const STREAMS: usize = 100;
/// Streams of boto3, each on a connection of its own, and of the JavaScript SDK, on connections of HTTP/2.
const SDK_STREAMS: [usize; 2] = [60, 40];

fn request(model: &str) -> Vec<u8> {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;
    format!(
        "POST /model/{model}/converse-stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The body of a chunked response; `None` if its last chunk is missing.
fn unchunked(response: &[u8]) -> Option<Vec<u8>> {
    let start = response.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let (mut rest, mut body) = (response.get(start..)?, Vec::new());
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend(rest.get(end + 2..end + 2 + length)?);
        rest = rest.get(end + 2 + length + 2..)?;
    }
}

/// The last frame of a body that consists of whole frames. Each begins with its length
/// (docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html).
fn last_frame(body: &[u8]) -> Option<String> {
    let (mut rest, mut last) = (body, None);
    while !rest.is_empty() {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let frame = rest.get(..length).filter(|frame| !frame.is_empty())?;
        last = Some(String::from_utf8_lossy(frame).into_owned());
        rest = &rest[length..];
    }
    last
}

/// How a stream ends: `whole`, `exception`, or what it is instead.
fn ending(response: &[u8]) -> String {
    let Some(body) = unchunked(response) else { return "cut off".to_owned() };
    match last_frame(&body) {
        Some(frame) if frame.contains("serviceUnavailableException") => "exception".to_owned(),
        Some(frame) if frame.contains("metadata") && frame.contains("usage") => "whole".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn streams_end_when_the_gateway_is_stopped() {
    let mut harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    let address = harness.gateway.http.strip_prefix("http://").unwrap().to_owned();
    // One half ends while the gateway waits, the other takes longer.
    let open = |number: usize| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let model = if number.is_multiple_of(2) { "fault.drip-500ms" } else { "fault.drip-3s" };
        stream.write_all(&request(model)).unwrap();
        stream
    };
    let mut streams: Vec<TcpStream> = (0..STREAMS).map(open).collect();
    let mut answers: Vec<Vec<u8>> = vec![Vec::new(); STREAMS];
    // Those that end soon have begun; the others begin after the signal.
    for number in (0..STREAMS).step_by(2) {
        let mut byte = [0];
        while !answers[number].ends_with(b"messageStart") {
            streams[number].read_exact(&mut byte).unwrap();
            answers[number].push(byte[0]);
        }
    }
    Command::new("kill").args(["-TERM", &harness.gateway.pid().to_string()]).status().unwrap();
    let readers: Vec<_> = streams
        .into_iter()
        .zip(answers)
        .map(|(mut stream, mut answer)| {
            std::thread::spawn(move || {
                let _ = stream.read_to_end(&mut answer);
                answer
            })
        })
        .collect();
    let endings: Vec<String> = readers.into_iter().map(|reader| ending(&reader.join().unwrap())).collect();
    let count = |wanted: &str| endings.iter().filter(|ending| *ending == wanted).count();
    assert_eq!(count("whole") + count("exception"), STREAMS, "{endings:?}");
    assert!(count("whole") >= STREAMS / 2, "{endings:?}");
    assert!(count("exception") > 0, "{endings:?}");
    harness.gateway.end();
}

/// How an SDK's stream ended, as [`ending`].
fn sdk_ending(call: &Value) -> &'static str {
    let error = &call["error"];
    let named = ["ServiceUnavailableException", "serviceUnavailableException"];
    match () {
        () if error.is_null() && call["usage"]["outputTokens"].as_u64() > Some(0) => "whole",
        () if named.iter().any(|name| error["class"] == *name || error["code"] == *name) => "exception",
        () => "another",
    }
}

#[test]
fn sdks_raise_when_the_gateway_is_stopped() {
    let mut harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    let [boto3, javascript] = SDK_STREAMS.map(|count| count.to_string());
    let (url, ca) = (harness.gateway.https.clone(), harness.gateway.ca.clone());
    let boto3 = std::thread::spawn(move || python_with("ended", &url, &ca, &[boto3]));
    let url = harness.gateway.http.clone();
    let javascript = std::thread::spawn(move || javascript_with("ended", &url, &[javascript]));
    let total: usize = SDK_STREAMS.iter().sum();
    eventually("all streams", || (harness.received().len() == total).then_some(()));
    let signal = || Command::new("kill").args(["-TERM", &harness.gateway.pid().to_string()]).status().unwrap();
    signal();
    // The short ones take 4 s. A second signal ends the others before the gateway's 10 s are over.
    std::thread::sleep(Duration::from_secs(5));
    signal();
    for (sdk, count) in [boto3, javascript].into_iter().zip(SDK_STREAMS) {
        let calls = sdk.join().unwrap();
        let other: Vec<&Value> = calls.iter().filter(|call| sdk_ending(call) == "another").collect();
        assert!(other.is_empty() && calls.len() == count, "{other:#?}");
        for (model, wanted) in [("fault.drip-500ms", "whole"), ("fault.drip-3s", "exception")] {
            let of_model = calls.iter().filter(|call| call["call"] == model);
            let endings: Vec<&str> = of_model.map(sdk_ending).collect();
            assert!(
                endings.len() == count / 2 && endings.iter().all(|ending| *ending == wanted),
                "{model}: {endings:?}"
            );
        }
    }
    harness.gateway.end();
}
