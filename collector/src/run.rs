//! `audit-collector run`: sources and store, from start to a clean end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::report::{Counts, Report};
use crate::source::als::{self, BUFFER, Feed};
use crate::source::file;
use crate::source::tail::Tail;
use crate::store::{Store, StoreError};

/// How often expired records are deleted.
const PURGE: Duration = Duration::from_secs(3600);
/// How often dropped entries are told of, where there are new ones.
const TELL: Duration = Duration::from_secs(10);

/// What to read.
#[derive(Debug, Default)]
pub struct Sources {
    /// Where the access log service listens; port 0 takes a free one.
    pub als: Option<SocketAddr>,
    /// The access log.
    pub file: Option<PathBuf>,
}

/// Why a run did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address cannot be had.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The gRPC server ended.
    #[error("access log service: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The checkpoint cannot be read: to start at the beginning instead would hide that.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] StoreError),
    /// Entries were lost at the end.
    #[error("{0} access log service entries are lost: the store was down at the stop")]
    Lost(u64),
}

/// Runs until `stop` becomes true. `ready` is called once it serves, with what it reads (`als=127.0.0.1:9001 file=…`).
///
/// # Errors
/// [`RunError`].
pub async fn run(
    sources: &Sources,
    store: &Store,
    report: Arc<Report>,
    stop: watch::Receiver<bool>,
    ready: impl FnOnce(&str),
) -> Result<Counts, RunError> {
    let mut reads = Vec::new();
    let listener = match sources.als {
        Some(address) => {
            let listen = async { TcpListener::bind(address).await.and_then(|bound| Ok((bound.local_addr()?, bound))) };
            let (address, bound) = listen.await.map_err(|error| RunError::Listen(address, error))?;
            reads.push(format!("als={address}"));
            Some(bound)
        }
        None => None,
    };
    let tail = match &sources.file {
        Some(path) => {
            reads.push(format!("file={}", path.display()));
            Some((path, Tail::new(path, store.checkpoint(path)?)))
        }
        None => None,
    };
    ready(&reads.join(" "));

    let feed = Arc::new(Feed::new(BUFFER, Arc::clone(&report)));
    // The buffer is emptied after the server has ended, so that nothing comes after its end.
    let (served, all_received) = watch::channel(false);
    let live = async {
        let Some(listener) = listener else {
            return Ok(0);
        };
        let serve = async {
            let result = als::serve(listener, Arc::clone(&feed), stop.clone()).await;
            let _ = served.send(true);
            result
        };
        let (result, lost) = tokio::join!(serve, als::store(&feed, store, &report, all_received));
        result.map(|()| lost)
    };
    let ledger = async {
        if let Some((path, tail)) = tail {
            file::run(path, tail, store, &report, stop.clone()).await;
        }
    };
    let upkeep = upkeep(store, &report);
    let work = async { tokio::join!(live, ledger).0 };
    let result = tokio::select! {
        result = work => result,
        () = upkeep => Ok(0),
    };
    report.tell();
    report.summary();
    match result? {
        0 => Ok(report.counts()),
        lost => Err(RunError::Lost(lost)),
    }
}

/// What is done by the clock; it never ends.
async fn upkeep(store: &Store, report: &Report) {
    let mut purge = tokio::time::interval(PURGE);
    let mut tell = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            _ = purge.tick() => {
                if let Err(error) = store.purge(OffsetDateTime::now_utc()) {
                    report.failed("deleting expired records", &error);
                }
            }
            _ = tell.tick() => report.tell(),
        }
    }
}
