//! An answer as a script: the bytes to send, pauses, and a reset.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Sleep;

/// The creation time of every resource.
pub(crate) const MADE: &str = "2026-01-02T03:04:05Z";

/// A step of a body.
#[derive(Debug, Clone)]
pub enum Step {
    /// Bytes that are flushed before the next step.
    Send(Bytes),
    Pause(Duration),
    /// The connection (HTTP/1.1) or the stream (HTTP/2) is reset.
    Reset,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<Step>,
}

impl Answer {
    #[must_use]
    /// A 200 response with JSON.
    pub fn json(value: &Value) -> Self {
        Self::whole(200, vec![("content-type", "application/json".to_owned())], value.to_string().into_bytes())
    }

    /// An error in AWS's form: status, `x-amzn-errortype`, `{"message": …}`.
    #[must_use]
    pub fn error(status: u16, error_type: &str, message: &str) -> Self {
        let headers =
            vec![("content-type", "application/json".to_owned()), ("x-amzn-errortype", error_type.to_owned())];
        Self::whole(status, headers, json!({ "message": message }).to_string().into_bytes())
    }

    /// A body in one step.
    #[must_use]
    pub fn whole(status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8>) -> Self {
        Self { status, headers, body: vec![Step::Send(body.into())] }
    }

    /// 200 with frames of an event stream.
    #[must_use]
    pub fn stream(headers: Vec<(&'static str, String)>, frames: Vec<Vec<u8>>) -> Self {
        Self { status: 200, headers, body: frames.into_iter().map(|frame| Step::Send(frame.into())).collect() }
    }
}

/// A reset that a script asks for.
#[derive(Debug, Error)]
#[error("reset, as asked for")]
pub struct Cut;

/// Plays a script as a body of hyper. After each frame it is pending once, which makes hyper flush.
#[derive(Debug)]
pub struct Script {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    to_flush: bool,
    /// Set when the TCP connection must end with a reset.
    reset: Arc<AtomicBool>,
}

impl Script {
    /// `reset` is the connection's switch; see [`Step::Reset`].
    #[must_use]
    pub fn new(steps: Vec<Step>, reset: Arc<AtomicBool>) -> Self {
        Self { steps: steps.into(), sleep: None, to_flush: false, reset }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            if self.to_flush {
                self.to_flush = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(sleep) = self.sleep.as_mut() {
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.sleep = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Pause(time)) => self.sleep = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Reset) => {
                    self.reset.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(Cut)));
                }
                Some(Step::Send(bytes)) => {
                    self.to_flush = !self.steps.is_empty();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.sleep.is_none()
    }

    /// Exact for a body in one step, which then gets a content-length.
    fn size_hint(&self) -> SizeHint {
        match self.steps.iter().collect::<Vec<_>>()[..] {
            [] => SizeHint::with_exact(0),
            [Step::Send(bytes)] => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
