//! The document of the filter in a source's cluster.

use super::error::ConfigError;
use super::json::Json;
use super::read_unique;
use serde::{Deserialize, Serialize};

/// A cluster that credentials are fetched from, in whose upstream chain the module runs: `{"source_cluster": "imds"}`. It gives
/// the module's calls the headers that Envoy's router must not see.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCluster {
    /// The cluster's name.
    pub source_cluster: String,
}

impl SourceCluster {
    /// Parses a document, if it is such a filter's.
    ///
    /// # Errors
    /// As [`super::Config::parse`].
    pub fn parse(json: &[u8]) -> Option<Result<Self, ConfigError>> {
        let document = Json::parse(json).ok()?;
        document.get("source_cluster")?;
        Some(read_unique(&document))
    }

    /// The document as JSON text.
    pub fn to_json(&self) -> String {
        // A struct of one text: serialising it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_its_cluster() {
        let parse = |json: &str| SourceCluster::parse(json.as_bytes());
        let own = SourceCluster { source_cluster: "imds".to_owned() };
        assert_eq!(parse(&own.to_json()), Some(Ok(own)));
        assert_eq!(parse(r#"{"role": "signer"}"#), None);
        assert!(parse(r#"{"source_cluster": 1}"#).unwrap().is_err());
        assert!(parse(r#"{"source_cluster": "imds", "role": "signer"}"#).unwrap().is_err());
    }
}
