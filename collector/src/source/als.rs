//! Envoy's gRPC access log service. Envoy drops entries silently when its stream breaks: read the file where no entry
//! may be lost.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::buffer::{Buffer, Item};
use crate::batch::Rejected;
use crate::decode;

#[derive(Debug)]
struct Service {
    buffer: Arc<Buffer>,
    stop: watch::Receiver<bool>,
}

/// Serves until `stop`, then closes the streams.
///
/// # Errors
/// A server that ends before `stop`.
pub async fn serve(
    listener: TcpListener,
    buffer: Arc<Buffer>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let service = AccessLogServiceServer::new(Service { buffer, stop: stop.clone() });
    tonic::transport::Server::builder()
        // Ends the connection of an Envoy that vanished without closing it.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

impl Service {
    fn receive(&self, log: &str, number: u64, entry: &HttpAccessLogEntry) {
        if !decode::als::finished(entry) {
            self.buffer.report().skipped(1);
            return;
        }
        self.buffer.push(match decode::als::record(entry) {
            Ok(record) => Item::Record(Box::new(record)),
            Err(error) => {
                let content = entry.encode_to_vec();
                let rejected = Rejected::new("als", log.to_owned(), number, error.to_string(), &content);
                Item::Rejected(Box::new(rejected))
            }
        });
    }
}

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
            // Only the first message of a stream has an identifier.
            if let Some(identifier) = message.identifier {
                log = identifier.log_name;
            }
            match message.log_entries {
                Some(LogEntries::HttpLogs(entries)) => {
                    for entry in &entries.log_entry {
                        self.receive(&log, number, entry);
                        number += 1;
                    }
                }
                Some(LogEntries::TcpLogs(entries)) => self.buffer.report().skipped(entries.log_entry.len() as u64),
                None => {}
            }
        }
    }
}
