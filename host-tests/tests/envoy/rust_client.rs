//! The crate `needroleshere`, a client of IAM Roles Anywhere that shares no code with AWS's or with the gateway's, gets keys
//! from the double.
//!
//! Its endpoint is fixed to `https://rolesanywhere.REGION.amazonaws.com`. It takes a proxy from `HTTPS_PROXY` and the
//! authorities that it trusts from `SSL_CERT_FILE`, so the test has a proxy that is that host.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bedrock_double::Keyring;
use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{CERTIFICATE_ROLE_ARN, PROFILE_ARN, TRUST_ANCHOR_ARN};
use bedrock_double::tls::Authority;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::required;
use crate::roles_anywhere::Authority as Certificates;

/// Object identifiers of curves, encoded.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
const HOST: &str = "rolesanywhere.us-east-1.amazonaws.com";

/// A proxy that ends the TLS of its clients itself, as [`HOST`], and passes on what they send.
async fn tunnel(listener: TcpListener, tls: TlsAcceptor, to: SocketAddr) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            assert!(head.starts_with(format!("CONNECT {HOST}:443 HTTP/1.1\r\n").as_bytes()), "{}", head.escape_ascii());
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            let mut client = tls.accept(stream).await?;
            let mut double = TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut client, &mut double).await
        });
    }
}

fn write(dir: &Path, name: &str, text: &Value) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text.as_str().unwrap()).unwrap();
    path
}

/// A key of PKCS#8 as SEC1 with the curve's name (RFC 5915), the one form that the client reads.
fn sec1(pkcs8: &Value) -> String {
    let text: String = pkcs8.as_str().unwrap().lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(text).unwrap();
    let p256 = der.windows(P256.len()).any(|window| window == P256);
    let (curve, size) = if p256 { (P256, 32) } else { (P384, 48) };
    let at = der.windows(5).position(|window| window == [2, 1, 1, 4, size]).unwrap() + 5;
    let secret = &der[at..at + usize::from(size)];
    let curve = [&[0xa0, curve.len() as u8 + 2, 6, curve.len() as u8], curve].concat();
    let fields = [&[2, 1, 1, 4, size], secret, &curve].concat();
    let text = STANDARD.encode([&[0x30, fields.len() as u8], fields.as_slice()].concat());
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", lines.join("\n"))
}

/// Runs the client with a secret in the form of `aws acm export-certificate`.
fn run(dir: &Path, proxy: SocketAddr, secret: &Value, with_chain: bool) -> Output {
    let mut command = Command::new(required("NEEDROLESHERE_BIN"));
    command.args(["credential-process", "--region", "us-east-1", "--session-duration", "900"]);
    command.args(["--trust-anchor-arn", TRUST_ANCHOR_ARN, "--profile-arn", PROFILE_ARN]);
    command.args(["--role-arn", CERTIFICATE_ROLE_ARN]);
    command.arg("--certificate").arg(write(dir, "certificate.pem", &secret["Certificate"]));
    command.arg("--private-key").arg(write(dir, "key.pem", &sec1(&secret["PrivateKey"]).into()));
    if with_chain {
        command.arg("--intermediates").arg(write(dir, "chain.pem", &secret["CertificateChain"]));
    }
    command.env("HTTPS_PROXY", format!("http://{proxy}")).env_remove("NO_PROXY").env_remove("no_proxy");
    command.env("SSL_CERT_FILE", dir.join("tls/ca.pem")).output().unwrap()
}

#[test]
fn needroleshere_gets_keys_of_the_double() {
    let certificates = Certificates::new();
    let bedrock = Keyring::default();
    let sources = Sources::start(Duration::from_secs(3600), &bedrock, false).unwrap();
    certificates.trusted_by(&sources);
    let dir = tempfile::tempdir().unwrap();
    let tls = Authority::open(&dir.path().join("tls")).unwrap().server(vec![HOST.to_owned()], false).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let proxy = listener.local_addr().unwrap();
    runtime.spawn(tunnel(listener, TlsAcceptor::from(tls), sources.addr()));

    for (nth, algorithm) in (1..).zip([&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384]) {
        let secret = certificates.secret(algorithm, |_| ());
        let output = run(dir.path(), proxy, &secret, true);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said} {:?}", sources.complaints());
        let keys: Value = serde_json::from_slice(&output.stdout).unwrap();
        let issued = bedrock.find(keys["AccessKeyId"].as_str().unwrap()).unwrap().key;
        assert_eq!((&keys["SecretAccessKey"], keys["Version"].as_i64()), (&issued.secret.into(), Some(1)));
        assert_eq!(keys["SessionToken"].as_str(), issued.session_token.as_deref());
        assert_eq!(bedrock.count(), nth);

        let refused = run(dir.path(), proxy, &secret, false);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("Untrusted signing certificate"), "{said}");
    }
    assert_eq!(sources.complaints().len(), 2, "{:?}", sources.complaints());
}
