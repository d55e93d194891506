//! The document of the network filter that limits clients' connections.

use super::error::{ConfigError, at};
use super::json::Json;
use super::read_unique;
use serde::{Deserialize, Serialize};

/// What a client's connections may hold, on each of Envoy's workers:
/// `{"connections": {"per_client": 500, "first_request_seconds": 30}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// How many may be open.
    pub per_client: u32,
    /// How long one may be open before the headers of its first request have come, in seconds.
    pub first_request_seconds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    connections: Connections,
}

impl Connections {
    /// Parses a document, if it is such a filter's.
    ///
    /// # Errors
    /// As [`super::Config::parse`]; a limit of 0.
    pub fn parse(json: &[u8]) -> Option<Result<Self, ConfigError>> {
        let document = Json::parse(json).ok()?;
        document.get("connections")?;
        Some(read_unique(&document).and_then(|Document { connections }| {
            let zero = |key: &str| at(format!("connections.{key}"), "0 would end every connection");
            match connections {
                Self { per_client: 0, .. } => Err(zero("per_client")),
                Self { first_request_seconds: 0, .. } => Err(zero("first_request_seconds")),
                connections => Ok(connections),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_read_by_name() {
        let parse = |json: &str| Connections::parse(json.as_bytes());
        let limits = Connections { per_client: 5, first_request_seconds: 30 };
        assert_eq!(parse(r#"{"connections": {"per_client": 5, "first_request_seconds": 30}}"#), Some(Ok(limits)));
        assert_eq!(parse(r#"{"role": "signer"}"#), None);
        for (json, key) in [
            (r#"{"connections": {"per_client": 0, "first_request_seconds": 30}}"#, "connections.per_client"),
            (r#"{"connections": {"per_client": 5, "first_request_seconds": 0}}"#, "connections.first_request_seconds"),
        ] {
            assert_eq!(parse(json).unwrap().unwrap_err().key, key);
        }
        for json in [
            r#"{"connections": {}}"#,
            r#"{"connections": {"per_client": 5, "first_request_seconds": 3}, "role": "gateway"}"#,
        ] {
            assert!(parse(json).unwrap().is_err(), "{json}");
        }
    }
}
