//! The ways to authenticate, and no others.

use crate::clients::{assert_all_answered, call, python, python_bearer};
use crate::harness::{API_KEY, Gateway, Harness, Keys, SESSION_TOKEN, required};
use crate::shown::Shown;
use bedrock_double::EXAMPLE_SECRET_KEY;

#[test]
fn refuses_without_credentials() {
    let harness = Harness::lone(Keys::None);
    assert!(harness.gateway.ready.contains(" auth none "), "{}", harness.gateway.ready);
    let error = &call(&python("converse", &harness.gateway.http), "Converse")["error"].clone();
    assert_eq!((&error["class"], &error["status"]), (&"ServiceUnavailableException".into(), &503.into()), "{error}");
    assert!(harness.doubles[0].requests().is_empty());
}

#[test]
fn sends_its_api_key_and_not_the_callers() {
    let harness = Harness::lone(Keys::Api);
    assert!(harness.gateway.ready.contains(" auth bearer "), "{}", harness.gateway.ready);
    let calls = python_bearer("large", &harness.gateway.https, &harness.gateway.ca);
    assert_all_answered(&calls);
    harness.assert_no_violation();
    let received = harness.received();
    assert_eq!(received.len(), calls.len());
    for request in received {
        assert_eq!(request.header("authorization"), Some("Bearer ABSKexample-api-key"));
        assert_eq!(request.header("x-amz-date"), None);
    }
}

#[test]
fn half_a_pair_is_refused_by_name() {
    let mut command = std::process::Command::new(required("BEDROCK_GATEWAY_BIN"));
    command.args(["up", "--listen", "127.0.0.1:0"]).env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    let output = command.env_remove("AWS_SECRET_ACCESS_KEY").env_remove("AWS_BEARER_TOKEN_BEDROCK").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"), "{error}");
}

#[test]
fn envoy_ends_with_up_even_when_that_is_killed() {
    let gateway = Gateway::start(Keys::LongLived, &["--path".into(), "internet=127.0.0.1:9".into()]);
    let address = gateway.http.strip_prefix("http://").unwrap().to_owned();
    let killed = std::process::Command::new("kill").args(["-KILL", &gateway.pid().to_string()]).status().unwrap();
    assert!(killed.success());
    crate::harness::eventually("Envoy's end", || std::net::TcpStream::connect(&address).err());
}

#[test]
fn no_secret_is_shown_anywhere() {
    for (keys, secrets) in
        [(Keys::Temporary, [EXAMPLE_SECRET_KEY, SESSION_TOKEN].as_slice()), (Keys::Api, [API_KEY].as_slice())]
    {
        let harness = Harness::lone(keys);
        harness.gateway.post("/logging?level=trace");
        assert_eq!(
            harness.gateway.raw(b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").0,
            200
        );
        let secrets: Vec<(&str, &str)> = secrets.iter().map(|secret| ("a secret", *secret)).collect();
        Shown::of(&harness).assert_hides(&secrets);
    }
}
