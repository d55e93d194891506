//! The doubles of the credential sources over plain HTTP: what they answer, and each refusal.

mod certificates;
mod faults;
mod roles_anywhere;
mod sts;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bedrock_double::AccessKey;
use bedrock_double::sigv4::{WireRequest, canonical_request, signature, signing_key, string_to_sign};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub head: String,
    pub body: String,
}

impl Reply {
    /// The text of an XML element; empty if there is none.
    pub(crate) fn element(&self, name: &str) -> &str {
        let after = self.body.split_once(&format!("<{name}>")).map_or("", |(_, after)| after);
        after.split_once(&format!("</{name}>")).map_or("", |(text, _)| text)
    }
}

/// A GET of a local endpoint.
pub(crate) fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n");
    exchange(&mut TcpStream::connect(addr).unwrap(), &request).unwrap()
}

fn exchange(stream: &mut TcpStream, request: &str) -> Option<Reply> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, head: format!("{}\r\n", head.to_lowercase()), body: body.to_owned() })
}

/// A POST as it is sent.
#[derive(Clone)]
pub(crate) struct Post {
    pub host: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Post {
    pub(crate) fn send(&self, addr: SocketAddr) -> Reply {
        self.try_send(addr).unwrap()
    }

    /// `None` if the connection is closed without an answer.
    pub(crate) fn try_send(&self, addr: SocketAddr) -> Option<Reply> {
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut head =
            format!("POST {} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.path, self.host, self.body.len());
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        exchange(&mut stream, &format!("{head}connection: close\r\n\r\n{}", self.body))
    }

    /// Signs all headers by Signature Version 4.
    pub(crate) fn signed(mut self, key: &AccessKey, region: &str, at: OffsetDateTime) -> Self {
        let date = at.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap();
        self.headers.push(("x-amz-date".into(), date.clone()));
        self.headers.extend(key.session_token.clone().map(|token| ("x-amz-security-token".into(), token)));
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).chain(["host"]).collect();
        names.sort_unstable();
        let names = names.join(";");
        let headers: Vec<(String, Vec<u8>)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .chain([("host".to_owned(), self.host.clone().into_bytes())])
            .collect();
        let hash = hex::encode(Sha256::digest(&self.body));
        let request =
            WireRequest { method: "POST", path: &self.path, query: "", headers: &headers, body_sha256: &hash };
        let scope = format!("{}/{region}/sts/aws4_request", &date[..8]);
        let to_sign = string_to_sign(&date, &scope, &canonical_request(&request, &names));
        let signature = signature(&signing_key(&key.secret, &date[..8], region, "sts"), &to_sign);
        let value =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", key.id);
        self.headers.push(("authorization".into(), value));
        self
    }
}
