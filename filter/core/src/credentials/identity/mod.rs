//! The X.509 identity that asks IAM Roles Anywhere for a session: a certificate, its intermediates and its private key.
//!
//! What AWS requires of the certificate: <https://docs.aws.amazon.com/rolesanywhere/latest/userguide/trust-model.html>
//! ("Signature validation"). All of it is checked here, because AWS answers most mistakes with the same
//! `AccessDeniedException`. Signatures of certificates and revocation are for AWS to check.

mod certificate;
mod key;
mod pem;
mod serial;
#[cfg(test)]
pub(crate) mod testing;

pub use key::PrivateKey;
pub use pem::PemProblem;

use super::Secret;
use certificate::Parsed;
use std::fmt;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A certificate with less left than this has to be replaced soon.
const SOON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The PEM texts of an identity, as they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMaterial {
    /// The certificate; its intermediates may follow.
    pub certificate: String,
    /// Intermediates.
    pub chain: Option<String>,
    /// The private key, not encrypted.
    pub key: Secret,
}

/// An identity that IAM Roles Anywhere can accept, except for the time: [`SigningIdentity::valid_at`] gives what may sign.
#[derive(Debug)]
pub struct SigningIdentity {
    certificate: Parsed,
    chain: Vec<Parsed>,
    key: PrivateKey,
}

/// An identity of which all certificates are valid now.
#[derive(Debug, Clone, Copy)]
pub struct ValidIdentity<'a>(&'a SigningIdentity);

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last.
    pub not_after: SystemTime,
}

/// A part of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate that signs.
    Certificate,
    /// A certificate of the chain.
    Chain,
    /// The private key.
    Key,
}

/// Why an identity cannot be used. Nothing of the key is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM of the right kind.
    #[error("{part} {problem}")]
    Pem {
        /// Where.
        part: Part,
        /// What is wrong.
        problem: PemProblem,
    },
    /// The contents of a PEM block are not a certificate.
    #[error("{0} is not an X.509 certificate")]
    NotACertificate(Part),
    /// Not version 3.
    #[error("the certificate is not X.509 version 3")]
    Version,
    /// No basic constraints.
    #[error("the certificate has no basic constraints; AWS requires CA:FALSE")]
    NoBasicConstraints,
    /// A CA's certificate.
    #[error("the certificate is a CA's; want one of an end entity, with its intermediates after it")]
    Authority,
    /// Not for signatures.
    #[error("the certificate's key usage lacks digitalSignature")]
    KeyUsage,
    /// A weak or unknown signature.
    #[error("the certificate is signed with {0}; AWS requires RSA or ECDSA with SHA-256 or stronger")]
    SignatureAlgorithm(String),
    /// A serial number of zero or less.
    #[error("the certificate's serial number is not positive")]
    Serial,
    /// An RSA key.
    #[error(
        "{0} is RSA's; the gateway signs with ECDSA keys (P-256, P-384). For RSA, run `aws_signing_helper serve` and use the source `imds`"
    )]
    Rsa(Part),
    /// Another curve or algorithm.
    #[error("{0} is of another algorithm or curve; want ECDSA with P-256 or P-384")]
    Algorithm(Part),
    /// An encrypted key. `aws acm export-certificate` gives such ones.
    #[error("the private key is encrypted; decrypt it with `openssl pkey`")]
    Encrypted,
    /// The contents of the key's PEM block are not a key.
    #[error("the private key is neither PKCS#8 nor SEC1 of P-256 or P-384")]
    NotAKey,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The chain's order is wrong.
    #[error(
        "certificate {position} of the chain did not issue the one before it; want the issuer of the certificate first, then its issuer"
    )]
    ChainOrder {
        /// Its number, from 1.
        position: usize,
    },
    /// Not valid yet.
    #[error("{part} is not valid before {from}")]
    NotYetValid {
        /// Which certificate.
        part: Part,
        /// RFC 3339.
        from: String,
    },
    /// Expired.
    #[error("{part} expired at {at}; replace it")]
    Expired {
        /// Which certificate.
        part: Part,
        /// RFC 3339.
        at: String,
    },
}

// === impl SigningIdentity ===

impl SigningIdentity {
    /// Reads an identity. A root at the end of the chain is left out: AWS has it as trust anchor, and wants intermediates.
    ///
    /// # Errors
    /// [`IdentityError`] names the part and what is wrong with it.
    pub fn parse(material: &CertificateMaterial) -> Result<Self, IdentityError> {
        let key = PrivateKey::parse(&material.key)?;
        let mut certificates = certificate::parse_all(&material.certificate, Part::Certificate)?.into_iter();
        // `parse_all` returns one at least.
        let certificate = certificates.next().ok_or(IdentityError::NotACertificate(Part::Certificate))?;
        certificate.check_leaf()?;
        certificate.check_key(&key)?;
        let mut chain: Vec<Parsed> = certificates.collect();
        if let Some(text) = &material.chain {
            chain.extend(certificate::parse_all(text, Part::Chain)?);
        }
        let mut issued = &certificate;
        for (index, issuer) in chain.iter().enumerate() {
            if !issuer.issued(issued) {
                return Err(IdentityError::ChainOrder { position: index + 1 });
            }
            issued = issuer;
        }
        if chain.last().is_some_and(Parsed::is_root) {
            chain.pop();
        }
        Ok(Self { certificate, chain, key })
    }

    /// The identity, if all of its certificates are valid at a time.
    ///
    /// # Errors
    /// [`IdentityError::NotYetValid`] and [`IdentityError::Expired`].
    pub fn valid_at(&self, now: SystemTime) -> Result<ValidIdentity<'_>, IdentityError> {
        self.certificate.validity.check(Part::Certificate, now)?;
        for certificate in &self.chain {
            certificate.validity.check(Part::Chain, now)?;
        }
        Ok(ValidIdentity(self))
    }
}

// === impl ValidIdentity ===

impl ValidIdentity<'_> {
    /// The certificate's serial number, in decimal.
    pub fn serial(&self) -> &str {
        &self.0.certificate.serial
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.0.certificate.der
    }

    /// The intermediates in DER, the certificate's issuer first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.0.chain.iter().map(|certificate| certificate.der.as_slice())
    }

    /// The key.
    pub fn key(&self) -> &PrivateKey {
        &self.0.key
    }

    /// The validity of the certificate that ends first: after it, AWS refuses the identity.
    pub fn validity(&self) -> Validity {
        let intermediates = self.0.chain.iter().map(|certificate| certificate.validity);
        intermediates.fold(
            self.0.certificate.validity,
            |first, other| {
                if other.not_after < first.not_after { other } else { first }
            },
        )
    }
}

// === impl Validity ===

impl Validity {
    /// How much is left.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Whether the certificate has to be replaced soon: less than three days or a third of its life is left, whichever is
    /// less. AWS Private CA in short-lived mode issues certificates of seven days at most.
    pub fn ends_soon(&self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.left(now) < SOON.min(life / 3)
    }

    fn check(&self, part: Part, now: SystemTime) -> Result<(), IdentityError> {
        if now < self.not_before {
            return Err(IdentityError::NotYetValid { part, from: rfc3339(self.not_before) });
        }
        // RFC 5280, 4.1.2.5: notAfter is inclusive.
        if now > self.not_after {
            return Err(IdentityError::Expired { part, at: rfc3339(self.not_after) });
        }
        Ok(())
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

// === impl Part ===

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "the certificate",
            Self::Chain => "the certificate chain",
            Self::Key => "the private key",
        })
    }
}

#[cfg(test)]
mod tests;
