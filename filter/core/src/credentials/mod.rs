//! Commercial credentials, and where they come from. Nothing here prints a secret.
//!
//! A document names sources ([`source`]); with the VM's environment each becomes a provider ([`provider`]). [`fetch`] makes
//! the calls that a provider needs, [`shared_credentials`] shares the result among workers, and calls ask the [`store`]. A caller may
//! have a session of its own at a source ([`id`], [`session_name`]).

pub mod call;
pub mod create_session;
pub mod errors;
pub mod fetch;
pub mod hidden_calls;
pub mod id;
pub mod identity;
pub mod provider;
pub mod responses;
mod secret_json;
pub mod session;
pub mod session_name;
mod sessions;
pub mod shared_credentials;
pub mod source;
pub mod store;

pub use responses::ResponseError;
pub use session::Session;

use crate::config::Auth;
use crate::sigv4::derived_keys::DerivedKeys;
use identity::Validity;
use std::fmt;
use std::rc::Rc;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// What calls are authenticated with.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// For SigV4.
    Keys(Keys),
    /// A Bedrock API key, sent as bearer token.
    ApiKey(Secret),
}

/// An access key.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The access key id; not secret.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: Secret,
    /// The session token of temporary keys.
    pub session_token: Option<Secret>,
    /// The session that they belong to.
    pub session: Session,
    /// What has been derived from the secret.
    pub(crate) derived: DerivedKeys,
}

/// Fetched credentials.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The credentials.
    pub credentials: Credentials,
    /// When they expire; `None`: not known.
    pub expires: Option<SystemTime>,
    /// The validity of the certificate that they were fetched with, if there was one.
    pub certificate: Option<Validity>,
}

/// A text that is never printed. Clones share it, and it is wiped when the last one is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Rc<Zeroizing<String>>);

/// Why the credentials in the environment are unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Half of a pair is missing.
    #[error("{present} is set but {missing} is not")]
    Half {
        /// The variable that is set.
        present: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// A value that no header can carry, most often because it ends with a line break.
    #[error("{0} holds white space or characters that are not ASCII")]
    Malformed(&'static str),
}

const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
const BEARER_TOKEN: &str = "AWS_BEARER_TOKEN_BEDROCK";

impl Credentials {
    /// Reads the standard variables for a kind of authentication; an empty variable counts as absent. `None` if there are
    /// none: every call is refused then.
    ///
    /// # Errors
    /// [`CredentialsError`] names the variable.
    pub fn from_environment(
        auth: Auth,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, CredentialsError> {
        let read = |name: &'static str| match lookup(name).filter(|value| !value.is_empty()) {
            Some(value) if value.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(value)),
            Some(_) => Err(CredentialsError::Malformed(name)),
            None => Ok(None),
        };
        match auth {
            Auth::Bearer => Ok(read(BEARER_TOKEN)?.map(|key| Self::ApiKey(Secret::new(key)))),
            Auth::Sigv4 => match (read(ACCESS_KEY_ID)?, read(SECRET_ACCESS_KEY)?) {
                (Some(access_key_id), Some(secret)) => Ok(Some(Self::Keys(Keys::new(
                    access_key_id,
                    Secret::new(secret),
                    read(SESSION_TOKEN)?.map(Secret::new),
                )))),
                (Some(_), None) => Err(CredentialsError::Half { present: ACCESS_KEY_ID, missing: SECRET_ACCESS_KEY }),
                (None, Some(_)) => Err(CredentialsError::Half { present: SECRET_ACCESS_KEY, missing: ACCESS_KEY_ID }),
                (None, None) => Ok(None),
            },
        }
    }
}

impl Keys {
    /// An access key, of a session that is not known.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: Secret, session_token: Option<Secret>) -> Self {
        let access_key_id = access_key_id.into();
        let (session, derived) = (Session::default(), DerivedKeys::default());
        Self { access_key_id, secret_access_key, session_token, session, derived }
    }
}

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Rc::new(Zeroizing::new(text.into())))
    }

    /// The text, for signing and for the header that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(auth: Auth, variables: &[(&str, &str)]) -> Result<Option<Credentials>, CredentialsError> {
        Credentials::from_environment(auth, |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn reads_the_standard_variables() {
        let all =
            [(ACCESS_KEY_ID, "AKIDEXAMPLE"), (SECRET_ACCESS_KEY, "s/+e"), (SESSION_TOKEN, "t"), (BEARER_TOKEN, "b")];
        let Ok(Some(Credentials::Keys(keys))) = read(Auth::Sigv4, &all) else { panic!("no keys") };
        assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.reveal()), ("AKIDEXAMPLE", "s/+e"));
        assert_eq!(keys.session_token.as_ref().map(Secret::reveal), Some("t"));
        let Ok(Some(Credentials::ApiKey(key))) = read(Auth::Bearer, &all) else { panic!("no key") };
        assert_eq!(key.reveal(), "b");
    }

    #[test]
    fn absent_and_empty_are_none() {
        assert!(matches!(read(Auth::Sigv4, &[]), Ok(None)));
        assert!(matches!(read(Auth::Sigv4, &[(ACCESS_KEY_ID, ""), (SECRET_ACCESS_KEY, "")]), Ok(None)));
        assert!(matches!(read(Auth::Bearer, &[(ACCESS_KEY_ID, "a"), (SECRET_ACCESS_KEY, "b")]), Ok(None)));
    }

    #[test]
    fn refuses_halves_and_line_breaks_by_name() {
        for (variables, wanted) in [
            (vec![(ACCESS_KEY_ID, "a")], "AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not"),
            (vec![(SECRET_ACCESS_KEY, "a")], "AWS_SECRET_ACCESS_KEY is set but AWS_ACCESS_KEY_ID is not"),
            (
                vec![(ACCESS_KEY_ID, "a"), (SECRET_ACCESS_KEY, "secret\n")],
                "AWS_SECRET_ACCESS_KEY holds white space or characters that are not ASCII",
            ),
        ] {
            assert_eq!(read(Auth::Sigv4, &variables).unwrap_err().to_string(), wanted);
        }
    }

    #[test]
    fn debug_prints_no_secret() {
        let all = [(ACCESS_KEY_ID, "AKIDEXAMPLE"), (SECRET_ACCESS_KEY, "hush"), (SESSION_TOKEN, "hush")];
        let printed = format!("{:?}", read(Auth::Sigv4, &all));
        assert!(printed.contains("AKIDEXAMPLE") && !printed.contains("hush"), "{printed}");
    }
}
