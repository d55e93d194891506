//! The query of a request: only the parameters that an operation has cross, each at most once.

use crate::encoding::{DecodeError, decode, encode};

/// Longest value of a parameter in bytes, decoded (botocore: `PaginationToken` has at most 2048 characters, which is the most
/// of all).
pub const MAX_VALUE: usize = 2048;
/// Longest query in bytes, as it crosses: Envoy refuses a request whose headers are longer than 60 KiB.
pub const MAX_QUERY: usize = 16 << 10;
/// Longest name that an error repeats.
const MAX_SHOWN: usize = 64;

/// Why a query does not cross. No variant holds a value, because it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryProblem {
    /// It cannot be decoded.
    #[error("The query string is malformed: {0}.")]
    Encoding(#[from] DecodeError),
    /// A parameter of a presigned URL.
    #[error(
        "The query has the parameter '{0}' of a presigned URL. The gateway does not accept presigned URLs: it signs with its own credentials."
    )]
    Presigned(String),
    /// A parameter that the operation does not have.
    #[error("The query has {0}, which the operation does not have.")]
    Unknown(ShownName),
    /// A parameter twice.
    #[error("The query has the parameter '{0}' more than once.")]
    Repeated(&'static str),
    /// A value that is too long.
    #[error("Value at '{0}' failed to satisfy constraint: member must have length less than or equal to {MAX_VALUE}.")]
    TooLong(&'static str),
    /// The whole is too long.
    #[error("The query string is longer than the {MAX_QUERY} bytes that this gateway carries.")]
    QueryTooLong,
}

/// The name of a parameter, if it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownName(Option<String>);

impl ShownName {
    fn of(name: &str) -> Self {
        let shown = (1..=MAX_SHOWN).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        Self(shown.then(|| name.to_owned()))
    }
}

impl std::fmt::Display for ShownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(name) => write!(f, "the parameter '{name}'"),
            None => f.write_str("a parameter"),
        }
    }
}

/// The canonical form of a query whose parameters are all `known`: each name and value decoded and encoded once, sorted by
/// name. A `+` is a space, as servers read queries.
///
/// # Errors
/// [`QueryProblem`] says which parameter does not cross, and why.
pub fn canonical(wire: &str, known: &'static [&'static str]) -> Result<String, QueryProblem> {
    let mut pairs: Vec<(&'static str, String)> = Vec::new();
    for pair in wire.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(&name.replace('+', " "))?;
        let Some(name) = known.iter().find(|known| **known == name) else { return Err(unknown(&name)) };
        let value = decode(&value.replace('+', " "))?;
        if value.len() > MAX_VALUE {
            return Err(QueryProblem::TooLong(name));
        }
        if pairs.iter().any(|(earlier, _)| earlier == name) {
            return Err(QueryProblem::Repeated(name));
        }
        pairs.push((name, encode(&value)));
    }
    pairs.sort();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = pairs.join("&");
    if query.len() > MAX_QUERY { Err(QueryProblem::QueryTooLong) } else { Ok(query) }
}

/// Presigned URLs have `X-Amz-…` (SigV4), or `AWSAccessKeyId` and `Signature` (SigV2): AWS General Reference, "Signing AWS API
/// requests".
fn unknown(name: &str) -> QueryProblem {
    let lower = name.to_ascii_lowercase();
    match ShownName::of(name).0 {
        Some(shown) if lower.starts_with("x-amz-") || lower == "awsaccesskeyid" || lower == "signature" => {
            QueryProblem::Presigned(shown)
        }
        shown => QueryProblem::Unknown(ShownName(shown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["maxResults", "nextToken", "sortBy"];

    #[test]
    fn known_parameters_become_canonical() {
        for (wire, wanted) in [
            ("", ""),
            ("&&", ""),
            ("sortBy=a&maxResults=1", "maxResults=1&sortBy=a"),
            ("maxResults", "maxResults="),
            ("nextToken=a+b%2bc%3d", "nextToken=a%20b%2Bc%3D"),
            ("%6eextToken=%c3%a4", "nextToken=%C3%A4"),
            ("nextToken=a=b", "nextToken=a%3Db"),
        ] {
            assert_eq!(canonical(wire, KNOWN).as_deref(), Ok(wanted), "{wire}");
        }
    }

    #[test]
    fn refuses_other_parameters_by_name() {
        let presigned = |name: &str| QueryProblem::Presigned(name.to_owned());
        let shown = |name: &str| QueryProblem::Unknown(ShownName(Some(name.to_owned())));
        let hidden = QueryProblem::Unknown(ShownName(None));
        let long = "n".repeat(MAX_SHOWN + 1);
        for (wire, wanted) in [
            ("X-Amz-Security-Token=s3cret", presigned("X-Amz-Security-Token")),
            ("x-amz-signature=s3cret", presigned("x-amz-signature")),
            ("maxResults=1&%58-Amz-Credential=s3cret", presigned("X-Amz-Credential")),
            ("AWSAccessKeyId=s3cret&Signature=s3cret", presigned("AWSAccessKeyId")),
            ("Action=s3cret", shown("Action")),
            // Names are exact.
            ("maxresults=s3cret", shown("maxresults")),
            ("maxResults%00=s3cret", hidden.clone()),
            ("=s3cret", hidden.clone()),
            ("s3cret%20s3cret", hidden.clone()),
            (long.as_str(), hidden.clone()),
            ("sortBy=s3cret&sortBy=s3cret", QueryProblem::Repeated("sortBy")),
            ("sortBy=s3cret&%73ortBy=s3cret", QueryProblem::Repeated("sortBy")),
            ("sortBy=%", QueryProblem::Encoding(DecodeError::Escape)),
            ("sortBy=%ff", QueryProblem::Encoding(DecodeError::Utf8)),
        ] {
            let problem = canonical(wire, KNOWN).unwrap_err();
            assert_eq!(problem, wanted, "{wire}");
            assert!(!problem.to_string().contains("s3cret"), "{problem}");
        }
    }

    #[test]
    fn values_are_bounded() {
        let of = |length: usize| canonical(&format!("nextToken={}", "\"".repeat(length)), KNOWN);
        assert_eq!(of(MAX_VALUE).map(|query| query.len()), Ok("nextToken=".len() + 3 * MAX_VALUE));
        assert_eq!(of(MAX_VALUE + 1), Err(QueryProblem::TooLong("nextToken")));
        assert_eq!(of(30_000), Err(QueryProblem::TooLong("nextToken")));
        let all: Vec<String> = KNOWN.iter().map(|name| format!("{name}={}", "\"".repeat(MAX_VALUE))).collect();
        assert_eq!(canonical(&all.join("&"), KNOWN), Err(QueryProblem::QueryTooLong));
    }

    #[test]
    fn operations_without_parameters_take_none() {
        assert_eq!(canonical("a=1", &[]), Err(QueryProblem::Unknown(ShownName(Some("a".to_owned())))));
        assert_eq!(canonical("", &[]).as_deref(), Ok(""));
    }
}
