//! Identities for tests, made anew in each run, with a fixed validity.

use super::CertificateMaterial;
use crate::credentials::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm, date_time_ymd,
};

/// A root, an intermediate that it issued, and an identity that the intermediate issued.
pub(crate) struct Authority {
    pub(crate) root: CertifiedIssuer<'static, KeyPair>,
    pub(crate) intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn ca(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// An end entity's certificate as AWS wants it, valid for the six days from 2026-01-01.
pub(crate) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 1, 7);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

impl Authority {
    pub(crate) fn new() -> Self {
        let root = CertifiedIssuer::self_signed(ca("root"), KeyPair::generate().unwrap()).unwrap();
        let intermediate = CertifiedIssuer::signed_by(ca("issuing"), KeyPair::generate().unwrap(), &root).unwrap();
        Self { root, intermediate }
    }

    /// A certificate that the intermediate issued.
    pub(crate) fn issue(&self, params: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> Leaf {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn p256(&self) -> Leaf {
        self.issue(&params("gateway"), &PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn p384(&self) -> Leaf {
        self.issue(&params("gateway"), &PKCS_ECDSA_P384_SHA384)
    }

    /// The material of a leaf, with the intermediate as chain.
    pub(crate) fn material(&self, leaf: &Leaf) -> CertificateMaterial {
        CertificateMaterial {
            certificate: leaf.certificate.clone(),
            chain: Some(self.intermediate.pem()),
            key: Secret::new(leaf.key.as_str()),
        }
    }
}
