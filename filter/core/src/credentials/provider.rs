//! A source of credentials with what the VM's environment adds to it, ready to give credentials or to be fetched.

use super::create_session::SessionRequest;
use super::identity::{CertificateMaterial, SigningIdentity};
use super::session_name::SessionName;
use super::source::{CertificateSource, LocalSource, OF_SESSION, Role, SecretSource, Source, TokenSource};
use super::{Credentials, Secret};
use crate::config::{Auth, ConfigError, at};
use crate::encoding::encode;
use crate::names::RegionName;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What gives a source's credentials.
#[derive(Debug)]
pub enum Provider {
    /// The environment: the credentials are there from the start, or never.
    Fixed(Option<Credentials>),
    /// They are fetched, and fetched again before they expire.
    Fetched(Box<FetchPlan>),
}

/// All that is needed to fetch credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchPlan {
    /// Keys of a local endpoint.
    Local(LocalEndpoint),
    /// A secret that holds keys.
    Secret(SecretPlan),
    /// A token, exchanged for a Commercial role's keys.
    WebIdentity {
        /// Where the token comes from.
        token: TokenPlan,
        /// Envoy's cluster of Commercial STS.
        cluster: String,
        /// Its region.
        region: RegionName,
        /// The body of AssumeRoleWithWebIdentity, without the session's name and the token.
        form: String,
        /// The session's name.
        session_name: String,
    },
    /// A session of IAM Roles Anywhere.
    RolesAnywhere {
        /// Where the certificate comes from.
        certificate: CertificatePlan,
        /// The request for the session.
        session: SessionRequest,
    },
}

/// Where the token of a role comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlan {
    /// GovCloud's STS.
    GovCloud {
        /// The credentials that sign the request.
        using: LocalEndpoint,
        /// Envoy's cluster of it.
        cluster: String,
        /// Its region.
        region: String,
        /// The body of GetWebIdentityToken, without tags.
        form: String,
        /// The tags of the token, of which a value may be [`OF_SESSION`].
        tags: BTreeMap<String, String>,
    },
    /// A file, which is read before each exchange, so that a rotation takes effect.
    File {
        /// Envoy's cluster that answers with it.
        cluster: String,
    },
}

/// Where a certificate and its key come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificatePlan {
    /// The environment: they are there.
    Given(CertificateMaterial),
    /// A secret, which is read before each session, so that a rotation takes effect.
    Secret(SecretPlan),
}

/// A secret, and what gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlan {
    /// The Secrets Manager Agent.
    Agent {
        /// Envoy's cluster of it.
        cluster: String,
        /// The secret's name or ARN.
        secret: String,
        /// The token that the agent requires, against requests forged by web pages.
        token: Secret,
    },
    /// Secrets Manager itself.
    Service {
        /// The credentials that sign the request.
        using: LocalEndpoint,
        /// Envoy's cluster of it.
        cluster: String,
        /// Its region.
        region: String,
        /// The secret's name or ARN.
        secret: String,
    },
}

/// A local endpoint that gives keys to every caller that can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalEndpoint {
    /// ECS, EKS Pod Identity.
    Container {
        /// Envoy's cluster of it.
        cluster: String,
        /// The `Host` to send.
        host: String,
        /// The path.
        path: String,
        /// The value of `authorization`.
        token: ContainerToken,
    },
    /// The instance metadata service, version 2.
    Imds {
        /// Envoy's cluster of it.
        cluster: String,
        /// The role; `None`: the service is asked for its name.
        role: Option<String>,
    },
}

/// The token that the container endpoint requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerToken {
    /// None is sent.
    None,
    /// The environment's.
    Given(Secret),
    /// A file, which is read before each request for keys.
    File {
        /// Envoy's cluster that answers with it.
        cluster: String,
    },
}

/// Seconds that a federation token lives: it is exchanged at once.
const TOKEN_SECONDS: &str = "300";
const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const CONTAINER_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
/// EKS Pod Identity sets this variable instead of the one above.
const CONTAINER_TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/// The host of a relative URI (ECS).
const ECS_HOST: &str = "169.254.170.2";
/// Variables of the source `roles_anywhere`, in PEM.
const CERTIFICATE: &str = "BEDROCK_GATEWAY_CERTIFICATE";
const CERTIFICATE_CHAIN: &str = "BEDROCK_GATEWAY_CERTIFICATE_CHAIN";
const PRIVATE_KEY: &str = "BEDROCK_GATEWAY_PRIVATE_KEY";
/// Variables that the Secrets Manager Agent takes its token from, in its order.
const AGENT_TOKENS: [&str; 3] = ["AWS_TOKEN", "AWS_SESSION_TOKEN", CONTAINER_TOKEN];

// === impl Provider ===

impl Provider {
    /// Adds to a source what the VM's environment says, which `lookup` reads. `key` is the source's key in the document.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and the environment's variable.
    pub fn resolve(
        source: &Source,
        auth: Auth,
        key: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let plan = match source {
            Source::Environment => {
                let found = Credentials::from_environment(auth, lookup);
                return found.map(Self::Fixed).map_err(|error| at(key, format!("{error} in the VM's environment")));
            }
            Source::Local(source) => FetchPlan::Local(local(source, key, lookup)?),
            Source::Secret(source) => FetchPlan::Secret(secret(source, key, lookup)?),
            Source::WebIdentity { token, role, cluster, region, .. } => FetchPlan::WebIdentity {
                token: self::token(token, key, lookup)?,
                cluster: cluster.clone(),
                region: region.clone(),
                form: role_form(role),
                session_name: role.session_name.clone(),
            },
            Source::RolesAnywhere { certificate, session, .. } => {
                let key = format!("{key}.certificate");
                let certificate = match certificate {
                    CertificateSource::Environment => CertificatePlan::Given(material(&key, lookup)?),
                    CertificateSource::Secret(source) => CertificatePlan::Secret(secret(source, &key, lookup)?),
                };
                FetchPlan::RolesAnywhere { certificate, session: session.clone() }
            }
        };
        Ok(Self::Fetched(Box::new(plan)))
    }
}

impl FetchPlan {
    /// The plan for a session of this name; a plan without sessions stays as it is.
    pub(super) fn named(self, name: &SessionName) -> Self {
        match self {
            Self::WebIdentity { token, cluster, region, form, .. } => {
                Self::WebIdentity { token, cluster, region, form, session_name: name.to_string() }
            }
            Self::RolesAnywhere { certificate, session } => {
                Self::RolesAnywhere { certificate, session: session.named(name) }
            }
            plan @ (Self::Local(_) | Self::Secret(_)) => plan,
        }
    }
}

fn secret(
    source: &SecretSource,
    key: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<SecretPlan, ConfigError> {
    Ok(match source {
        SecretSource::Agent { cluster, secret } => {
            SecretPlan::Agent { cluster: cluster.clone(), secret: secret.clone(), token: agent_token(key, lookup)? }
        }
        SecretSource::Service { using, cluster, region, secret } => SecretPlan::Service {
            using: local(using, &format!("{key}.using"), lookup)?,
            cluster: cluster.clone(),
            region: region.clone(),
            secret: secret.clone(),
        },
    })
}

/// The certificate and its key in the environment. Mistakes other than those of time are refused here, not at the first call.
fn material(key: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<CertificateMaterial, ConfigError> {
    let variable = |name: &str| lookup(name).filter(|value| !value.is_empty());
    let required = |name: &str| variable(name).ok_or_else(|| at(key, format!("{name} is not in the VM's environment")));
    let material = CertificateMaterial {
        certificate: required(CERTIFICATE)?,
        chain: variable(CERTIFICATE_CHAIN),
        key: Secret::new(required(PRIVATE_KEY)?),
    };
    SigningIdentity::parse(&material).map_err(|error| at(key, format!("{error} (in the VM's environment)")))?;
    Ok(material)
}

fn token(source: &TokenSource, key: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<TokenPlan, ConfigError> {
    Ok(match source {
        TokenSource::GovCloud { using, cluster, region, audience, tags } => TokenPlan::GovCloud {
            using: local(using, &format!("{key}.using"), lookup)?,
            cluster: cluster.clone(),
            region: region.clone(),
            form: token_form(audience),
            tags: tags.clone(),
        },
        TokenSource::File { cluster } => TokenPlan::File { cluster: cluster.clone() },
    })
}

fn token_form(audience: &str) -> String {
    format!(
        "Action=GetWebIdentityToken&Version=2011-06-15&Audience.member.1={}&DurationSeconds={TOKEN_SECONDS}&SigningAlgorithm=RS256",
        encode(audience)
    )
}

/// The tags of a token, as a body of GetWebIdentityToken has them.
pub(super) fn tags_form(tags: &BTreeMap<String, String>, session_name: &str) -> String {
    let mut form = String::new();
    for (index, (key, value)) in tags.iter().enumerate() {
        // A tag has no commas; each `=` of a session's name begins an escape already.
        let own = (value == OF_SESSION).then(|| session_name.replace(',', "=2C"));
        let (nth, value) = (index + 1, own.as_deref().unwrap_or(value));
        // Writing to a string cannot fail.
        let _ = write!(form, "&Tags.member.{nth}.Key={}&Tags.member.{nth}.Value={}", encode(key), encode(value));
    }
    form
}

fn role_form(role: &Role) -> String {
    format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&DurationSeconds={}",
        encode(&role.arn),
        role.duration_seconds
    )
}

fn local(
    source: &LocalSource,
    key: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<LocalEndpoint, ConfigError> {
    match source {
        LocalSource::Container { cluster, token } => container(cluster, token.as_deref(), key, lookup),
        LocalSource::Imds { cluster, role } => Ok(LocalEndpoint::Imds { cluster: cluster.clone(), role: role.clone() }),
    }
}

fn container(
    cluster: &str,
    token: Option<&str>,
    key: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<LocalEndpoint, ConfigError> {
    let variable = |name: &str| lookup(name).filter(|value| !value.is_empty());
    let problem = |name: &str, problem: &str| at(key, format!("{name} in the VM's environment {problem}"));
    let (host, path) = match (variable(RELATIVE_URI), variable(FULL_URI)) {
        (Some(path), _) => (ECS_HOST.to_owned(), path),
        (None, Some(uri)) => {
            let rest = uri.split_once("://").map(|(_, rest)| rest);
            let (host, path) = rest
                .and_then(|rest| Some((rest, rest.find('/')?)))
                .map(|(rest, slash)| rest.split_at(slash))
                .ok_or_else(|| problem(FULL_URI, "is not of the form http://HOST/PATH"))?;
            (host.to_owned(), path.to_owned())
        }
        (None, None) => {
            return Err(at(key, format!("neither {RELATIVE_URI} nor {FULL_URI} is in the VM's environment")));
        }
    };
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !path.starts_with('/') || !visible(&path) || !visible(&host) {
        return Err(problem(RELATIVE_URI, "(or FULL_URI) is not a path of visible characters that begins with '/'"));
    }
    let token = match (token, variable(CONTAINER_TOKEN)) {
        (Some(cluster), _) => ContainerToken::File { cluster: cluster.to_owned() },
        (None, Some(token)) if visible(&token) => ContainerToken::Given(Secret::new(token)),
        (None, Some(_)) => return Err(problem(CONTAINER_TOKEN, "holds white space or characters that are not ASCII")),
        (None, None) => match variable(CONTAINER_TOKEN_FILE) {
            None => ContainerToken::None,
            Some(file) => {
                let file = serde_json::Value::String(file);
                let advice = format!(r#"set `token` to {{"cluster": "container-token", "file": {file}}}"#);
                return Err(problem(
                    CONTAINER_TOKEN_FILE,
                    &format!("names a file, and the filter reads no files: {advice}"),
                ));
            }
        },
    };
    Ok(LocalEndpoint::Container { cluster: cluster.to_owned(), host, path, token })
}

fn agent_token(key: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Secret, ConfigError> {
    let found = AGENT_TOKENS.iter().find_map(|name| lookup(name).filter(|value| !value.is_empty()));
    match found {
        Some(token) if token.bytes().all(|b| b.is_ascii_graphic()) => Ok(Secret::new(token)),
        Some(_) => {
            Err(at(key, "the agent's token in the VM's environment holds white space or characters that are not ASCII"))
        }
        None => Err(at(
            key,
            format!("none of {} is in the VM's environment, and the agent requires a token", AGENT_TOKENS.join(", ")),
        )),
    }
}
