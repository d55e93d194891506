//! How it fails on demand.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bedrock_double::PathFault;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Call, Failure, Harness, SONNET, events};

const SOON: Duration = Duration::from_millis(300);

/// Waits for a state that a fault brings about in another thread.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn kind(error: &Failure) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

#[tokio::test]
async fn statuses_by_the_models_name() {
    let harness = Harness::plain();
    for (model, status, error) in [
        ("fault.status-400", 400, "ValidationException"),
        ("fault.status-403", 403, "AccessDeniedException"),
        ("us.fault.status-429", 429, "ThrottlingException"),
        ("fault.status-429-ModelNotReadyException", 429, "ModelNotReadyException"),
        ("fault.status-500", 500, "InternalServerException"),
        ("fault.status-503", 503, "ServiceUnavailableException"),
    ] {
        for call in [Call::converse(model), Call::stream(model)] {
            let (seen, kind, _) = harness.client().send(&call).await.unwrap().error();
            assert_eq!((seen, kind.as_str()), (status, error));
        }
    }
    assert!(harness.running.violations().is_empty());
}

#[tokio::test]
async fn streams_that_break_within() {
    let harness = Harness::plain();
    for client in [harness.client(), harness.client().h2()] {
        let answered = client.ok(&Call::stream("fault.stream-exception")).await;
        let (seen, error) = events(&answered.bytes());
        assert_eq!((seen.last().unwrap().0.as_str(), error), ("throttlingException", None));
        assert!(seen.len() > 1 && !seen.iter().any(|(kind, _)| kind == "metadata"));

        let answered = client.ok(&Call::stream("fault.bad-crc")).await;
        let (seen, error) = events(&answered.bytes());
        assert!(!seen.is_empty());
        assert_eq!((error, answered.broken), (Some("message CRC"), None));

        let answered = client.ok(&Call::stream("fault.truncate")).await;
        let (seen, error) = events(&answered.bytes());
        assert!(!seen.is_empty());
        assert_eq!((error, answered.broken), (Some("truncated"), None));

        let answered = client.ok(&Call::stream("fault.reset-midstream")).await;
        let (seen, error) = events(&answered.bytes());
        assert!(!seen.is_empty() && error == Some("truncated") && answered.broken.is_some(), "{answered:?}");

        let answered = client.ok(&Call::stream("fault.no-usage")).await;
        let (seen, error) = events(&answered.bytes());
        assert_eq!((seen.last().unwrap().0.as_str(), error), ("messageStop", None));
    }
}

#[tokio::test]
async fn whole_answers_that_break() {
    let harness = Harness::plain();
    for client in [harness.client(), harness.client().h2()] {
        let answered = client.ok(&Call::converse("fault.truncate")).await;
        assert!(serde_json::from_slice::<serde_json::Value>(&answered.bytes()).is_err() && answered.broken.is_none());
        assert!(client.ok(&Call::converse("fault.reset-midstream")).await.broken.is_some());
        assert!(client.send(&Call::converse("fault.reset")).await.is_err());
        assert!(timeout(SOON, client.send(&Call::converse("fault.silent"))).await.is_err());
        assert!(client.ok(&Call::converse("fault.no-usage")).await.json()["usage"].is_null());
    }
    let seen = harness.running.requests();
    assert!(seen.iter().any(|one| one.labels == ["fault.silent"] && one.status == 0));
}

#[tokio::test]
async fn slowness_is_of_the_start_or_of_each_frame() {
    let harness = Harness::plain();
    let answered = harness.client().ok(&Call::stream("fault.slow-200ms")).await;
    assert!(answered.pieces[0].0 >= Duration::from_millis(200));
    let answered = harness.client().ok(&Call::stream("fault.drip-30ms")).await;
    for pair in answered.pieces.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= Duration::from_millis(10), "{:?}", answered.pieces);
    }
}

#[tokio::test]
async fn a_path_answers_503_to_all_and_still_judges() {
    let harness = Harness::plain();
    harness.running.set_fault(PathFault::Status(503));
    let health = Call::get("/").unsigned();
    for call in [Call::converse(SONNET), health, Call::converse(SONNET).unsigned()] {
        let answered = harness.client().send(&call).await.unwrap();
        assert_eq!(answered.error().1, "ServiceUnavailableException");
    }
    assert_eq!(harness.running.requests().len(), 3);
    assert_eq!(harness.running.violations().len(), 1);
    harness.running.set_fault(PathFault::None);
    harness.client().ok(&Call::converse(SONNET)).await;
}

#[tokio::test]
async fn a_path_refuses_and_comes_back_on_its_port() {
    let harness = Harness::plain();
    let mut open = harness.client().connect(crate::client::RUNTIME).await.unwrap();
    harness.running.set_fault(PathFault::Refuse);
    eventually("the port is closed", async || {
        TcpStream::connect(harness.running.addr()).await.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    let read = tokio::io::AsyncReadExt::read(&mut open, &mut [0; 1]).await;
    assert!(read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "open connections are reset");
    harness.running.set_fault(PathFault::None);
    eventually("the path is back", async || harness.client().send(&Call::converse(SONNET)).await.is_ok()).await;
}

#[tokio::test]
async fn a_path_resets() {
    let harness = Harness::plain();
    harness.running.set_fault(PathFault::Reset);
    for _ in 0..3 {
        let error = harness.client().send(&Call::converse(SONNET)).await.unwrap_err();
        assert!(matches!(kind(&error), Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{error:?}");
    }
    assert!(harness.running.requests().is_empty());
}

#[tokio::test]
async fn a_path_is_silent_or_mute() {
    let harness = Harness::plain();
    harness.running.set_fault(PathFault::Silent);
    assert!(TcpStream::connect(harness.running.addr()).await.is_ok());
    assert!(timeout(SOON, harness.client().connect(crate::client::RUNTIME)).await.is_err(), "no TLS either");

    harness.running.set_fault(PathFault::Mute);
    assert!(timeout(SOON, harness.client().connect(crate::client::RUNTIME)).await.unwrap().is_ok());
    assert!(timeout(SOON, harness.client().send(&Call::converse(SONNET))).await.is_err());
    assert_eq!(harness.running.requests().len(), 1, "it was read");

    harness.running.set_fault(PathFault::None);
    harness.client().ok(&Call::converse(SONNET)).await;
}

#[tokio::test]
async fn a_silent_path_breaks_open_connections() {
    let harness = Harness::plain();
    let call = Call::stream("fault.drip-50ms");
    let client = harness.client();
    let sent = tokio::spawn(async move { client.send(&call).await });
    eventually("the call arrived", async || !harness.running.requests().is_empty()).await;
    harness.running.set_fault(PathFault::Silent);
    tokio::time::sleep(SOON * 2).await;
    assert!(!sent.is_finished(), "the stream would have ended by now");
    harness.running.set_fault(PathFault::None);
    let broken = sent.await.unwrap();
    assert!(broken.is_err() || broken.is_ok_and(|answered| answered.broken.is_some()));
}

#[tokio::test]
async fn a_path_is_slow() {
    let harness = Harness::new(|builder| builder.delay(Duration::from_millis(50)));
    harness.running.set_fault(PathFault::Delay(Duration::from_millis(100)));
    let start = Instant::now();
    harness.client().ok(&Call::converse(SONNET)).await;
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_throttled_model_is_still_judged() {
    let harness = Harness::plain();
    harness.running.set_fault(PathFault::Throttle(429, "claude-3-5-sonnet".to_owned()));
    let answered = harness.client().send(&Call::converse(SONNET)).await.unwrap();
    assert_eq!(answered.error().1, "ThrottlingException");
    harness.client().ok(&Call::converse("fault.slow-1ms")).await;
    assert_eq!(harness.client().send(&Call::get("/").unsigned()).await.unwrap().status, 403, "a health check");
    harness.client().send(&Call::converse(SONNET).unsigned()).await.unwrap();
    assert_eq!(harness.running.violations().len(), 1);
}

#[tokio::test]
async fn ended_it_is_gone() {
    let harness = Harness::plain();
    let client = harness.client();
    client.ok(&Call::converse(SONNET)).await;
    tokio::task::spawn_blocking(move || harness.running.stop()).await.unwrap();
    assert!(TcpStream::connect(client.addr).await.is_err());
}
