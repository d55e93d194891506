//! Sources of credentials, as the operator writes them.
//!
//! Read and write these enums through serde's traits (`serde_json::from_value`, [`Config`](super::Config)). Their inherent
//! functions `deserialize` and `serialize` are what serde derives, without the tag: only `tagged!` calls them.

use super::is_default;
use super::tagged::tagged;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A source of Commercial credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(tag = "source"))]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum Credentials {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, or `AWS_BEARER_TOKEN_BEDROCK`, from the
    /// VM's environment.
    Environment {},
    /// The endpoint of ECS or of EKS Pod Identity. `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `…_FULL_URI` is its address,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN` the token to send.
    Container {
        /// Envoy's cluster of the endpoint.
        cluster: String,
        /// The file of the token to send, instead of the variable (`AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` of EKS Pod
        /// Identity).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<TokenFile>,
    },
    /// Version 2 of the instance metadata service, as EC2 and IAM Roles Anywhere's signing helper serve it.
    Imds {
        /// Envoy's cluster of the service.
        cluster: String,
        /// The role whose keys are requested; the one that the service names, if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<String>,
    },
    /// A secret that holds access keys or a Bedrock API key. Without `using`, from the Secrets Manager Agent.
    SecretsManager {
        /// Envoy's cluster of the agent or of Secrets Manager.
        cluster: String,
        /// The secret's name or ARN.
        secret: String,
        /// Secrets Manager's region, to call it directly.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// The credentials that sign the request to Secrets Manager.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        using: Option<Signer>,
    },
    /// Outbound federation: a token of the GovCloud identity, exchanged for keys of a Commercial role.
    Federation {
        /// The credentials that sign the request for the token.
        using: Signer,
        /// GovCloud's STS.
        govcloud: Sts,
        /// Commercial STS.
        commercial: Sts,
        /// The Commercial role.
        role_arn: String,
        /// The token's audience, as the role's trust policy has it.
        audience: String,
        /// The session's name, which CloudTrail shows; `bedrock-gateway` if left out.
        #[serde(default = "default_session_name", skip_serializing_if = "is_default_session_name")]
        #[cfg_attr(test, schemars(extend("default" = default_session_name())))]
        session_name: String,
        /// How long keys live, 900 to 43200 seconds; 3600 if left out.
        #[serde(default = "default_duration_seconds", skip_serializing_if = "is_default_duration_seconds")]
        #[cfg_attr(test, schemars(extend("default" = default_duration_seconds())))]
        duration_seconds: u32,
        /// How many sessions of callers are begun in a second, 1 to 1000; 10 if left out. For classes with `session: principal`.
        #[serde(default = "default_sessions_per_second", skip_serializing_if = "is_default_sessions_per_second")]
        #[cfg_attr(test, schemars(extend("default" = default_sessions_per_second())))]
        sessions_per_second: u32,
        /// Tags in the token. The value `{session}` is the session's name, which is the caller's with `session: principal`.
        #[serde(default, skip_serializing_if = "is_default")]
        tags: BTreeMap<String, String>,
    },
    /// A token of the gateway itself, such as a pod's projected service account token, exchanged for keys of a Commercial role.
    WebIdentity {
        /// The token's file.
        token: TokenFile,
        /// Commercial STS.
        commercial: Sts,
        /// The Commercial role.
        role_arn: String,
        /// The session's name, which CloudTrail shows; `bedrock-gateway` if left out.
        #[serde(default = "default_session_name", skip_serializing_if = "is_default_session_name")]
        #[cfg_attr(test, schemars(extend("default" = default_session_name())))]
        session_name: String,
        /// How long keys live, 900 to 43200 seconds; 3600 if left out.
        #[serde(default = "default_duration_seconds", skip_serializing_if = "is_default_duration_seconds")]
        #[cfg_attr(test, schemars(extend("default" = default_duration_seconds())))]
        duration_seconds: u32,
        /// How many sessions of callers are begun in a second, 1 to 1000; 10 if left out. For classes with `session: principal`.
        #[serde(default = "default_sessions_per_second", skip_serializing_if = "is_default_sessions_per_second")]
        #[cfg_attr(test, schemars(extend("default" = default_sessions_per_second())))]
        sessions_per_second: u32,
    },
    /// IAM Roles Anywhere: the filter signs CreateSession with the key of an X.509 certificate. Keys on P-256 and P-384.
    RolesAnywhere {
        /// Envoy's cluster of IAM Roles Anywhere.
        cluster: String,
        /// Its region, in the Commercial partition.
        region: String,
        /// The trust anchor, which has the certificate's CA.
        trust_anchor_arn: String,
        /// The profile, which lists the role.
        profile_arn: String,
        /// The Commercial role.
        role_arn: String,
        /// Where certificate and private key come from.
        certificate: CertificateSource,
        /// How long keys live, 900 to 43200 seconds; 3600 if left out.
        #[serde(default = "default_duration_seconds", skip_serializing_if = "is_default_duration_seconds")]
        #[cfg_attr(test, schemars(extend("default" = default_duration_seconds())))]
        duration_seconds: u32,
        /// How many sessions of callers are begun in a second, 1 to 1000; 10 if left out. For classes with `session: principal`.
        #[serde(default = "default_sessions_per_second", skip_serializing_if = "is_default_sessions_per_second")]
        #[cfg_attr(test, schemars(extend("default" = default_sessions_per_second())))]
        sessions_per_second: u32,
        /// The session's name, which only a profile with `acceptRoleSessionName` takes; AWS chooses one if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_name: Option<String>,
    },
}

tagged!(Credentials, "source");

/// A source of the GovCloud credentials that sign requests for others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(tag = "source"))]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum Signer {
    /// As the source of this name.
    Container {
        /// Envoy's cluster of the endpoint.
        cluster: String,
        /// The file of the token to send, instead of `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<TokenFile>,
    },
    /// As the source of this name.
    Imds {
        /// Envoy's cluster of the service.
        cluster: String,
        /// The role whose keys are requested; the one that the service names, if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<String>,
    },
}

tagged!(Signer, "source");

/// A source of a certificate and its private key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(tag = "source"))]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum CertificateSource {
    /// `BEDROCK_GATEWAY_CERTIFICATE`, `BEDROCK_GATEWAY_PRIVATE_KEY` and, if there are intermediates,
    /// `BEDROCK_GATEWAY_CERTIFICATE_CHAIN`, from the VM's environment.
    Environment {},
    /// A secret in the form of `aws acm export-certificate`: `Certificate`, `CertificateChain` and `PrivateKey`. Without
    /// `using`, from the Secrets Manager Agent.
    SecretsManager {
        /// Envoy's cluster of the agent or of Secrets Manager.
        cluster: String,
        /// The secret's name or ARN.
        secret: String,
        /// Secrets Manager's region, to call it directly.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// The credentials that sign the request to Secrets Manager.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        using: Option<Signer>,
    },
}

tagged!(CertificateSource, "source");

/// A token in a file that rotates. The Wasm VM has no files: one of Envoy's clusters answers with the file's text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// Envoy's cluster that answers with the token.
    pub cluster: String,
    /// The file, from which `bedrock-gateway render` makes the cluster. The filter does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// An endpoint of the Security Token Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sts {
    /// Envoy's cluster of it.
    pub cluster: String,
    /// Its region.
    pub region: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self::Environment {}
    }
}

fn default_session_name() -> String {
    "bedrock-gateway".to_owned()
}

fn is_default_session_name(name: &str) -> bool {
    name == default_session_name()
}

const fn default_duration_seconds() -> u32 {
    3600
}

fn is_default_duration_seconds(seconds: &u32) -> bool {
    *seconds == default_duration_seconds()
}

const fn default_sessions_per_second() -> u32 {
    10
}

fn is_default_sessions_per_second(sessions: &u32) -> bool {
    *sessions == default_sessions_per_second()
}
