//! The judge of signatures against requests that botocore 1.44.5 signed, and against what is wrong with them by one part.

use serde_json::Value;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use super::sigv4::*;

/// One request of `vectors/sigv4.json`, ready to be changed.
#[derive(Clone)]
struct Case {
    stages: Value,
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body_sha256: String,
    key: AccessKey,
    region: String,
    service: String,
    now: OffsetDateTime,
}

impl Case {
    fn request(&self) -> WireRequest<'_> {
        WireRequest {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            body_sha256: &self.body_sha256,
        }
    }

    fn verify(&self) -> Result<(), Refusal> {
        let expected = Expected { region: &self.region, service: &self.service, now: self.now };
        verify(&self.request(), &self.key, &expected)
    }

    fn stage(&self, name: &str) -> &str {
        self.stages[name].as_str().unwrap()
    }

    fn header(&mut self, name: &str) -> &mut Vec<u8> {
        self.headers.iter_mut().find(|(sent, _)| sent == name).map(|(_, value)| value).unwrap()
    }

    /// Changes the text of one header.
    fn edit(&mut self, name: &str, change: impl Fn(&str) -> String) {
        let value = self.header(name);
        *value = change(std::str::from_utf8(value).unwrap()).into_bytes();
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(format!("{}/../vectors/sigv4.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let all: Vec<Value> = serde_json::from_slice(&text).unwrap();
    assert_eq!(all.len(), 20);
    all.into_iter().map(case).collect()
}

fn case(stages: Value) -> Case {
    let text = |name: &str| stages[name].as_str().unwrap_or_default().to_owned();
    let mut headers = vec![("host".to_owned(), text("host").into_bytes())];
    for header in stages["headers_sent"].as_array().unwrap() {
        let name = header[0].as_str().unwrap().to_ascii_lowercase();
        if name != "host" {
            headers.push((name, header[1].as_str().unwrap().as_bytes().to_vec()));
        }
    }
    let at = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    Case {
        method: text("method"),
        path: text("wire_path"),
        query: text("wire_query"),
        headers,
        body_sha256: text("body_sha256"),
        key: AccessKey {
            id: text("access_key"),
            secret: text("secret_key"),
            session_token: stages["session_token"].as_str().map(str::to_owned),
        },
        region: text("region"),
        service: text("signing_name"),
        now: PrimitiveDateTime::parse(&text("amz_date"), at).unwrap().assume_utc(),
        stages,
    }
}

#[test]
fn every_stage_is_botocores() {
    for case in cases() {
        let name = case.stage("name");
        let canonical = canonical_request(&case.request(), case.stage("signed_headers"));
        assert_eq!(canonical_path(&case.path), case.stage("canonical_uri"), "{name}");
        assert_eq!(canonical_query(&case.query), case.stage("canonical_query"), "{name}");
        assert_eq!(String::from_utf8_lossy(&canonical), case.stage("canonical_request"), "{name}");
        let authorization = Authorization::parse(case.stage("authorization")).unwrap();
        let to_sign = string_to_sign(case.stage("amz_date"), &authorization.scope(), &canonical);
        assert_eq!(to_sign, case.stage("string_to_sign"), "{name}");
        let key = signing_key(&case.key.secret, authorization.date, &case.region, &case.service);
        assert_eq!(hex::encode(key), case.stage("signing_key_hex"), "{name}");
        assert_eq!(signature(&key, &to_sign), case.stage("signature"), "{name}");
        assert_eq!(case.verify(), Ok(()), "{name}");
    }
}

/// The name of a change, and the change; `false` if it does not apply to this request.
type Mutation = (&'static str, fn(&mut Case) -> bool);

fn changed(change: impl FnOnce()) -> bool {
    change();
    true
}

const MUTATIONS: &[Mutation] = &[
    ("method", |c| changed(|| c.method = "PUT".into())),
    ("path, one more segment", |c| changed(|| c.path.push_str("/x"))),
    ("path, last letter", |c| c.path.pop().map(|_| c.path.push('Z')).is_some()),
    ("path, decoded once", |c| {
        let decoded = c.path.replace("%3A", ":");
        let differs = decoded != c.path;
        c.path = decoded;
        differs
    }),
    ("path, lower-case hex", |c| {
        let lower = c.path.replace("%3A", "%3a");
        let differs = lower != c.path;
        c.path = lower;
        differs
    }),
    ("query, one more", |c| changed(|| c.query = format!("{}&z=1", c.query))),
    ("query, gone", |c| !std::mem::take(&mut c.query).is_empty()),
    ("body", |c| changed(|| c.body_sha256 = hex::encode(Sha256::digest("another body")))),
    ("host", |c| changed(|| c.edit("host", |host| format!("x{host}")))),
    ("host, with a port", |c| changed(|| c.edit("host", |host| format!("{host}:443")))),
    ("host, twice", |c| changed(|| c.headers.push(c.headers[0].clone()))),
    ("date, a second later", |c| changed(|| c.edit("x-amz-date", |date| date.replace("05Z", "06Z")))),
    ("date, another day", |c| changed(|| c.edit("x-amz-date", |date| date.replace("20260102", "20260103")))),
    ("date, another form", |c| changed(|| c.edit("x-amz-date", |_| "2026-01-02T03:04:05Z".into()))),
    ("date, gone", |c| changed(|| c.headers.retain(|(name, _)| name != "x-amz-date"))),
    ("date, twice", |c| {
        changed(|| {
            let date = c.header("x-amz-date").clone();
            c.headers.push(("x-amz-date".into(), date));
        })
    }),
    ("clock, 5 min 1 s later", |c| changed(|| c.now += SKEW + Duration::SECOND)),
    ("clock, 5 min 1 s earlier", |c| changed(|| c.now -= SKEW + Duration::SECOND)),
    ("secret key", |c| changed(|| c.key.secret.push('x'))),
    ("access key", |c| changed(|| c.key.id.push('x'))),
    ("region served", |c| changed(|| c.region = "eu-west-1".into())),
    ("service served", |c| changed(|| c.service = "s3".into())),
    ("token, other", |c| {
        c.key.session_token.is_some() && changed(|| c.edit("x-amz-security-token", |token| format!("{token}x")))
    }),
    ("token, gone", |c| {
        let all = c.headers.len();
        c.headers.retain(|(name, _)| name != "x-amz-security-token");
        c.headers.len() < all
    }),
    ("token, none needed", |c| c.key.session_token.take().is_some()),
    ("token, needed", |c| c.key.session_token.is_none() && changed(|| c.key.session_token = Some("t".into()))),
    ("content type", |c| {
        let has = c.headers.iter().any(|(name, _)| name == "content-type");
        has && changed(|| c.edit("content-type", |of| format!("{of}; x")))
    }),
    ("x-amz header that is not signed", |c| changed(|| c.headers.push(("x-amz-user-agent".into(), b"x".to_vec())))),
    ("content type that is not signed", |c| {
        let has = c.headers.iter().any(|(name, _)| name == "content-type");
        !has && changed(|| c.headers.push(("content-type".into(), b"application/json".to_vec())))
    }),
    ("wrong content hash", |c| changed(|| c.headers.push(("x-amz-content-sha256".into(), b"0".to_vec())))),
    ("authorization, gone", |c| changed(|| c.headers.retain(|(name, _)| name != "authorization"))),
    ("authorization, twice", |c| {
        changed(|| {
            let value = c.header("authorization").clone();
            c.headers.push(("authorization".into(), value));
        })
    }),
    ("authorization, algorithm", |c| {
        changed(|| c.edit("authorization", |a| a.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")))
    }),
    ("authorization, scope date", |c| changed(|| c.edit("authorization", |a| a.replace("/20260102/", "/20260101/")))),
    ("authorization, scope region", |c| {
        let region = format!("/{}/", c.region);
        changed(|| c.edit("authorization", |a| a.replace(&region, "/eu-west-1/")))
    }),
    ("authorization, scope service", |c| {
        let service = format!("/{}/aws4_request", c.service);
        changed(|| c.edit("authorization", |a| a.replace(&service, "/s3/aws4_request")))
    }),
    ("authorization, terminator", |c| {
        changed(|| c.edit("authorization", |a| a.replace("aws4_request", "aws5_request")))
    }),
    ("authorization, no credential", |c| changed(|| c.edit("authorization", |a| a.replace("Credential=", "Cred=")))),
    ("authorization, no signature", |c| {
        changed(|| c.edit("authorization", |a| a.split(", Signature").next().unwrap().into()))
    }),
    ("authorization, an extra part", |c| changed(|| c.edit("authorization", |a| format!("{a}, Extra=1")))),
    ("authorization, a repeated part", |c| changed(|| c.edit("authorization", |a| format!("{a}, Signature=00")))),
    ("authorization, host not signed", |c| changed(|| c.edit("authorization", |a| a.replace("host;", "")))),
    ("authorization, date not signed", |c| changed(|| c.edit("authorization", |a| a.replace(";x-amz-date", "")))),
    ("authorization, out of order", |c| {
        changed(|| c.edit("authorization", |a| a.replace("host;x-amz-date", "x-amz-date;host")))
    }),
    ("authorization, upper case", |c| changed(|| c.edit("authorization", |a| a.replace("host;", "Host;")))),
    ("authorization, a header not sent", |c| {
        changed(|| c.edit("authorization", |a| a.replace(", Signature", ";zzz, Signature")))
    }),
    ("signature, one digit", |c| {
        changed(|| {
            let value = c.header("authorization");
            let last = value.last_mut().unwrap();
            *last = if *last == b'0' { b'1' } else { b'0' };
        })
    }),
    ("signature, cut short", |c| {
        changed(|| {
            c.header("authorization").pop();
        })
    }),
    ("signature, half of it", |c| {
        changed(|| {
            let value = c.header("authorization");
            let half = value.len() - 32;
            value.truncate(half);
        })
    }),
    ("signature, empty", |c| {
        let signature = c.stage("signature").to_owned();
        changed(|| c.edit("authorization", |a| a.replace(&signature, "")))
    }),
    ("signature, upper case", |c| {
        let signature = c.stage("signature").to_owned();
        changed(|| c.edit("authorization", |a| a.replace(&signature, &signature.to_uppercase())))
    }),
];

#[test]
fn refuses_every_single_mutation() {
    let mut refused = 0;
    for (what, mutate) in MUTATIONS {
        let mut applied = 0;
        for case in cases() {
            let mut mutant = case.clone();
            if mutate(&mut mutant) {
                applied += 1;
                assert!(mutant.verify().is_err(), "{what}: {}", case.stage("name"));
            }
        }
        assert!(applied > 0, "{what} applied to no request");
        refused += applied;
    }
    assert!(refused > 700, "{refused} mutants");
}

#[test]
fn refuses_any_changed_byte_of_signed_headers() {
    for case in cases() {
        for name in case.stage("signed_headers").split(';') {
            let length = case.clone().header(name).len();
            for at in 0..length {
                let mut mutant = case.clone();
                mutant.header(name)[at] ^= 1;
                assert!(mutant.verify().is_err(), "{name}, byte {at}: {}", case.stage("name"));
            }
        }
    }
}

#[test]
fn names_the_error_as_aws_does() {
    let good = || cases().remove(0);
    let verdict = |mutate: fn(&mut Case)| {
        let mut case = good();
        mutate(&mut case);
        case.verify().unwrap_err()
    };
    let mismatch = verdict(|c| c.path.push('x'));
    assert_eq!(mismatch.error_type(), "InvalidSignatureException");
    assert!(
        mismatch.to_string().contains("The Canonical String for this request should have been\n'POST\n/model/"),
        "{mismatch}"
    );
    for (refusal, error_type, text) in [
        (
            verdict(|c| c.key.id.push('x')),
            "UnrecognizedClientException",
            "security token included in the request is invalid",
        ),
        (verdict(|c| c.headers.clear()), "MissingAuthenticationTokenException", "Missing Authentication Token"),
        (
            verdict(|c| c.now += Duration::minutes(6)),
            "InvalidSignatureException",
            "Signature expired: 20260102T030405Z",
        ),
        (verdict(|c| c.now -= Duration::minutes(6)), "InvalidSignatureException", "Signature not yet current"),
        (verdict(|c| c.region = "us-west-2".into()), "InvalidSignatureException", "valid region: 'us-west-2'"),
    ] {
        assert_eq!(refusal.error_type(), error_type);
        assert!(refusal.to_string().contains(text), "{refusal}");
    }
}

#[test]
fn paths_and_queries_are_made_canonical() {
    for (wire, canonical) in [
        ("/", "/"),
        ("", "/"),
        ("/a//b/./c/../d", "/a/b/d"),
        ("/a/", "/a/"),
        ("/a/..", "/"),
        ("/../a", "/a"),
        ("/m:0", "/m%3A0"),
        ("/m%3A0", "/m%253A0"),
        ("/a b~-_.", "/a%20b~-_."),
    ] {
        assert_eq!(canonical_path(wire), canonical, "{wire}");
    }
    for (wire, canonical) in [
        ("", ""),
        ("b=2&a=1", "a=1&b=2"),
        ("a", "a="),
        ("a=2&a=1", "a=1&a=2"),
        ("a=%2f", "a=%2F"),
        ("a=b:c", "a=b%3Ac"),
        ("a=b=c", "a=b%3Dc"),
    ] {
        assert_eq!(canonical_query(wire), canonical, "{wire}");
    }
}

#[test]
fn spaces_in_header_values_collapse() {
    let mut case = cases().into_iter().find(|case| case.stage("name") == "converse").unwrap();
    case.edit("content-type", |value| format!("  {value} "));
    assert_eq!(case.verify(), Ok(()));
}

#[test]
fn debug_says_no_secret() {
    let key = AccessKey { id: "AKIDEXAMPLE".into(), secret: "s3cr3t".into(), session_token: Some("t0ken".into()) };
    let shown = format!("{key:?}");
    assert!(shown.contains("AKIDEXAMPLE") && !shown.contains("s3cr3t") && !shown.contains("t0ken"));
}
