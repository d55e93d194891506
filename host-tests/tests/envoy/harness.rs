//! Each test's gateway, in front of its own doubles.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bedrock_double::sources::{AGENT_TOKEN, CONTAINER_TOKEN};
use bedrock_double::{Builder, Double, EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Received, Running};
use serde_json::{Map, Value, json};

use crate::istio::pod::wait_for_paths;

/// A session token of temporary keys; the double accepts any text.
pub(crate) const SESSION_TOKEN: &str = "example/session+token==";
/// Where EKS puts the token; the filter does not read it.
const POD_IDENTITY_TOKEN: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
/// A Bedrock API key; the double accepts any text.
pub(crate) const API_KEY: &str = "ABSKexample-api-key";

pub(crate) use host_tests::required;

/// The model of `clients/calls.py`.
pub(crate) const SONNET: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";

/// Credentials in the gateway's environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    None,
    LongLived,
    Temporary,
    Api,
    /// Tokens for the local sources of credentials.
    Local,
    /// What EKS Pod Identity gives a pod: its token is in a file.
    PodIdentity,
}

impl Keys {
    fn variables(self) -> Vec<(&'static str, &'static str)> {
        let pair = [("AWS_ACCESS_KEY_ID", EXAMPLE_ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", EXAMPLE_SECRET_KEY)];
        match self {
            Keys::None => Vec::new(),
            Keys::LongLived => pair.to_vec(),
            Keys::Temporary => [&pair[..], &[("AWS_SESSION_TOKEN", SESSION_TOKEN)]].concat(),
            Keys::Api => vec![("AWS_BEARER_TOKEN_BEDROCK", API_KEY)],
            Keys::Local => vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN),
                ("AWS_TOKEN", AGENT_TOKEN),
            ],
            Keys::PodIdentity => vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", POD_IDENTITY_TOKEN),
            ],
        }
    }

    /// A double that takes these and nothing else.
    fn taken_by(self, double: Builder) -> Builder {
        match self {
            Keys::None | Keys::LongLived | Keys::Local | Keys::PodIdentity => double,
            Keys::Temporary => {
                double.access_key(EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Some(SESSION_TOKEN.to_owned()))
            }
            Keys::Api => double.bearer(API_KEY),
        }
    }
}

/// Doubles, and `bedrock-gateway up` in front of them.
pub(crate) struct Harness {
    pub doubles: Vec<Running>,
    pub gateway: Gateway,
    pub dir: tempfile::TempDir,
    keys: Keys,
    /// The gateway's.
    arguments: Vec<String>,
}

/// A running `bedrock-gateway up`.
pub(crate) struct Gateway {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub http: String,
    /// `https://127.0.0.1:PORT`
    pub https: String,
    /// What clients of the TLS listener trust.
    pub ca: String,
    /// The line it prints when it is ready.
    pub ready: String,
    /// Its stderr.
    said: Arc<Mutex<String>>,
    /// Its logs and Envoy's configuration.
    state: tempfile::TempDir,
}

impl Harness {
    /// One double, reached over the internet.
    pub(crate) fn lone(keys: Keys) -> Harness {
        Harness::new(keys, &["internet"], |double| double, &[])
    }

    /// A double for each path, or for each path and region (`dx@us-west-2`); `arguments` are more of `bedrock-gateway up`'s.
    pub(crate) fn new(keys: Keys, paths: &[&str], change: impl Fn(Builder) -> Builder, arguments: &[&str]) -> Harness {
        Harness::within(tempfile::tempdir().unwrap(), keys, paths, change, arguments)
    }

    /// A document with this class alone, and a double for each of `places` (`dx@us-west-2`), whose regions it has. All of them are
    /// healthy.
    pub(crate) fn one_class(places: &[&str], mut class: Value, arguments: &[&str]) -> Harness {
        let dir = tempfile::tempdir().unwrap();
        let regions = places.iter().filter_map(|place| place.split_once('@'));
        let regions: Map<String, Value> = regions.map(|(_, region)| (region.to_owned(), json!({}))).collect();
        class["name"] = json!("any");
        let profiles = json!({ SONNET: format!("us.{SONNET}") });
        let document = json!({
            "regions": regions,
            "principal": [{ "from": "mtls" }],
            "inference_profiles": profiles,
            "route_classes": [class],
        });
        let policy = dir.path().join("policy.json");
        std::fs::write(&policy, document.to_string()).unwrap();
        let policy = policy.display().to_string();
        let arguments = [&["--policy", policy.as_str()][..], arguments].concat();
        let harness = Harness::within(dir, Keys::LongLived, places, |double| double, &arguments);
        wait_for_paths(|page| harness.gateway.admin(page));
        harness
    }

    fn within(
        dir: tempfile::TempDir,
        keys: Keys,
        paths: &[&str],
        change: impl Fn(Builder) -> Builder,
        arguments: &[&str],
    ) -> Harness {
        let doubles: Vec<Running> = paths
            .iter()
            .map(|path| {
                let double = Double::builder().tls_dir(dir.path().join("tls")).path_name(*path);
                let double = match path.split_once('@') {
                    Some((_, region)) => double.region(region),
                    None => double,
                };
                change(keys.taken_by(double)).start().unwrap()
            })
            .collect();
        let mut all: Vec<String> = Vec::new();
        for (path, double) in paths.iter().zip(&doubles) {
            all.extend(["--path".to_owned(), format!("{path}={}", double.addr())]);
        }
        all.extend(["--upstream-ca".to_owned(), dir.path().join("tls/ca.pem").display().to_string()]);
        all.extend(["--access-log".to_owned(), dir.path().join("access.jsonl").display().to_string()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let gateway = Gateway::start(keys, &all);
        Harness { doubles, gateway, dir, keys, arguments: all }
    }

    /// Ends the gateway and starts it again, on other ports.
    pub(crate) fn restart(&mut self) {
        self.gateway.end();
        self.gateway = Gateway::start(self.keys, &self.arguments);
        wait_for_paths(|page| self.gateway.admin(page));
    }

    /// The access log of the gateway.
    pub(crate) fn access_log(&self) -> PathBuf {
        self.dir.path().join("access.jsonl")
    }

    /// The requests that the doubles got, without health checks.
    pub(crate) fn received(&self) -> Vec<Received> {
        let all = self.doubles.iter().flat_map(Running::requests);
        all.filter(|request| request.operation.is_some() || request.is_violation()).collect()
    }

    /// Fails if a double got a request that a gateway must never send: unsigned, wrongly signed, or with a forbidden header.
    pub(crate) fn assert_no_violation(&self) {
        for double in &self.doubles {
            let violations = double.violations();
            assert!(violations.is_empty(), "{violations:#?}");
        }
    }
}

impl Gateway {
    /// Starts `bedrock-gateway up` on free ports and waits for its line.
    pub(crate) fn start(keys: Keys, arguments: &[String]) -> Gateway {
        let mut command = Command::new(required("BEDROCK_GATEWAY_BIN"));
        let state = tempfile::tempdir().unwrap();
        command.args(["up", "--listen", "127.0.0.1:0", "--state"]).arg(state.path()).args(arguments);
        // Names that raw requests of tests have.
        command.args(["--host", "x", "--host", "evil.example", "--host", "one.host"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.envs(keys.variables()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let said = Arc::new(Mutex::new(String::new()));
        let hearing = Arc::clone(&said);
        let errors = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *hearing.lock().unwrap() += &(line + "\n");
            }
        });
        match lines.recv_timeout(Duration::from_secs(120)) {
            Ok(ready) => {
                let words: Vec<&str> = ready.split([' ', ')']).collect();
                assert_eq!((words[0], words[3]), ("ready", "(CA"), "{ready}");
                let (http, https, ca) = (words[1].to_owned(), words[2].to_owned(), words[4].to_owned());
                Gateway { child, http, https, ca, ready, said, state }
            }
            Err(_) => {
                let _ = child.kill();
                errors.join().unwrap();
                panic!("bedrock-gateway up did not become ready: {}", said.lock().unwrap());
            }
        }
    }

    /// Its stderr so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The process id of `bedrock-gateway up`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of its Envoy.
    pub(crate) fn envoy_pid(&self) -> u32 {
        let children = text_of(Path::new(&format!("/proc/{0}/task/{0}/children", self.pid())));
        let comm = |pid: &u32| text_of(Path::new(&format!("/proc/{pid}/comm")));
        let mut pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.find(|pid| comm(pid).starts_with("envoy")).unwrap_or_else(|| panic!("no Envoy among {children:?}"))
    }

    /// The names of the variables of Envoy's environment.
    pub(crate) fn envoy_environment(&self) -> Vec<String> {
        let all = text_of(Path::new(&format!("/proc/{}/environ", self.envoy_pid())));
        all.split('\0').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect()
    }

    /// Where its run keeps its logs and Envoy's configuration.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.state.path().join(format!("up/{}", self.pid()))
    }

    /// A page of Envoy's admin interface.
    pub(crate) fn admin(&self, path: &str) -> String {
        self.ask_admin("GET", path)
    }

    /// A change by Envoy's admin interface.
    pub(crate) fn post(&self, path: &str) -> String {
        self.ask_admin("POST", path)
    }

    fn ask_admin(&self, method: &str, path: &str) -> String {
        let address = std::fs::read_to_string(self.run_dir().join("admin")).unwrap();
        let mut stream = TcpStream::connect(address.trim()).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut page = Vec::new();
        stream.read_to_end(&mut page).unwrap();
        String::from_utf8_lossy(&page).into_owned()
    }

    /// Ends it as Ctrl-C does and waits, so that the audit is complete.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    /// As [`Gateway::stop`]; its files can be read afterwards.
    pub(crate) fn end(&mut self) {
        self.terminate();
    }

    fn terminate(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
            let _ = self.child.wait();
        }
    }

    /// Sends bytes as they are to the plain listener and reads the answer: status, head, body.
    pub(crate) fn raw(&self, request: &[u8]) -> (u16, String, String) {
        let response = self.answer(request);
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {response:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    /// The same, as it is; empty if the connection is closed without an answer.
    pub(crate) fn answer(&self, request: &[u8]) -> String {
        let address = self.http.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // A server may answer and close before it has read everything.
        let _ = stream.write_all(request);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        String::from_utf8_lossy(&response).into_owned()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Polls until `check` returns something.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A file's text; empty while it does not exist.
pub(crate) fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `envoy/base.yaml` with `from` replaced, as the file of `--base`.
pub(crate) fn base(dir: &Path, from: &str, to: &str) -> String {
    changed(dir, "base.yaml", include_str!("../../../envoy/base.yaml"), from, to)
}

/// `envoy/example.yaml` with `from` replaced, as the file of `--policy`.
pub(crate) fn policy(dir: &Path, from: &str, to: &str) -> String {
    changed(dir, "example.yaml", include_str!("../../../envoy/example.yaml"), from, to)
}

fn changed(dir: &Path, name: &str, text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{name}: {from}");
    let file = dir.join(name);
    std::fs::write(&file, text.replace(from, to)).unwrap();
    file.display().to_string()
}
