//! The configured source of credentials, checked, with what the environment says of it.

use super::fetch::{Local, Source, forms};
use super::{Credentials, Secret};
use crate::config::{self, Auth, ConfigError, Signer, Sts};
use crate::policy::at;

/// Where credentials come from.
#[derive(Debug)]
pub enum Origin {
    /// The environment: they are there from the start, or never.
    Fixed(Option<Credentials>),
    /// They are fetched, and fetched again before they expire.
    Fetched(Source),
}

const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const CONTAINER_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
/// The host that a relative URI is of (ECS).
const ECS_HOST: &str = "169.254.170.2";
/// Variables that the Secrets Manager Agent takes its token from, in its order.
const AGENT_TOKENS: [&str; 3] = ["AWS_TOKEN", "AWS_SESSION_TOKEN", CONTAINER_TOKEN];

impl Origin {
    /// Checks the configuration of a source. `key` is its key in the document, `lookup` reads the VM's environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, or the environment's variable, and what is wrong with it.
    pub fn compile(
        config: &config::Credentials,
        auth: Auth,
        key: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let sub = |name: &str| format!("{key}.{name}");
        let source = match config {
            config::Credentials::Environment {} => {
                let found = Credentials::from_environment(auth, lookup);
                return found.map(Self::Fixed).map_err(|error| at(key, format!("{error} in the VM's environment")));
            }
            config::Credentials::Container { cluster } => Source::Local(container(cluster, key, lookup)?),
            config::Credentials::Imds { cluster, role } => Source::Local(imds(cluster, role.as_deref(), key)?),
            config::Credentials::SecretsManager { cluster, secret, region, using } => {
                named(&sub("cluster"), cluster)?;
                visible(&sub("secret"), secret)?;
                match (region, using) {
                    (None, None) => Source::Agent {
                        cluster: cluster.clone(),
                        secret: secret.clone(),
                        token: agent_token(key, lookup)?,
                    },
                    (Some(region), Some(using)) => {
                        is_region(&sub("region"), region)?;
                        Source::SecretsManager {
                            using: local(using, &sub("using"), lookup)?,
                            cluster: cluster.clone(),
                            region: region.clone(),
                            secret: secret.clone(),
                        }
                    }
                    (Some(_), None) => {
                        return Err(at(
                            sub("using"),
                            "is missing: say which credentials sign the question, or leave out `region` to ask the agent",
                        ));
                    }
                    (None, Some(_)) => {
                        return Err(at(sub("region"), "is missing: say which region's Secrets Manager is asked"));
                    }
                }
            }
            config::Credentials::Federation {
                using,
                govcloud,
                commercial,
                role_arn,
                audience,
                session_name,
                duration_seconds,
                tags,
            } => {
                sts(&sub("govcloud"), govcloud)?;
                sts(&sub("commercial"), commercial)?;
                if !govcloud.region.starts_with("us-gov-") {
                    return Err(at(sub("govcloud.region"), format!("'{}' is not in GovCloud", govcloud.region)));
                }
                if commercial.region.starts_with("us-gov-") {
                    return Err(at(sub("commercial.region"), format!("'{}' is in GovCloud", commercial.region)));
                }
                if !role_arn.starts_with("arn:aws:iam::") || !role_arn.contains(":role/") {
                    return Err(at(
                        sub("role_arn"),
                        format!(
                            "'{role_arn}' is no role of the Commercial partition: wanted arn:aws:iam::ACCOUNT:role/NAME"
                        ),
                    ));
                }
                visible(&sub("audience"), audience)?;
                let name_fits = (2..=64).contains(&session_name.len())
                    && session_name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b));
                if !name_fits {
                    return Err(at(sub("session_name"), "wanted 2 to 64 letters, digits and _+=,.@-"));
                }
                if !(900..=43_200).contains(duration_seconds) {
                    return Err(at(sub("duration_seconds"), "must lie between 900 and 43200"));
                }
                let (token_form, role_form) = forms(role_arn, audience, session_name, *duration_seconds, tags);
                Source::Federation {
                    using: local(using, &sub("using"), lookup)?,
                    govcloud: govcloud.clone(),
                    commercial: commercial.clone(),
                    token_form,
                    role_form,
                }
            }
        };
        if auth == Auth::Bearer && !matches!(source, Source::Agent { .. } | Source::SecretsManager { .. }) {
            return Err(at(
                sub("source"),
                "gives access keys, and `auth` is `bearer`: an API key comes from `environment` or `secrets_manager`",
            ));
        }
        Ok(Self::Fetched(source))
    }
}

fn local(signer: &Signer, key: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Local, ConfigError> {
    match signer {
        Signer::Container { cluster } => container(cluster, key, lookup),
        Signer::Imds { cluster, role } => imds(cluster, role.as_deref(), key),
    }
}

fn imds(cluster: &str, role: Option<&str>, key: &str) -> Result<Local, ConfigError> {
    named(&format!("{key}.cluster"), cluster)?;
    if let Some(role) = role {
        visible(&format!("{key}.role"), role)?;
    }
    Ok(Local::Imds { cluster: cluster.to_owned(), role: role.map(str::to_owned) })
}

fn container(cluster: &str, key: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Local, ConfigError> {
    named(&format!("{key}.cluster"), cluster)?;
    let variable = |name: &str| lookup(name).filter(|value| !value.is_empty());
    let environment = |name: &str, problem: &str| at(key, format!("{name} in the VM's environment {problem}"));
    let (host, path) = match (variable(RELATIVE_URI), variable(FULL_URI)) {
        (Some(path), _) => (ECS_HOST.to_owned(), path),
        (None, Some(uri)) => {
            let rest = uri.split_once("://").map(|(_, rest)| rest);
            let (host, path) = rest
                .and_then(|rest| Some((rest, rest.find('/')?)))
                .map(|(rest, slash)| rest.split_at(slash))
                .ok_or_else(|| environment(FULL_URI, "is no http://HOST/PATH"))?;
            (host.to_owned(), path.to_owned())
        }
        (None, None) => {
            return Err(at(key, format!("neither {RELATIVE_URI} nor {FULL_URI} is in the VM's environment")));
        }
    };
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !path.starts_with('/') || !plain(&path) || !plain(&host) {
        return Err(environment(RELATIVE_URI, "(or FULL_URI) is no path of visible characters that begins with '/'"));
    }
    let token = variable(CONTAINER_TOKEN);
    if token.as_deref().is_some_and(|token| !plain(token)) {
        return Err(environment(CONTAINER_TOKEN, "holds white space or characters that are not ASCII"));
    }
    Ok(Local::Container { cluster: cluster.to_owned(), host, path, token: token.map(Secret::new) })
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
            format!("none of {} is in the VM's environment, and the agent wants a token", AGENT_TOKENS.join(", ")),
        )),
    }
}

fn sts(key: &str, sts: &Sts) -> Result<(), ConfigError> {
    named(&format!("{key}.cluster"), &sts.cluster)?;
    is_region(&format!("{key}.region"), &sts.region)
}

fn is_region(key: &str, region: &str) -> Result<(), ConfigError> {
    let parts = region.split('-').count();
    let plain = region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    // It becomes part of a host name.
    if (3..=4).contains(&parts) && plain && region.bytes().last().is_some_and(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(at(key, format!("'{region}' is no region name; wanted one like us-gov-west-1")))
}

fn named(key: &str, cluster: &str) -> Result<(), ConfigError> {
    if cluster.is_empty() { Err(at(key, "is empty: name one of Envoy's clusters")) } else { visible(key, cluster) }
}

fn visible(key: &str, text: &str) -> Result<(), ConfigError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(()) } else { Err(at(key, "is empty or holds white space or characters that are not ASCII")) }
}
