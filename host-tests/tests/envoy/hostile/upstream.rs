//! A hostile or broken upstream. Its faults are asked for by the model's name (the double's `fault`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedrock_double::sources::Trouble;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{Gateway, Keys};
use crate::sources::fetching;

const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;

fn call(model: &str, operation: &str) -> Vec<u8> {
    format!(
        "POST /model/{model}/{operation} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}

/// A TLS server that answers health checks, and each call with these bytes. It keeps its connections open.
fn evil(ca: &Path, answer: &'static [u8]) -> SocketAddr {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    std::fs::write(ca, authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let authority = Issuer::new(authority, authority_key);
    let names = ["bedrock-runtime", "bedrock"].map(|service| format!("{service}.us-east-1.amazonaws.com"));
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(names.to_vec()).unwrap();
    // Not the authority's, or it would look self-signed.
    certificate.distinguished_name.push(DnType::CommonName, "evil");
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            std::thread::spawn(move || serve(stream, config, answer));
        }
    });
    address
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, answer: &[u8]) -> std::io::Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut received = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk)?;
        received.extend_from_slice(&chunk[..count]);
        if count == 0 {
            return Ok(());
        }
        if received.windows(4).any(|window| window == b"\r\n\r\n") {
            let check = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(if received.starts_with(b"POST") { answer } else { check })?;
            received.clear();
        }
    }
}

#[test]
fn a_change_of_protocol_is_answered_with_502() {
    for answer in [
        &b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let path = format!("internet={}", evil(&ca, answer));
        let arguments = ["--path", &path, "--upstream-ca", ca.to_str().unwrap()].map(str::to_owned);
        let gateway = Gateway::start(Keys::LongLived, &arguments);
        for operation in ["converse", "converse-stream"] {
            let start = Instant::now();
            let (status, head, body) = gateway.raw(&call("amazon.titan-text-express-v1", operation));
            assert_eq!(status, 502, "{operation}: {head} {body}");
            assert!(head.contains("serviceunavailableexception") && body.contains("101"), "{operation}: {head} {body}");
            assert!(start.elapsed() < Duration::from_secs(5), "{operation}");
        }
    }
}

/// New keys do not help where every key is refused: they are fetched and the call is sent again once, and then not for 10 s.
#[test]
fn keys_refused_for_ever_are_fetched_once() {
    let imds = r#"{"source": "imds", "cluster": "imds"}"#;
    let (harness, _sources, keyring) = fetching(imds, Duration::from_secs(3600), true, Trouble::None);
    let start = Instant::now();
    let refused = call("fault.status-403-ExpiredTokenException", "converse");
    for _ in 0..50 {
        let (status, head, body) = harness.gateway.raw(&refused);
        assert_eq!(status, 403, "{head} {body}");
    }
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}: too slow to say anything", start.elapsed());
    assert_eq!((keyring.count(), harness.received().len()), (2, 51));
    assert_eq!(harness.gateway.raw(&call("amazon.titan-text-express-v1", "converse")).0, 200, "a neighbour");
}
