//! Hides secrets in what `explain` prints.

/// Replaces a secret.
pub const MASK: &str = "***";

const TOKEN_HEADER: &str = "x-amz-security-token";

/// The value of a header. A signature is shown, since it cannot be used for another request.
pub(super) fn header(name: &str, value: &str) -> String {
    match name {
        TOKEN_HEADER => MASK.to_owned(),
        "authorization" if !value.starts_with("AWS4-HMAC-SHA256 ") => format!("Bearer {MASK}"),
        _ => value.to_owned(),
    }
}

/// A canonical request.
pub(super) fn canonical_request(text: &str) -> String {
    let line = |line: &str| match line.split_once(':') {
        Some((TOKEN_HEADER, _)) => format!("{TOKEN_HEADER}:{MASK}"),
        _ => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}
