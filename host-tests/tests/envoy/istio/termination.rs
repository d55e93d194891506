//! The end of an egress gateway's pod: the real Envoy and collector get their signals in the kubelet's order, with calls in
//! flight that finish while the pod drains. No kubelet, and no pod: the order is that of
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#termination-with-sidecars>. Istio's agent, which ends
//! Envoy, does what `pkg/envoy/agent.go` of Istio 1.30 does.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::Instant;

use super::*;
use crate::keepalive::slow_call;

/// In place of `terminationDrainDuration` and of what the grace period adds to it.
const DRAIN: Duration = Duration::from_secs(4);
const REST: Duration = Duration::from_secs(6);

/// The names of the containers that get SIGTERM together, in order: all main containers, then one sidecar after the other, the
/// last first.
fn order(pod: &Value) -> Vec<Vec<String>> {
    let name = |container: &Value| container["name"].as_str().unwrap().to_owned();
    let sidecars = proxy::list(&pod["initContainers"]).filter(|container| container["restartPolicy"] == "Always");
    let main = proxy::list(&pod["containers"]).map(name).collect();
    let mut sidecars: Vec<Vec<String>> = sidecars.map(|container| vec![name(container)]).collect();
    sidecars.reverse();
    [vec![main], sidecars].concat()
}

/// A running container.
enum Container {
    /// Istio's agent with its Envoy, and since when it drains.
    Proxy(Box<Envoy>, Option<Instant>),
    Program(Child),
}

fn signal(child: &Child, name: &str) {
    Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
}

impl Container {
    fn terminate(&mut self) {
        match self {
            Container::Proxy(envoy, since) => {
                envoy.post("/drain_listeners?graceful");
                *since = Some(Instant::now());
            }
            // To process 1 of the container.
            Container::Program(child) => {
                let children = text_of(Path::new(&format!("/proc/{0}/task/{0}/children", child.id())));
                let first = children.split_whitespace().next().map_or_else(|| child.id().to_string(), str::to_owned);
                Command::new("kill").args(["-TERM", &first]).status().unwrap();
            }
        }
    }

    /// Whether it has ended, and how.
    fn ended(&mut self) -> Option<ExitStatus> {
        match self {
            // Istio's agent ends Envoy with SIGKILL.
            Container::Proxy(envoy, since) => since
                .is_some_and(|since| since.elapsed() >= DRAIN)
                .then(|| envoy.kill())
                .map(|()| ExitStatus::from_raw(0)),
            Container::Program(child) => child.try_wait().unwrap(),
        }
    }

    fn kill(&mut self) {
        match self {
            Container::Proxy(envoy, _) => envoy.kill(),
            Container::Program(child) => signal(child, "-KILL"),
        }
    }
}

/// Ends a pod as the kubelet does. The names of containers that the end of the grace period killed.
fn delete(pod: &Value, containers: &mut BTreeMap<String, Container>) -> Vec<String> {
    let start = Instant::now();
    for group in order(pod) {
        for name in &group {
            containers.get_mut(name).unwrap().terminate();
        }
        while group.iter().any(|name| containers.get_mut(name).unwrap().ended().is_none()) {
            if start.elapsed() > DRAIN + REST {
                let mut alive: Vec<String> = Vec::new();
                for (name, container) in containers.iter_mut() {
                    if container.is_running() {
                        container.kill();
                        alive.push(name.clone());
                    }
                }
                return alive;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Vec::new()
}

impl Container {
    fn is_running(&mut self) -> bool {
        match self {
            Container::Proxy(envoy, _) => envoy.is_running(),
            Container::Program(child) => child.try_wait().unwrap().is_none(),
        }
    }
}

/// A container's program in a PID namespace of its own: process 1 ignores signals without a handler.
fn start(pod: &Value, name: &str, replaced: &[(&str, &str)]) -> Child {
    let all = proxy::list(&pod["initContainers"]).chain(proxy::list(&pod["containers"]));
    let container = all.into_iter().find(|container| container["name"] == name).unwrap();
    let words = |key: &str| {
        let texts = proxy::list(&container[key]).map(|word| word.as_str().unwrap().to_owned());
        texts.map(|word| replaced.iter().fold(word, |word, (from, to)| word.replace(from, to))).collect::<Vec<_>>()
    };
    let entry = match words("command") {
        none if none.is_empty() => vec![required("AUDIT_COLLECTOR_BIN").display().to_string()],
        command => command,
    };
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]).args(entry).args(words("args"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Runs the pod, deletes it with calls in flight, and counts: calls that were answered, records in the store.
fn end_of(pod: &Value) -> (usize, usize, Vec<String>) {
    let egress = Egress::shipped();
    let workload = egress.workload("mission");
    let log = egress.gateway.dir.path().to_owned();
    let store = egress.mesh.dir.path().join("audit.db");
    let (folder, database) = (log.to_str().unwrap(), format!("--sqlite={}", store.display()));
    let replaced = [
        ("/var/log/bedrock-gateway", folder),
        ("/run/bedrock-gateway", folder),
        ("--dynamodb=bedrock-gateway-audit", &database),
    ];
    let mut containers = BTreeMap::new();
    for name in ["audit-collector", "rotate"] {
        containers.insert(name.to_owned(), Container::Program(start(pod, name, &replaced)));
    }
    // What the startup probe asks for.
    eventually("the collector", || log.join("collector.ready").exists().then_some(()));
    let Egress { gateway, doubles, .. } = egress;
    let address = workload.address;
    let (answered, killed) = std::thread::scope(|scope| {
        let calls: Vec<_> =
            [1, 1, 2, 2, 3, 3].map(|seconds| scope.spawn(move || slow_call(address, GOVCLOUD, seconds))).into();
        eventually("the calls", || {
            let calls =
                doubles.iter().flat_map(Running::requests).filter(|request| request.operation.is_some()).count();
            (calls == 6).then_some(())
        });
        containers.insert("istio-proxy".to_owned(), Container::Proxy(Box::new(gateway), None));
        let killed = delete(pod, &mut containers);
        let answers = calls.into_iter().map(|call| call.join().unwrap());
        (answers.filter(|answer| answer.starts_with("HTTP/1.1 200")).count(), killed)
    });
    let mut query = Command::new(required("AUDIT_COLLECTOR_BIN"));
    let output =
        query.arg("query").arg(database).args(["--json", "--kind", "calls", "--limit", "100"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    for container in containers.values_mut() {
        container.kill();
    }
    (answered, lines, killed)
}

fn shipped_pod() -> Value {
    of_kind(&way("egress", &["gateway.yaml"]), "Deployment")["spec"]["template"]["spec"].clone()
}

#[test]
fn a_deleted_pod_keeps_every_record() {
    let pod = shipped_pod();
    assert_eq!(order(&pod), [vec!["istio-proxy"], vec!["rotate"], vec!["audit-collector"]]);
    let (answered, records, killed) = end_of(&pod);
    assert_eq!((answered, records, killed), (6, 6, vec![]));
}

/// Why the collector is a native sidecar: as an ordinary container it may end first.
#[test]
fn an_ordinary_collector_loses_records() {
    let mut pod = shipped_pod();
    let sidecars = pod["initContainers"].take();
    pod["containers"].as_array_mut().unwrap().extend(proxy::list(&sidecars).cloned());
    let (answered, records, killed) = end_of(&pod);
    assert_eq!((answered, records, killed), (6, 0, vec![]));
}
