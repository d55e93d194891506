//! The document's sources of credentials, checked and compiled. What the VM's environment adds is read later, by
//! [`Provider`](super::provider::Provider).

use super::create_session::{Members, SessionRequest, role_account};
use crate::config::{self, Auth, ConfigError, Signer, Sts, TokenFile, at};
use crate::names::{Partition, RegionName};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The name of the source of classes that name none.
pub const DEFAULT: &str = "default";

/// Limits of AssumeRoleWithWebIdentity and GetWebIdentityToken (botocore's models of STS). CreateSession has the first too.
const DURATION_SECONDS: RangeInclusive<u32> = 900..=43_200;
const SESSION_NAME: RangeInclusive<usize> = 2..=64;
/// No service of AWS's that issues sessions takes more by default.
const SESSIONS_PER_SECOND: RangeInclusive<u32> = 1..=1000;
const MAX_TAGS: usize = 50;
/// The value of a tag that is the session's name.
pub(super) const OF_SESSION: &str = "{session}";
const TAG_KEY: RangeInclusive<usize> = 1..=128;
const TAG_VALUE: RangeInclusive<usize> = 0..=256;

/// All sources of a document, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialSources(BTreeMap<String, (Source, [u8; 8])>);

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Variables of the VM's environment.
    Environment,
    /// Keys of a local endpoint.
    Local(LocalSource),
    /// A secret that holds keys.
    Secret(SecretSource),
    /// A token, exchanged for a Commercial role's keys (AssumeRoleWithWebIdentity).
    WebIdentity {
        /// Where the token comes from.
        token: TokenSource,
        /// The Commercial role.
        role: Role,
        /// Envoy's cluster of Commercial STS.
        cluster: String,
        /// Its region.
        region: RegionName,
        /// How many sessions of callers are begun in a second.
        sessions_per_second: u32,
    },
    /// A session of IAM Roles Anywhere.
    RolesAnywhere {
        /// Where the certificate comes from.
        certificate: CertificateSource,
        /// The request for the session.
        session: SessionRequest,
        /// How many sessions of callers are begun in a second.
        sessions_per_second: u32,
    },
}

/// Where the token of a role comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// GovCloud's STS, which issues it for a GovCloud identity (GetWebIdentityToken).
    GovCloud {
        /// The credentials that sign the request.
        using: LocalSource,
        /// Envoy's cluster of GovCloud's STS.
        cluster: String,
        /// A GovCloud region.
        region: String,
        /// The token's audience.
        audience: String,
        /// Tags in the token.
        tags: BTreeMap<String, String>,
    },
    /// A file.
    File {
        /// Envoy's cluster that answers with it.
        cluster: String,
    },
}

/// Where a certificate and its key come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// Variables of the VM's environment.
    Environment,
    /// A secret that holds them.
    Secret(SecretSource),
}

/// A secret, and what gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The Secrets Manager Agent.
    Agent {
        /// Envoy's cluster of it.
        cluster: String,
        /// The secret's name or ARN.
        secret: String,
    },
    /// Secrets Manager itself.
    Service {
        /// The credentials that sign the request.
        using: LocalSource,
        /// Envoy's cluster of it.
        cluster: String,
        /// Its region, of either partition.
        region: String,
        /// The secret's name or ARN.
        secret: String,
    },
}

/// A local endpoint that gives keys to every caller that can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalSource {
    /// ECS, EKS Pod Identity.
    Container {
        /// Envoy's cluster of it.
        cluster: String,
        /// Envoy's cluster that answers with the token to send; `None`: the environment has the token.
        token: Option<String>,
    },
    /// The instance metadata service, version 2.
    Imds {
        /// Envoy's cluster of it.
        cluster: String,
        /// The role; `None`: the one that the service names.
        role: Option<String>,
    },
}

/// A role that is assumed with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// `arn:aws:iam::ACCOUNT:role/NAME`
    pub arn: String,
    /// The session's name.
    pub session_name: String,
    /// How long keys live, in seconds.
    pub duration_seconds: u32,
}

// === impl CredentialSources ===

impl CredentialSources {
    /// Checks and compiles the document's `credentials` and `credential_sets`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn compile(
        default: &config::Credentials,
        sets: &BTreeMap<String, config::Credentials>,
        auth: Auth,
    ) -> Result<Self, ConfigError> {
        if sets.contains_key(DEFAULT) {
            return Err(at("credential_sets.default", "is the name of `credentials`; choose another"));
        }
        let named = sets.iter().map(|(name, source)| (name.as_str(), source));
        let all = std::iter::once((DEFAULT, default)).chain(named);
        let compiled = all.map(|(name, source)| {
            Ok((name.to_owned(), (Source::compile(source, auth, &key_of(name))?, digest(source))))
        });
        compiled.collect::<Result<_, _>>().map(Self)
    }

    /// Each source with its name and its key in the document.
    pub fn iter(&self) -> impl Iterator<Item = (&str, String, &Source)> {
        self.0.iter().map(|(name, (source, _))| (name.as_str(), key_of(name), source))
    }

    /// What stands for the configuration of a source: another one may be of another account.
    pub(crate) fn digest(&self, name: &str) -> Option<[u8; 8]> {
        self.0.get(name).map(|(_, digest)| *digest)
    }
}

fn digest(source: &config::Credentials) -> [u8; 8] {
    // Names and texts: serialising them cannot fail.
    let json = serde_json::to_vec(source).unwrap_or_default();
    Sha256::digest(json).first_chunk().copied().unwrap_or_default()
}

fn key_of(name: &str) -> String {
    if name == DEFAULT { "credentials".to_owned() } else { format!("credential_sets.{name}") }
}

// === impl Source ===

impl Source {
    /// Checks and compiles a source. `key` is its key in the document.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn compile(config: &config::Credentials, auth: Auth, key: &str) -> Result<Self, ConfigError> {
        let sub = |name: &str| format!("{key}.{name}");
        let source = match config {
            config::Credentials::Environment {} => return Ok(Self::Environment),
            config::Credentials::Container { cluster, token } => Self::Local(container(cluster, token.as_ref(), key)?),
            config::Credentials::Imds { cluster, role } => Self::Local(imds(cluster, role.as_deref(), key)?),
            config::Credentials::SecretsManager { cluster, secret, region, using } => {
                Self::Secret(self::secret(cluster, secret, region.as_deref(), using.as_ref(), key)?)
            }
            config::Credentials::Federation {
                using,
                govcloud,
                commercial,
                role_arn,
                audience,
                session_name,
                duration_seconds,
                sessions_per_second,
                tags,
            } => {
                check_cluster(&sub("govcloud.cluster"), &govcloud.cluster)?;
                check_region(&sub("govcloud.region"), &govcloud.region, &[Partition::GovCloud])?;
                check_visible(&sub("audience"), audience)?;
                check_tags(&sub("tags"), tags)?;
                let token = TokenSource::GovCloud {
                    using: local(using, &sub("using"))?,
                    cluster: govcloud.cluster.clone(),
                    region: govcloud.region.clone(),
                    audience: audience.clone(),
                    tags: tags.clone(),
                };
                let role = role(role_arn, session_name, *duration_seconds, key)?;
                web_identity(token, commercial, role, *sessions_per_second, key)?
            }
            config::Credentials::WebIdentity {
                token,
                commercial,
                role_arn,
                session_name,
                duration_seconds,
                sessions_per_second,
            } => {
                let token = TokenSource::File { cluster: token_cluster(token, &sub("token"))? };
                let role = role(role_arn, session_name, *duration_seconds, key)?;
                web_identity(token, commercial, role, *sessions_per_second, key)?
            }
            config::Credentials::RolesAnywhere { certificate, sessions_per_second, .. } => Self::RolesAnywhere {
                certificate: self::certificate(certificate, &sub("certificate"))?,
                session: session(config, key)?,
                sessions_per_second: sessions(*sessions_per_second, key)?,
            },
        };
        if auth == Auth::Bearer && !matches!(source, Self::Secret(_)) {
            return Err(at(
                sub("source"),
                "gives access keys, and `auth` is `bearer`: an API key comes from `environment` or `secrets_manager`",
            ));
        }
        Ok(source)
    }

    /// How many sessions of callers it begins in a second; `None`: it has no sessions.
    pub fn sessions_per_second(&self) -> Option<u32> {
        match self {
            Self::WebIdentity { sessions_per_second, .. } | Self::RolesAnywhere { sessions_per_second, .. } => {
                Some(*sessions_per_second)
            }
            Self::Environment | Self::Local(_) | Self::Secret(_) => None,
        }
    }
}

fn local(signer: &Signer, key: &str) -> Result<LocalSource, ConfigError> {
    match signer {
        Signer::Container { cluster, token } => container(cluster, token.as_ref(), key),
        Signer::Imds { cluster, role } => imds(cluster, role.as_deref(), key),
    }
}

fn container(cluster: &str, token: Option<&TokenFile>, key: &str) -> Result<LocalSource, ConfigError> {
    check_cluster(&format!("{key}.cluster"), cluster)?;
    let token = token.map(|token| token_cluster(token, &format!("{key}.token"))).transpose()?;
    Ok(LocalSource::Container { cluster: cluster.to_owned(), token })
}

fn token_cluster(token: &TokenFile, key: &str) -> Result<String, ConfigError> {
    check_cluster(&format!("{key}.cluster"), &token.cluster)?;
    if let Some(file) = token.file.as_deref().filter(|file| !file.starts_with('/') || file.ends_with('/')) {
        let problem = format!("'{file}' is not the absolute path of a file, such as /var/run/secrets/gateway/token");
        return Err(at(format!("{key}.file"), problem));
    }
    Ok(token.cluster.clone())
}

fn imds(cluster: &str, role: Option<&str>, key: &str) -> Result<LocalSource, ConfigError> {
    check_cluster(&format!("{key}.cluster"), cluster)?;
    if let Some(role) = role {
        check_visible(&format!("{key}.role"), role)?;
    }
    Ok(LocalSource::Imds { cluster: cluster.to_owned(), role: role.map(str::to_owned) })
}

fn secret(
    cluster: &str,
    secret: &str,
    region: Option<&str>,
    using: Option<&Signer>,
    key: &str,
) -> Result<SecretSource, ConfigError> {
    let sub = |name: &str| format!("{key}.{name}");
    check_cluster(&sub("cluster"), cluster)?;
    check_visible(&sub("secret"), secret)?;
    let (cluster, secret) = (cluster.to_owned(), secret.to_owned());
    match (region, using) {
        (None, None) => Ok(SecretSource::Agent { cluster, secret }),
        (Some(region), Some(using)) => {
            check_region(&sub("region"), region, &[Partition::GovCloud, Partition::Commercial])?;
            let using = local(using, &sub("using"))?;
            Ok(SecretSource::Service { using, cluster, region: region.to_owned(), secret })
        }
        (Some(_), None) => {
            let problem = "is missing: say which credentials sign the request, or leave out `region` to ask the agent";
            Err(at(sub("using"), problem))
        }
        (None, Some(_)) => Err(at(sub("region"), "is missing: say which region's Secrets Manager to call")),
    }
}

fn certificate(source: &config::CertificateSource, key: &str) -> Result<CertificateSource, ConfigError> {
    match source {
        config::CertificateSource::Environment {} => Ok(CertificateSource::Environment),
        config::CertificateSource::SecretsManager { cluster, secret, region, using } => {
            self::secret(cluster, secret, region.as_deref(), using.as_ref(), key).map(CertificateSource::Secret)
        }
    }
}

fn session(config: &config::Credentials, key: &str) -> Result<SessionRequest, ConfigError> {
    let sub = |name: &str| format!("{key}.{name}");
    let config::Credentials::RolesAnywhere {
        cluster,
        region,
        trust_anchor_arn,
        profile_arn,
        role_arn,
        duration_seconds,
        session_name,
        ..
    } = config
    else {
        return Err(at(key, "is not of the source `roles_anywhere`"));
    };
    check_cluster(&sub("cluster"), cluster)?;
    let region = region.parse().map_err(|error| at(sub("region"), error))?;
    if let Some(name) = session_name {
        check_session_name(&sub("session_name"), name)?;
    }
    check_duration(&sub("duration_seconds"), *duration_seconds)?;
    let members = Members {
        duration_seconds: *duration_seconds,
        profile_arn: profile_arn.clone(),
        role_arn: role_arn.clone(),
        trust_anchor_arn: trust_anchor_arn.clone(),
        role_session_name: session_name.clone(),
    };
    SessionRequest::new(cluster, region, members, key)
}

fn web_identity(
    token: TokenSource,
    sts: &Sts,
    role: Role,
    sessions_per_second: u32,
    key: &str,
) -> Result<Source, ConfigError> {
    let sub = |name: &str| format!("{key}.commercial.{name}");
    check_cluster(&sub("cluster"), &sts.cluster)?;
    let region = sts.region.parse().map_err(|error| at(sub("region"), error))?;
    let sessions_per_second = sessions(sessions_per_second, key)?;
    Ok(Source::WebIdentity { token, role, cluster: sts.cluster.clone(), region, sessions_per_second })
}

fn sessions(per_second: u32, key: &str) -> Result<u32, ConfigError> {
    if SESSIONS_PER_SECOND.contains(&per_second) {
        return Ok(per_second);
    }
    let (least, most) = (SESSIONS_PER_SECOND.start(), SESSIONS_PER_SECOND.end());
    let problem = format!("want a whole number from {least} to {most}, not {per_second}");
    Err(at(format!("{key}.sessions_per_second"), problem))
}

fn role(role_arn: &str, session_name: &str, duration_seconds: u32, key: &str) -> Result<Role, ConfigError> {
    let sub = |name: &str| format!("{key}.{name}");
    if role_account(role_arn).is_none() {
        let problem =
            format!("'{role_arn}' is not a role of the Commercial partition: want arn:aws:iam::ACCOUNT:role/NAME");
        return Err(at(sub("role_arn"), problem));
    }
    check_session_name(&sub("session_name"), session_name)?;
    check_duration(&sub("duration_seconds"), duration_seconds)?;
    Ok(Role { arn: role_arn.to_owned(), session_name: session_name.to_owned(), duration_seconds })
}

fn check_session_name(key: &str, name: &str) -> Result<(), ConfigError> {
    let fits = SESSION_NAME.contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b));
    if fits { Ok(()) } else { Err(at(key, "want 2 to 64 letters, digits and _+=,.@-")) }
}

fn check_duration(key: &str, seconds: u32) -> Result<(), ConfigError> {
    if DURATION_SECONDS.contains(&seconds) {
        return Ok(());
    }
    Err(at(key, format!("want a whole number from 900 to 43200, not {seconds}")))
}

fn check_tags(key: &str, tags: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let allowed = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c));
    if tags.len() > MAX_TAGS {
        return Err(at(key, format!("has {} tags; a session carries at most {MAX_TAGS}", tags.len())));
    }
    for (name, value) in tags {
        if !TAG_KEY.contains(&name.chars().count()) || !allowed(name) || name.starts_with("aws:") {
            let problem =
                "is not a tag key: want 1 to 128 letters, digits, spaces and _.:/=+-@, not beginning with aws:";
            return Err(at(format!("{key}.{name}"), problem));
        }
        if value != OF_SESSION && (!TAG_VALUE.contains(&value.chars().count()) || !allowed(value)) {
            let problem =
                "the tag's value is not allowed: want at most 256 letters, digits, spaces and _.:/=+-@, or {session}";
            return Err(at(format!("{key}.{name}"), problem));
        }
    }
    Ok(())
}

/// The name becomes part of a host name.
fn check_region(key: &str, region: &str, wanted: &[Partition]) -> Result<(), ConfigError> {
    match Partition::of_region(region) {
        Some(partition) if wanted.contains(&partition) => Ok(()),
        Some(_) => Err(at(key, format!("'{region}' is not in GovCloud"))),
        None => Err(at(key, format!("'{region}' is not a region name, such as us-gov-west-1"))),
    }
}

fn check_cluster(key: &str, cluster: &str) -> Result<(), ConfigError> {
    if cluster.is_empty() {
        Err(at(key, "is empty: name one of Envoy's clusters"))
    } else {
        check_visible(key, cluster)
    }
}

fn check_visible(key: &str, text: &str) -> Result<(), ConfigError> {
    let visible = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if visible { Ok(()) } else { Err(at(key, "is empty or holds white space or characters that are not ASCII")) }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
