//! Errors reach callers in Bedrock's form, from the gateway, Envoy and Bedrock.

use crate::clients::{call, python};
use crate::harness::{Harness, Keys, policy};
use crate::pool::pooled;

#[test]
fn bedrocks_own_errors_pass_as_they_are() {
    let harness = pooled();
    let calls = python("errors", &harness.gateway.http);
    for (name, class, status) in [
        ("throttled", "ThrottlingException", 429),
        ("model error", "ModelErrorException", 424),
        ("unknown model", "ResourceNotFoundException", 404),
    ] {
        let error = &call(&calls, name)["error"];
        assert_eq!((error["class"].as_str(), error["status"].as_u64()), (Some(class), Some(status)), "{error}");
    }
    assert_eq!(call(&calls, "mid-stream")["error"]["class"], "EventStreamError");
    let cut = &call(&calls, "cut mid-stream")["error"];
    assert_eq!(
        (&cut["class"], &cut["code"]),
        (&"EventStreamError".into(), &"serviceUnavailableException".into()),
        "{cut}"
    );
    assert!(call(&calls, "govcloud arn")["error"]["status"].as_u64().is_some_and(|status| status < 500));
    harness.assert_no_violation();
}

#[test]
fn refuses_a_denied_model_with_access_denied() {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "  deny: []", "  deny: [anthropic.*]");
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--policy", &policy]);
    let error = &call(&python("converse", &harness.gateway.http), "Converse")["error"].clone();
    assert_eq!(error["class"], "AccessDeniedException", "{error}");
    assert!(harness.received().is_empty());
}

#[test]
fn envoys_own_refusals_have_the_form_too() {
    let harness = pooled();
    let many: String = (0..150).map(|number| format!("x-{number}: y\r\n")).collect();
    for (request, status) in [
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("GET /foundation-models HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /foundation-models HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
        ("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(), 403),
    ] {
        let (got, head, body) = harness.gateway.raw(request.as_bytes());
        assert_eq!(got, status, "{request} {head}");
        assert!(head.contains("x-amzn-errortype: "), "{head}");
        assert!(body.starts_with(r#"{"message":""#), "{body}");
    }
}

#[test]
fn refuses_an_unknown_operation_by_name() {
    let harness = pooled();
    let request = b"GET /elsewhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (status, head, body) = harness.gateway.raw(request);
    assert_eq!(status, 404);
    assert!(head.contains("x-amzn-errortype: unknownoperationexception"), "{head}");
    assert!(head.contains("x-amzn-requestid: ") && body.starts_with(r#"{"message":""#), "{head} {body}");
    assert!(harness.received().is_empty());
}

#[test]
fn refuses_a_body_over_25_mib() {
    let harness = pooled();
    let mut request = b"POST /model/amazon.titan-text-express-v1/invoke HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-length: 26214401\r\n\r\n"
        .to_vec();
    request.resize(request.len() + 26_214_401, b'x');
    let (status, head, _) = harness.gateway.raw(&request);
    assert_eq!(status, 413, "{head}");
    assert!(head.contains("x-amzn-errortype: validationexception"), "{head}");
    assert!(harness.received().is_empty());
}

#[test]
fn sdks_raise_413_over_tls() {
    let harness = Harness::lone(Keys::Api);
    let calls = crate::clients::python_bearer("overlong", &harness.gateway.https, &harness.gateway.ca);
    let error = &call(&calls, "InvokeModel 26 MiB")["error"];
    assert_eq!((&error["class"], &error["status"]), (&"ValidationException".into(), &413.into()), "{error}");
    assert!(harness.received().is_empty());
}
