//! CreateSession: requests of AWS's own client are accepted, and refused with one thing changed.

use std::time::Duration;

use bedrock_double::Keyring;
use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{
    Account, CERTIFICATE_ROLE_ARN, COMMERCIAL_ROLE_ARN, PROFILE_ARN, Profile, TRUST_ANCHOR_ARN, TrustAnchor,
    certificate_trust,
};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use super::certificates::{Certificate, Made};
use super::{Post, Reply};

/// Signed by the PyPI package `iam_rolesanywhere_session` 3.0.0, as the file says.
const VECTORS: &str = include_str!("../../../../vectors/rolesanywhere.json");
const SIGNED_AT: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

fn vectors() -> (String, Vec<Value>) {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    (file["root_ca_pem"].as_str().unwrap().to_owned(), file["vectors"].as_array().unwrap().clone())
}

fn request(vector: &Value) -> Post {
    let text = |name: &str| vector[name].as_str().unwrap().to_owned();
    let headers = vector["headers"].as_object().unwrap().iter();
    let headers = headers
        .filter(|(name, _)| *name != "host")
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
    let headers = headers.chain([("authorization".to_owned(), text("authorization"))]).collect();
    Post { host: text("host"), path: text("path"), headers, body: text("body") }
}

fn set(post: &mut Post, name: &str, change: impl FnOnce(&str) -> String) {
    let (_, value) = post.headers.iter_mut().find(|(known, _)| known == name).unwrap();
    *value = change(value);
}

/// Sources with the accounts that the vectors were made for, at the time when they were signed.
fn sources_of_vectors() -> (Sources, Keyring) {
    let bedrock = Keyring::default();
    let sources = Sources::start(Duration::from_secs(43_200), &bedrock, false).unwrap();
    sources.set_sessions_per_second(1000.0);
    let (ca_pem, _) = vectors();
    sources.set_clock(Some(SIGNED_AT));
    sources.change(|account| account_of_vectors(account, &ca_pem));
    (sources, bedrock)
}

fn account_of_vectors(account: &mut Account, ca_pem: &str) {
    let everywhere = |arn: &str| ["us-east-1", "us-west-2"].map(|region| arn.replace("us-east-1", region));
    let commercial = &mut account.commercial;
    commercial.trust_anchors =
        everywhere(TRUST_ANCHOR_ARN).map(|arn| TrustAnchor { arn, enabled: true, ca_pem: ca_pem.to_owned() }).into();
    let profile = |arn| Profile {
        arn,
        enabled: true,
        role_arns: vec![COMMERCIAL_ROLE_ARN.to_owned()],
        duration_seconds: 43_200,
        accept_role_session_name: true,
    };
    commercial.profiles = everywhere(PROFILE_ARN).map(profile).into();
    commercial.roles[0].trust = certificate_trust(&TRUST_ANCHOR_ARN.replace("us-east-1", "*"), "gateway.example.gov");
    commercial.roles[0].max_session = Duration::from_secs(43_200);
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str, message: &str) {
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(reply.status, status, "{}", reply.body);
    assert!(
        reply.head.contains(&format!("x-amzn-errortype: {}\r\n", code.to_lowercase())),
        "{}\n{}",
        reply.head,
        reply.body
    );
    assert!(body["message"].as_str().unwrap().contains(message), "{body} does not say {message}");
    assert!(reply.head.contains("x-amzn-requestid: "), "{}", reply.head);
}

#[test]
fn requests_of_awss_client_are_accepted() {
    let (sources, bedrock) = sources_of_vectors();
    let (_, vectors) = vectors();
    assert_eq!(vectors.len(), 4);
    for (nth, vector) in (1..).zip(&vectors) {
        let reply = request(vector).send(sources.addr());
        assert_eq!(reply.status, 201, "{}: {}", vector["name"], reply.body);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        let set = &body["credentialSet"][0];
        let issued = bedrock.find(set["credentials"]["accessKeyId"].as_str().unwrap()).unwrap();
        assert_eq!(set["credentials"]["secretAccessKey"], issued.key.secret);
        assert_eq!(set["credentials"]["sessionToken"], issued.key.session_token.unwrap());
        let asked: Value = serde_json::from_str(vector["body"].as_str().unwrap()).unwrap();
        assert_eq!((issued.expires - SIGNED_AT).whole_seconds(), asked["durationSeconds"].as_i64().unwrap());
        assert_eq!(
            (&set["roleArn"], &set["sourceIdentity"]),
            (&json!(COMMERCIAL_ROLE_ARN), &json!("gateway.example.gov"))
        );
        let session = asked["roleSessionName"].as_str().map_or("", |name| name);
        assert!(
            set["assumedRoleUser"]["arn"].as_str().unwrap().contains(&format!("bedrock-gateway/{session}")),
            "{set}"
        );
        assert!(body["subjectArn"].as_str().unwrap().contains(":subject/"), "{body}");
        assert_eq!(bedrock.count(), nth);
    }
    assert_eq!(sources.complaints(), Vec::<String>::new());
}

#[test]
fn changed_requests_are_refused() {
    let (sources, bedrock) = sources_of_vectors();
    let (_, vectors) = vectors();
    let other = |vector: &Value, header: &str| {
        let others = vectors.iter().filter(|other| other["name"] != vector["name"]);
        others.filter_map(|other| other["headers"][header].as_str()).next().unwrap().to_owned()
    };
    let mut refused = 0;
    for vector in &vectors {
        let region = vector["region"].as_str().unwrap();
        let mut cases: Vec<(&str, Post, &str, &str)> = Vec::new();
        let mut case = |name, code, message, change: &dyn Fn(&mut Post)| {
            let mut post = request(vector);
            change(&mut post);
            cases.push((name, post, code, message));
        };
        let denied = "AccessDeniedException";
        case("time", denied, "Invalid signature", &|post| {
            set(post, "x-amz-date", |date| date.replace("T120000", "T120001"));
        });
        case("day", "InvalidSignatureException", "Date in Credential scope", &|post| {
            set(post, "x-amz-date", |date| date.replace("20261125", "20261126"));
        });
        case("host", denied, "Invalid signature", &|post| post.host = format!("rolesanywhere.{region}.api.aws"));
        case("region", "InvalidSignatureException", "valid region", &|post| {
            post.host = "rolesanywhere.eu-west-1.amazonaws.com".into();
        });
        case("body", denied, "Invalid signature", &|post| {
            post.body = post.body.replace("111122223333", "111122223334");
        });
        case("query", denied, "Invalid signature", &|post| post.path = "/sessions?roleArn=x".into());
        case("certificate", denied, "Invalid signature", &|post| {
            set(post, "x-amz-x509", |_| other(vector, "x-amz-x509"));
        });
        case("no DER", denied, "Untrusted certificate. Insufficient certificate", &|post| {
            set(post, "x-amz-x509", |text| text[..100].into());
        });
        case("serial", denied, "Invalid signature", &|post| {
            set(post, "authorization", |text| text.replace("Credential=", "Credential=1"));
        });
        case("signature", denied, "Invalid signature", &|post| {
            set(post, "authorization", |text| {
                let last = if text.ends_with('0') { "1" } else { "0" };
                format!("{}{last}", &text[..text.len() - 1])
            });
        });
        case("upper case", denied, "Invalid signature", &|post| {
            set(post, "authorization", |text| {
                let (head, signature) = text.split_once("Signature=").unwrap();
                format!("{head}Signature={}", signature.to_uppercase())
            });
        });
        case("algorithm", denied, "Invalid signature", &|post| {
            set(post, "authorization", |text| {
                if text.contains("-RSA-") { text.replace("-RSA-", "-ECDSA-") } else { text.replace("-ECDSA-", "-RSA-") }
            });
        });
        case("SHA-384", "IncompleteSignatureException", "Unsupported AWS 'algorithm'", &|post| {
            set(post, "authorization", |text| text.replace("-SHA256 ", "-SHA384 "));
        });
        case("service", "InvalidSignatureException", "correct service", &|post| {
            set(post, "authorization", |text| text.replace("/rolesanywhere/", "/sts/"));
        });
        case("unsigned", "InvalidSignatureException", "'x-amz-x509' must be a 'SignedHeader'", &|post| {
            set(post, "authorization", |text| text.replace(";x-amz-x509-chain", "").replace(";x-amz-x509", ""));
        });
        case("no authorization", "MissingAuthenticationTokenException", "Missing Authentication Token", &|post| {
            post.headers.retain(|(name, _)| name != "authorization");
        });
        if vector["headers"].get("x-amz-x509-chain").is_some() {
            case("chain", denied, "Invalid signature", &|post| {
                set(post, "x-amz-x509-chain", |chain| format!("{chain},{chain}"));
            });
            case("no chain", "InvalidSignatureException", "was not sent", &|post| {
                post.headers.retain(|(name, _)| name != "x-amz-x509-chain");
            });
        } else {
            case("unsigned chain", "InvalidSignatureException", "must be a 'SignedHeader'", &|post| {
                post.headers.push(("x-amz-x509-chain".into(), other(vector, "x-amz-x509-chain")));
            });
        }
        for (name, post, code, message) in cases {
            let reply = post.send(sources.addr());
            assert_ne!(reply.status, 201, "{}: {name}", vector["name"]);
            assert_refused(&reply, 403, code, message);
            refused += 1;
        }
        for minutes in [-6, 6] {
            sources.set_clock(Some(SIGNED_AT + time::Duration::minutes(minutes)));
            let message = if minutes < 0 { "Signature not yet current" } else { "Signature expired" };
            assert_refused(&request(vector).send(sources.addr()), 403, "InvalidSignatureException", message);
            refused += 1;
        }
        sources.set_clock(Some(SIGNED_AT));
    }
    assert_eq!(bedrock.count(), 0);
    assert_eq!(sources.complaints().len(), refused);
}

#[test]
fn the_account_decides() {
    let (ca_pem, vectors) = vectors();
    type Change<'a> = &'a dyn Fn(&mut Account);
    let denied = "AccessDeniedException";
    let unable = "Unable to assume role for arn:aws:iam::111122223333:role/bedrock-gateway";
    let trust = |from: &'static str, to: &'static str| {
        move |account: &mut Account| {
            let trust = &mut account.commercial.roles[0].trust;
            assert!(trust.contains(from), "{trust}");
            *trust = trust.replace(from, to);
        }
    };
    let cases: &[(u16, &str, &str, Change<'_>)] = &[
        (404, "ResourceNotFoundException", "trust-anchor/", &|account| account.commercial.trust_anchors.clear()),
        (404, "ResourceNotFoundException", ":profile/", &|account| account.commercial.profiles.clear()),
        (403, denied, "trust-anchor/4f7b6b0e-0000-4000-8000-000000000002 is disabled", &|account| {
            account.commercial.trust_anchors[0].enabled = false;
        }),
        (403, denied, "profile/4f7b6b0e-0000-4000-8000-000000000001 is disabled", &|account| {
            account.commercial.profiles[0].enabled = false;
        }),
        (403, denied, "Untrusted signing certificate", &|account| account.commercial.trust_anchors[0].ca_pem.clear()),
        (403, denied, unable, &|account| account.commercial.profiles[0].role_arns.clear()),
        (403, denied, unable, &|account| account.commercial.roles.clear()),
        (403, denied, "Not authorized to set roleSessionName.", &|account| {
            account.commercial.profiles[0].accept_role_session_name = false;
        }),
        (400, "ValidationException", "durationSeconds is above 3600", &|account| {
            account.commercial.profiles[0].duration_seconds = 3600;
        }),
        (400, "ValidationException", "durationSeconds is above 3600", &|account| {
            account.commercial.roles[0].max_session = Duration::from_secs(3600);
        }),
        (403, denied, unable, &trust("gateway.example.gov", "other")),
        (403, denied, unable, &trust("rolesanywhere:*", "rolesanywhere:eu-west-1")),
        (403, denied, unable, &trust("rolesanywhere.amazonaws.com", "ec2.amazonaws.com")),
        (403, denied, unable, &trust("\"sts:AssumeRole\",", "")),
        (403, denied, unable, &trust("\"sts:SetSourceIdentity\",", "")),
        (403, denied, unable, &trust(",\"sts:TagSession\"", "")),
    ];
    let (sources, bedrock) = sources_of_vectors();
    // The one with a session name and the longest duration.
    let vector = vectors.iter().find(|vector| vector["body"].as_str().unwrap().contains("roleSessionName")).unwrap();
    for (status, code, message, change) in cases {
        sources.change(|account| {
            *account = Account::default();
            account_of_vectors(account, &ca_pem);
            change(account);
        });
        assert_refused(&request(vector).send(sources.addr()), *status, code, message);
    }
    assert_eq!(bedrock.count(), 0);
}

/// Sends a request of a certificate to an account that trusts `root`.
fn send(root: &Made, leaf: &Certificate, chain: &[&[u8]]) -> Reply {
    let sources = Sources::start(Duration::from_secs(3600), &Keyring::default(), false).unwrap();
    sources.change(|account| *account = root.account());
    leaf.post(chain, OffsetDateTime::now_utc()).send(sources.addr())
}

#[test]
fn certificates_must_be_end_entities() {
    let root = Made::new();
    assert_eq!(send(&root, &root.leaf(|_| {}), &[]).status, 201);
    let insufficient = "Untrusted certificate. Insufficient certificate";
    let untrusted = "Untrusted signing certificate";
    let now = OffsetDateTime::now_utc();
    let hour = time::Duration::hours(1);
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);
    let cases: &[(&str, Change<'_>)] = &[
        (insufficient, &|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        (insufficient, &|params| params.is_ca = IsCa::NoCa),
        (insufficient, &|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        (insufficient, &|params| params.key_usages.clear()),
        (insufficient, &|params| params.distinguished_name = DistinguishedName::new()),
        (untrusted, &|params| params.not_after = now - hour),
        (untrusted, &|params| params.not_before = now + hour),
        ("Unable to assume role for arn:aws:iam::111122223333:role/bedrock-gateway-certificate", &|params| {
            params.distinguished_name.push(DnType::CommonName, "other");
        }),
        ("Some attributes failed to be mapped into session tags. Issuer: [  ]; Subject: [ O ]; SAN: [  ]", &|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Example (test)");
        }),
    ];
    for (message, change) in cases {
        assert_refused(&send(&root, &root.leaf(*change), &[]), 403, "AccessDeniedException", message);
    }
}

#[test]
fn a_chain_must_lead_to_the_anchor() {
    let usage = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = Made::new();
    let middle = Made::with(Some(&root), usage);
    let issuing = Made::with(Some(&middle), |params| {
        usage(params);
        params.distinguished_name.push(DnType::CommonName, "second");
    });
    let leaf = issuing.leaf(|_| {});
    let (m, i, r) = (middle.der.as_slice(), issuing.der.as_slice(), root.der.as_slice());
    assert_eq!(send(&root, &leaf, &[i, m]).status, 201);
    assert_eq!(send(&root, &leaf, &[i, m, r]).status, 201, "the root may end the chain");
    assert_eq!(send(&middle, &leaf, &[i]).status, 201, "an anchor need not be a root");
    let other = Made::new();
    let stranger = other.leaf(|_| {});
    for (name, anchor, leaf, chain) in [
        ("order", &root, &leaf, [m, i].as_slice()),
        ("a gap", &root, &leaf, &[i]),
        ("none", &root, &leaf, &[]),
        ("another root", &other, &leaf, &[i, m]),
        ("another issuer of the same name", &root, &stranger, &[]),
        ("more than needed", &root, &leaf, &[i, m, r, r, r, r]),
        ("no certificate", &root, &leaf, &[i, b"x"]),
    ] {
        let reply = send(anchor, leaf, chain);
        assert_ne!(reply.status, 201, "{name}");
        assert_refused(&reply, 403, "AccessDeniedException", "Untrusted signing certificate");
    }
    // What an authority must have.
    let now = OffsetDateTime::now_utc();
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);
    let cases: [Change<'_>; 4] = [
        &|params| params.is_ca = IsCa::ExplicitNoCa,
        &|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        &|params| params.not_after = now - time::Duration::hours(1),
        &|params| params.not_before = now + time::Duration::hours(1),
    ];
    for change in cases {
        let bad = Made::with(Some(&root), |params| {
            usage(params);
            change(params);
        });
        let reply = send(&root, &bad.leaf(|_| {}), &[&bad.der]);
        assert_refused(&reply, 403, "AccessDeniedException", "Untrusted signing certificate");
    }
    let short = Made::with(None, |params| {
        usage(params);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let below = Made::with(Some(&short), usage);
    let reply = send(&short, &below.leaf(|_| {}), &[&below.der]);
    assert_refused(&reply, 403, "AccessDeniedException", "Untrusted signing certificate");
    assert_eq!(send(&short, &short.leaf(|_| {}), &[]).status, 201);
}

#[test]
fn sessions_have_a_quota() {
    let root = Made::new();
    let leaf = root.leaf(|_| {});
    let sources = Sources::start(Duration::from_secs(3600), &Keyring::default(), false).unwrap();
    sources.change(|account| *account = root.account());
    let send = || leaf.post(&[], OffsetDateTime::now_utc()).send(sources.addr()).status;
    sources.set_sessions_per_second(3.0);
    let statuses: Vec<u16> = (0..30).map(|_| send()).collect();
    assert_eq!(statuses[..3], [201; 3]);
    assert!(statuses[3..].contains(&429), "{statuses:?}");
}

#[test]
fn members_are_checked() {
    let root = Made::new();
    let leaf = root.leaf(|_| {});
    let sources = Sources::start(Duration::from_secs(43_200), &Keyring::default(), false).unwrap();
    sources.set_sessions_per_second(1000.0);
    sources.change(|account| *account = root.account());
    let send = |query: &str, body: &str| leaf.signed(query, body, &[], OffsetDateTime::now_utc()).send(sources.addr());
    // The ARNs may be in the query.
    let query: Vec<String> =
        [("profileArn", PROFILE_ARN), ("roleArn", CERTIFICATE_ROLE_ARN), ("trustAnchorArn", TRUST_ANCHOR_ARN)]
            .iter()
            .map(|(name, arn)| format!("{name}={}", bedrock_double::sigv4::percent_encode(arn.as_bytes(), false)))
            .collect();
    assert_eq!(send(&query.join("&"), r#"{"durationSeconds":900}"#).status, 201);
    assert_eq!(send(&query.join("&"), "").status, 201);
    let body = |change: &[(&str, Value)]| {
        let mut body =
            json!({"trustAnchorArn": TRUST_ANCHOR_ARN, "profileArn": PROFILE_ARN, "roleArn": CERTIFICATE_ROLE_ARN});
        for (name, value) in change {
            body[*name] = value.clone();
        }
        body.to_string()
    };
    let elsewhere = TRUST_ANCHOR_ARN.replace("us-east-1", "us-west-2");
    for (query, body, message) in [
        (
            "",
            body(&[("durationSeconds", json!(899))]),
            "Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900",
        ),
        ("", body(&[("durationSeconds", json!(43_201))]), "Member must have value less than or equal to 43200"),
        ("", body(&[("durationSeconds", json!("900"))]), "'durationSeconds'"),
        ("", body(&[("roleSessionName", json!("a b"))]), "'roleSessionName'"),
        ("", body(&[("roleArn", json!("arn:aws-us-gov:iam::1:role/x"))]), "'roleArn'"),
        ("", body(&[("sessionName", json!("x"))]), "sessionName is unknown"),
        ("", body(&[("trustAnchorArn", json!(elsewhere))]), "us-west-2:111122223333:trust-anchor/"),
        ("", "{}".to_owned(), "3 validation errors detected: Value null at 'trustAnchorArn'"),
        ("", "[]".to_owned(), "not a JSON object"),
        ("roleArn=x", body(&[]), "roleArn is sent twice"),
        ("durationSeconds=900", body(&[]), "durationSeconds is unknown in the query"),
    ] {
        assert_refused(&send(query, &body), 400, "ValidationException", message);
    }
}

#[test]
fn the_trust_policy_is_the_templates() {
    let template = include_str!("../../../../../infra/templates/commercial/identity.yaml");
    let role = template.split_once("  CertificateRole:\n").unwrap().1.split_once("\n  Profile:").unwrap().0;
    let trust: Value = serde_json::from_str(&certificate_trust("ANCHOR", "NAME")).unwrap();
    let statement = &trust["Statement"][0];
    let actions: Vec<String> =
        statement["Action"].as_array().unwrap().iter().map(|action| action.as_str().unwrap().to_owned()).collect();
    for line in [
        format!("Action: [\"{}\"]", actions.join("\", \"")),
        format!("Service: {}", statement["Principal"]["Service"].as_str().unwrap()),
        "\"aws:SourceArn\": !GetAtt TrustAnchor.TrustAnchorArn".to_owned(),
        "\"aws:PrincipalTag/x509Subject/CN\": !Ref CertificateCommonName".to_owned(),
    ] {
        assert!(role.contains(&line), "{line} is not in {role}");
    }
    assert_eq!(role.matches("aws:").count(), 2, "a condition was added: {role}");
}
