//! A certificate, with what is needed of it.

use super::pem::{self, PemProblem};
use super::{IdentityError, Part, PrivateKey, Validity, serial};
use std::time::SystemTime;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

/// Signatures with SHA-256, SHA-384 and SHA-512 (RFC 5758, RFC 8017).
const SIGNATURES: [ObjectIdentifier; 6] = [
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
];

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) der: Vec<u8>,
    /// In decimal.
    pub(super) serial: String,
    pub(super) validity: Validity,
    certificate: Certificate,
}

/// All certificates of a PEM text: one at least.
pub(super) fn parse_all(text: &str, part: Part) -> Result<Vec<Parsed>, IdentityError> {
    let problem = |problem| IdentityError::Pem { part, problem };
    let blocks = pem::blocks(text).map_err(problem)?;
    let parsed = blocks.iter().map(|block| {
        if block.label != "CERTIFICATE" {
            return Err(problem(PemProblem::Label("CERTIFICATE")));
        }
        Parsed::new(&block.decode().map_err(problem)?).ok_or(IdentityError::NotACertificate(part))
    });
    parsed.collect()
}

impl Parsed {
    fn new(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let tbs = certificate.tbs_certificate();
        let validity = Validity {
            not_before: SystemTime::UNIX_EPOCH + tbs.validity().not_before.to_unix_duration(),
            not_after: SystemTime::UNIX_EPOCH + tbs.validity().not_after.to_unix_duration(),
        };
        let serial = serial::decimal(tbs.serial_number().as_bytes());
        Some(Self { der: der.to_vec(), serial, validity, certificate })
    }

    /// What AWS requires of an end entity's certificate.
    pub(super) fn check_leaf(&self) -> Result<(), IdentityError> {
        let tbs = self.certificate.tbs_certificate();
        let malformed = |_| IdentityError::NotACertificate(Part::Certificate);
        if tbs.version() != Version::V3 {
            return Err(IdentityError::Version);
        }
        match tbs.get_extension::<BasicConstraints>().map_err(malformed)? {
            None => return Err(IdentityError::NoBasicConstraints),
            Some((_, constraints)) if constraints.ca => return Err(IdentityError::Authority),
            Some(_) => {}
        }
        let usage = tbs.get_extension::<KeyUsage>().map_err(malformed)?;
        if !usage.is_some_and(|(_, usage)| usage.digital_signature()) {
            return Err(IdentityError::KeyUsage);
        }
        let algorithm = self.certificate.signature_algorithm().oid;
        if !SIGNATURES.contains(&algorithm) {
            return Err(IdentityError::SignatureAlgorithm(algorithm.to_string()));
        }
        // RFC 5280, 4.1.2.2. The first bit is the sign; zero has no other digit.
        let serial = tbs.serial_number().as_bytes();
        if serial.first().is_none_or(|first| first & 0x80 != 0) || self.serial == "0" {
            return Err(IdentityError::Serial);
        }
        Ok(())
    }

    pub(super) fn check_key(&self, key: &PrivateKey) -> Result<(), IdentityError> {
        key.check(self.certificate.tbs_certificate().subject_public_key_info())
    }

    /// Whether this certificate's subject is the other's issuer.
    pub(super) fn issued(&self, other: &Self) -> bool {
        self.certificate.tbs_certificate().subject() == other.certificate.tbs_certificate().issuer()
    }

    /// Whether it names itself as its issuer.
    pub(super) fn is_root(&self) -> bool {
        self.issued(self)
    }
}
