//! A client that signs and speaks HTTP over TLS, and can get any part of it wrong.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bedrock_double::sigv4::{WireRequest, canonical_request, signature, signing_key, string_to_sign};
use bedrock_double::{Double, EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Running};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

pub(crate) const RUNTIME: &str = "bedrock-runtime.us-east-1.amazonaws.com";
pub(crate) const CONTROL: &str = "bedrock.us-east-1.amazonaws.com";
pub(crate) const SONNET: &str = "us.anthropic.claude-3-5-sonnet-20241022-v2%3A0";
pub(crate) const HELLO: &str = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A double with its own folder, so that tests share nothing.
pub(crate) struct Harness {
    pub running: Running,
    /// Holds the authority; goes away with the double.
    _dir: tempfile::TempDir,
}

impl Harness {
    pub(crate) fn new(change: impl FnOnce(bedrock_double::Builder) -> bedrock_double::Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = change(Double::builder().tls_dir(dir.path())).start().unwrap();
        Self { running, _dir: dir }
    }

    pub(crate) fn plain() -> Self {
        Self::new(|builder| builder)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.running.addr(), self.running.ca_pem_path())
    }

    /// What was wrong with the last request, if anything was.
    pub(crate) fn last_violation(&self) -> Option<String> {
        let last = self.running.requests().pop()?;
        last.is_violation().then(|| format!("{:?}", last.verdict))
    }
}

/// How to connect.
#[derive(Clone)]
pub(crate) struct Client {
    pub addr: SocketAddr,
    pub ca: PathBuf,
    pub alpn: &'static [u8],
    pub tls: &'static SupportedProtocolVersion,
}

/// A request, signed by default.
#[derive(Clone)]
pub(crate) struct Call {
    pub method: &'static str,
    pub host: String,
    pub sni: Option<String>,
    pub target: String,
    /// Signed.
    pub headers: Vec<(String, String)>,
    /// Not signed.
    pub unsigned: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub sign: bool,
    pub session_token: Option<String>,
    pub region: &'static str,
}

impl Call {
    pub(crate) fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "POST",
            host: RUNTIME.to_owned(),
            sni: None,
            target: target.into(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            unsigned: Vec::new(),
            body: body.into(),
            sign: true,
            session_token: None,
            region: "us-east-1",
        }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        let host = CONTROL.to_owned();
        Self { method: "GET", host, headers: Vec::new(), ..Self::post(target, "") }
    }

    /// Converse with a model, by its encoded id.
    pub(crate) fn converse(model: &str) -> Self {
        Self::post(format!("/model/{model}/converse"), HELLO)
    }

    pub(crate) fn stream(model: &str) -> Self {
        Self::post(format!("/model/{model}/converse-stream"), HELLO)
    }

    pub(crate) fn unsigned_header(mut self, name: &str, value: &str) -> Self {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn signed_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn unsigned(mut self) -> Self {
        self.sign = false;
        self
    }

    /// All headers but Host, the signature among them.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        if self.sign {
            let date = time::OffsetDateTime::from(SystemTime::now());
            let form = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
            let amz_date = date.format(form).unwrap();
            headers.push(("x-amz-date".to_owned(), amz_date.clone()));
            headers.extend(self.session_token.clone().map(|token| ("x-amz-security-token".to_owned(), token)));
            let authorization = self.authorization(&headers, &amz_date);
            headers.push(("authorization".to_owned(), authorization));
        }
        headers.extend(self.unsigned.clone());
        headers
    }

    fn authorization(&self, headers: &[(String, String)], amz_date: &str) -> String {
        let mut signed: Vec<(String, Vec<u8>)> =
            headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
        signed.push(("host".to_owned(), self.host.clone().into_bytes()));
        let mut names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let names = names.join(";");
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let body_sha256 = hex::encode(Sha256::digest(&self.body));
        let wire = WireRequest { method: self.method, path, query, headers: &signed, body_sha256: &body_sha256 };
        let day = &amz_date[..8];
        let scope = format!("{day}/{}/bedrock/aws4_request", self.region);
        let to_sign = string_to_sign(amz_date, &scope, &canonical_request(&wire, &names));
        let signature = signature(&signing_key(EXAMPLE_SECRET_KEY, day, self.region, "bedrock"), &to_sign);
        format!(
            "AWS4-HMAC-SHA256 Credential={EXAMPLE_ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
    }

    fn request(&self, h2: bool) -> Request<Full<Bytes>> {
        let target = if h2 { format!("https://{}{}", self.host, self.target) } else { self.target.clone() };
        let mut request = Request::builder().method(self.method).uri(target);
        if !h2 {
            request = request.header("host", &self.host);
        }
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        request.body(Full::from(self.body.clone())).unwrap()
    }
}

/// An answer read to its end: each piece as it came, and when.
#[derive(Debug)]
pub(crate) struct Answered {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub pieces: Vec<(Duration, Bytes)>,
    /// How the body ended, if not well.
    pub broken: Option<String>,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(_, piece)| piece.to_vec()).collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap()
    }

    /// Status, error type and message.
    pub(crate) fn error(&self) -> (u16, String, String) {
        let message = self.json()["message"].as_str().unwrap_or_default().to_owned();
        (self.status, self.header("x-amzn-errortype").to_owned(), message)
    }
}

impl Client {
    pub(crate) fn new(addr: SocketAddr, ca: &Path) -> Self {
        Self { addr, ca: ca.to_owned(), alpn: b"http/1.1", tls: &version::TLS13 }
    }

    pub(crate) fn h2(mut self) -> Self {
        self.alpn = b"h2";
        self
    }

    pub(crate) async fn connect(&self, sni: &str) -> Result<TlsStream<TcpStream>, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca)?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[self.tls])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let stream = TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from(sni.to_owned())?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// Sends a call on a new connection and reads the head of the response.
    pub(crate) async fn head(&self, call: &Call) -> Result<Response<Incoming>, Failure> {
        let stream = TokioIo::new(self.connect(call.sni.as_ref().unwrap_or(&call.host)).await?);
        Ok(if self.alpn == b"h2" {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            sender.send_request(call.request(true)).await?
        } else {
            let (mut sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(call.request(false)).await?
        })
    }

    pub(crate) async fn send(&self, call: &Call) -> Result<Answered, Failure> {
        let start = tokio::time::Instant::now();
        let (head, mut body) = self.head(call).await?.into_parts();
        let (mut pieces, mut broken) = (Vec::new(), None);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            match frame {
                Ok(frame) => pieces.extend(frame.into_data().ok().map(|data| (start.elapsed(), data))),
                Err(error) => {
                    broken = Some(error.to_string());
                    break;
                }
            }
        }
        Ok(Answered { status: head.status.as_u16(), headers: head.headers, pieces, broken })
    }

    pub(crate) async fn ok(&self, call: &Call) -> Answered {
        let answered = self.send(call).await.unwrap();
        assert_eq!(answered.status, 200, "{}", String::from_utf8_lossy(&answered.bytes()));
        answered
    }
}

/// An event: its `:event-type` or `:exception-type`, and its payload.
pub(crate) type Event = (String, Value);

/// Reads frames, checking lengths and both CRCs; an error says where it stopped.
pub(crate) fn events(mut bytes: &[u8]) -> (Vec<Event>, Option<&'static str>) {
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut out = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < 16 || bytes.len() < word(bytes, 0) as usize {
            return (out, Some("truncated"));
        }
        let (total, headers) = (word(bytes, 0) as usize, word(bytes, 4) as usize);
        if crc32fast::hash(&bytes[..8]) != word(bytes, 8) {
            return (out, Some("prelude CRC"));
        }
        if crc32fast::hash(&bytes[..total - 4]) != word(bytes, total - 4) {
            return (out, Some("message CRC"));
        }
        let first = &bytes[12..12 + headers];
        let name = usize::from(first[0]);
        let length = usize::from(u16::from_be_bytes([first[name + 2], first[name + 3]]));
        let kind = String::from_utf8(first[name + 4..name + 4 + length].to_vec()).unwrap();
        out.push((kind, serde_json::from_slice(&bytes[12 + headers..total - 4]).unwrap()));
        bytes = &bytes[total..];
    }
    (out, None)
}
