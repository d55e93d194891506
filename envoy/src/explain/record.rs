//! An audit record as JSON, as `audit-collector query --json` prints it.

use audit::AuditRecord;
use filter_core::operation::{OPERATIONS, Operation};
use serde_json::Value;

/// What a record says of its call.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The operation.
    pub operation: Operation,
    /// All of it.
    pub record: AuditRecord,
}

/// Why a JSON text is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or a field of another kind.
    #[error("not an audit record: {0}")]
    Json(String),
    /// The call was refused before an operation was recognised.
    #[error("key `operation`: the record has none, so its call was not recognised and took no route")]
    NoOperation,
    /// An operation that is not carried.
    #[error("key `operation`: '{0}' is not an operation that the gateway carries")]
    Operation(String),
}

/// Parses a record; fields that are left out are unknown, and further ones are ignored.
///
/// # Errors
/// [`RecordError`] names the field.
pub(super) fn parse(text: &[u8]) -> Result<Record, RecordError> {
    let wrong = |error: serde_json::Error| RecordError::Json(error.to_string());
    let given: Value = serde_json::from_slice(text).map_err(wrong)?;
    let mut whole = serde_json::to_value(AuditRecord::default()).map_err(wrong)?;
    if let (Value::Object(whole), Value::Object(given)) = (&mut whole, given) {
        whole.extend(given);
    }
    let record: AuditRecord = serde_json::from_value(whole).map_err(wrong)?;
    let name = record.operation.as_deref().ok_or(RecordError::NoOperation)?;
    let operation = OPERATIONS.iter().find(|operation| operation.name() == name).copied();
    Ok(Record { operation: operation.ok_or_else(|| RecordError::Operation(name.to_owned()))?, record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_record_with_some_of_its_fields() {
        let record = parse(br#"{"operation": "Converse", "model_asked": "claude", "more": 1}"#).unwrap();
        assert_eq!(record.operation, Operation::Converse);
        assert_eq!(record.record.model_asked.as_deref(), Some("claude"));
    }

    #[test]
    fn takes_a_whole_record() {
        let whole = AuditRecord { operation: Some("ListFoundationModels".to_owned()), ..AuditRecord::default() };
        assert_eq!(parse(&serde_json::to_vec(&whole).unwrap()).unwrap().record, whole);
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, wanted) in [
            ("{", "not an audit record: EOF"),
            ("{}", "key `operation`: the record has none"),
            (r#"{"operation": "Chat"}"#, "key `operation`: 'Chat' is not an operation"),
            (r#"{"operation": "Converse", "status": "ok"}"#, "not an audit record: invalid type: string \"ok\""),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
    }
}
