use super::testing::{Authority, Leaf, params};
use super::*;
use rcgen::{BasicConstraints, IsCa, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::Value;
use x509_cert::der::pem::{LineEnding, encode_string};

/// 2026-01-02T03:04:05Z
const NOW: u64 = 1_767_323_045;
/// 2026-01-07T00:00:00Z, the end of the certificates of tests.
const END: u64 = 1_767_744_000;
const DAY: u64 = 24 * 60 * 60;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn error(material: &CertificateMaterial) -> String {
    SigningIdentity::parse(material).unwrap_err().to_string()
}

/// A certificate with some of its bytes replaced.
fn patched(pem: &str, from: &[u8], to: &[u8]) -> String {
    let (label, mut der) = x509_cert::der::pem::decode_vec(pem.as_bytes()).unwrap();
    let places: Vec<usize> = (0..der.len() - from.len()).filter(|at| der[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for place in places {
        der.splice(place..place + from.len(), to.iter().copied());
    }
    encode_string(label, LineEnding::LF, &der).unwrap()
}

#[test]
fn reads_identities_of_both_curves() {
    let authority = Authority::new();
    for leaf in [authority.p256(), authority.p384()] {
        let identity = SigningIdentity::parse(&authority.material(&leaf)).unwrap();
        let valid = identity.valid_at(at(NOW)).unwrap();
        assert_eq!(valid.chain().collect::<Vec<_>>(), [authority.intermediate.der().as_ref()]);
        assert_eq!(valid.validity().left(at(NOW)), Duration::from_secs(END - NOW));
    }
}

#[test]
fn serial_numbers_are_the_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host-tests/vectors/rolesanywhere.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for vector in file["vectors"].as_array().unwrap() {
        let parsed = certificate::parse_all(vector["certificate_pem"].as_str().unwrap(), Part::Certificate).unwrap();
        parsed[0].check_leaf().unwrap();
        assert_eq!(parsed[0].serial, vector["serial_decimal"].as_str().unwrap());
    }
}

#[test]
fn a_key_may_be_sec1() {
    use p256::pkcs8::DecodePrivateKey;
    let authority = Authority::new();
    let leaf = authority.p256();
    let (_, der) = x509_cert::der::pem::decode_vec(leaf.key.as_bytes()).unwrap();
    let scalar = p256::SecretKey::from_pkcs8_der(&der).unwrap().to_bytes();
    // Version 1, the key, and P-256 by its object identifier (RFC 5915).
    let curve = b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let sec1 = [b"\x30\x31\x02\x01\x01\x04\x20", scalar.as_slice(), curve].concat();
    let block = encode_string("EC PRIVATE KEY", LineEnding::LF, &sec1).unwrap();
    // As `openssl ecparam -genkey` writes it.
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    for key in [block.clone(), format!("{parameters}{block}"), block.replace('\n', "\r\n")] {
        let material = CertificateMaterial { key: Secret::new(key), ..authority.material(&leaf) };
        SigningIdentity::parse(&material).unwrap();
    }
}

#[test]
fn intermediates_may_follow_the_leaf() {
    let authority = Authority::new();
    let leaf = authority.p256();
    let (issuing, root) = (authority.intermediate.pem(), authority.root.pem());
    for (certificate, chain) in [
        (format!("{}{issuing}", leaf.certificate), None),
        (format!("{}\n{issuing}{root}", leaf.certificate), None),
        (leaf.certificate.clone(), Some(format!("{issuing}{root}"))),
        (format!("{}{issuing}", leaf.certificate), Some(root.clone())),
    ] {
        let material = CertificateMaterial { certificate, chain, key: Secret::new(leaf.key.as_str()) };
        let identity = SigningIdentity::parse(&material).unwrap();
        // Without the root.
        assert_eq!(identity.valid_at(at(NOW)).unwrap().chain().count(), 1);
    }
    let alone = CertificateMaterial { chain: None, ..authority.material(&leaf) };
    assert_eq!(SigningIdentity::parse(&alone).unwrap().valid_at(at(NOW)).unwrap().chain().count(), 0);
}

#[test]
fn refuses_texts_that_are_not_pem() {
    let authority = Authority::new();
    let Leaf { certificate, key } = authority.p256();
    let good = authority.material(&Leaf { certificate: certificate.clone(), key: key.clone() });
    let issuing = authority.intermediate.pem();
    let block = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
    let with = |certificate: &str| CertificateMaterial { certificate: certificate.to_owned(), ..good.clone() };
    let chained = |chain: &str| CertificateMaterial { chain: Some(chain.to_owned()), ..good.clone() };
    let keyed = |key: &str| CertificateMaterial { key: Secret::new(key), ..good.clone() };
    for (material, wanted) in [
        (with(""), "the certificate is empty"),
        (with(" \n"), "the certificate is empty"),
        (with("MIIBqTCC"), "the certificate is not PEM, or has text outside"),
        (with(&format!("Bag Attributes\n{certificate}")), "the certificate is not PEM, or has text outside"),
        (with(&format!("{certificate}trailing")), "the certificate is not PEM, or has text outside"),
        (with(&certificate.replace("-----END", "----END")), "the certificate has a PEM block without the END line"),
        (with(&certificate.replace("END CERT", "END X CERT")), "the certificate has a PEM block without the END line"),
        (with(&block("CERTIFICATE", "!!!!")), "the certificate has a PEM block that is not Base64"),
        (with(&block("CERTIFICATE", "AAAA")), "the certificate is not an X.509 certificate"),
        (with(&block("CERTIFICATE", "a: b\n\nAAAA")), "the certificate has a PEM block with headers"),
        (with(&key), "the certificate has a PEM block with another label than CERTIFICATE"),
        (with(&"x".repeat(70_000)), "the certificate is longer than 64 KiB"),
        (chained(""), "the certificate chain is empty"),
        (chained("x"), "the certificate chain is not PEM"),
        (chained(&block("CERTIFICATE", "AAAA")), "the certificate chain is not an X.509 certificate"),
        (chained(&format!("{issuing}{key}")), "the certificate chain has a PEM block with another label"),
        (keyed(""), "the private key is empty"),
        (keyed("hush"), "the private key is not PEM"),
        (keyed(&format!("{key}{key}")), "the private key has more than one PEM block"),
        (keyed(&format!("{key}hush")), "the private key is not PEM, or has text outside"),
        (keyed(&certificate), "the private key has a PEM block with another label than PRIVATE KEY"),
        (keyed(&block("PRIVATE KEY", "aHVzaA==")), "the private key is neither PKCS#8 nor SEC1"),
        (keyed(&block("EC PRIVATE KEY", "aHVzaA==")), "the private key is neither PKCS#8 nor SEC1"),
        (keyed(&block("PRIVATE KEY", "hush hush")), "the private key has a PEM block that is not Base64"),
    ] {
        let error = error(&material);
        assert!(error.starts_with(wanted), "{error}\n{wanted}");
        assert!(!error.contains("hush") && !error.contains("aHVz"), "{error}");
    }
}

#[test]
fn refuses_keys_of_other_kinds() {
    let authority = Authority::new();
    let good = authority.material(&authority.p256());
    let keyed = |key: &str| error(&CertificateMaterial { key: Secret::new(key), ..good.clone() });
    let block = |label: &str, der: &[u8]| encode_string(label, LineEnding::LF, der).unwrap();
    // PrivateKeyInfo with rsaEncryption and an empty key.
    let rsa = b"\x30\x14\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04\x00";
    for key in [block("PRIVATE KEY", rsa), block("RSA PRIVATE KEY", b"any")] {
        let error = keyed(&key);
        assert!(error.starts_with("the private key is RSA's"), "{error}");
        assert!(error.contains("aws_signing_helper") && error.contains("`imds`"), "{error}");
    }
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    for key in [block("ENCRYPTED PRIVATE KEY", b"any"), old.to_owned()] {
        assert_eq!(keyed(&key), "the private key is encrypted; decrypt it with `openssl pkey`");
    }
    let ed25519 = rcgen::KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
    let error = keyed(&ed25519);
    // rcgen writes PKCS#8 version 2.
    assert!(error.starts_with("the private key is of another algorithm"), "{error}");
    let other = [authority.p256().key, authority.p384().key];
    for key in other {
        assert_eq!(keyed(&key), "the private key does not belong to the certificate");
    }
}

#[test]
fn refuses_certificates_that_aws_refuses() {
    let authority = Authority::new();
    let issued = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = params("gateway");
        change(&mut params);
        authority.material(&authority.issue(&params, &PKCS_ECDSA_P256_SHA256))
    };
    let bytes = |from: &[u8], to: &[u8]| {
        let good = issued(&|_| {});
        CertificateMaterial { certificate: patched(&good.certificate, from, to), ..good }
    };
    for (material, wanted) in [
        (issued(&|params| params.is_ca = IsCa::NoCa), "the certificate has no basic constraints"),
        (issued(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "the certificate is a CA's"),
        (issued(&|params| params.key_usages.clear()), "the certificate's key usage lacks digitalSignature"),
        (
            issued(&|params| params.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement]),
            "the certificate's key usage lacks digitalSignature",
        ),
        (
            issued(&|params| params.serial_number = Some(0_u64.into())),
            "the certificate's serial number is not positive",
        ),
        // Version 2, and ecdsa-with-SHA224.
        (bytes(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"), "the certificate is not X.509 version 3"),
        (
            bytes(b"\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\x2a\x86\x48\xce\x3d\x04\x03\x01"),
            "the certificate is signed with 1.2.840.10045.4.3.1; AWS requires",
        ),
    ] {
        let error = error(&material);
        assert!(error.starts_with(wanted), "{error}\n{wanted}");
    }
}

#[test]
fn refuses_a_chain_in_another_order() {
    let authority = Authority::new();
    let leaf = authority.p256();
    let (issuing, root) = (authority.intermediate.pem(), authority.root.pem());
    for (chain, position) in [
        (format!("{root}{issuing}"), 1),
        (root.clone(), 1),
        (format!("{issuing}{issuing}"), 2),
        (format!("{}{issuing}", leaf.certificate), 1),
    ] {
        let material = CertificateMaterial { chain: Some(chain), ..authority.material(&leaf) };
        assert_eq!(SigningIdentity::parse(&material).unwrap_err(), IdentityError::ChainOrder { position });
    }
}

#[test]
fn refuses_certificates_outside_their_time() {
    let authority = Authority::new();
    let identity = SigningIdentity::parse(&authority.material(&authority.p256())).unwrap();
    let error = |seconds| identity.valid_at(at(seconds)).map(|_| ()).unwrap_err().to_string();
    assert!(identity.valid_at(at(END)).is_ok(), "notAfter is inclusive");
    assert_eq!(error(END + 1), "the certificate expired at 2026-01-07T00:00:00Z; replace it");
    assert_eq!(error(END - 6 * DAY - 1), "the certificate is not valid before 2026-01-01T00:00:00Z");
}

#[test]
fn an_intermediate_may_end_first() {
    let authority = Authority::new();
    let mut long = params("gateway");
    long.not_after = rcgen::date_time_ymd(2026, 3, 1);
    let leaf = authority.issue(&long, &PKCS_ECDSA_P256_SHA256);
    let identity = SigningIdentity::parse(&authority.material(&leaf)).unwrap();
    assert_eq!(identity.valid_at(at(NOW)).unwrap().validity().not_after, at(END));
    let error = identity.valid_at(at(END + 1)).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "the certificate chain expired at 2026-01-07T00:00:00Z; replace it");
}

#[test]
fn a_certificate_ends_soon_by_its_life() {
    for (days, left, soon) in [
        (365, 4 * DAY, false),
        (365, 3 * DAY, false),
        (365, 3 * DAY - 1, true),
        // A third of six days.
        (6, 2 * DAY, false),
        (6, 2 * DAY - 1, true),
        (6, 0, true),
    ] {
        let validity = Validity { not_before: at(END - days * DAY), not_after: at(END) };
        assert_eq!(validity.ends_soon(at(END - left)), soon, "{days} {left}");
    }
}

#[test]
fn debug_prints_no_key() {
    let authority = Authority::new();
    let leaf = authority.p256();
    let material = authority.material(&leaf);
    let printed = format!("{material:?} {:?}", SigningIdentity::parse(&material).unwrap());
    let secret = leaf.key.lines().nth(1).unwrap();
    assert!(printed.contains("P-256 ***") && !printed.contains(secret), "{printed}");
}
