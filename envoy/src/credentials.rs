//! Which credentials the gateway will find in the environment, and so how it authenticates.

use filter_core::config::Auth;

/// Why the environment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// One half of a pair.
    #[error("{set} is set and {missing} is not; set both, or neither")]
    Half {
        /// The variable that is there.
        set: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
}

/// What the environment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment {
    /// How to authenticate.
    pub auth: Auth,
    /// Whether there are credentials at all; without them, the gateway answers 503 to every call.
    pub any: bool,
}

/// Looks at the standard variables, those of `wanted` alone if the document says how to authenticate. Else an API key wins
/// over access keys, as in AWS's SDKs.
pub fn find(wanted: Option<Auth>, variable: impl Fn(&str) -> Option<String>) -> Result<Environment, CredentialsError> {
    let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let key = set("AWS_BEARER_TOKEN_BEDROCK");
    if wanted == Some(Auth::Bearer) || (wanted.is_none() && key) {
        return Ok(Environment { auth: Auth::Bearer, any: key });
    }
    let (id, secret, token) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN");
    match (set(id), set(secret)) {
        (true, true) => Ok(Environment { auth: Auth::Sigv4, any: true }),
        (true, false) => Err(CredentialsError::Half { set: id, missing: secret }),
        (false, true) => Err(CredentialsError::Half { set: secret, missing: id }),
        (false, false) if set(token) => Err(CredentialsError::Half { set: token, missing: id }),
        (false, false) => Ok(Environment { auth: Auth::Sigv4, any: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(names: &[&str]) -> Result<Environment, CredentialsError> {
        find(None, |name| names.contains(&name).then(|| "value".to_owned()))
    }

    #[test]
    fn prefers_an_api_key_as_the_sdks_do() {
        let found = with(&["AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"]).unwrap();
        assert_eq!(found, Environment { auth: Auth::Bearer, any: true });
    }

    #[test]
    fn looks_for_what_the_document_wants() {
        let key = |name: &str| (name == "AWS_BEARER_TOKEN_BEDROCK").then(|| "value".to_owned());
        assert_eq!(find(Some(Auth::Sigv4), key).unwrap(), Environment { auth: Auth::Sigv4, any: false });
        assert_eq!(find(Some(Auth::Bearer), |_| None).unwrap(), Environment { auth: Auth::Bearer, any: false });
    }

    #[test]
    fn starts_without_any() {
        assert_eq!(with(&[]).unwrap(), Environment { auth: Auth::Sigv4, any: false });
        assert!(!find(None, |_| Some(String::new())).unwrap().any);
    }

    #[test]
    fn refuses_half_a_pair_by_name() {
        let error = with(&["AWS_ACCESS_KEY_ID"]).unwrap_err().to_string();
        assert_eq!(error, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both, or neither");
        assert!(with(&["AWS_SECRET_ACCESS_KEY"]).is_err());
        assert!(with(&["AWS_SESSION_TOKEN"]).is_err());
    }
}
