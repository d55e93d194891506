//! Envoy's admin interface: its statistics and command line.

use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::losses::Sample;

/// Envoy's `--file-flush-interval-msec` without one
/// (<https://www.envoyproxy.io/docs/envoy/v1.35.2/operations/cli>).
pub(super) const DEFAULT_FLUSH: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BODY: usize = 1024 * 1024;
/// The statistics by their names, as a regular expression of Envoy's.
const STATISTICS: &str = r"/stats?filter=^(filesystem\.write_(buffered|completed|failed|total_buffered)|server\.uptime|access_logs\.grpc_access_log\..*logs_dropped)$";

/// HOST:PORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(String);

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("{0} is not HOST:PORT")]
    Address(String),
    #[error("{address} does not answer: {cause}")]
    Unreachable { address: String, cause: String },
    #[error("{address} answers {path} with {what}")]
    Answer { address: String, path: &'static str, what: String },
}

impl FromStr for Admin {
    type Err = AdminError;

    fn from_str(text: &str) -> Result<Self, AdminError> {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(_)) => Ok(Self(text.to_owned())),
            _ => Err(AdminError::Address(text.to_owned())),
        }
    }
}

impl Admin {
    pub async fn sample(&self) -> Result<Sample, AdminError> {
        let body = self.get(STATISTICS).await?;
        let mut sample = Sample::default();
        let mut found = 0;
        for (name, value) in body.lines().filter_map(|line| line.split_once(": ")) {
            let Ok(value) = value.trim().parse() else { continue };
            match name {
                "filesystem.write_buffered" => sample.buffered = value,
                "filesystem.write_completed" => sample.completed = value,
                "filesystem.write_failed" => sample.failed = value,
                "filesystem.write_total_buffered" => sample.unwritten_bytes = value,
                "server.uptime" => sample.uptime = value,
                _ => {
                    sample.feed_dropped += value;
                    continue;
                }
            }
            found += 1;
        }
        if found < 4 {
            let what = format!("{found} of the statistics; does its stats_matcher keep filesystem.*?");
            return Err(AdminError::Answer { address: self.0.clone(), path: "/stats", what });
        }
        Ok(sample)
    }

    /// How long an entry waits in Envoy's buffer at most.
    pub(super) async fn flush_interval(&self) -> Result<Duration, AdminError> {
        let path = "/server_info";
        let body = self.get(path).await?;
        let info: Option<Value> = serde_json::from_str(&body).ok();
        let text = info.as_ref().and_then(|info| info.pointer("/command_line_options/file_flush_interval")?.as_str());
        let seconds = text.and_then(|text| text.strip_suffix('s')?.parse::<f64>().ok());
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| AdminError::Answer {
            address: self.0.clone(),
            path,
            what: "no file_flush_interval".to_owned(),
        })
    }

    async fn get(&self, path: &'static str) -> Result<String, AdminError> {
        let failed = |cause: String| AdminError::Unreachable { address: self.0.clone(), cause };
        match tokio::time::timeout(TIMEOUT, self.exchange(path)).await {
            Ok(Ok((200, body))) => Ok(body),
            Ok(Ok((status, _))) => {
                Err(AdminError::Answer { address: self.0.clone(), path, what: format!("status {status}") })
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer in {} s", TIMEOUT.as_secs()))),
        }
    }

    async fn exchange(&self, path: &str) -> Result<(u16, String), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.0).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Characters of the expression that a path may not have.
        let path: String = path.chars().map(escaped).collect();
        let request = Request::get(path).header("host", &self.0).body(Empty::<Bytes>::new())?;
        // It drops `sender` at its end, and that ends the connection.
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::join!(answer, connection).0
    }
}

fn escaped(character: char) -> String {
    match character {
        '^' | '\\' | '|' | '(' | ')' | '$' | '*' => format!("%{:02X}", u32::from(character)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_host_and_port() {
        for good in ["127.0.0.1:9901", "localhost:1", "[::1]:9901"] {
            assert!(good.parse::<Admin>().is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":9901", "localhost:99999", "http://localhost"] {
            assert!(bad.parse::<Admin>().is_err(), "{bad}");
        }
    }
}
