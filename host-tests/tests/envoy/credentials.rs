//! The ways to authenticate, and that there is none but these.

use crate::clients::{assert_all_answered, call, python, python_bearer};
use crate::stand::{Gateway, Keys, Stand, required};

#[test]
fn refuses_without_credentials_and_sends_nothing() {
    let stand = Stand::lone(Keys::None);
    assert!(stand.gateway.ready.contains(" auth none "), "{}", stand.gateway.ready);
    let error = &call(&python("converse", &stand.gateway.http), "Converse")["error"].clone();
    assert_eq!((&error["class"], &error["status"]), (&"ServiceUnavailableException".into(), &503.into()), "{error}");
    assert!(stand.doubles[0].requests().is_empty());
}

#[test]
fn an_api_key_goes_as_bearer_over_tls_and_the_callers_own_does_not() {
    let stand = Stand::lone(Keys::Api);
    assert!(stand.gateway.ready.contains(" auth bearer "), "{}", stand.gateway.ready);
    let calls = python_bearer("large", &stand.gateway.https, &stand.gateway.ca);
    assert_all_answered(&calls);
    stand.assert_no_violation();
    let received = stand.received();
    assert_eq!(received.len(), calls.len());
    for request in received {
        assert_eq!(request.header("authorization"), Some("Bearer ABSKexample-api-key"));
        assert_eq!(request.header("x-amz-date"), None);
    }
}

#[test]
fn half_a_pair_is_refused_by_name() {
    let mut command = std::process::Command::new(required("XTASK_BIN"));
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
    crate::stand::eventually("Envoy's end", || std::net::TcpStream::connect(&address).err());
}
