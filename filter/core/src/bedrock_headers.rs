//! The headers that cross to Bedrock.

use crate::config::{ConfigError, at};

/// Client headers that cross the partition: those that Bedrock's API defines (botocore 1.44.8), by exact name. All
/// others are dropped. `content-length` and the pseudo-headers are set, never passed on.
pub const CROSSING: &[&str] = &[
    "accept",
    "content-type",
    "x-amzn-bedrock-accept",
    "x-amzn-bedrock-guardrailidentifier",
    "x-amzn-bedrock-guardrailversion",
    "x-amzn-bedrock-performanceconfig-latency",
    "x-amzn-bedrock-projectidentifier",
    "x-amzn-bedrock-request-metadata",
    "x-amzn-bedrock-service-tier",
    "x-amzn-bedrock-trace",
];
/// Names of Bedrock's own headers. One that is neither known nor allowed is refused: without it, the call would mean another thing.
pub(crate) const BEDROCKS: &str = "x-amzn-bedrock-";

/// Compiles the headers that the operator allows.
pub(crate) fn compile(given: &[String]) -> Result<Vec<String>, ConfigError> {
    let mut allowed: Vec<String> = Vec::new();
    for (index, name) in given.iter().enumerate() {
        let key = format!("headers.allow[{index}]");
        let lower = name.to_ascii_lowercase();
        let rest = lower.strip_prefix(BEDROCKS).unwrap_or_default();
        if rest.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(at(key, format!("{name:?} is not a header of Bedrock's: want {BEDROCKS} and a name")));
        }
        if CROSSING.contains(&lower.as_str()) {
            return Err(at(key, format!("the gateway knows '{name}': it crosses without this")));
        }
        if allowed.contains(&lower) {
            return Err(at(key, format!("'{name}' is there twice")));
        }
        allowed.push(lower);
    }
    Ok(allowed)
}

/// Whether a header is Bedrock's, and neither known nor allowed.
pub(crate) fn is_unknown(name: &str, allowed: &[String]) -> bool {
    name.starts_with(BEDROCKS) && !CROSSING.contains(&name) && !allowed.iter().any(|known| known == name)
}

/// Few headers are signed: those that AWS requires, and those that change the meaning of the call.
pub(crate) fn is_signed(name: &str) -> bool {
    name == "content-type" || name.starts_with(BEDROCKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_headers_of_bedrocks_are_allowed() {
        let compiled = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            compile(&names).map_err(|error| error.to_string())
        };
        assert_eq!(
            compiled(&["X-Amzn-Bedrock-New", "x-amzn-bedrock-2"]).unwrap(),
            ["x-amzn-bedrock-new", "x-amzn-bedrock-2"]
        );
        for (names, wanted) in [
            (&["authorization"][..], "is not a header of Bedrock's"),
            (&["x-amzn-bedrock-"], "is not a header of Bedrock's"),
            (&["x-amzn-bedrock-a b"], "is not a header of Bedrock's"),
            (&["x-amzn-bedrock-trace"], "the gateway knows"),
            (&["x-amzn-bedrock-new", "X-amzn-bedrock-new"], "is there twice"),
        ] {
            let error = compiled(names).unwrap_err();
            assert!(
                error.contains(&format!("headers.allow[{}]", names.len() - 1)) && error.contains(wanted),
                "{error}"
            );
        }
    }
}
