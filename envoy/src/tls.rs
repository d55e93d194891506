//! The development CA and the TLS listener's certificate, kept under the target directory.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It could not be made.
    #[error("cannot make the development certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// It could not be kept, or not be read again.
    #[error("cannot write or read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Files {
    /// What clients trust.
    pub ca: PathBuf,
    /// The listener's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The files for a listener at `listen`, made in `dir` where they are not there yet.
pub fn prepare(dir: &Path, listen: IpAddr) -> Result<Files, TlsError> {
    let issuer = authority(dir)?;
    // A directory's name without colons, for an IPv6 address.
    let own = dir.join(listen.to_string().replace(':', "-"));
    let files = Files { ca: dir.join("ca.pem"), certificate: own.join("cert.pem"), key: own.join("key.pem") };
    once(&own, |part| {
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

/// The CA of `dir`, made if it is not there. Its key is readable by its owner only.
fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "bedrock gateway development CA");
    once(dir, |part| {
        let key = KeyPair::generate()?;
        write(&part.join("ca.key"), &key.serialize_pem(), 0o600)?;
        write(&part.join("ca.pem"), &params.self_signed(&key)?.pem(), 0o644)
    })?;
    let key_file = dir.join("ca.key");
    let key = std::fs::read_to_string(&key_file).map_err(failed(&key_file))?;
    Ok(Issuer::new(params, KeyPair::from_pem(&key)?))
}

/// Makes a directory with all its files at once: filled next to its place and renamed, so that one of two makers wins.
fn once(dir: &Path, fill: impl FnOnce(&Path) -> Result<(), TlsError>) -> Result<(), TlsError> {
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
    fn makes_an_authority_once_and_a_certificate_for_each_address() {
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
