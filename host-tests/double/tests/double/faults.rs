//! How it fails on demand.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bedrock_double::PathFault;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Call, Failure, SONNET, Stand, events};

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
    let stand = Stand::plain();
    for (model, status, error) in [
        ("fault.status-400", 400, "ValidationException"),
        ("fault.status-403", 403, "AccessDeniedException"),
        ("us.fault.status-429", 429, "ThrottlingException"),
        ("fault.status-429-ModelNotReadyException", 429, "ModelNotReadyException"),
        ("fault.status-500", 500, "InternalServerException"),
        ("fault.status-503", 503, "ServiceUnavailableException"),
    ] {
        for call in [Call::converse(model), Call::stream(model)] {
            let (seen, kind, _) = stand.client().send(&call).await.unwrap().error();
            assert_eq!((seen, kind.as_str()), (status, error));
        }
    }
    assert!(stand.running.violations().is_empty());
}

#[tokio::test]
async fn streams_that_break_within() {
    let stand = Stand::plain();
    for client in [stand.client(), stand.client().h2()] {
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
    let stand = Stand::plain();
    for client in [stand.client(), stand.client().h2()] {
        let answered = client.ok(&Call::converse("fault.truncate")).await;
        assert!(serde_json::from_slice::<serde_json::Value>(&answered.bytes()).is_err() && answered.broken.is_none());
        assert!(client.ok(&Call::converse("fault.reset-midstream")).await.broken.is_some());
        assert!(client.send(&Call::converse("fault.reset")).await.is_err());
        assert!(timeout(SOON, client.send(&Call::converse("fault.silent"))).await.is_err());
        assert!(client.ok(&Call::converse("fault.no-usage")).await.json()["usage"].is_null());
    }
    let seen = stand.running.requests();
    assert!(seen.iter().any(|one| one.labels == ["fault.silent"] && one.status == 0));
}

#[tokio::test]
async fn slowness_is_of_the_start_or_of_each_frame() {
    let stand = Stand::plain();
    let answered = stand.client().ok(&Call::stream("fault.slow-200ms")).await;
    assert!(answered.pieces[0].0 >= Duration::from_millis(200));
    let answered = stand.client().ok(&Call::stream("fault.drip-30ms")).await;
    for pair in answered.pieces.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= Duration::from_millis(10), "{:?}", answered.pieces);
    }
}

#[tokio::test]
async fn a_path_answers_503_to_all_and_still_judges() {
    let stand = Stand::plain();
    stand.running.set_fault(PathFault::Status(503));
    let health = Call::get("/").unsigned();
    for call in [Call::converse(SONNET), health, Call::converse(SONNET).unsigned()] {
        let answered = stand.client().send(&call).await.unwrap();
        assert_eq!(answered.error().1, "ServiceUnavailableException");
    }
    assert_eq!(stand.running.requests().len(), 3);
    assert_eq!(stand.running.violations().len(), 1);
    stand.running.set_fault(PathFault::None);
    stand.client().ok(&Call::converse(SONNET)).await;
}

#[tokio::test]
async fn a_path_refuses_and_comes_back_on_its_port() {
    let stand = Stand::plain();
    let mut open = stand.client().connect(crate::client::RUNTIME).await.unwrap();
    stand.running.set_fault(PathFault::Refuse);
    eventually("the port is closed", async || {
        TcpStream::connect(stand.running.addr()).await.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    let read = tokio::io::AsyncReadExt::read(&mut open, &mut [0; 1]).await;
    assert!(read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "open connections are reset");
    stand.running.set_fault(PathFault::None);
    eventually("the path is back", async || stand.client().send(&Call::converse(SONNET)).await.is_ok()).await;
}

#[tokio::test]
async fn a_path_resets() {
    let stand = Stand::plain();
    stand.running.set_fault(PathFault::Reset);
    for _ in 0..3 {
        let error = stand.client().send(&Call::converse(SONNET)).await.unwrap_err();
        assert!(matches!(kind(&error), Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{error:?}");
    }
    assert!(stand.running.requests().is_empty());
}

#[tokio::test]
async fn a_path_is_silent_or_mute() {
    let stand = Stand::plain();
    stand.running.set_fault(PathFault::Silent);
    assert!(TcpStream::connect(stand.running.addr()).await.is_ok());
    assert!(timeout(SOON, stand.client().connect(crate::client::RUNTIME)).await.is_err(), "no TLS either");

    stand.running.set_fault(PathFault::Mute);
    assert!(timeout(SOON, stand.client().connect(crate::client::RUNTIME)).await.unwrap().is_ok());
    assert!(timeout(SOON, stand.client().send(&Call::converse(SONNET))).await.is_err());
    assert_eq!(stand.running.requests().len(), 1, "it was read");

    stand.running.set_fault(PathFault::None);
    stand.client().ok(&Call::converse(SONNET)).await;
}

#[tokio::test]
async fn a_path_that_falls_silent_takes_open_connections_with_it() {
    let stand = Stand::plain();
    let call = Call::stream("fault.drip-50ms");
    let client = stand.client();
    let sent = tokio::spawn(async move { client.send(&call).await });
    eventually("the call arrived", async || !stand.running.requests().is_empty()).await;
    stand.running.set_fault(PathFault::Silent);
    tokio::time::sleep(SOON * 2).await;
    assert!(!sent.is_finished(), "the stream would have ended by now");
    stand.running.set_fault(PathFault::None);
    let broken = sent.await.unwrap();
    assert!(broken.is_err() || broken.is_ok_and(|answered| answered.broken.is_some()));
}

#[tokio::test]
async fn a_path_is_slow() {
    let stand = Stand::new(|builder| builder.delay(Duration::from_millis(50)));
    stand.running.set_fault(PathFault::Delay(Duration::from_millis(100)));
    let start = Instant::now();
    stand.client().ok(&Call::converse(SONNET)).await;
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_region_throttles_one_model_and_still_judges() {
    let stand = Stand::plain();
    stand.running.set_fault(PathFault::Throttle(429, "claude-3-5-sonnet".to_owned()));
    let answered = stand.client().send(&Call::converse(SONNET)).await.unwrap();
    assert_eq!(answered.error().1, "ThrottlingException");
    stand.client().ok(&Call::converse("fault.slow-1ms")).await;
    assert_eq!(stand.client().send(&Call::get("/").unsigned()).await.unwrap().status, 403, "a health check");
    stand.client().send(&Call::converse(SONNET).unsigned()).await.unwrap();
    assert_eq!(stand.running.violations().len(), 1);
}

#[tokio::test]
async fn ended_it_is_gone() {
    let stand = Stand::plain();
    let client = stand.client();
    client.ok(&Call::converse(SONNET)).await;
    tokio::task::spawn_blocking(move || stand.running.stop()).await.unwrap();
    assert!(TcpStream::connect(client.addr).await.is_err());
}
