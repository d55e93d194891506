//! Intents on the real path: Envoy's cluster of the collector's socket, the collector, and its ledger.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bedrock_double::PathFault;

use crate::clients::{assert_all_answered, call, python, python_bearer};
use crate::harness::{Harness, Keys, base, eventually, policy, text_of};

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A gateway whose calls are audited in this way, with a collector that has half a second; and the folder of its files.
fn audited(keys: Keys, paths: &[&str], mode: &str, arguments: &[&str]) -> (Harness, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let class = "  - name: any\n    paths: [dx, vpn, internet]\n";
    let own = format!("{class}    audit: {mode}\naudit: {{ cluster: audit, deadline_ms: 500 }}\n");
    let file = policy(dir.path(), class, &own);
    if keys == Keys::Api {
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("auth: sigv4", "auth: bearer")).unwrap();
    }
    let sqlite = dir.path().join("audit.db");
    let own = ["--policy", &file, "--audit", sqlite.to_str().unwrap()];
    (Harness::new(keys, paths, |double| double, &[&own, arguments].concat()), dir)
}

impl Harness {
    /// The process id of its collector.
    fn collector_pid(&self) -> u32 {
        let children = text_of(format!("/proc/{0}/task/{0}/children", self.gateway.pid()).as_ref());
        let mut pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        let is_collector = |pid: &u32| text_of(format!("/proc/{pid}/comm").as_ref()).starts_with("audit-collect");
        pids.find(is_collector).unwrap_or_else(|| panic!("no collector among {children:?}"))
    }

    fn signal_collector(&self, signal: &str) {
        let pid = self.collector_pid();
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
        if signal == "-STOP" {
            // Its threads run on until one of them has taken the signal.
            eventually("the collector stops", || {
                let status = text_of(Path::new(&format!("/proc/{pid}/status")));
                status.contains("State:\tT").then_some(())
            });
        }
    }

    fn intents(&self, outcome: &str) -> u64 {
        let page = self.gateway.admin("/stats?filter=bedrock_audit_intents");
        let of =
            |line: &str| line.contains(&format!("type={outcome}")).then(|| line.rsplit(": ").next()?.parse().ok())?;
        page.lines().find_map(of).unwrap_or(0)
    }
}

#[test]
fn every_call_has_one_intent() {
    let (harness, _dir) = audited(Keys::LongLived, &["dx", "vpn"], "required", &[]);
    // Each call is tried twice.
    harness.doubles[0].set_fault(PathFault::Refuse);
    let calls = python("operations", &harness.gateway.http);
    assert_all_answered(&calls);
    assert_eq!(harness.intents("recorded"), calls.len() as u64);
    harness.assert_no_violation();
}

#[test]
fn a_body_with_an_api_key_waits_for_the_intent() {
    let (harness, _dir) = audited(Keys::Api, &["internet"], "required", &[]);
    let calls = python_bearer("streams", &harness.gateway.https, &harness.gateway.ca);
    assert!(call(&calls, "whole")["usage"].is_object());
    assert_eq!(harness.intents("recorded"), harness.received().len() as u64);
    harness.signal_collector("-STOP");
    let before = harness.received().len();
    let body = r#"{"messages":[]}"#;
    let head = "POST /model/m/converse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 15\r\n\r\n";
    assert_eq!(harness.gateway.raw(format!("{head}{body}").as_bytes()).0, 503);
    assert_eq!(harness.received().len(), before);
    harness.signal_collector("-CONT");
}

#[test]
fn role_combined_records_intents_too() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path(), r#"{"role": "gateway"}"#, r#"{"role": "combined"}"#);
    let (harness, _dir) = audited(Keys::Temporary, &["dx", "vpn"], "required", &["--base", &base]);
    let calls = python("operations", &harness.gateway.http);
    assert_all_answered(&calls);
    assert_eq!(harness.intents("recorded"), calls.len() as u64);
    harness.assert_no_violation();
}

#[test]
fn required_calls_need_the_collector() {
    let (harness, _dir) = audited(Keys::LongLived, &["internet"], "required", &[]);
    assert_eq!(harness.gateway.raw(GET).0, 200);
    harness.signal_collector("-STOP");
    let before = harness.received().len();
    let start = Instant::now();
    let (status, head, body) = harness.gateway.raw(GET);
    assert_eq!(status, 503, "{head} {body}");
    assert!(
        head.contains("x-amzn-errortype: serviceunavailableexception") && head.contains("retry-after: 1"),
        "{head}"
    );
    assert!(body.contains("route class 'any'") || body.contains("Route class 'any'"), "{body}");
    assert!(body.contains("the audit collector did not answer in time"), "{body}");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(450) && waited < Duration::from_secs(2), "{waited:?}");
    assert_eq!(harness.received().len(), before, "a call without an intent left");
    harness.signal_collector("-CONT");
    let start = Instant::now();
    eventually("calls again", || (harness.gateway.raw(GET).0 == 200).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn other_calls_do_not_need_the_collector() {
    for mode in ["best_effort", "off"] {
        let (harness, _dir) = audited(Keys::LongLived, &["internet"], mode, &[]);
        harness.signal_collector("-STOP");
        for _ in 0..5 {
            assert_eq!(harness.gateway.raw(GET).0, 200);
        }
        assert_eq!(harness.intents("recorded"), 0);
        harness.signal_collector("-CONT");
    }
}
