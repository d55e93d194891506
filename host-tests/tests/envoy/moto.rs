//! Credentials from AWS's APIs as moto has them: Secrets Manager, asked directly, and a Commercial role's keys from STS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bedrock_double::sources::Sources;
use bedrock_double::{Builder, EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Keyring};
use serde_json::json;

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys, eventually, required};
use crate::sources::configuration;

/// A moto that serves; it ends with the test.
pub(crate) struct Moto(Child, SocketAddr);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Moto {
    pub(crate) fn start() -> Moto {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(required("GATEWAY_MOTO_PYTHON"));
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &addr.port().to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Moto(child, addr);
        eventually("moto", || TcpStream::connect(addr).ok());
        moto
    }

    pub(crate) fn port(&self) -> u16 {
        self.1.port()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.1
    }

    /// Keeps a secret in GovCloud.
    pub(crate) fn create_secret(&self, name: &str, text: &str) {
        self.ask("CreateSecret", &json!({"Name": name, "SecretString": text, "ClientRequestToken": "0".repeat(32)}));
    }

    /// Replaces a secret's text.
    pub(crate) fn put_secret(&self, name: &str, text: &str) {
        self.ask(
            "PutSecretValue",
            &json!({"SecretId": name, "SecretString": text, "ClientRequestToken": "1".repeat(32)}),
        );
    }

    fn ask(&self, action: &str, body: &serde_json::Value) {
        let body = body.to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nhost: secretsmanager.us-gov-west-1.amazonaws.com\r\nx-amz-target: secretsmanager.{action}\r\n\
             content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\nconnection: close\r\nauthorization: \
             AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-gov-west-1/secretsmanager/aws4_request, \
             SignedHeaders=host, Signature=00\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.1).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn a_secrets_manager_secret_signs_calls() {
    let moto = Moto::start();
    let keys = json!({"AccessKeyId": EXAMPLE_ACCESS_KEY, "SecretAccessKey": EXAMPLE_SECRET_KEY});
    moto.create_secret("bedrock/keys", &keys.to_string());
    let keyring = Keyring::default();
    let sources = Sources::start(Duration::from_secs(3600), &keyring, false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let credentials = r#"{"source": "secrets_manager", "cluster": "secrets", "secret": "bedrock/keys", "region": "us-gov-west-1", "using": {"source": "container", "cluster": "container"}}"#;
    let config = configuration(dir.path(), &sources, moto.1.port(), credentials);
    let harness = Harness::new(
        Keys::Local,
        &["dx", "vpn"],
        |double| double,
        &config.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_all_answered(&python("converse", &harness.gateway.http));
    harness.assert_no_violation();
    assert_eq!(sources.complaints(), Vec::<String>::new());
}

#[test]
fn sts_web_identity_keys_sign_calls() {
    let moto = Moto::start();
    let keyring = Keyring::default();
    let sources = Sources::with_sts(Duration::from_secs(3600), &keyring, false, Some(moto.1)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let credentials = r#"{"source": "federation", "using": {"source": "imds", "cluster": "imds"}, "govcloud": {"cluster": "sts-gov", "region": "us-gov-west-1"}, "commercial": {"cluster": "sts-com", "region": "us-east-1"}, "audience": "bedrock-gateway", "role_arn": "arn:aws:iam::111122223333:role/bedrock-gateway"}"#;
    let config = configuration(dir.path(), &sources, moto.1.port(), credentials);
    let change = |double: Builder| double.keyring(&keyring);
    let harness =
        Harness::new(Keys::Local, &["dx", "vpn"], change, &config.iter().map(String::as_str).collect::<Vec<_>>());
    assert_all_answered(&python("converse", &harness.gateway.http));
    harness.assert_no_violation();
    assert_eq!(sources.complaints(), Vec::<String>::new());
    assert_eq!(keyring.count(), 1);
}
