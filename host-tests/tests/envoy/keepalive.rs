//! Packets while a call is silent: load balancers and NAT gateways forget a connection without any for 350 s. Counted by the
//! kernel, on connections to and from the real Envoy. `cargo xtask soak keepalive` counts those of the shipped times.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use bedrock_double::Running;
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, clients, javascript};
use crate::harness::required;
use crate::istio::pod::{Envoy, ask, doubles, each, wait_for_paths};

const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", bedrock_double::EXAMPLE_ACCESS_KEY),
    ("AWS_SECRET_ACCESS_KEY", bedrock_double::EXAMPLE_SECRET_KEY),
];

/// How long the call is silent, and the longest time without a packet, in seconds. A soak has the shipped keepalive of 60 s.
pub(crate) fn silence() -> (u64, f64) {
    if std::env::var_os("SOAK").is_some() { (125, 65.0) } else { (5, 2.0) }
}

/// TCP keepalive after one second in place of 60, except in a soak. HTTP/2's stays, which counts as packets too.
pub(crate) fn shorten(config: &mut Value) {
    if std::env::var_os("SOAK").is_some() {
        return;
    }
    each(config, &mut |object| {
        if let Some(keepalive) = object.get_mut("tcp_keepalive") {
            *keepalive = json!({ "keepalive_time": 1, "keepalive_interval": 1, "keepalive_probes": 4 });
        }
        if let Some(keepalive) = object.get_mut("connection_keepalive") {
            *keepalive = json!({ "interval": "60s", "timeout": "60s" });
        }
    });
}

/// A relay of connections that counts their segments (`segments.py`).
pub(crate) struct Relay {
    child: Child,
    lines: Mutex<BufReader<ChildStdout>>,
    pub address: SocketAddr,
}

impl Relay {
    pub(crate) fn to(target: SocketAddr) -> Relay {
        let mut command = Command::new(required("GATEWAY_PYTHON"));
        command.arg(clients().join("segments.py")).arg(target.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        Relay { child, lines: Mutex::new(lines), address: ([127, 0, 0, 1], port.trim().parse().unwrap()).into() }
    }

    /// The longest time without a packet from the side that is Envoy, in seconds, of the connection with the most packets.
    pub(crate) fn gap(&self, side: &str) -> f64 {
        writeln!(self.child.stdin.as_ref().unwrap()).unwrap();
        let mut line = String::new();
        self.lines.lock().unwrap().read_line(&mut line).unwrap();
        let all: Vec<Value> = serde_json::from_str(&line).unwrap();
        let busiest = all.iter().max_by_key(|connection| connection[side]["segments"].as_u64()).unwrap();
        println!("{side}: {busiest}");
        busiest[side]["gap"].as_f64().unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `up` would run for these paths, changed by `change`.
fn gateway(paths: &[(&str, SocketAddr)], ca: &str, change: impl FnOnce(&mut Value)) -> Envoy {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(required("BEDROCK_GATEWAY_BIN"));
    command.args(["up", "--print-config", "--listen", "127.0.0.1:0", "--upstream-ca", ca, "--state"]).arg(dir.path());
    for (path, address) in paths {
        command.args(["--path", &format!("{path}={address}")]);
    }
    let output = command.envs(KEYS).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut config: Value = serde_json::from_slice(&output.stdout).unwrap();
    config["admin"]["address"]["socket_address"]["port_value"] = json!(0);
    change(&mut config);
    let envoy = Envoy::run(dir, &config, &KEYS);
    wait_for_paths(|page| ask(envoy.admin, page));
    envoy
}

fn plain(envoy: &Envoy) -> SocketAddr {
    envoy.listeners().iter().find(|(name, _)| name == "plain").unwrap().1
}

/// A call whose answer takes this many seconds.
pub(crate) fn slow_call(gateway: SocketAddr, host: &str, seconds: u64) -> String {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#;
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(seconds + 30))).unwrap();
    write!(
        stream,
        "POST /model/fault.slow-{seconds}s/converse HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_silent_call_has_packets_on_both_sides() {
    let (seconds, longest) = silence();
    // A cluster with one endpoint has other settings than one with two.
    std::thread::scope(|scope| {
        for names in [&["internet"][..], &["dx", "internet"]] {
            scope.spawn(move || {
                let dir = tempfile::tempdir().unwrap();
                let doubles = doubles(dir.path(), names);
                let ca = doubles[0].ca_pem_path().to_str().unwrap().to_owned();
                let upstream = Relay::to(doubles[0].addr());
                let mut paths: Vec<_> = names.iter().copied().zip(doubles.iter().map(Running::addr)).collect();
                paths[0].1 = upstream.address;
                let envoy = gateway(&paths, &ca, shorten);
                let downstream = Relay::to(plain(&envoy));
                let answer = slow_call(downstream.address, "localhost", seconds);
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                for (relay, side) in [(downstream, "connected"), (upstream, "accepted")] {
                    let gap = relay.gap(side);
                    assert!(gap <= longest, "{names:?}, {side}: no packet from Envoy for {gap} s");
                }
            });
        }
    });
}

/// A frame of HTTP/2: its type, its flags, its payload. `None` at the connection's end.
fn frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}

fn write_frame(stream: &mut TcpStream, kind: u8, flags: u8, on: u8, payload: &[u8]) {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    stream.write_all(&[0, length[0], length[1], kind, flags, 0, 0, 0, on]).unwrap();
    stream.write_all(payload).unwrap();
}

/// PINGs reach an HTTP/2 client during a silent call, and the client's answers keep the connection.
#[test]
fn http2_clients_get_pings_and_keep_calls() {
    let dir = tempfile::tempdir().unwrap();
    let doubles = doubles(dir.path(), &["internet"]);
    let ca = doubles[0].ca_pem_path().to_str().unwrap().to_owned();
    let envoy = gateway(&[("internet", doubles[0].addr())], &ca, |config| {
        each(&mut config["static_resources"]["listeners"], &mut |object| {
            if let Some(keepalive) = object.get_mut("connection_keepalive") {
                *keepalive = json!({ "interval": "0.5s", "timeout": "0.4s" });
            }
        });
    });
    let mut stream = TcpStream::connect(plain(&envoy)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    write_frame(&mut stream, 4, 0, 0, &[]);
    let body = br#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#;
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/model/fault.slow-3s/converse"),
        ("content-type", "application/json"),
    ] {
        // A literal without indexing (RFC 7541, section 6.2.2).
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).unwrap());
            headers.extend(text.as_bytes());
        }
    }
    write_frame(&mut stream, 1, 4, 1, &headers);
    write_frame(&mut stream, 0, 1, 1, body);
    let (mut pings, mut answer) = (0, Vec::new());
    loop {
        match frame(&mut stream).expect("the connection ended") {
            (6, 0, payload) => {
                pings += 1;
                write_frame(&mut stream, 6, 1, 0, &payload);
            }
            (4, 0, _) => write_frame(&mut stream, 4, 1, 0, &[]),
            (0, flags, payload) => {
                answer.extend(payload);
                if flags & 1 == 1 {
                    break;
                }
            }
            (3 | 7, ..) => panic!("a reset after {pings} PINGs"),
            _ => {}
        }
    }
    assert!(pings >= 4 && String::from_utf8_lossy(&answer).contains("usage"), "{pings} PINGs, {answer:?}");
    // The JS SDK speaks HTTP/2 with prior knowledge.
    assert_all_answered(&javascript("operations", &format!("http://{}", plain(&envoy))));
}
