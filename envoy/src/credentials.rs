//! Finds the credentials in the environment, and the authentication that they allow.

use filter_core::config::Auth;

/// Errors of the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// One variable of a pair is missing.
    #[error("{set} is set and {missing} is not; set both, or neither")]
    Incomplete {
        /// The variable that is set.
        set: &'static str,
        /// The variable that is not set.
        missing: &'static str,
    },
}

/// Credentials in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment {
    /// The authentication to use.
    pub auth: Auth,
    /// Whether credentials are set. Without them the gateway answers 503 to every call.
    pub any: bool,
}

/// Reads the standard variables: only those of `wanted`, if the document sets `auth`. Otherwise an API key takes
/// precedence over access keys, as in AWS's SDKs.
pub fn find(wanted: Option<Auth>, variable: impl Fn(&str) -> Option<String>) -> Result<Environment, CredentialsError> {
    let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let key = set("AWS_BEARER_TOKEN_BEDROCK");
    if wanted == Some(Auth::Bearer) || (wanted.is_none() && key) {
        return Ok(Environment { auth: Auth::Bearer, any: key });
    }
    let (id, secret, token) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN");
    match (set(id), set(secret)) {
        (true, true) => Ok(Environment { auth: Auth::Sigv4, any: true }),
        (true, false) => Err(CredentialsError::Incomplete { set: id, missing: secret }),
        (false, true) => Err(CredentialsError::Incomplete { set: secret, missing: id }),
        (false, false) if set(token) => Err(CredentialsError::Incomplete { set: token, missing: id }),
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
    fn accepts_no_credentials() {
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
