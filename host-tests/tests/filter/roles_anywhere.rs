//! A session of IAM Roles Anywhere, which the module asks for with a certificate of its environment.

use crate::common::{configuration, filter, only, plugin};
use proxy_wasm_vm::{Plugin, Vm, headers};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};
use serde_json::json;

/// A gateway whose certificate is valid from the 20th of August 2015 to a day of September. The VM's time is
/// 2015-08-30T12:36:00Z.
fn gateway(last_day: u8) -> (Vm, Plugin, String) {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "example CA");
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "gateway");
    (params.not_before, params.not_after) = (date_time_ymd(2015, 8, 20), date_time_ymd(2015, 9, last_day));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap().pem();
    let vm = filter()
        .cluster("rolesanywhere")
        .env("BEDROCK_GATEWAY_CERTIFICATE", &certificate)
        .env("BEDROCK_GATEWAY_PRIVATE_KEY", &key.serialize_pem())
        .start()
        .unwrap();
    let mut document = configuration("gateway");
    document["credentials"] = json!({
        "source": "roles_anywhere",
        "cluster": "rolesanywhere",
        "region": "us-east-1",
        "trust_anchor_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002",
        "profile_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001",
        "role_arn": "arn:aws:iam::111122223333:role/bedrock-gateway",
        "certificate": {"source": "environment"}
    });
    let gateway = plugin(&vm, &document);
    (vm, gateway, key.serialize_pem())
}

fn fetch(vm: &Vm, gateway: &Plugin) {
    gateway.tick().unwrap();
    let open = vm.out_calls();
    assert_eq!(open.len(), 1, "{:?}", vm.logs());
    assert_eq!(only(&open[0].headers, ":path"), "/sessions");
    let authorization = only(&open[0].headers, "authorization");
    assert!(authorization.starts_with("AWS4-X509-ECDSA-SHA256 Credential="), "{authorization}");
    let session = json!({"credentialSet": [{"credentials": {
        "accessKeyId": "ASIAEXAMPLE", "secretAccessKey": "hush", "sessionToken": "hush", "expiration": "2015-08-30T13:36:00Z"
    }}]});
    vm.answer(open[0].token, headers([(":status", "201")]), session.to_string().as_bytes()).unwrap();
    gateway.tick().unwrap();
}

#[test]
fn a_certificate_gives_credentials() {
    let (vm, gateway, key) = gateway(28);
    fetch(&vm, &gateway);
    assert_eq!(vm.metric("bedrock_credentials_refreshes;source=default"), Some(1));
    let left = vm.metric("bedrock_certificate_seconds_left;source=default").unwrap();
    // 28 days, 11 hours and 24 minutes.
    assert_eq!(left, 28 * 86_400 + 41_040);
    let secret = key.lines().nth(1).unwrap();
    for line in vm.logs() {
        assert!(!line.text.contains("expires in") && !line.text.contains("hush"), "{}", line.text);
        assert!(!line.text.contains(secret), "{}", line.text);
    }
    let shared = vm.shared_data("credentials/default").unwrap();
    assert!(!String::from_utf8_lossy(&shared).contains(secret));
}

#[test]
fn warns_of_a_certificate_that_ends_soon() {
    let (vm, gateway, _) = gateway(1);
    fetch(&vm, &gateway);
    let warning = "the certificate of credentials `default` expires in 35 hours; replace it";
    let logs: Vec<String> = vm.logs().into_iter().map(|line| line.text).collect();
    assert!(logs.iter().any(|line| line == warning), "{logs:?}");
}
