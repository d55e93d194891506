//! Request metadata, which Bedrock writes into its model invocation logs
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-request-metadata.html>).

use std::collections::BTreeMap;

use serde_json::Value;

use super::converse::Invalid;
use super::operation::Operation;

/// The header of InvokeModel and its stream.
pub const HEADER: &str = "x-amzn-bedrock-request-metadata";

/// Reads a call's metadata, and refuses what botocore 1.44.8 has as constraints of `RequestMetadata`. That Bedrock holds the header
/// of InvokeModel to the same constraints is an assumption; AWS gives no words for its refusals.
///
/// # Errors
/// The message of the ValidationException.
pub fn read(
    operation: Operation,
    header: Option<&str>,
    body: Option<&Value>,
) -> Result<BTreeMap<String, String>, Invalid> {
    let given = match operation {
        Operation::Converse | Operation::ConverseStream => {
            body.and_then(|body| body.get("requestMetadata")).filter(|given| !given.is_null()).cloned()
        }
        Operation::InvokeModel | Operation::InvokeModelWithResponseStream => match header {
            Some(text) if text.len() > 8500 => return Err(invalid("have length less than or equal to 8500")),
            Some(text) => Some(serde_json::from_str(text).map_err(|_| invalid("be a JSON object"))?),
            None => None,
        },
        _ => None,
    };
    let Some(given) = given else { return Ok(BTreeMap::new()) };
    let entries: BTreeMap<String, String> =
        serde_json::from_value(given).map_err(|_| invalid("be a map of strings to strings"))?;
    if !(1..=16).contains(&entries.len()) {
        return Err(invalid("have 1 to 16 entries"));
    }
    let fits = |text: &str, least: usize| {
        (least..=256).contains(&text.chars().count())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || " \t\n\r\x0b\x0c:_@$#=/+,-.".contains(c))
    };
    match entries.iter().find(|(key, value)| !fits(key, 1) || !fits(value, 0)) {
        Some(_) => Err(invalid("satisfy regular expression pattern: [a-zA-Z0-9\\s:_@$#=/+,-.]{1,256}")),
        None => Ok(entries),
    }
}

fn invalid(constraint: &str) -> Invalid {
    format!("Value at 'requestMetadata' failed to satisfy constraint: Member must {constraint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn botocores_constraints_hold() {
        let many: BTreeMap<String, String> = (0..17).map(|number| (number.to_string(), String::new())).collect();
        for (given, good) in [
            (json!({"a b:_@$#=/+,-.": ""}), true),
            (json!({"a": "b".repeat(256)}), true),
            (Value::Null, true),
            (json!({}), false),
            (json!({"a": "b".repeat(257)}), false),
            (json!({"": "b"}), false),
            (json!({"a|": "b"}), false),
            (json!({"a": "{}"}), false),
            (json!({"a": 1}), false),
            (json!([]), false),
            (json!(many), false),
        ] {
            let body = json!({"requestMetadata": given});
            assert_eq!(read(Operation::Converse, None, Some(&body)).is_ok(), good, "{given}");
            if !given.is_null() {
                let header = given.to_string();
                assert_eq!(read(Operation::InvokeModel, Some(&header), None).is_ok(), good, "{given}");
            }
        }
        assert_eq!(read(Operation::CountTokens, Some("x"), None), Ok(BTreeMap::new()));
    }
}
