//! `audit-collector run`: connects sources and store, from start to a clean end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Reading;
use crate::health::{self, Health};
use crate::ledger::server::Server;
use crate::ledger::{Ledger, LedgerError, SocketError, outbox};
use crate::report::{Counts, Report};
use crate::source::buffer::{self, Buffer};
use crate::source::tail::Tail;
use crate::source::{als, file};
use crate::store::{PurgeLimits, Purged, Store, StoreError};

/// How often expired records are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(3600);
/// How often the store's file is looked for.
const PLACE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the store's file is read for damage; a start does it too.
const PAGES_INTERVAL: Duration = Duration::from_secs(86_400);
/// How often new drops are reported.
const DROPS_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Sources {
    /// Listen address of the access log service; port 0 picks a free port.
    pub als: Option<SocketAddr>,
    /// The access log.
    pub file: Option<PathBuf>,
    /// How the run shows whether it works.
    pub health: health::Options,
    /// What a purge may do.
    pub purge: PurgeLimits,
    /// Keeps intents.
    pub ledger: Option<Ledger>,
    /// The Unix socket for intents, which needs a ledger.
    pub intents: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("access log service: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Fatal: reading from the start instead would hide it.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] StoreError),
    /// The next start reads the log from its start.
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Intents(#[from] SocketError),
    #[error("lost {0} access log service entries: the store was down at the stop")]
    Lost(u64),
}

/// Runs until `stop` becomes true. Calls `ready` once it serves, with the sources (`als=127.0.0.1:9001 file=…`).
pub async fn run(
    sources: &Sources,
    store: &Store,
    report: Arc<Report>,
    stop: watch::Receiver<bool>,
    ready: impl FnOnce(&str),
) -> Result<Counts, RunError> {
    let mut names = Vec::new();
    let listener = match sources.als {
        Some(address) => {
            let listen = async { TcpListener::bind(address).await.and_then(|bound| Ok((bound.local_addr()?, bound))) };
            let (address, bound) = listen.await.map_err(|error| RunError::Listen(address, error))?;
            names.push(format!("als={address}"));
            Some(bound)
        }
        None => None,
    };
    let tail = match &sources.file {
        Some(path) => {
            names.push(format!("file={}", path.display()));
            let checkpoint = store.checkpoint(path)?;
            report.health().log_is_at(checkpoint.as_ref(), 0);
            Some((path, Tail::new(path, checkpoint)))
        }
        None => None,
    };
    let server = match (&sources.intents, &sources.ledger) {
        (Some(path), Some(ledger)) => {
            names.push(format!("intents={}", path.display()));
            Some((Server::listen(path)?, ledger.clone()))
        }
        _ => None,
    };
    let mut health =
        Health::bind(&sources.health).await.map_err(|(address, error)| RunError::Listen(address, error))?;
    if let Some(address) = health.address() {
        names.push(format!("health={address}"));
    }
    report.health().serving();
    health.start(&sources.health, sources.file.clone(), &report, &stop);
    ready(&names.join(" "));

    let kept = sources.ledger.as_ref();
    if let Some(ledger) = kept {
        ledger.expect(sources.file.is_some(), sources.als.is_some());
    }
    let buffer = Arc::new(Buffer::new(buffer::CAPACITY, Arc::clone(&report)));
    // The buffer is drained for the last time after the server has ended, so that no entry arrives later.
    let (served, all_received) = watch::channel(false);
    let live = async {
        let Some(listener) = listener else {
            return Ok(0);
        };
        let serve = async {
            let result = als::serve(listener, Arc::clone(&buffer), stop.clone()).await;
            let _ = served.send(true);
            result
        };
        let (result, lost) = tokio::join!(serve, buffer.drain(store, kept, all_received));
        result.map(|()| lost)
    };
    let ledger = async {
        if let Some((path, tail)) = tail {
            file::follow(path, tail, store, kept, &report, stop.clone()).await;
        }
    };
    let intents = async {
        if let Some((server, ledger)) = server {
            server.serve(ledger, stop.clone()).await;
        }
    };
    let found = async {
        if let Some(ledger) = kept {
            outbox::run(ledger, store, &report, stop.clone()).await;
        }
    };
    let upkeep = upkeep(store, &report, sources, stop.clone());
    let work = async { tokio::join!(live, ledger, intents, found).0 };
    let result = tokio::select! {
        result = work => result,
        error = upkeep => return Err(error),
    };
    if let Some(Err(error)) = kept.map(Ledger::close) {
        report.failed("ledger", &error);
    }
    report.print_dropped();
    report.print_expired();
    report.summary();
    match result? {
        0 => Ok(report.counts()),
        lost => Err(RunError::Lost(lost)),
    }
}

/// Runs periodic work, until the file of the store or of the ledger is gone.
async fn upkeep(store: &Store, report: &Arc<Report>, sources: &Sources, stop: watch::Receiver<bool>) -> RunError {
    let limits = sources.purge;
    let mut purge = tokio::time::interval(PURGE_INTERVAL);
    let mut drops = tokio::time::interval(DROPS_INTERVAL);
    let mut place = tokio::time::interval(PLACE_INTERVAL);
    let mut pages = tokio::time::interval_at(Instant::now() + PAGES_INTERVAL, PAGES_INTERVAL);
    loop {
        tokio::select! {
            _ = place.tick() => {
                if let Err(error) = store.check_place() {
                    return RunError::Store(error);
                }
                let Some(ledger) = &sources.ledger else { continue };
                if let Err(error) = ledger.check_place() {
                    return error.into();
                }
                match tokio::task::block_in_place(|| ledger.check_clock()) {
                    Ok(None) => {}
                    Ok(Some(step)) => {
                        report.clock_stepped(step.ahead());
                        // A purge names a clock that is off, and deletes nothing.
                        purge.reset_immediately();
                    }
                    Err(refusal) => report.failed("ledger", &refusal),
                }
            }
            _ = pages.tick() => {
                let (store, report) = (store.clone(), Arc::clone(report));
                // A thread that the end of the program does not wait for.
                std::thread::spawn(move || {
                    if let Err(error) = store.check_pages(None) {
                        report.failed("store", &error);
                    }
                });
            }
            _ = purge.tick() => {
                let (store, report, stop) = (store.clone(), Arc::clone(report), stop.clone());
                tokio::task::spawn_blocking(move || match store.purge(&Reading::now(), limits, || *stop.borrow()) {
                    Ok(None | Some(Purged::Deleted(_))) => {}
                    Ok(Some(refused)) => report.failed("deleting expired records", &refused),
                    Err(error) => report.failed("deleting expired records", &error),
                });
            }
            _ = drops.tick() => {
                report.print_dropped();
                report.print_expired();
            }
        }
    }
}
