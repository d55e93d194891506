//! The gRPC source: Envoy's access log service. A live feed: Envoy itself loses entries without a word when its stream
//! breaks, so what must not be lost is read from the file. Here a bounded buffer stands between stream and store; when
//! it is full the oldest entry is dropped, counted and reported.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::AuditRecord;
use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::deliver;
use crate::report::Report;
use crate::store::{Batch, Rejected, Store};
use crate::{BATCH_ITEMS, BATCH_WAIT, decode};

/// Entries kept while the store is down: some 10 MB, and a minute at 160 calls a second.
pub const BUFFER: usize = 10_000;
/// How long a stop waits for a store that is down, before what is in the buffer is lost.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// What a stream hands over.
#[derive(Debug)]
enum Item {
    Record(Box<AuditRecord>),
    Rejected(Box<Rejected>),
}

/// The buffer between the streams and the store.
#[derive(Debug)]
pub struct Feed {
    items: Mutex<VecDeque<Item>>,
    more: Notify,
    capacity: usize,
    report: Arc<Report>,
}

/// The service, one for all streams.
#[derive(Debug)]
struct Service {
    feed: Arc<Feed>,
    stop: watch::Receiver<bool>,
}

/// Serves until `stop`, then lets the streams go.
///
/// # Errors
/// What ended the server before that.
pub async fn serve(
    listener: TcpListener,
    feed: Arc<Feed>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let service = AccessLogServiceServer::new(Service { feed, stop: stop.clone() });
    tonic::transport::Server::builder()
        // An Envoy that vanished leaves a connection that nothing else would end.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

/// Moves what is in the buffer to the store, until `stop` and the buffer is empty. Returns how many entries were lost,
/// because the store stayed down past the stop.
pub async fn store(feed: &Feed, store: &Store, report: &Report, mut stop: watch::Receiver<bool>) -> u64 {
    loop {
        if feed.len() == 0 {
            if *stop.borrow() {
                return 0;
            }
            tokio::select! {
                () = feed.more.notified() => {}
                _ = stop.changed() => {}
            }
            continue;
        }
        if feed.len() < BATCH_ITEMS && !*stop.borrow() {
            let _ = tokio::time::timeout(BATCH_WAIT, async {
                while feed.len() < BATCH_ITEMS {
                    feed.more.notified().await;
                }
            })
            .await;
        }
        let mut batch = Batch::default();
        for item in feed.take(BATCH_ITEMS) {
            match item {
                Item::Record(record) => batch.records.push(*record),
                Item::Rejected(rejected) => batch.rejected.push(*rejected),
            }
        }
        if let Err(error) = deliver(store, &batch, report, &mut stop, LAST_TRIES).await {
            let lost = (batch.records.len() + batch.rejected.len() + feed.len()) as u64;
            report.failed(&format!("stopped, and lost {lost} access log service entries"), &error);
            return lost;
        }
    }
}

// === impl Feed ===

impl Feed {
    /// A buffer of `capacity` entries.
    pub fn new(capacity: usize, report: Arc<Report>) -> Self {
        Self { items: Mutex::default(), more: Notify::new(), capacity, report }
    }

    fn push(&self, item: Item) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.capacity {
            items.pop_front();
            self.report.dropped();
        }
        items.push_back(item);
        drop(items);
        self.more.notify_one();
    }

    fn take(&self, max: usize) -> Vec<Item> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let count = items.len().min(max);
        items.drain(..count).collect()
    }

    fn len(&self) -> usize {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn entry(&self, log: &str, number: u64, entry: &HttpAccessLogEntry) {
        if !decode::finished(entry) {
            self.report.skipped(1);
            return;
        }
        self.push(match decode::als(entry) {
            Ok(record) => Item::Record(Box::new(record)),
            Err(error) => {
                let kept = format!("{} bytes of HTTPAccessLogEntry", entry.encoded_len());
                let rejected = Rejected::new("als", log.to_owned(), number, error.to_string(), kept.as_bytes());
                Item::Rejected(Box::new(rejected))
            }
        });
    }
}

// === impl Service ===

#[tonic::async_trait]
impl AccessLogService for Service {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut stop = self.stop.clone();
        let mut stream = request.into_inner();
        let (mut log, mut number) = ("access log service".to_owned(), 0);
        loop {
            let message = tokio::select! {
                message = stream.message() => message?,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            let Some(message) = message else {
                return Ok(Response::new(StreamAccessLogsResponse {}));
            };
            if let Some(identifier) = message.identifier {
                log = identifier.log_name;
            }
            match message.log_entries {
                Some(LogEntries::HttpLogs(entries)) => {
                    for entry in &entries.log_entry {
                        self.feed.entry(&log, number, entry);
                        number += 1;
                    }
                }
                Some(LogEntries::TcpLogs(entries)) => self.feed.report.skipped(entries.log_entry.len() as u64),
                None => {}
            }
        }
    }
}
