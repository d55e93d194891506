//! An OpenID Connect issuer as a Kubernetes cluster publishes one: its configuration and its key set, over TLS. The double of
//! STS reads both for each token, where AWS keeps them for a while.
//!
//! Sources: OpenID Connect Discovery 1.0, sections 3 and 4
//! (https://openid.net/specs/openid-connect-discovery-1_0.html), and what IAM requires of an issuer
//! (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc.html). The documents have the members of a
//! cluster's: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned, version,
};

use super::jwt::{PublicKey, member};
use crate::tls::Authority;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEY_SET: &str = "/openid/v1/jwks";
const TIMEOUT: Duration = Duration::from_secs(5);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Where an issuer's documents are, and who vouches for its certificate.
#[derive(Debug, Clone)]
pub struct Published {
    addr: SocketAddr,
    ca_pem: String,
}

/// A running issuer; dropping it ends it.
#[derive(Debug)]
pub struct Issuer {
    published: Published,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Without `https://`.
    name: String,
    keys: Mutex<Vec<PublicKey>>,
    reads: AtomicUsize,
    over: AtomicBool,
}

impl Issuer {
    /// Starts one on a free port of 127.0.0.1. `name` is its address without `https://`, and `dir` has its authority.
    ///
    /// # Errors
    /// No address, or the folder cannot be written.
    pub fn start(name: &str, dir: &Path) -> Result<Self, Failed> {
        let authority = Authority::open(dir)?;
        let tls = authority.server(vec![host(name).to_owned()], false)?;
        let ca_pem = std::fs::read_to_string(authority.certificate())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let published = Published { addr: listener.local_addr()?, ca_pem };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            keys: Mutex::default(),
            reads: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if own.over.load(Ordering::Relaxed) {
                    return;
                }
                // A client that breaks off gets no answer.
                let _ = own.serve(stream, &tls);
            }
        });
        Ok(Self { published, shared })
    }

    /// Replaces the key set.
    pub fn set_keys(&self, keys: &[&PublicKey]) {
        *self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys.iter().copied().cloned().collect();
    }

    /// Its address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.published.addr
    }

    /// For a provider of the account.
    #[must_use]
    pub fn published(&self) -> Published {
        self.published.clone()
    }

    /// How often its key set was read.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.shared.reads.load(Ordering::Relaxed)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.published.addr);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, tls: &Arc<ServerConfig>) -> Result<(), Failed> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(tls))?, stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8(head)?;
        let wanted = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", host(&self.name));
        let (status, body) = if head.starts_with(&wanted(&format!("{}{CONFIGURATION}", path(&self.name)))) {
            ("200 OK", self.configuration())
        } else if head.starts_with(&wanted(KEY_SET)) {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            ("200 OK", json!({"keys": keys.iter().map(PublicKey::jwk).collect::<Vec<_>>()}))
        } else {
            ("404 Not Found", json!({}))
        };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}")?;
        stream.conn.send_close_notify();
        stream.flush()?;
        Ok(())
    }

    fn configuration(&self) -> Value {
        json!({
            "issuer": format!("https://{}", self.name),
            "jwks_uri": format!("https://{}{KEY_SET}", host(&self.name)),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        })
    }
}

impl Published {
    /// The keys of an issuer, by its configuration. The name in the configuration must be the issuer's (section 4.3), and the
    /// key set on the same host, which is stricter than AWS.
    pub(super) fn keys(&self, issuer: &str) -> Result<Vec<PublicKey>, Failed> {
        let configuration = self.get(issuer, &format!("{}{CONFIGURATION}", path(issuer)))?;
        if *member(&configuration, "issuer") != format!("https://{issuer}") {
            return Err("the configuration is another issuer's".into());
        }
        let keys = member(&configuration, "jwks_uri").as_str().unwrap_or_default();
        let keys = keys.strip_prefix(&format!("https://{}", host(issuer))).ok_or("the key set is elsewhere")?;
        let set = self.get(issuer, keys)?;
        Ok(member(&set, "keys").as_array().into_iter().flatten().filter_map(PublicKey::from_jwk).collect())
    }

    fn get(&self, issuer: &str, path: &str) -> Result<Value, Failed> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let name = ServerName::try_from(host(issuer).to_owned())?;
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream);
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", host(issuer))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("{path}: {head}").into());
        }
        Ok(serde_json::from_str(body)?)
    }
}

fn host(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// The path, which begins with `/` or is empty.
fn path(name: &str) -> &str {
    name.get(host(name).len()..).unwrap_or_default()
}
