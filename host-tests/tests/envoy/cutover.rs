//! The policy document changes while the gateway runs: calls move, and none is dropped.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Harness, Keys, eventually, required};

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// A document with one class over two paths, tried first by these weights.
fn weighted(dx: u32, vpn: u32) -> Value {
    json!({
        "regions": { "us-east-1": {} },
        "route_classes": [{ "name": "any", "paths": ["dx", "vpn"], "weights": { "dx": dx, "vpn": vpn } }],
    })
}

/// A file that holds a document.
struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(document: &Value) -> File {
        let dir = tempfile::tempdir().unwrap();
        let file = File { path: dir.path().join("policy.json"), _dir: dir };
        file.write(&document.to_string());
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).unwrap();
    }

    fn harness(&self) -> Harness {
        let arguments = ["--policy", self.path.to_str().unwrap()];
        Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &arguments)
    }
}

/// A request for a stream with a frame each 100 ms, some four seconds long.
fn dripping() -> Vec<u8> {
    let text = "word ".repeat(30);
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": text }] }] }).to_string();
    format!(
        "POST /model/fault.drip-100ms/converse-stream HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How many calls each double has got.
fn calls(harness: &Harness) -> Vec<usize> {
    let calls = |double: &bedrock_double::Running| {
        double.requests().iter().filter(|request| request.operation.as_deref() == Some("ListFoundationModels")).count()
    };
    harness.doubles.iter().map(calls).collect()
}

fn wait_for(harness: &Harness, words: &str) {
    eventually(words, || harness.gateway.said().contains(words).then_some(()));
}

#[test]
fn weights_move_new_calls_and_spare_streams() {
    let file = File::new(&weighted(100, 0));
    let harness = file.harness();
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| harness.gateway.raw(&dripping()));
        eventually("the stream", || {
            let got = harness.doubles[0].requests();
            got.iter().any(|request| request.operation.as_deref() == Some("ConverseStream")).then_some(())
        });
        (0..5).for_each(|_| assert_eq!(harness.gateway.raw(GET).0, 200));
        assert_eq!(calls(&harness), [5, 0]);
        file.write(&weighted(0, 100).to_string());
        // Calls run during the change: none may fail.
        let mut number = 5;
        while !harness.gateway.said().contains("taken (change 1)") {
            assert_eq!(harness.gateway.raw(GET).0, 200);
            number += 1;
        }
        assert!(!stream.is_finished(), "the stream was over before the change");
        let before = calls(&harness);
        (0..20).for_each(|_| assert_eq!(harness.gateway.raw(GET).0, 200));
        let after = calls(&harness);
        assert_eq!(after[0] + after[1], number + 20);
        assert_eq!(after[0], before[0], "calls still go over dx");
        let (status, _, body) = stream.join().unwrap();
        assert_eq!(status, 200);
        assert!(body.contains("messageStop") && body.contains("totalTokens") && body.ends_with("0\r\n\r\n"), "{body}");
    });
    // And back.
    file.write(&weighted(100, 0).to_string());
    wait_for(&harness, "taken (change 2)");
    let before = calls(&harness);
    assert_eq!(harness.gateway.raw(GET).0, 200);
    assert_eq!(calls(&harness)[0], before[0] + 1);
    let statistics = harness.gateway.admin("/stats?filter=extension_config_discovery");
    for filter in ["http_filter.bedrock.gateway", "upstream_http_filter.bedrock.signer"] {
        let name = format!("extension_config_discovery.{filter}");
        assert!(statistics.contains(&format!("{name}.config_reload: 3")), "{statistics}");
        assert!(statistics.contains(&format!("{name}.config_fail: 0")), "{statistics}");
    }
    harness.assert_no_violation();
}

#[test]
fn a_bad_change_keeps_the_old_document() {
    let file = File::new(&weighted(100, 0));
    let harness = file.harness();
    let changed = |key: &str, value: Value| {
        let mut document = weighted(0, 100);
        document["route_classes"][0][key] = value;
        document.to_string()
    };
    for (text, words) in [
        ("{ \"regions\":".to_owned(), ":1:12: "),
        (changed("paths", json!(["dx", "satellite"])), "`route_classes[0].paths[1]`"),
        (changed("weights", json!({ "dx": 0, "vpn": 0 })), "`route_classes[0].weights`"),
        (
            changed("name", json!("other")),
            "needs a restart, for `route_classes[0].name`: Envoy has no cluster bedrock-runtime.other",
        ),
        (changed("dscp", json!(10)), "needs a restart, for `route_classes[0].dscp`: cluster bedrock"),
        (
            changed("priority", json!("high")),
            "needs a restart, for `route_classes[0].priority`: a class's priority or bandwidth",
        ),
    ] {
        file.write(&text);
        wait_for(&harness, words);
        assert_eq!(harness.gateway.raw(GET).0, 200);
    }
    file.write(&weighted(100, 0).to_string());
    wait_for(&harness, "valid again; same as the running document");
    // A missing file is reported once; when it is back it is read again.
    std::fs::remove_file(&file.path).unwrap();
    wait_for(&harness, "cannot read it");
    assert_eq!(calls(&harness), [6, 0]);
    file.write(&weighted(0, 100).to_string());
    wait_for(&harness, "taken (change 1)");
    assert_eq!(harness.gateway.raw(GET).0, 200);
    assert_eq!(calls(&harness), [6, 1]);
    assert_eq!(
        harness.gateway.said().matches("refused, the old document stays: ").count(),
        7,
        "{}",
        harness.gateway.said()
    );
}

/// What `bedrock-gateway up` prints for its arguments and environment, or why it would not run.
fn print_config(arguments: &[&str], paths: Option<&str>) -> Result<String, String> {
    let mut command = std::process::Command::new(required("BEDROCK_GATEWAY_BIN"));
    command.args(["up", "--print-config"]).args(arguments).env_remove("BEDROCK_PATHS");
    command.env("BEDROCK_GATEWAY_STATE", required("BEDROCK_GATEWAY_BIN").with_file_name("state"));
    command.envs(paths.map(|paths| ("BEDROCK_PATHS", paths)));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn refuses_mistakes_before_envoy_starts() {
    let file = File::new(&weighted(0, 0));
    let zero = file.path.to_str().unwrap();
    let good = File::new(&weighted(1, 0));
    let good = good.path.to_str().unwrap();
    for (arguments, paths, words) in [
        (&["--policy", zero][..], None, "`route_classes[0].weights`"),
        (&["--policy", "/nowhere.json"], None, "--policy /nowhere.json"),
        (
            &["--policy", good, "--path", "dx@eu-west-1=10.0.0.1:1"],
            None,
            "--path dx@eu-west-1: no call goes to eu-west-1",
        ),
        (&["--policy", good, "--region", "us-gov-west-1"], None, "Commercial partition"),
        (&["--path", "dx@us-east-1=a:1", "--path", "dx@us-east-1=b:1"], None, "dx@us-east-1 is given twice"),
        (&["--policy", good], Some("dx,satellite"), "satellite"),
        (&["--policy", good], Some("dx,dx"), "BEDROCK_PATHS"),
    ] {
        let said = print_config(arguments, paths).unwrap_err();
        assert!(said.contains(words), "{arguments:?} {paths:?}: {said}");
    }
}

/// Plain Envoy takes what is printed: one file with all in it.
#[test]
fn what_is_printed_is_a_whole_configuration() {
    let file = File::new(&weighted(50, 50));
    let arguments = ["--policy", file.path.to_str().unwrap(), "--path", "dx=10.0.0.1:1", "--path", "vpn=10.0.0.2:2"];
    let text = print_config(&arguments, Some("vpn,dx")).unwrap();
    assert!(!text.contains("config_discovery"));
    let config = Path::new(&file.path).with_file_name("envoy.json");
    std::fs::write(&config, text).unwrap();
    let mut envoy = std::process::Command::new(required("ENVOY_BIN"));
    let output = envoy.args(["--mode", "validate", "-c"]).arg(&config).env_remove("BEDROCK_PATHS").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
