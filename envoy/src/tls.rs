//! The development CA and the TLS listener's certificate, stored in the state directory.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Errors of the development certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Cannot generate.
    #[error("cannot make the development certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Cannot write or read a file.
    #[error("cannot write or read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Paths of the PEM files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The CA that clients trust.
    pub ca: PathBuf,
    /// The listener's certificate.
    pub certificate: PathBuf,
    /// The listener's private key.
    pub key: PathBuf,
}

/// Returns the files for a listener at `listen`, and generates them in `dir` if they are missing.
pub fn prepare(dir: &Path, listen: IpAddr) -> Result<Files, TlsError> {
    let issuer = authority(dir)?;
    // A directory name without the colons of an IPv6 address.
    let own = dir.join(listen.to_string().replace(':', "-"));
    let files = Files { ca: dir.join("ca.pem"), certificate: own.join("cert.pem"), key: own.join("key.pem") };
    create_once(&own, |part| {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !listen.is_unspecified() && !listen.is_loopback() {
            names.push(listen.to_string());
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "bedrock gateway (development)");
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        write(&part.join("cert.pem"), &params.signed_by(&key, &issuer)?.pem(), 0o644)?;
        write(&part.join("key.pem"), &key.serialize_pem(), 0o600)
    })?;
    Ok(files)
}

/// Reads the CA from `dir`, and generates it if it is missing. Only the owner can read its key.
fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "bedrock gateway development CA");
    create_once(dir, |part| {
        let key = KeyPair::generate()?;
        write(&part.join("ca.key"), &key.serialize_pem(), 0o600)?;
        write(&part.join("ca.pem"), &params.self_signed(&key)?.pem(), 0o644)
    })?;
    let key_file = dir.join("ca.key");
    let key = std::fs::read_to_string(&key_file).map_err(failed(&key_file))?;
    Ok(Issuer::new(params, KeyPair::from_pem(&key)?))
}

/// Creates a directory atomically: fills it under another name and renames it. If two processes do so, one wins.
fn create_once(dir: &Path, fill: impl FnOnce(&Path) -> Result<(), TlsError>) -> Result<(), TlsError> {
    if dir.exists() {
        return Ok(());
    }
    let part = dir.with_file_name(format!("tls.{}.part", std::process::id()));
    std::fs::create_dir_all(&part).map_err(failed(&part))?;
    fill(&part)?;
    if let Err(error) = std::fs::rename(&part, dir) {
        let _ = std::fs::remove_dir_all(&part);
        if !dir.exists() {
            return Err(failed(dir)(error));
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> TlsError {
    let path = path.to_path_buf();
    move |source| TlsError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generates_one_ca_and_one_leaf_per_address() {
        let dir = std::env::temp_dir().join(format!("xtask-tls-{}/tls", std::process::id()));
        let first = prepare(&dir, [127, 0, 0, 1].into()).unwrap();
        let (ca, key) = (std::fs::read(&first.ca).unwrap(), std::fs::read(&first.key).unwrap());
        let again = prepare(&dir, [127, 0, 0, 1].into()).unwrap();
        assert_eq!(std::fs::read(&again.key).unwrap(), key);
        let other = prepare(&dir, [10, 0, 0, 1].into()).unwrap();
        assert_eq!(std::fs::read(&other.ca).unwrap(), ca);
        assert_ne!(std::fs::read(&other.key).unwrap(), key);
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }
}
