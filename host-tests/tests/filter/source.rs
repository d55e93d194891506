//! The filter in a source's cluster: it gives a call the headers that its gateway left, once.
//!
//! Both run in one VM here, because this host makes calls later. In Envoy the filter has a VM of its own.

use crate::common::{configuration, filter, only, plugin, refusal};
use proxy_wasm_vm::{Header, OutCall, Outcome, Plugin, Vm, headers, values};
use serde_json::json;

const HANDLE: &str = "x-bedrock-gateway-call";
const TOKEN: &str = "x-aws-ec2-metadata-token";

fn with_filter() -> (Vm, Plugin, Plugin) {
    let vm = filter().cluster("imds").start().unwrap();
    let mut document = configuration("gateway");
    document["credentials"] = json!({"source": "imds", "cluster": "imds", "role": "r"});
    let gateway = plugin(&vm, &document);
    let source = source(&vm, "imds");
    (vm, gateway, source)
}

pub(crate) fn source(vm: &Vm, cluster: &str) -> Plugin {
    let document = json!({"source_cluster": cluster}).to_string();
    vm.plugin("source").allow_on_headers_stop_iteration(true).configure(document).unwrap()
}

fn open(vm: &Vm) -> OutCall {
    let open = vm.out_calls();
    assert_eq!(open.len(), 1, "{open:?} {:?}", vm.logs());
    open.into_iter().next().unwrap()
}

/// The names of the headers that Envoy's router sees, without pseudo-headers.
fn seen(call: &OutCall) -> Vec<&str> {
    call.headers.iter().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with(':')).collect()
}

/// The call's headers behind the filter, or its refusal.
fn through(source: &Plugin, call: &OutCall) -> Result<Vec<Header>, String> {
    let exchange = source.stream();
    match exchange.request_headers(call.headers.clone(), true) {
        Outcome::Continue => Ok(exchange.request_map()),
        Outcome::LocalReply => Err(refusal(&exchange).2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_gets_its_headers_behind_the_router() {
    let (vm, gateway, source) = with_filter();
    gateway.tick().unwrap();
    let first = open(&vm);
    assert_eq!(seen(&first), ["content-length", HANDLE]);
    let sent = through(&source, &first).unwrap();
    assert_eq!(only(&sent, "x-aws-ec2-metadata-token-ttl-seconds"), "60");
    assert_eq!((only(&sent, ":method"), only(&sent, ":path")), ("PUT".to_owned(), "/latest/api/token".to_owned()));
    assert!(values(&sent, HANDLE).is_empty());

    vm.answer(first.token, headers([(":status", "200")]), b"session").unwrap();
    let second = open(&vm);
    assert_eq!(seen(&second), [HANDLE]);
    assert_ne!(only(&second.headers, HANDLE), only(&first.headers, HANDLE));
    assert_eq!(only(&through(&source, &second).unwrap(), TOKEN), "session");
    assert_eq!(vm.shared_data("hidden_calls/imds").unwrap(), b"", "nothing stays there");
}

#[test]
fn refuses_a_call_that_was_not_left() {
    let (vm, gateway, source) = with_filter();
    gateway.tick().unwrap();
    let call = open(&vm);
    let of_another = self::source(&vm, "sts");
    let says = "got a call that the gateway did not make";
    assert!(through(&of_another, &call).unwrap_err().contains(says));
    assert!(through(&source, &call).is_ok());
    assert!(through(&source, &call).unwrap_err().contains(says), "once");
    let handle = |values: &[&str]| {
        let mut other = call.clone();
        other.headers.retain(|(name, _)| name != HANDLE);
        other.headers.extend(headers(values.iter().map(|value| (HANDLE, *value))));
        other
    };
    for values in [&[][..], &["x"], &["x", "x"]] {
        assert!(through(&source, &handle(values)).unwrap_err().contains(says), "{values:?}");
    }
    assert!(vm.logs().iter().any(|line| line.text.contains("cluster 'imds': The filter of a source's cluster got")));
}

#[test]
fn headers_that_nobody_took_are_forgotten() {
    let (vm, gateway, source) = with_filter();
    gateway.tick().unwrap();
    let call = open(&vm);
    assert_ne!(vm.shared_data("hidden_calls/imds").unwrap(), b"");
    // Envoy answers for a cluster that it cannot reach.
    vm.answer(call.token, headers([(":status", "503")]), b"no healthy upstream").unwrap();
    assert_eq!(vm.shared_data("hidden_calls/imds").unwrap(), b"");
    assert!(through(&source, &call).is_err());
}

#[test]
fn a_cluster_without_a_filter_gets_headers() {
    let vm = filter().cluster("imds").start().unwrap();
    let mut document = configuration("gateway");
    document["credentials"] = json!({"source": "imds", "cluster": "imds", "role": "r"});
    let gateway = plugin(&vm, &document);
    let _of_another = source(&vm, "sts");
    gateway.tick().unwrap();
    assert_eq!(seen(&open(&vm)), ["x-aws-ec2-metadata-token-ttl-seconds", "content-length"]);
}
