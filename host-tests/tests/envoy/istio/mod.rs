//! The files of `envoy/istio` on the real Envoy: what istiod would make of them ([`proxy`]), in front of doubles of Bedrock,
//! compared with the gateway alone.

mod calls;
mod patch;
pub(crate) mod pod;
mod proxy;
mod termination;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bedrock_double::{EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Running};
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, call, python_through};
use crate::harness::{API_KEY, Harness, Keys, eventually, required, text_of};
use crate::keepalive::{Relay, shorten, silence, slow_call};
use calls::{Answer, BREAKS_OFF, CALLS, Call, Content, DOTTED, ONE_CLASS, RULES, seen};
use pod::{Envoy, Mesh, ask, doubles, each, extensions, wait_for_paths};
use proxy::{Identity, Proxy, objects};

const GOVCLOUD: &str = "bedrock-runtime.us-gov-west-1.amazonaws.com";
const PATHS: [&str; 3] = ["dx", "vpn", "internet"];

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/istio")
}

/// All objects in the files of a directory of `envoy/istio`.
fn way(name: &str, names: &[&str]) -> Vec<Value> {
    names.iter().flat_map(|file| objects(&files().join(name).join(file))).collect()
}

fn of_kind(objects: &[Value], kind: &str) -> Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap().clone()
}

// === the egress gateway ===

const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", EXAMPLE_ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", EXAMPLE_SECRET_KEY)];

/// The egress gateway: a workload's sidecar, the mesh's mTLS, the gateway.
struct Egress {
    doubles: Vec<Running>,
    gateway: Envoy,
    mesh: Mesh,
    objects: Vec<Value>,
}

impl Egress {
    /// The gateway with this EnvoyFilter, or without any.
    fn start(filter: impl FnOnce(&[Running]) -> Option<Value>) -> Egress {
        let mesh = Mesh::new();
        let objects = way("egress", &["mesh.yaml"]);
        let doubles = doubles(mesh.dir.path(), &PATHS);
        let mut proxy = proxy::gateway(&objects, &mesh.identity("bedrock-gateway"));
        let filter = filter(&doubles);
        if let Some(filter) = &filter {
            proxy.apply(filter);
        }
        let gateway = Envoy::start(proxy, doubles[0].ca_pem_path().to_str().unwrap(), &KEYS);
        if filter.is_some() {
            wait_for_paths(|page| ask(gateway.admin, page));
        }
        Egress { doubles, gateway, mesh, objects }
    }

    /// The shipped file, with the addresses of the doubles.
    fn shipped() -> Egress {
        Egress::reaching(|at, doubles| doubles[at].addr(), |_| {})
    }

    /// The shipped file, with an address for each path, and changed by `change`.
    fn reaching(address: impl Fn(usize, &[Running]) -> SocketAddr, change: impl FnOnce(&mut Value)) -> Egress {
        Egress::start(|doubles| {
            let mut filter = way("egress", &["envoyfilter.yaml"]).remove(0);
            each(&mut filter, &mut |object| {
                let Some(path) = object.get("metadata").map(|metadata| &metadata["filter_metadata"]["bedrock"]["path"])
                else {
                    return;
                };
                let Some(at) = PATHS.iter().position(|known| path == known) else { return };
                let address = address(at, doubles);
                object["endpoint"]["address"] =
                    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
            });
            change(&mut filter);
            Some(filter)
        })
    }

    /// The sidecar of a workload in a namespace.
    fn workload(&self, namespace: &str) -> Envoy {
        self.workload_to(self.gateway.address, namespace, |_| {})
    }

    /// The same, which reaches the gateway at `address`; `change` changes its cluster.
    fn workload_to(&self, address: SocketAddr, namespace: &str, change: impl FnOnce(&mut Value)) -> Envoy {
        let identity = self.mesh.identity(namespace);
        let mut proxy = proxy::sidecar(&self.objects, 80, None);
        let gateway = ("bedrock-gateway.bedrock-gateway.svc.cluster.local", 8443);
        let mut cluster = proxy::cluster(&self.objects, gateway, address, &identity);
        change(&mut cluster);
        proxy.clusters.push(cluster);
        Envoy::start(proxy, &identity.ca, &[])
    }
}

/// `bedrock-gateway render istio` for a document and the doubles' addresses.
fn rendered(target: &str, rules: &Path, paths: &[String]) -> Value {
    let mut command = Command::new(required("BEDROCK_GATEWAY_BIN"));
    command.args(["render", "istio", "--target", target, "--policy"]).arg(rules);
    for path in paths {
        command.args(["--path", path]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_saphyr::from_str(std::str::from_utf8(&output.stdout).unwrap()).unwrap()
}

fn addresses(doubles: &[Running]) -> Vec<String> {
    PATHS.iter().zip(doubles).map(|(path, double)| format!("{path}={}", double.addr())).collect()
}

/// The gateway alone, by the same rules.
fn alone(keys: Keys, paths: &[&str], rules: &Path) -> Harness {
    let harness = Harness::new(keys, paths, |double| double, &["--policy", rules.to_str().unwrap()]);
    wait_for_paths(|page| harness.gateway.admin(page));
    harness
}

#[test]
fn the_mesh_answers_as_the_gateway_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.json");
    std::fs::write(&rules, RULES).unwrap();
    let egress = Egress::start(|doubles| Some(rendered("egress", &rules, &addresses(doubles))));
    let workload = egress.workload("mission");
    let alone = alone(Keys::LongLived, &PATHS, &rules);
    let plain: SocketAddr = alone.gateway.http.strip_prefix("http://").unwrap().parse().unwrap();
    let (mut answered, mut sent) = (0, 0);
    for call in &CALLS {
        let (here, there) = (call.make(workload.address, GOVCLOUD), call.make(plain, GOVCLOUD));
        let (seen_here, seen_there) = (seen(&egress.doubles), seen(&alone.doubles));
        assert_eq!(here, there, "{}", call.name);
        assert_eq!(seen_here, seen_there, "{}", call.name);
        answered += usize::from(here.status == 200);
        sent += usize::from(!seen_here.is_empty());
    }
    let (here, there) = (DOTTED.make(workload.address, GOVCLOUD), DOTTED.make(plain, GOVCLOUD));
    assert_eq!((here.status, there.status), (200, 404), "what the documentation says of dot segments");
    // Most calls of the table are answered, Bedrock refuses some, and the gateway refuses some.
    assert_eq!((CALLS.len(), answered, sent), (55, 35, 39));
    let ledger = egress.gateway.ledger(CALLS.len() + 1);
    let facts = |line: &Value| serde_json::from_str::<Value>(line["exchange"].as_str().unwrap()).unwrap();
    assert!(
        ledger.iter().all(|line| facts(line)["principal"] == "spiffe://cluster.local/ns/mission/sa/app"),
        "{ledger:#?}"
    );
}

/// The pod's containers share a volume with the collector's socket.
#[test]
fn the_pods_calls_wait_for_their_intents() {
    let egress = Egress::reaching(
        |at, doubles| doubles[at].addr(),
        |filter| {
            each(filter, &mut |object| {
                let document = object.get_mut("configuration").and_then(|configuration| configuration.get_mut("value"));
                let Some(Value::String(text)) = document else { return };
                let mut rules: Value = serde_json::from_str(text).unwrap();
                // The document of the connections' limits has no classes.
                let Some(Value::Array(classes)) = rules.get_mut("route_classes") else { return };
                classes.iter_mut().for_each(|class| class["audit"] = json!("required"));
                *text = rules.to_string();
            });
        },
    );
    let workload = egress.workload("mission");
    assert_eq!(converse().make(workload.address, GOVCLOUD).status, 503, "no collector runs");
    let folder = egress.gateway.dir.path();
    let mut collector = Command::new(required("AUDIT_COLLECTOR_BIN"));
    collector.arg("run").arg("--file").arg(folder.join("access.jsonl")).arg("--intents").arg(folder.join("audit.sock"));
    collector.arg("--sqlite").arg(folder.join("audit.db")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut collector = collector.spawn().unwrap();
    eventually("a call", || (converse().make(workload.address, GOVCLOUD).status == 200).then_some(()));
    collector.kill().unwrap();
    collector.wait().unwrap();
    assert!(seen(&egress.doubles).len() == 1, "only the call with an intent left");
}

const AGENT: &str = "http://bedrock-agent-runtime.us-gov-west-1.amazonaws.com";

/// Rules that list the operations of knowledge bases.
fn with_agent(dir: &Path, rules: &str) -> PathBuf {
    let mut rules: Value = serde_json::from_str(rules).unwrap();
    rules["optional_operations"] = json!(["agent_runtime"]);
    // For a call without these operations in its class, and for rerankers.
    rules["route_classes"] = json!([{ "name": "any", "paths": ["internet"] }]);
    rules["models"] = json!({ "allow": ["*"] });
    let file = dir.join("agent.json");
    std::fs::write(&file, rules.to_string()).unwrap();
    file
}

/// boto3's calls of knowledge bases: the error's class of each that raised.
fn ask_agent(workload: SocketAddr, port: &str) -> Vec<String> {
    let calls = python_through(workload, "agent", &format!("{AGENT}{port}"));
    let operations = ["Rerank", "Retrieve", "RetrieveAndGenerate", "RetrieveAndGenerateStream"];
    let errors = operations.map(|name| call(&calls, name)["error"]["class"].as_str().map(str::to_owned));
    errors.into_iter().flatten().collect()
}

#[test]
fn knowledge_bases_cross_the_mesh_where_listed() {
    let dir = tempfile::tempdir().unwrap();
    let rules = with_agent(dir.path(), RULES);
    let listed = Egress::start(|doubles| Some(rendered("egress", &rules, &addresses(doubles))));
    assert_eq!(ask_agent(listed.workload("mission").address, ""), Vec::<String>::new());
    let received: Vec<_> = listed.doubles.iter().flat_map(Running::requests).collect();
    assert!(received.iter().any(|request| request.host == "bedrock-agent-runtime.us-east-1.amazonaws.com"));
    assert!(listed.doubles.iter().all(|double| double.violations().is_empty()));
    // The shipped document does not list them.
    let shipped = Egress::shipped();
    assert_eq!(ask_agent(shipped.workload("mission").address, ""), ["AccessDeniedException"; 4]);
}

fn converse() -> &'static Call {
    &CALLS[0]
}

/// The message of an answer in Bedrock's form, and its error's type.
fn error(answer: &Answer) -> (u16, &str, &str) {
    let Content::Json(body) = &answer.body else { panic!("{answer:?}") };
    let kind = answer.headers.iter().find(|(name, _)| name == "x-amzn-errortype").map_or("", |(_, value)| value);
    (answer.status, kind, body["message"].as_str().unwrap())
}

#[test]
fn mesh_certificates_tell_callers_apart() {
    let egress = Egress::shipped();
    let (mission, restricted, other) =
        (egress.workload("mission"), egress.workload("restricted"), egress.workload("other"));
    for workload in [&mission, &restricted] {
        assert_eq!(converse().make(workload.address, GOVCLOUD).status, 200);
    }
    assert_all_answered(&python_through(mission.address, "operations", &format!("http://{GOVCLOUD}")));
    // AuthorizationPolicy decides who may call, and its refusal has Bedrock's form.
    let refused = converse().make(other.address, GOVCLOUD);
    let (status, kind, message) = error(&refused);
    assert_eq!((status, kind), (403, "AccessDeniedException"), "{message}");
    assert!(message.contains("AuthorizationPolicy"), "{message}");
    // The class decides the paths: this namespace's class has no internet.
    egress.doubles[..2].iter().for_each(|double| double.set_fault(bedrock_double::PathFault::Refuse));
    assert_eq!(converse().make(mission.address, GOVCLOUD).status, 200);
    let refused = eventually("both paths out", || {
        let answer = converse().make(restricted.address, GOVCLOUD);
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(error(&refused).1, "ServiceUnavailableException");
    assert!(egress.doubles.iter().all(|double| double.violations().is_empty()));
    let restricted = egress.doubles[2].requests().iter().filter(|request| request.operation.is_some()).count();
    assert_eq!(restricted, 1, "calls over the internet");
}

/// Discovery, as istiod serves it, instead of files: Envoy takes both filters from it, also the one in the clusters.
#[test]
fn envoy_takes_filters_that_istiod_serves() {
    let mesh = Mesh::new();
    let mut proxy = proxy::gateway(&way("egress", &["mesh.yaml"]), &mesh.identity("bedrock-gateway"));
    proxy.apply(&way("egress", &["envoyfilter.yaml"])[0]);
    let istiod = json!({
        "name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s", "load_assignment": { "cluster_name": "xds-grpc" },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
    });
    proxy.clusters.push(istiod);
    let listeners = [vec![proxy.listener], proxy.added].concat();
    let mut config = json!({
        "bootstrap_extensions": extensions(),
        "node": { "id": "router", "cluster": "bedrock-gateway" },
        "dynamic_resources": { "ads_config": {
            "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
        } },
        "static_resources": { "listeners": listeners, "clusters": proxy.clusters },
    });
    let dir = mesh.dir.path().to_owned();
    let code = json!({ "local": { "filename": required("BEDROCK_FILTER_WASM") } });
    let (mut by_name, mut modules) = (0, 0);
    each(&mut config, &mut |object| {
        by_name += usize::from(object.contains_key("ads"));
        if let Some(vm) = object.get_mut("vm_config") {
            assert_eq!(vm["code"]["local"]["filename"], "/etc/bedrock-gateway/module/plugin.wasm");
            vm["code"] = code.clone();
            modules += 1;
        }
        let log = object.get_mut("path").filter(|path| path.as_str().is_some_and(|path| path.starts_with("/var/log")));
        log.into_iter().for_each(|path| *path = json!(dir.join("access.jsonl")));
    });
    // The gateway filter, and the signer in each cluster; the relay's two filters and the limits of connections stay in the
    // bootstrap.
    assert_eq!((by_name, modules), (5, 3));
    let file = dir.join("envoy.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let output = Command::new(required("ENVOY_BIN"))
        .args(["--mode", "validate", "--log-level", "warning", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("eprecated"), "{said}");
}

/// `cargo xtask soak keepalive` counts for the shipped times.
#[test]
fn keepalive_reaches_through_the_mesh() {
    let (seconds, longest) = silence();
    let relay = std::sync::OnceLock::new();
    let address = |at: usize, doubles: &[Running]| match at {
        0 => relay.get_or_init(|| Relay::to(doubles[0].addr())).address,
        _ => doubles[at].addr(),
    };
    let egress = Egress::reaching(address, shorten);
    let inside = Relay::to(egress.gateway.address);
    let workload = egress.workload_to(inside.address, "mission", shorten);
    let answer = slow_call(workload.address, GOVCLOUD, seconds);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The workload's sidecar, the gateway's listener, the gateway's cluster.
    let outside = relay.into_inner().unwrap();
    let gaps = [inside.gap("accepted"), inside.gap("connected"), outside.gap("accepted")];
    assert!(gaps.iter().all(|gap| *gap <= longest), "no packet for {gaps:?} s");
}

/// Istio's TLS inspector holds a connection back from the filter that counts it until the TLS hello has come. Envoy closes such a
/// connection after its default of 15 s (`listener_filters_timeout`).
#[test]
fn the_mesh_closes_connections_without_hello() {
    let egress = Egress::shipped();
    let start = Instant::now();
    let mut silent: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, egress.gateway.address.port())).unwrap()).collect();
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
        assert!(!matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock), "still open");
    }
    assert!((14..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(converse().make(egress.workload("mission").address, GOVCLOUD).status, 200);
}

#[test]
fn a_gateway_without_its_filter_sends_nothing() {
    let egress = Egress::start(|_| None);
    let answer = converse().make(egress.workload("mission").address, GOVCLOUD);
    let (status, kind, message) = error(&answer);
    assert_eq!((status, kind), (503, "ServiceUnavailableException"), "{message}");
    assert!(message.contains("EnvoyFilter"), "{message}");
    assert!(seen(&egress.doubles).is_empty());
}

// === the sidecar ===

/// A workload's sidecar that is the gateway.
struct Sidecar {
    doubles: Vec<Running>,
    envoy: Envoy,
    _mesh: Mesh,
}

impl Sidecar {
    /// `put_in` adds resources to the proxy.
    fn start(variables: &[(&str, &str)], put_in: impl FnOnce(&mut Proxy)) -> Sidecar {
        let mesh = Mesh::new();
        let objects = way("sidecar", &["mesh.yaml", "workload.yaml", "telemetry.yaml"]);
        let doubles = doubles(mesh.dir.path(), &["internet"]);
        let ca = doubles[0].ca_pem_path().to_str().unwrap().to_owned();
        let pod = of_kind(&objects, "Deployment")["spec"]["template"].clone();
        let mut proxy = proxy::sidecar(&objects, 10000, Some(&pod));
        let outside = Identity { ca: ca.clone(), ..mesh.identity("mission") };
        for service in ["bedrock-runtime", "bedrock", "bedrock-agent-runtime"] {
            let host = format!("{service}.us-east-1.amazonaws.com");
            proxy.clusters.push(proxy::cluster(&objects, (&host, 10000), doubles[0].addr(), &outside));
        }
        put_in(&mut proxy);
        proxy.log(&of_kind(&objects, "Telemetry"));
        let envoy = Envoy::start(proxy, &ca, variables);
        Sidecar { doubles, envoy, _mesh: mesh }
    }

    /// Compares these calls with the same calls to the gateway alone.
    fn answers_as<'a>(&self, alone: &Harness, calls: impl IntoIterator<Item = &'a Call>) {
        let plain: SocketAddr = alone.gateway.http.strip_prefix("http://").unwrap().parse().unwrap();
        for call in calls.into_iter().filter(|call| call.name != BREAKS_OFF) {
            let (here, there) = (call.make(self.envoy.address, GOVCLOUD), call.make(plain, GOVCLOUD));
            let (seen_here, seen_there) = (seen(&self.doubles), seen(&alone.doubles));
            assert_eq!(here, there, "{}", call.name);
            assert_eq!(seen_here, seen_there, "{}", call.name);
        }
    }
}

fn one_class(dir: &Path) -> PathBuf {
    let rules = dir.join("rules.json");
    std::fs::write(&rules, ONE_CLASS).unwrap();
    rules
}

#[test]
fn a_signing_sidecar_answers_as_the_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let rules = one_class(dir.path());
    let filter = rendered("sidecar", &rules, &["internet".to_owned()]);
    let sidecar = Sidecar::start(&KEYS, |proxy| proxy.apply(&filter));
    sidecar.answers_as(&alone(Keys::LongLived, &["internet"], &rules), &CALLS);
}

#[test]
fn a_wasm_plugin_answers_as_the_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let rules = one_class(dir.path());
    let plugin = rendered("plugin", &rules, &["internet".to_owned()]);
    let sidecar = Sidecar::start(&[("AWS_BEARER_TOKEN_BEDROCK", API_KEY)], |proxy| proxy.plug(&plugin));
    let lists = ["models", "models of a provider", "a page of profiles"];
    let is_own = |call: &&Call| {
        ["a body over the limit", "start an async invoke"].contains(&call.name) || lists.contains(&call.name)
    };
    let (own, others): (Vec<&Call>, Vec<&Call>) = CALLS.iter().partition(is_own);
    sidecar.answers_as(&alone(Keys::Api, &["internet"], &rules), others);
    // The limit is Bedrock's: a streamed body costs the sidecar no memory. But a model in it is not judged. A list is whole, since it
    // cannot be held.
    for call in own {
        let answer = call.make(sidecar.envoy.address, GOVCLOUD);
        let sent = usize::from(call.name != "start an async invoke");
        assert_eq!((answer.status == 403, seen(&sidecar.doubles).len()), (sent == 0, sent), "{}", call.name);
    }
}

/// Why signing needs an EnvoyFilter: without `allow_on_headers_stop_iteration` the filter never sees the body.
#[test]
fn a_signing_wasm_plugin_hangs_on_bodies() {
    let mut plugin = of_kind(&way("sidecar", &["plugin.yaml"]), "WasmPlugin");
    plugin["spec"]["pluginConfig"]["auth"] = json!("sigv4");
    let variables = plugin["spec"]["vmConfig"]["env"].as_array_mut().unwrap();
    variables.extend(KEYS.map(|(name, _)| json!({ "name": name, "valueFrom": "HOST" })));
    let sidecar = Sidecar::start(&KEYS, |proxy| proxy.plug(&plugin));
    let models = CALLS.iter().find(|call| call.name == "models").unwrap();
    assert_eq!(models.make(sidecar.envoy.address, GOVCLOUD).status, 200);
    assert!(!converse().is_answered_within(Duration::from_secs(2), sidecar.envoy.address, GOVCLOUD));
    assert_eq!(seen(&sidecar.doubles).len(), 1);
}

#[test]
fn nothing_leaves_a_sidecar_without_its_filter() {
    let sidecar = Sidecar::start(&[], |_| {});
    let forged = converse().make(sidecar.envoy.address, "bedrock-runtime.us-east-1.amazonaws.com");
    for answer in [converse().make(sidecar.envoy.address, GOVCLOUD), forged] {
        let (status, kind, message) = error(&answer);
        assert_eq!((status, kind), (503, "ServiceUnavailableException"), "{message}");
        assert!(message.contains("its filter is missing"), "{message}");
    }
    assert!(seen(&sidecar.doubles).is_empty());
    // A call that the filter has not seen leaves no audit record.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(text_of(&sidecar.envoy.dir.path().join("access.jsonl")), "");
}

#[test]
fn the_shipped_sidecars_serve() {
    let filter = of_kind(&way("sidecar", &["envoyfilter.yaml"]), "EnvoyFilter");
    let plugin = of_kind(&way("sidecar", &["plugin.yaml"]), "WasmPlugin");
    let signs = Sidecar::start(&KEYS, |proxy| proxy.apply(&filter));
    let has_a_key = Sidecar::start(&[("AWS_BEARER_TOKEN_BEDROCK", API_KEY)], |proxy| proxy.plug(&plugin));
    for sidecar in [signs, has_a_key] {
        assert_eq!(converse().make(sidecar.envoy.address, GOVCLOUD).status, 200);
        let seen = sidecar.doubles[0].requests().into_iter().next().unwrap();
        // The shipped document's profile.
        assert_eq!(seen.path, "/model/us.anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse");
        assert!(sidecar.doubles[0].violations().is_empty());
        let facts: Value = serde_json::from_str(sidecar.envoy.ledger(1)[0]["exchange"].as_str().unwrap()).unwrap();
        assert_eq!((&facts["operation"], &facts["usage"]["output"]), (&json!("Converse"), &json!(3)), "{facts}");
    }
}

#[test]
fn knowledge_bases_leave_a_signing_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    let rules = with_agent(dir.path(), ONE_CLASS);
    let filter = rendered("sidecar", &rules, &["internet".to_owned()]);
    let sidecar = Sidecar::start(&KEYS, |proxy| proxy.apply(&filter));
    assert_eq!(ask_agent(sidecar.envoy.address, ":10000"), Vec::<String>::new());
    assert!(sidecar.doubles[0].violations().is_empty());
}
