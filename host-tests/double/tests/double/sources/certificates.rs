//! Authorities and certificates, and requests signed by their keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bedrock_double::sigv4::{WireRequest, canonical_request};
use bedrock_double::sources::account::{Account, CERTIFICATE_ROLE_ARN, COMMON_NAME, PROFILE_ARN, TRUST_ANCHOR_ARN};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SigningKey,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

use super::Post;

const HOST: &str = "rolesanywhere.us-east-1.amazonaws.com";

/// An authority that a test made.
pub(crate) struct Made {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
}

/// A certificate and its key.
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    serial: String,
    key: KeyPair,
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

impl Made {
    pub(crate) fn new() -> Self {
        Self::with(None, |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign])
    }

    /// An authority, issued by another one or by itself.
    pub(crate) fn with(above: Option<&Self>, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(if above.is_some() { "issuing" } else { "root" });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        let certificate = certificate.unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = params(COMMON_NAME);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(4_294_967_296_u64.into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { der: certificate.der().to_vec(), serial: "4294967296".into(), key }
    }

    /// The default account, which trusts this authority.
    pub(crate) fn account(&self) -> Account {
        let mut account = Account::default();
        account.commercial.trust_anchors[0].ca_pem = self.pem.clone();
        account
    }
}

impl Certificate {
    pub(crate) fn post(&self, chain: &[&[u8]], at: OffsetDateTime) -> Post {
        let body =
            json!({"trustAnchorArn": TRUST_ANCHOR_ARN, "profileArn": PROFILE_ARN, "roleArn": CERTIFICATE_ROLE_ARN});
        self.signed("", &body.to_string(), chain, at)
    }

    pub(crate) fn signed(&self, query: &str, body: &str, chain: &[&[u8]], at: OffsetDateTime) -> Post {
        let date = at.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap();
        let chain: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("x-amz-date".to_owned(), date.clone()),
            ("x-amz-x509".to_owned(), STANDARD.encode(&self.der)),
        ];
        headers.extend((!chain.is_empty()).then(|| ("x-amz-x509-chain".to_owned(), chain.join(","))));
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";").replace("content-type", "content-type;host");
        let wire = headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        let wire: Vec<_> = wire.chain([("host".to_owned(), HOST.as_bytes().to_vec())]).collect();
        let hash = hex::encode(Sha256::digest(body));
        let request = WireRequest { method: "POST", path: "/sessions", query, headers: &wire, body_sha256: &hash };
        let canonical = hex::encode(Sha256::digest(canonical_request(&request, &names)));
        let scope = format!("{}/us-east-1/rolesanywhere/aws4_request", &date[..8]);
        let to_sign = format!("AWS4-X509-ECDSA-SHA256\n{date}\n{scope}\n{canonical}");
        let signature = hex::encode(self.key.sign(to_sign.as_bytes()).unwrap());
        let value = format!(
            "AWS4-X509-ECDSA-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.serial
        );
        headers.push(("authorization".to_owned(), value));
        let path = if query.is_empty() { "/sessions".to_owned() } else { format!("/sessions?{query}") };
        Post { host: HOST.to_owned(), path, headers, body: body.to_owned() }
    }
}
