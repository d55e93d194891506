use super::*;
use serde_json::{Value, json};

fn config(change: Value) -> Config {
    let mut document = json!({
        "role": "gateway", "regions": {"us-east-1": {}}, "principal": [{"from": "mtls"}],
        "route_classes": [{"name": "any", "paths": ["dx"]}],
    });
    for (key, value) in change.as_object().unwrap() {
        document[key] = value.clone();
    }
    Config::parse(document.to_string().as_bytes()).unwrap()
}

fn check(change: Value, headers: &[(&str, &str)], principal: Option<&str>) -> Result<(), AccessRefusal> {
    let headers: Headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    Access::compile(&config(change)).unwrap().check(&headers, principal)
}

#[test]
fn only_known_hosts_are_served() {
    let of =
        |host: &str| check(json!({"hosts": ["gateway.example", "*.mission.example"]}), &[(":authority", host)], None);
    for host in [
        "localhost",
        "localhost:10000",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:10000",
        "10.1.2.3:1",
        "[::1]",
        "[::1]:10000",
        "gateway.example",
        "Gateway.Example:443",
        "a.mission.example",
        "a.b.mission.example:1",
        "bedrock-runtime.us-gov-west-1.amazonaws.com",
        "bedrock-agent-runtime.us-gov-west-1.amazonaws.com",
        "bedrock-fips.us-east-1.amazonaws.com:443",
    ] {
        assert_eq!(of(host), Ok(()), "{host}");
    }
    for host in [
        "",
        "evil.example",
        "evil.example:10000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "mission.example",
        ".mission.example",
        "xmission.example",
        "gateway.example.evil",
        "localhost@evil.example",
        "evil.example#localhost",
        "[::1",
        "::1",
        "[::1].evil.example",
        "localhost:evil",
        "gateway.example\u{0}",
        "bedrock.s3.amazonaws.com",
        "evil.us-east-1.amazonaws.com",
        "bedrock.us-east-1.amazonaws.com.evil.example",
    ] {
        assert_eq!(of(host), Err(AccessRefusal::Host(shown(host))), "{host}");
    }
    assert!(check(json!({"hosts": []}), &[], None).is_err(), "no host at all");
    assert_eq!(check(json!({}), &[(":authority", "evil.example")], None), Ok(()), "any host if the key is left out");
}

#[test]
fn web_pages_are_refused() {
    let own = json!({"origins": ["https://app.example", "http://127.0.0.1:3000"]});
    for (headers, allowed) in [
        (&[][..], true),
        (&[("origin", "https://app.example")][..], true),
        (&[("origin", "http://127.0.0.1:3000"), ("sec-fetch-site", "cross-site")], true),
        (&[("origin", "https://app.example.evil.example")], false),
        (&[("origin", "https://app.example:8443")], false),
        (&[("origin", "null")], false),
        (&[("origin", "")], false),
        (&[("origin", "https://app.example"), ("origin", "https://evil.example")], false),
        (&[("sec-fetch-site", "cross-site")], false),
        (&[("sec-fetch-site", "same-site")], false),
        (&[("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], false),
    ] {
        assert_eq!(check(own.clone(), headers, None).is_ok(), allowed, "{headers:?}");
    }
    assert!(check(json!({}), &[("origin", "https://app.example")], None).is_err(), "none if the key is left out");
}

#[test]
fn nobody_is_refused_where_the_document_says() {
    assert_eq!(check(json!({"anonymous": "refuse"}), &[], None), Err(AccessRefusal::Anonymous));
    assert_eq!(check(json!({"anonymous": "refuse"}), &[], Some("spiffe://a/b")), Ok(()));
    assert_eq!(check(json!({"anonymous": "allow"}), &[], None), Ok(()));
    assert_eq!(check(json!({}), &[], None), Ok(()));
}

#[test]
fn a_callers_name_is_bounded_text() {
    for name in ["a\0b", "a\nb", "a\u{202e}b", "a\u{200b}b", "", &"a".repeat(2049)] {
        assert_eq!(check(json!({}), &[], Some(name)), Err(AccessRefusal::Name), "{name:?}");
    }
    for name in ["spiffe://mesh/ns/app/sa/chat", "José", "O'Brien \"x\" \\", &"a".repeat(2048)] {
        assert_eq!(check(json!({}), &[], Some(name)), Ok(()), "{name:?}");
    }
}

#[test]
fn wrong_keys_are_refused_by_name() {
    for (change, key) in [
        (json!({"hosts": ["a.example", "a.example:80"]}), "hosts[1]"),
        (json!({"hosts": ["https://a.example"]}), "hosts[0]"),
        (json!({"hosts": ["A.example"]}), "hosts[0]"),
        (json!({"hosts": ["*"]}), "hosts[0]"),
        (json!({"hosts": [""]}), "hosts[0]"),
        (json!({"origins": ["app.example"]}), "origins[0]"),
        (json!({"origins": ["https://app.example/"]}), "origins[0]"),
        (json!({"origins": ["https://*.example"]}), "origins[0]"),
        (json!({"anonymous": "refuse", "principal": []}), "anonymous"),
    ] {
        assert_eq!(Access::compile(&config(change.clone())).unwrap_err().key, key, "{change}");
    }
}
