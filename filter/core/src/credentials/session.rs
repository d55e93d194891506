//! What CloudTrail shows of the session that keys belong to. Nothing of it is secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// A role session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`: `userIdentity.arn` of the session's CloudTrail events.
    pub arn: Option<String>,
    /// The claim `jti` of the web identity token that the session was issued for.
    pub token_id: Option<String>,
}

/// Longest ARN and token id that are kept.
const MAX_ARN: usize = 512;
const MAX_TOKEN_ID: usize = 128;

#[derive(Deserialize)]
struct Claims {
    jti: String,
}

impl Session {
    /// A session of this ARN. Another text is left out, since the record must not hold anything.
    pub(super) fn new(arn: &str) -> Self {
        let arn = Some(arn).filter(|arn| arn.starts_with("arn:aws:sts::") && visible(arn, MAX_ARN));
        Self { arn: arn.map(str::to_owned), token_id: None }
    }
}

/// The claim `jti` of a JWT (RFC 7519). Its signature is not checked: the service that takes the token does that.
pub(super) fn token_id(token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    visible(&claims.jti, MAX_TOKEN_ID).then_some(claims.jti)
}

fn visible(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_id_of_a_token() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for (token, wanted) in [
            (token(r#"{"jti":"xyz123-def456","sub":"s"}"#), Some("xyz123-def456")),
            (token(r#"{"jti":"two words"}"#), None),
            (token(r#"{"jti":7}"#), None),
            (token(r#"{"sub":"s"}"#), None),
            (token("no"), None),
            ("eyJ.a-b_c.d".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(token_id(&token).as_deref(), wanted, "{token}");
        }
    }

    #[test]
    fn keeps_only_the_arn_of_a_session() {
        let arn = "arn:aws:sts::111122223333:assumed-role/bedrock-gateway/bedrock-gateway";
        assert_eq!(Session::new(arn).arn.as_deref(), Some(arn));
        for other in ["", "arn:aws:iam::111122223333:user/x", "arn:aws:sts::1:assumed-role/a b/c"] {
            assert_eq!(Session::new(other), Session::default(), "{other}");
        }
    }
}
