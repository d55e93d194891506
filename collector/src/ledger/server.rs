//! The HTTP server for intents and reports: HTTP/1.1, and HTTP/2 by prior knowledge, on a Unix socket. 204 means that it is on
//! disk. Every other answer has a text that says why not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit::notice::{INTENTS, Intent, REPORTS, VmReport};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};

use super::{DEADLINE, Ledger, MAX_COUNT, Refusal, SocketError, socket};

/// Bytes of a body.
const MAX_BODY: usize = 256 * 1024;
/// Bytes of an id: the gateway's are UUIDs.
const MAX_ID: usize = 64;
/// Bodies that are read at a time: 16 MiB at most.
const MAX_READS: usize = 64;
/// How long a stop waits for answers.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// A socket that listens.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
}

#[derive(Clone)]
struct Context {
    ledger: Ledger,
    reads: Arc<Semaphore>,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("not read within {} s", DEADLINE.as_secs())]
    BodySlow,
    #[error("the body is longer than {MAX_BODY} bytes")]
    BodyLong,
    #[error("the body cannot be read: {0}")]
    BodyBroken(String),
    #[error("the body is not JSON of the expected form: {0}")]
    Json(#[from] serde_path_to_error::Error<serde_json::Error>),
    #[error("{field} is empty")]
    Empty { field: String },
    #[error("{field} has {length} bytes, at most {MAX_ID} are allowed")]
    LongId { field: String, length: usize },
    #[error("{field} is larger than 2^53")]
    Count { field: &'static str },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no such path: {0}. POST {INTENTS} or {REPORTS}")]
    Path(String),
    #[error("{0} is not allowed: use POST")]
    Method(Method),
}

// === impl Server ===

impl Server {
    /// Creates the socket, in place of one whose process ended.
    pub fn listen(path: &Path) -> Result<Self, SocketError> {
        Ok(Self { path: path.to_owned(), listener: socket::listen(path)? })
    }

    /// Serves until `stop`, then removes the socket.
    pub async fn serve(self, ledger: Ledger, mut stop: watch::Receiver<bool>) {
        let context = Context { ledger, reads: Arc::new(Semaphore::new(MAX_READS)) };
        let router = Router::new()
            .route(INTENTS, post(intent))
            .route(REPORTS, post(report))
            .fallback(async |uri: Uri| Problem::Path(uri.path().to_owned()))
            .method_not_allowed_fallback(async |method: Method| Problem::Method(method))
            .with_state(context);
        let mut stopped = stop.clone();
        let serve = axum::serve(self.listener, router).with_graceful_shutdown(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        let given_up = async {
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            // It does not fail: errors of single connections end these.
            _ = async { serve.await } => {}
            // A client may keep its connection open.
            () = given_up => {}
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn intent(State(context): State<Context>, body: Body) -> Result<StatusCode, Problem> {
    let bytes = context.read(body).await?;
    let intent: Intent = parse(&bytes)?;
    check("exchange.id", &intent.exchange.id)?;
    if let Some(vm) = &intent.exchange.vm {
        check("exchange.vm.id", &vm.id)?;
        check("exchange.vm.envoy", &vm.envoy)?;
        check_count("exchange.vm.begun", vm.begun)?;
    }
    // As it came: a newer gateway may know more facts.
    let content = String::from_utf8_lossy(&bytes).into_owned();
    context.ledger.intent(&intent, content).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn report(State(context): State<Context>, body: Body) -> Result<StatusCode, Problem> {
    let report: VmReport = parse(&context.read(body).await?)?;
    check("vm", &report.vm)?;
    check("envoy", &report.envoy)?;
    check_count("begun", report.begun)?;
    check_count("logged", report.logged)?;
    check_count("may_begin", report.may_begin)?;
    for (at, end) in report.ends.iter().enumerate() {
        check(&format!("ends[{at}].exchange.id"), &end.exchange.id)?;
        let numbers = end.exchange.vm.as_ref().map_or(0, |vm| vm.begun.max(vm.logged));
        check_count("a counter in ends", numbers)?;
    }
    context.ledger.report(&report).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Context {
    async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let read = async {
            let _permit = self.reads.acquire().await;
            Limited::new(body, MAX_BODY).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
                true => Problem::BodyLong,
                false => Problem::BodyBroken(error.to_string()),
            })
        };
        let body = tokio::time::timeout(DEADLINE, read).await.map_err(|_| Problem::BodySlow)??;
        Ok(body.to_bytes())
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader)?;
    let ended = reader.end();
    ended.map_err(|error| Problem::BodyBroken(error.to_string()))?;
    Ok(parsed)
}

fn check(field: &str, id: &str) -> Result<(), Problem> {
    let field = field.to_owned();
    match id.len() {
        0 => Err(Problem::Empty { field }),
        length if length > MAX_ID => Err(Problem::LongId { field, length }),
        _ => Ok(()),
    }
}

fn check_count(field: &'static str, count: u64) -> Result<(), Problem> {
    if count > MAX_COUNT { Err(Problem::Count { field }) } else { Ok(()) }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::BodySlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyBroken(_) | Self::Json(_) | Self::Empty { .. } | Self::LongId { .. } | Self::Count { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Refused(Refusal::Conflict) => StatusCode::CONFLICT,
            Self::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
        };
        (status, format!("{self}\n")).into_response()
    }
}
