//! The filter in a source's cluster on real Envoy: kinds of clusters, a cluster without it, and calls that it refuses.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use bedrock_double::sources::Sources;
use bedrock_double::{Builder, Keyring};

use crate::harness::{Harness, Keys, eventually, text_of};
use crate::sources::{configuration, served};

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const IMDS: &str = r#"{"source": "imds", "cluster": "imds"}"#;

/// A gateway at level trace whose cluster `imds` is changed, and the double of the metadata service.
fn with_imds(change: impl Fn(&str, &Path) -> String) -> (Harness, Sources, tempfile::TempDir) {
    let keyring = Keyring::default();
    let sources = Sources::start(Duration::from_secs(10), &keyring, true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &sources, 9, IMDS);
    let base = Path::new(&config[1]);
    let text = text_of(base);
    let start = text.find("    - name: imds\n").unwrap();
    let end = start + text[start..].find("    - name: container\n").unwrap();
    let cluster = change(&text[start..end], dir.path());
    std::fs::write(base, format!("{}{cluster}{}", &text[..start], &text[end..])).unwrap();
    let config: Vec<&str> = config.iter().map(String::as_str).collect();
    let harness = Harness::new(Keys::Local, &["dx", "vpn"], |double: Builder| double.keyring(&keyring), &config);
    harness.gateway.post("/logging?level=trace");
    (harness, sources, dir)
}

fn log(harness: &Harness) -> String {
    text_of(&harness.gateway.run_dir().join("envoy.log"))
}

/// Answers each connection of a socket by one to an address.
fn forward(socket: &Path, to: SocketAddr) {
    let copy = |mut from: UnixStream, mut to: TcpStream| {
        let (mut back, mut answer) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut answer));
        let _ = std::io::copy(&mut from, &mut to);
    };
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let to = TcpStream::connect(to).unwrap();
            std::thread::spawn(move || copy(stream, to));
        }
    });
}

#[test]
fn a_source_behind_a_socket_has_the_filter() {
    let (harness, sources, dir) = with_imds(|cluster, dir| {
        let start = cluster.find("socket_address").unwrap();
        let end = start + cluster[start..].find('}').unwrap();
        let pipe = format!("pipe: {{ path: {} ", dir.join("imds.sock").display());
        format!("{}{pipe}{}", &cluster[..start], &cluster[end..])
    });
    forward(&dir.path().join("imds.sock"), sources.addr());
    assert_eq!(eventually("a served call", || Some(harness.gateway.raw(GET).0).filter(|status| *status == 200)), 200);
    eventually("a rotation", || (served(&sources, "imds keys") > 1).then_some(()));
    assert_eq!(sources.complaints(), Vec::<String>::new());
    let log = log(&harness);
    assert!(log.contains("'x-bedrock-gateway-call', '") && !log.contains("imds-session-"));
}

#[test]
fn a_cluster_of_older_fields_works_without_it() {
    let (harness, sources, _dir) = with_imds(|cluster, _| {
        cluster.replace("connect_timeout: 1s", "connect_timeout: 1s\n      http_protocol_options: {}")
    });
    assert_eq!(harness.gateway.raw(GET).0, 200);
    eventually("a rotation", || (served(&sources, "imds keys") > 1).then_some(()));
    assert_eq!(sources.complaints(), Vec::<String>::new());
    // `bedrock-gateway check` names such a cluster.
    assert!(log(&harness).contains("'x-aws-ec2-metadata-token', 'imds-session-"));
}

#[test]
fn refuses_a_call_from_another_vm_id() {
    let (harness, sources, _dir) = with_imds(|cluster, _| {
        let filter = r#"{ name: own, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {
          root_id: source, failure_policy: FAIL_RELOAD, allow_on_headers_stop_iteration: true,
          vm_config: { vm_id: other, runtime: envoy.wasm.runtime.v8 },
          configuration: { "@type": type.googleapis.com/google.protobuf.StringValue, value: '{"source_cluster": "imds"}' } } } }"#;
        let codec = r#"{ name: codec, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec } }"#;
        format!(
            r#"{cluster}      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http_protocol_options: {{}} }}
          http_filters: [{filter}, {codec}]
"#
        )
    });
    let (status, _, body) = harness.gateway.raw(GET);
    assert_eq!(status, 503, "{body}");
    let says = "credentials `default` not fetched: cluster 'imds' cannot be called";
    eventually(says, || log(&harness).contains(says).then_some(()));
    assert!(log(&harness).contains("cluster 'imds': The filter of a source's cluster got a call"));
    assert!(sources.served().is_empty() && harness.received().is_empty());
}
