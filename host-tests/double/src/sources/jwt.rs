//! JSON Web Tokens as STS issues and accepts them, signed and verified with `ring`.
//!
//! ES256 and ES384 keys are made at start. `ring` cannot make RSA keys, so RS256 has a fixed one,
//! `fixtures/token-rs256.pem`, which was made for these doubles and is trusted by nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Value, json};
use thiserror::Error;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

const RS256_KEY: &str = include_str!("../../fixtures/token-rs256.pem");

/// How a token is signed (RFC 7518).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    /// The name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    fn verifier(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        }
    }
}

/// A key cannot be made or read, or cannot sign.
#[derive(Debug, Error)]
#[error("a key for {} tokens: {reason}", .algorithm.name())]
pub struct KeyError {
    algorithm: Algorithm,
    reason: String,
}

/// The key of an issuer, as its key set publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub algorithm: Algorithm,
    /// The name in a token's header.
    pub kid: String,
    /// An uncompressed point, or RSAPublicKey in DER (RFC 8017).
    pub bytes: Vec<u8>,
}

impl PublicKey {
    /// As a member of a key set (RFC 7517, RFC 7518).
    #[must_use]
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (kid, alg) = (&self.kid, self.algorithm.name());
        if self.algorithm == Algorithm::Rs256 {
            let (modulus, exponent) = rsa_parts(&self.bytes).unwrap_or_default();
            return json!({"kty": "RSA", "use": "sig", "kid": kid, "alg": alg, "n": text(modulus), "e": text(exponent)});
        }
        let point = self.bytes.get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        let curve = if self.algorithm == Algorithm::Es256 { "P-256" } else { "P-384" };
        json!({"kty": "EC", "use": "sig", "kid": kid, "alg": alg, "crv": curve, "x": text(x), "y": text(y)})
    }

    /// A member of a key set; `None` for a key that these doubles do not know.
    pub(super) fn from_jwk(jwk: &Value) -> Option<Self> {
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(member(jwk, name).as_str()?).ok();
        let algorithm = match (member(jwk, "kty").as_str()?, member(jwk, "crv").as_str()) {
            ("RSA", None) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("EC", Some("P-384")) => Algorithm::Es384,
            _ => return None,
        };
        let bytes = match algorithm {
            Algorithm::Rs256 => der(0x30, &[der(2, &positive(bytes("n")?)), der(2, &positive(bytes("e")?))].concat()),
            Algorithm::Es256 | Algorithm::Es384 => [vec![4], bytes("x")?, bytes("y")?].concat(),
        };
        Some(Self { algorithm, kid: member(jwk, "kid").as_str()?.to_owned(), bytes })
    }
}

/// Modulus and exponent of an RSAPublicKey in DER (RFC 8017), without leading zeros.
fn rsa_parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = field(key)?;
    let (modulus, rest) = field(sequence)?;
    let (exponent, _) = field(rest)?;
    let plain = |bytes: &'_ [u8]| bytes.iter().take_while(|byte| **byte == 0).count();
    Some((modulus.get(plain(modulus)..)?, exponent.get(plain(exponent)..)?))
}

/// The contents of the first field of DER, and what follows it.
fn field(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [_, length, rest @ ..] = der else { return None };
    let more = usize::from(length.checked_sub(128).unwrap_or_default());
    let (long, rest) = rest.split_at_checked(more)?;
    let length =
        if more == 0 { usize::from(*length) } else { long.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)) };
    rest.split_at_checked(length)
}

/// A field of DER.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let length = if length < 128 { vec![length as u8] } else { [vec![128 | digits.len() as u8], digits].concat() };
    [vec![tag], length, contents.to_vec()].concat()
}

/// With a zero before a high first bit, so that it is not negative.
fn positive(mut number: Vec<u8>) -> Vec<u8> {
    if number.first().is_none_or(|first| *first >= 128) {
        number.insert(0, 0);
    }
    number
}

/// The private key of an issuer.
#[derive(Debug)]
pub struct Signer {
    public: PublicKey,
    key: Key,
    random: SystemRandom,
}

#[derive(Debug)]
enum Key {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

impl Signer {
    /// A signer with a new key, or for RS256 the fixed one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(algorithm: Algorithm, kid: &str) -> Result<Self, KeyError> {
        let failed = |reason: &dyn ToString| KeyError { algorithm, reason: reason.to_string() };
        let random = SystemRandom::new();
        let key = match algorithm {
            Algorithm::Rs256 => {
                let der = PrivatePkcs8KeyDer::from_pem_slice(RS256_KEY.as_bytes()).map_err(|error| failed(&error))?;
                Key::Rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|error| failed(&error))?)
            }
            Algorithm::Es256 | Algorithm::Es384 => {
                let curve = if algorithm == Algorithm::Es256 {
                    &signature::ECDSA_P256_SHA256_FIXED_SIGNING
                } else {
                    &signature::ECDSA_P384_SHA384_FIXED_SIGNING
                };
                let document = EcdsaKeyPair::generate_pkcs8(curve, &random).map_err(|error| failed(&error))?;
                let key = EcdsaKeyPair::from_pkcs8(curve, document.as_ref(), &random);
                Key::Ecdsa(key.map_err(|error| failed(&error))?)
            }
        };
        let bytes = match &key {
            Key::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Key::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
        };
        Ok(Self { public: PublicKey { algorithm, kid: kid.to_owned(), bytes }, key, random })
    }

    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// A signed token in its compact form.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let header = json!({"alg": self.public.algorithm.name(), "kid": self.public.kid, "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(claims));
        let signature = match &self.key {
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &self.random, input.as_bytes(), &mut signature)
                    .map(|()| signature)
            }
            Key::Ecdsa(pair) => pair.sign(&self.random, input.as_bytes()).map(|signature| signature.as_ref().to_vec()),
        };
        let signature =
            signature.map_err(|error| KeyError { algorithm: self.public.algorithm, reason: error.to_string() })?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A token taken apart; its signature is not verified yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) header: Value,
    pub(super) claims: Value,
    input: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// `None` if it does not have the form of a signed token.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (input, signature) = token.rsplit_once('.')?;
        let (header, claims) = input.split_once('.')?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let object = |text: &str| {
            let value: Value = serde_json::from_slice(&part(text)?).ok()?;
            value.is_object().then_some(value)
        };
        Some(Self { header: object(header)?, claims: object(claims)?, input, signature: part(signature)? })
    }

    /// Whether `key` signed it, by the algorithm and with the name of its header.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        *member(&self.header, "alg") == key.algorithm.name()
            && *member(&self.header, "kid") == key.kid.as_str()
            && UnparsedPublicKey::new(key.algorithm.verifier(), &key.bytes)
                .verify(self.input.as_bytes(), &self.signature)
                .is_ok()
    }

    /// A claim that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        member(&self.claims, name).as_str()
    }

    /// A claim of seconds since 1970.
    pub(super) fn seconds(&self, name: &str) -> Option<i64> {
        member(&self.claims, name).as_i64()
    }

    /// The audiences: a string or a list of strings.
    pub(super) fn audiences(&self) -> Vec<&str> {
        match member(&self.claims, "aud") {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// A member of an object; null if there is none.
pub(super) fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_keeps_the_keys() {
        for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384] {
            let signer = Signer::new(algorithm, "kid").unwrap();
            let key = PublicKey::from_jwk(&signer.public_key().jwk()).unwrap();
            assert_eq!(key, *signer.public_key());
            let token = signer.sign(&json!({"sub": "s"})).unwrap();
            assert!(Token::parse(&token).unwrap().is_signed_by(&key));
        }
        assert_eq!(PublicKey::from_jwk(&json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "AA"})), None);
    }
}
