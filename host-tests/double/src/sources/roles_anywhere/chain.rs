//! The certificate that signed, and its path to the trust anchor.
//!
//! Source: "Signature validation" of https://docs.aws.amazon.com/rolesanywhere/latest/userguide/trust-model.html. A
//! certificate must be X.509v3 and signed with SHA-256 or stronger. An end-entity certificate has CA: false and the key usage
//! Digital Signature; a CA has CA: true and Certificate Sign.

use time::OffsetDateTime;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate, X509Name, X509Version};

use super::super::answer::Refused;
use super::denied;

/// The most certificates of `X-Amz-X509-Chain`. AWS's pages name no number; five are a deep hierarchy.
const MAX_CHAIN: usize = 5;

/// Reported by users of AWS; no public issue with these words was found.
const INSUFFICIENT: &str = "Untrusted certificate. Insufficient certificate";
/// Observed: https://github.com/aws/rolesanywhere-credential-helper/issues/108.
const UNTRUSTED: &str = "Untrusted signing certificate";

/// A certificate that may sign requests.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    certificate: X509Certificate<'a>,
    pub(super) common_name: String,
}

impl<'a> Leaf<'a> {
    /// Checks what does not depend on its issuer.
    pub(super) fn parse(der: &'a [u8], now: OffsetDateTime) -> Result<Self, Refused> {
        let insufficient = || denied(INSUFFICIENT);
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| insufficient())?;
        let is_end_entity = certificate.basic_constraints().ok().flatten().is_some_and(|basic| !basic.value.ca);
        let may_sign = certificate.key_usage().ok().flatten().is_some_and(|usage| usage.value.digital_signature());
        if !rest.is_empty() || !is_sound(&certificate) || !is_end_entity || !may_sign {
            return Err(insufficient());
        }
        if !is_valid(&certificate, now) {
            return Err(denied(UNTRUSTED));
        }
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let common_name = common_name.ok_or_else(insufficient)?.to_owned();
        Ok(Self { certificate, common_name })
    }

    pub(super) fn serial_hex(&self) -> String {
        hex::encode(self.certificate.tbs_certificate.serial.to_bytes_be())
    }

    /// The chain is in order, from the leaf's issuer on; the anchor itself may end it.
    pub(super) fn check_path(&self, chain: &[Vec<u8>], anchors: &str, now: OffsetDateTime) -> Result<(), Refused> {
        let untrusted = || denied(UNTRUSTED);
        if chain.len() > MAX_CHAIN {
            return Err(untrusted());
        }
        let chain: Vec<X509Certificate<'_>> = chain
            .iter()
            .map(|der| {
                X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
            })
            .collect::<Option<_>>()
            .ok_or_else(untrusted)?;
        let mut last = &self.certificate;
        for (below, issuer) in chain.iter().enumerate() {
            if !has_issued(issuer, last, below, now) {
                return Err(untrusted());
            }
            last = issuer;
        }
        let anchors: Vec<Pem> = Pem::iter_from_buffer(anchors.as_bytes()).filter_map(Result::ok).collect();
        let trusted = anchors.iter().filter_map(|pem| pem.parse_x509().ok()).any(|anchor| {
            has_issued(&anchor, last, chain.len(), now) || (!chain.is_empty() && anchor.as_raw() == last.as_raw())
        });
        if trusted { Ok(()) } else { Err(untrusted()) }
    }

    /// The session tags: values of the subject, the issuer and the alternative names (trust-model.html).
    pub(super) fn tags(&self) -> Vec<(String, String)> {
        let mut tags = attributes("x509Subject", self.certificate.subject());
        tags.extend(attributes("x509Issuer", self.certificate.issuer()));
        for name in self.alternative_names() {
            match name {
                GeneralName::DNSName(dns) => tags.push(("x509SAN/DNS".into(), (*dns).into())),
                GeneralName::URI(uri) => tags.push(("x509SAN/URI".into(), (*uri).into())),
                _ => {}
            }
        }
        tags
    }

    /// The attributes that cannot be session tags, as AWS lists them; empty if there are none.
    pub(super) fn unmapped(&self) -> String {
        let bad = |kind: &str| {
            let tags = self.tags().into_iter().filter(|(_, value)| !is_tag_value(value));
            let names = tags.filter_map(|(name, _)| name.strip_prefix(kind).map(str::to_owned));
            names.collect::<Vec<_>>().join(", ")
        };
        let [issuer, subject, san] = ["x509Issuer/", "x509Subject/", "x509SAN/"].map(bad);
        if issuer.is_empty() && subject.is_empty() && san.is_empty() {
            return String::new();
        }
        format!("Issuer: [ {issuer} ]; Subject: [ {subject} ]; SAN: [ {san} ]")
    }

    fn alternative_names(&self) -> &[GeneralName<'_>] {
        let extension = self.certificate.subject_alternative_name().ok().flatten();
        extension.map_or(&[], |extension| extension.value.general_names.as_slice())
    }
}

/// Whether an authority issued `subject`, with `below` other authorities between it and the leaf.
fn has_issued(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>, below: usize, now: OffsetDateTime) -> bool {
    let is_authority = issuer.basic_constraints().ok().flatten().is_some_and(|basic| {
        basic.value.ca && basic.value.path_len_constraint.is_none_or(|most| below <= usize::try_from(most).unwrap_or(0))
    });
    let may_certify = issuer.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign());
    is_sound(issuer)
        && is_authority
        && may_certify
        && is_valid(issuer, now)
        && issuer.subject().as_raw() == subject.issuer().as_raw()
        && subject.verify_signature(Some(issuer.public_key())).is_ok()
}

/// X.509v3, and signed with SHA-256 or stronger.
fn is_sound(certificate: &X509Certificate<'_>) -> bool {
    let strong = [
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
    ];
    certificate.version() == X509Version::V3 && strong.contains(&certificate.signature_algorithm.algorithm)
}

fn is_valid(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> bool {
    ASN1Time::from_timestamp(now.unix_timestamp()).is_ok_and(|now| certificate.validity().is_valid_at(now))
}

/// The attributes of a name by their short names: CN, O, OU and so on.
fn attributes(kind: &str, name: &X509Name<'_>) -> Vec<(String, String)> {
    let registry = x509_parser::objects::oid_registry();
    let attributes = name.iter_attributes().filter_map(|attribute| {
        let short = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry).ok()?;
        Some((format!("{kind}/{short}"), attribute.as_str().ok()?.to_owned()))
    });
    attributes.collect()
}

/// `tagValueType` of botocore's model of STS. Of separators, only the space is allowed here.
fn is_tag_value(value: &str) -> bool {
    value.chars().count() <= 256 && value.chars().all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c))
}
