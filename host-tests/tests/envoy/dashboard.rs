//! Each query of the Grafana dashboard returns figures from a real Prometheus that scrapes the real Envoy and collector.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bedrock_double::PathFault;
use bedrock_double::sources::Trouble;
use serde_json::Value;

use crate::collector::{Collector, get};
use crate::harness::{Gateway, eventually, required};
use crate::sources::fetching;

const DASHBOARD: &str = include_str!("../../../infra/dashboards/bedrock-gateway.json");

/// Title of the panel and expression of each query.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| (title.to_owned(), target["expr"].as_str().unwrap().to_owned()))
    });
    targets.collect()
}

struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    fn start(dir: &Path, envoy: &str, collector: &str) -> Prometheus {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = dir.join("prometheus.yml");
        let job = |name: &str, path: &str, target: &str| {
            format!(
                "  - {{ job_name: {name}, metrics_path: {path}, static_configs: [ {{ targets: [ \"{target}\" ] }} ] }}\n"
            )
        };
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n{}{}",
            job("envoy", "/stats/prometheus", envoy),
            job("collector", "/metrics", collector)
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(required("PROMETHEUS_BIN"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).args(["--log.level=error"]);
        let child = command.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Prometheus { child, address }
    }

    /// The values of an expression's series.
    fn query(&self, expression: &str) -> Vec<f64> {
        let escaped: String = expression
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        let page = get(&self.address, &format!("/api/v1/query?query={escaped}"));
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        let answer: Value = serde_json::from_str(body).unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap().iter();
        series.map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A call that Bedrock answers, with tokens, and one that the gateway refuses.
fn calls(gateway: &Gateway) {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#;
    let model = bedrock_load::MODEL.replace(':', "%3A");
    let head = format!(
        "POST /model/{model}/converse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(gateway.raw(head.as_bytes()).0, 200);
    assert_eq!(gateway.raw(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").0, 404);
}

#[test]
fn each_query_of_the_dashboard_returns_data() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{}", queries.len());
    let imds = r#"{"source": "imds", "cluster": "imds"}"#;
    let (harness, _sources, _keyring) = fetching(imds, Duration::from_secs(3600), true, Trouble::None);
    let dir = tempfile::tempdir().unwrap();
    let log = harness.access_log();
    let collector = Collector::start(&harness.gateway, &log, &dir.path().join("a.db"), &dir.path().join("errors"));
    let admin = std::fs::read_to_string(harness.gateway.run_dir().join("admin")).unwrap();
    let prometheus = Prometheus::start(dir.path(), admin.trim(), &collector.page);
    eventually("Prometheus", || std::net::TcpStream::connect(&prometheus.address).ok());
    // The first path fails at times, so that calls need a second attempt.
    let mut round = 0;
    let mut open: BTreeMap<&str, &str> = queries.iter().map(|(title, text)| (text.as_str(), title.as_str())).collect();
    eventually("data of each query", || {
        round += 1;
        harness.doubles[0].set_fault(if round % 4 == 1 { PathFault::Reset } else { PathFault::None });
        calls(&harness.gateway);
        std::thread::sleep(Duration::from_millis(300));
        // A minute is the least that Grafana takes for this interval of scrapes.
        open.retain(|text, _| {
            let values = prometheus.query(&text.replace("$__rate_interval", "1m"));
            !values.iter().any(|value| value.is_finite())
        });
        if round % 40 == 0 {
            println!("still without data: {open:#?}");
        }
        open.is_empty().then_some(())
    });
}
