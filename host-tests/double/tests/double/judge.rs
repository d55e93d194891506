//! What may arrive and what may not.

use bedrock_double::{Endpoints, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::version;

use crate::client::{CONTROL, Call, Harness, RUNTIME, SONNET};

#[tokio::test]
async fn takes_signed_calls_over_every_protocol() {
    let harness = Harness::plain();
    for tls in [&version::TLS12, &version::TLS13] {
        for alpn in [&b"http/1.1"[..], b"h2"] {
            let mut client = harness.client();
            (client.tls, client.alpn) = (tls, alpn);
            client.ok(&Call::converse(SONNET)).await;
            let seen = harness.running.requests().pop().unwrap();
            assert_eq!(seen.verdict, Verdict::Signed);
            assert_eq!(seen.alpn.unwrap().as_bytes(), alpn);
            assert_eq!(seen.tls, format!("{:?}", tls.version));
            assert_eq!((seen.host.as_str(), seen.sni.as_deref()), (RUNTIME, Some(RUNTIME)));
            assert_eq!(seen.path, format!("/model/{SONNET}/converse"));
            assert_eq!(seen.region.as_deref(), Some("us-east-1"));
        }
    }
    assert!(harness.running.violations().is_empty());
}

#[tokio::test]
async fn refuses_every_header_that_must_not_cross() {
    let harness = Harness::plain();
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-envoy-attempt-count",
        "x-request-id",
        "user-agent",
        "amz-sdk-request",
        "x-bedrock-gateway-cluster",
        "cookie",
        "te",
        "accept-encoding",
        "x-amz-user-agent",
        "traceparent",
    ] {
        for call in [
            Call::converse(SONNET).unsigned_header(name, "trailers"),
            Call::converse(SONNET).signed_header(name, "trailers"),
        ] {
            let (status, error, message) = harness.client().send(&call).await.unwrap().error();
            assert_eq!((status, error.as_str()), (400, "ValidationException"), "{name}");
            assert!(message.contains(name), "{message}");
            assert!(harness.last_violation().is_some_and(|what| what.contains(name)));
        }
    }
    harness.client().ok(&Call::converse(SONNET).signed_header("x-amzn-bedrock-trace", "ENABLED")).await;
    harness.client().ok(&Call::converse(SONNET).signed_header("accept", "application/json")).await;
    assert_eq!(harness.last_violation(), None);
}

#[tokio::test]
async fn lets_headers_pass_when_told_to() {
    let harness = Harness::new(|builder| builder.lenient_headers(true));
    harness.client().ok(&Call::converse(SONNET).unsigned_header("user-agent", "Boto3")).await;
    // But what AWS itself refuses stays refused.
    let call = Call::converse(SONNET).unsigned_header("x-amz-user-agent", "aws-sdk-js");
    assert_eq!(harness.client().send(&call).await.unwrap().status, 403);
}

#[tokio::test]
async fn refuses_what_is_not_signed_or_signed_wrongly() {
    let harness = Harness::plain();
    let twice = Call::converse(SONNET).unsigned_header("content-type", "application/json");
    let other_region = Call { region: "us-west-2", ..Call::converse(SONNET) };
    let token = Call { session_token: Some("token".into()), ..Call::converse(SONNET) };
    let bearer = Call::converse(SONNET).unsigned().unsigned_header("authorization", "Bearer key");
    for (call, error, text) in [
        (Call::converse(SONNET).unsigned(), "MissingAuthenticationTokenException", "Missing Authentication Token"),
        (twice, "InvalidSignatureException", "content-type"),
        (other_region, "InvalidSignatureException", "us-east-1"),
        (token, "UnrecognizedClientException", "security token"),
        (bearer, "UnrecognizedClientException", "API keys"),
    ] {
        for client in [harness.client(), harness.client().h2()] {
            let (status, seen, message) = client.send(&call).await.unwrap().error();
            assert_eq!((status, seen.as_str()), (403, error));
            assert!(message.contains(text), "{message}");
            assert!(harness.last_violation().is_some());
        }
    }
}

#[tokio::test]
async fn session_token_must_be_the_keys_own() {
    let harness = Harness::new(|builder| {
        builder.access_key(bedrock_double::EXAMPLE_ACCESS_KEY, bedrock_double::EXAMPLE_SECRET_KEY, Some("token".into()))
    });
    let with = |token: Option<&str>| Call { session_token: token.map(str::to_owned), ..Call::converse(SONNET) };
    harness.client().ok(&with(Some("token"))).await;
    for call in [with(None), with(Some("other"))] {
        let (status, error, _) = harness.client().send(&call).await.unwrap().error();
        assert_eq!((status, error.as_str()), (403, "UnrecognizedClientException"));
    }
}

#[tokio::test]
async fn host_is_regional_and_what_tls_was_opened_for() {
    let harness = Harness::plain();
    let call = |host: &str, sni: &str| Call { host: host.into(), sni: Some(sni.into()), ..Call::converse(SONNET) };
    let fips = "bedrock-runtime-fips.us-east-1.amazonaws.com";
    harness.client().ok(&call(fips, fips)).await;
    for (host, sni, status) in [
        (RUNTIME, fips, 421),
        ("bedrock-runtime.us-west-2.amazonaws.com", RUNTIME, 421),
        ("bedrock-runtime.us-east-1.amazonaws.com:443", RUNTIME, 421),
        ("Bedrock-Runtime.us-east-1.amazonaws.com", RUNTIME, 421),
        ("bedrock-runtime.eu-west-1.amazonaws.com", RUNTIME, 421),
        ("localhost", RUNTIME, 421),
        (CONTROL, CONTROL, 404),
    ] {
        let answered = harness.client().send(&call(host, sni)).await.unwrap();
        assert_eq!(answered.status, status, "{host} over {sni}: {:?}", answered.error());
        assert!(harness.last_violation().is_some());
    }

    let fips_only = Harness::new(|builder| builder.endpoints(Endpoints::Fips));
    fips_only.client().ok(&call(fips, fips)).await;
    assert!(fips_only.client().send(&call(RUNTIME, RUNTIME)).await.is_err(), "not in the certificate");
    assert_eq!(fips_only.client().send(&call(RUNTIME, fips)).await.unwrap().status, 421);
}

#[tokio::test]
async fn health_checks_are_no_offence() {
    let harness = Harness::plain();
    let check = Call { host: RUNTIME.into(), ..Call::get("/") }.unsigned().unsigned_header("user-agent", "Envoy/HC");
    for client in [harness.client(), harness.client().h2()] {
        let (status, error, _) = client.send(&check).await.unwrap().error();
        assert_eq!((status, error.as_str()), (403, "MissingAuthenticationTokenException"));
        assert_eq!(harness.running.requests().pop().unwrap().verdict, Verdict::Health);
    }
    let marked = check.unsigned_header("x-amz-date", "20260102T030405Z");
    harness.client().send(&marked).await.unwrap();
    assert!(harness.last_violation().is_some(), "a header of AWS makes it a call");
}

#[tokio::test]
async fn bearer_keys_come_alone() {
    let harness = Harness::new(|builder| builder.bearer("bedrock-api-key-x"));
    let call = |key: &str| Call::converse(SONNET).unsigned().unsigned_header("authorization", &format!("Bearer {key}"));
    harness.client().ok(&call("bedrock-api-key-x")).await;
    assert_eq!(harness.running.requests().pop().unwrap().verdict, Verdict::Bearer);
    for (call, status) in [
        (call("bedrock-api-key-y"), 403),
        (call(""), 403),
        (call("bedrock-api-key-x").unsigned_header("x-amz-date", "20260102T030405Z"), 400),
        (call("bedrock-api-key-x").unsigned_header("authorization", "Bearer bedrock-api-key-x"), 403),
        (Call::converse(SONNET), 403),
        (Call::converse(SONNET).unsigned(), 403),
    ] {
        assert_eq!(harness.client().send(&call).await.unwrap().status, status);
        assert!(harness.last_violation().is_some());
    }
}

#[tokio::test]
async fn paths_are_kept_raw_and_must_be_canonical() {
    let harness = Harness::plain();
    for (path, status) in [
        ("/model/us.anthropic.claude-3-5-sonnet-20241022-v2:0/converse", 400),
        ("/model/us.anthropic.claude-3-5-sonnet-20241022-v2%3a0/converse", 400),
        ("/model/%75s.anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse", 400),
        ("//model/us.anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse", 404),
        ("/model/./us.anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse", 404),
        ("/model/x/invoke-with-bidirectional-stream", 404),
    ] {
        let answered = harness.client().send(&Call::post(path, "{}")).await.unwrap();
        assert_eq!(answered.status, status, "{path}: {:?}", answered.error());
        let seen = harness.running.requests().pop().unwrap();
        assert_eq!(seen.path, path);
        assert!(seen.is_violation());
    }
}

#[tokio::test]
async fn refuses_a_body_other_than_the_signed_one() {
    let harness = Harness::plain();
    let call = Call::converse(SONNET);
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", call.target, call.host);
    for (name, value) in call.headers() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut other = call.body.clone();
    other[20] ^= 1;
    head.push_str(&format!("content-length: {}\r\n\r\n", other.len()));
    let mut stream = harness.client().connect(RUNTIME).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&other).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 403");
    assert!(harness.last_violation().is_some_and(|what| what.contains("Canonical String")));
}

#[tokio::test]
async fn a_body_given_up_is_recorded_as_such() {
    let harness = Harness::plain();
    let head = format!("POST /model/x/converse HTTP/1.1\r\nhost: {RUNTIME}\r\ncontent-length: 100\r\n\r\nhalf");
    let mut stream = harness.client().connect(RUNTIME).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while harness.running.requests().is_empty() && std::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(harness.running.requests()[0].verdict, Verdict::Aborted);
}
