//! What an error response of a source says, as far as it may be logged.

use super::responses::xml_text;
use crate::headers::Headers;

/// The texts with which Envoy answers a call that did not reach its cluster (`source/common/router/router.cc`).
const ENVOYS_TEXTS: [&str; 4] = [
    "no healthy upstream",
    "upstream connect error or disconnect/reset before headers",
    "upstream request timeout",
    "upstream max stream duration reached",
];
/// Longest text that is logged.
const MAX_TEXT: usize = 300;
/// Longest word that is logged, but for an ARN or an address: a longer one may be a token.
const MAX_WORD: usize = 64;

/// AWS's error code in a response: in a header, in JSON or in XML.
pub fn code(headers: &Headers, body: &[u8]) -> Option<String> {
    let json = || {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let code = ["__type", "code", "Code"].iter().find_map(|key| body.get(key)?.as_str())?;
        Some(code.to_owned())
    };
    let header = headers.get_str("x-amzn-errortype").map(str::to_owned);
    let code = header.or_else(json).or_else(|| xml_text(body, "Code").ok())?;
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    let named = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    named.then(|| code.to_owned())
}

/// AWS's message in an error response: in JSON or in XML.
pub fn message(body: &[u8]) -> Option<String> {
    let json = || {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let message = ["message", "Message"].iter().find_map(|key| body.get(key)?.as_str())?;
        Some(message.to_owned())
    };
    let message = json().or_else(|| xml_text(body, "Message").ok())?;
    let word = |word: &str| {
        let plain = word.chars().all(|c| c.is_ascii_graphic());
        let short = word.len() <= MAX_WORD || word.starts_with("arn:") || word.starts_with("https://");
        if plain && short { word.to_owned() } else { "…".to_owned() }
    };
    let words: Vec<String> = message.split_whitespace().map(word).collect();
    let text: String = words.join(" ").chars().take(MAX_TEXT).collect();
    (!text.is_empty()).then_some(text)
}

/// Envoy's reason in a response that it made itself.
pub fn envoys_reason(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let known = ENVOYS_TEXTS.iter().any(|known| text.starts_with(known));
    known.then(|| text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_TEXT).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_no_token() {
        let token = "eyJ".repeat(40);
        let arn = format!("arn:aws-us-gov:sts::444455556666:assumed-role/{}", "r".repeat(64));
        for (body, wanted) in [
            (r#"{"message":"Untrusted certificate"}"#.to_owned(), "Untrusted certificate"),
            (
                format!("<E><Message>User: {arn} is not\nauthorized</Message></E>"),
                &format!("User: {arn} is not authorized"),
            ),
            (format!(r#"{{"Message":"Value '{token}' at 'webIdentityToken'"}}"#), "Value … at 'webIdentityToken'"),
            (r#"{"message":"a\u0000b \u001b[31mred"}"#.to_owned(), "… …"),
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), Some(wanted), "{body}");
        }
        assert_eq!(message(&format!(r#"{{"message":"{}"}}"#, "no ".repeat(500)).into_bytes()).unwrap().len(), MAX_TEXT);
        assert_eq!(message(b"<html>no</html>"), None);
    }
}
