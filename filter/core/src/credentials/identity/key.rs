//! The private key: ECDSA with P-256 or P-384, from PKCS#8 or SEC1.

use super::pem::{self, PemProblem};
use super::{IdentityError, Part};
use crate::credentials::Secret;
use p256::pkcs8::PrivateKeyInfoRef;
use sha2::{Digest, Sha256};
use std::fmt;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::referenced::OwnedToRef;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A private key. The libraries' keys wipe themselves when they are dropped.
pub enum PrivateKey {
    /// On the curve P-256.
    P256(p256::ecdsa::SigningKey),
    /// On the curve P-384.
    P384(Box<p384::ecdsa::SigningKey>),
}

/// The library refused to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private key cannot sign")]
pub struct KeyError;

impl PrivateKey {
    /// Reads a key in PEM: one block of PKCS#8 or SEC1. `openssl ecparam` writes a block with the curve's name before it.
    ///
    /// # Errors
    /// [`IdentityError`], without a byte of the key.
    pub fn parse(text: &Secret) -> Result<Self, IdentityError> {
        let problem = |problem| IdentityError::Pem { part: Part::Key, problem };
        let mut blocks = pem::blocks(text.reveal()).map_err(problem)?;
        blocks.retain(|block| block.label != "EC PARAMETERS");
        let block = match blocks.as_slice() {
            [block] => *block,
            [] => return Err(problem(PemProblem::Label("PRIVATE KEY or EC PRIVATE KEY"))),
            _ => return Err(problem(PemProblem::Several)),
        };
        match block.label {
            "PRIVATE KEY" => Self::from_pkcs8(&block.decode().map_err(problem)?),
            "EC PRIVATE KEY" => match block.decode() {
                Ok(der) => Self::from_sec1(&der),
                // `Proc-Type: 4,ENCRYPTED`
                Err(PemProblem::Headers) => Err(IdentityError::Encrypted),
                Err(other) => Err(problem(other)),
            },
            "ENCRYPTED PRIVATE KEY" => Err(IdentityError::Encrypted),
            "RSA PRIVATE KEY" => Err(IdentityError::Rsa(Part::Key)),
            _ => Err(problem(PemProblem::Label("PRIVATE KEY or EC PRIVATE KEY"))),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, IdentityError> {
        let info = PrivateKeyInfoRef::from_der(der).map_err(|_| IdentityError::NotAKey)?;
        match (info.algorithm.oid, info.algorithm.parameters_oid().ok()) {
            (RSA, _) => Err(IdentityError::Rsa(Part::Key)),
            (EC, Some(P256)) => p256::SecretKey::try_from(info).map(Self::p256).map_err(|_| IdentityError::NotAKey),
            (EC, Some(P384)) => p384::SecretKey::try_from(info).map(Self::p384).map_err(|_| IdentityError::NotAKey),
            _ => Err(IdentityError::Algorithm(Part::Key)),
        }
    }

    /// SEC1 may leave the curve out: the key's length tells it then.
    fn from_sec1(der: &[u8]) -> Result<Self, IdentityError> {
        let p256 = || p256::SecretKey::from_sec1_der(der).map(Self::p256);
        let p384 = || p384::SecretKey::from_sec1_der(der).map(Self::p384);
        p256().or_else(|_| p384()).map_err(|_| IdentityError::NotAKey)
    }

    fn p256(key: p256::SecretKey) -> Self {
        Self::P256(key.into())
    }

    fn p384(key: p384::SecretKey) -> Self {
        Self::P384(Box::new(key.into()))
    }

    /// Whether this is the key of a certificate's public key.
    pub(super) fn check(&self, public: &SubjectPublicKeyInfoOwned) -> Result<(), IdentityError> {
        let algorithm = public.algorithm.owned_to_ref();
        let curve = match (algorithm.oid, algorithm.parameters_oid().ok()) {
            (RSA, _) => return Err(IdentityError::Rsa(Part::Certificate)),
            (EC, Some(curve @ (P256 | P384))) => curve,
            _ => return Err(IdentityError::Algorithm(Part::Certificate)),
        };
        let point = public.subject_public_key.raw_bytes();
        let not_a_certificate = |_| IdentityError::NotACertificate(Part::Certificate);
        let matches = match (self, curve) {
            (Self::P256(key), P256) => {
                p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(not_a_certificate)? == *key.verifying_key()
            }
            (Self::P384(key), P384) => {
                p384::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(not_a_certificate)? == *key.verifying_key()
            }
            _ => false,
        };
        if matches { Ok(()) } else { Err(IdentityError::Mismatch) }
    }

    /// The ECDSA signature of a message's SHA-256, in DER. The nonce is deterministic (RFC 6979): the module needs no random
    /// source. IAM Roles Anywhere wants SHA-256 for keys of every size.
    ///
    /// # Errors
    /// [`KeyError`] does not happen with a digest of this length.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        use p256::ecdsa::signature::hazmat::PrehashSigner;
        let digest = Sha256::digest(message);
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).map_err(|_| KeyError)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Self::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash(&digest).map_err(|_| KeyError)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256(_) => "P-256 ***",
            Self::P384(_) => "P-384 ***",
        })
    }
}
