//! The signer against botocore itself, on generated requests: 20,000, or 1,000,000 as `cargo xtask soak signer`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use filter_core::credentials::{Keys, Secret};
use filter_core::sigv4::{BEDROCK, Scope, Unsigned, sign};
use serde::Deserialize;
use time::PrimitiveDateTime;
use time::macros::format_description;

/// What `signatures.py` prints of a request.
#[derive(Deserialize)]
struct Signed {
    method: String,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
    body_sha256: String,
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    region: String,
    amz_date: String,
    signature: String,
}

#[test]
fn signs_generated_requests_as_botocore_does() {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let count = if std::env::var_os("SOAK").is_some() { 1_000_000 } else { 20_000 };
    let python = std::env::var_os("GATEWAY_PYTHON").expect("GATEWAY_PYTHON: run `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/signatures.py");
    let mut botocore =
        Command::new(python).arg(script).args([&count.to_string(), "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(botocore.stdout.take().unwrap()).lines();
    // Kept for all requests, as the gateway keeps them.
    let mut all: BTreeMap<String, Keys> = BTreeMap::new();
    let mut compared = 0;
    for line in lines {
        let line = line.unwrap();
        let signed: Signed = serde_json::from_str(&line).unwrap();
        let keys = all.entry(signed.access_key.clone()).or_insert_with(|| {
            Keys::new(
                &signed.access_key,
                Secret::new(&signed.secret_key),
                signed.session_token.as_ref().map(Secret::new),
            )
        });
        let headers: Vec<_> = signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let Signed { method, host, path, body_sha256, region, .. } = &signed;
        let request = Unsigned { method, host, path, headers: &headers, body_sha256 };
        let now = PrimitiveDateTime::parse(&signed.amz_date, format).unwrap().assume_utc().into();
        let made = sign(request, keys, Scope { service: BEDROCK, region }, now).unwrap();
        let (_, authorization) = made.iter().find(|(name, _)| *name == "authorization").unwrap();
        assert!(authorization.ends_with(&format!("Signature={}", signed.signature)), "{line}");
        compared += 1;
    }
    assert!(botocore.wait().unwrap().success());
    assert_eq!(compared, count);
    println!("{compared} requests have botocore's signature");
}
