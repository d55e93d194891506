//! The double's certificate authority and its server certificates.
//!
//! The authority is in a folder, so that clients trust several doubles (one for each path) by one file, `ca.pem`. Each
//! process makes new server certificates and never writes them to disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig, version};

/// Why TLS cannot start.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file of the authority.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// A key or certificate cannot be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls refused the certificate.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
}

/// An authority on disk: `ca.pem` for clients, `ca.key` for the doubles.
#[derive(Debug)]
pub struct Authority {
    certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority in a folder, or makes it. Safe against other processes that do the same: a lock is held meanwhile,
    /// which the system lets go if its holder dies, and the certificate appears whole and last.
    ///
    /// # Errors
    /// The folder cannot be written, or its key is invalid.
    pub fn open(dir: &Path) -> Result<Self, TlsError> {
        let on = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        fs::create_dir_all(dir).map_err(on(dir))?;
        let lock_path = dir.join("ca.lock");
        let lock = File::create(&lock_path).map_err(on(&lock_path))?;
        lock.lock().map_err(on(&lock_path))?;

        let (certificate, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let key = if certificate.exists() && key_path.exists() {
            KeyPair::from_pem(&fs::read_to_string(&key_path).map_err(on(&key_path))?)?
        } else {
            let key = KeyPair::generate()?;
            write_whole(&key_path, key.serialize_pem().as_bytes(), 0o600).map_err(on(&key_path))?;
            write_whole(&certificate, authority_params().self_signed(&key)?.pem().as_bytes(), 0o644)
                .map_err(on(&certificate))?;
            key
        };
        Ok(Self { certificate, issuer: Issuer::new(authority_params(), key) })
    }

    /// The file that clients trust.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// TLS 1.2 and 1.3 for these host names, h2 and http/1.1 by ALPN (h2 only if the double offers it).
    ///
    /// # Errors
    /// A name is not a DNS name.
    pub fn server(&self, names: Vec<String>, h2: bool) -> Result<Arc<ServerConfig>, TlsError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "Bedrock double");
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols =
            if h2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(Arc::new(config))
    }
}

/// Always the same, so that the issuer needs only its key.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Bedrock double authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.to_owned();
    temporary.set_extension(format!("new.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(&temporary)?.write_all(content)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_openers_share_one_authority() {
        let dir = tempfile::tempdir().unwrap();
        let seen: Vec<String> = std::thread::scope(|scope| {
            let open = || fs::read_to_string(Authority::open(dir.path()).unwrap().certificate()).unwrap();
            let openers: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|pem| pem == &seen[0] && pem.starts_with("-----BEGIN CERTIFICATE-----")));
    }
}
