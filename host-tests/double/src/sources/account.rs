//! The two AWS accounts of the doubles. By default their policies are those of `infra/policies`; a test changes a member to
//! plant a refusal.

use std::time::Duration;

use serde_json::json;

use super::issuer::Published;
use super::jwt::PublicKey;

const TRUST: &str = include_str!("../../../../infra/policies/commercial-trust.json");
const CALLER: &str = include_str!("../../../../infra/policies/govcloud-gateway.json");

/// The GovCloud account's issuer without `https://`. It is made up: `aws iam get-outbound-web-identity-federation-info`
/// prints the one of an account.
pub const ISSUER: &str = "made-up-issuer.tokens.sts.example";
/// The role of the gateway in GovCloud, as `infra/policies/commercial-trust.json` names it.
pub const GOVCLOUD_ROLE_ARN: &str = "arn:aws-us-gov:iam::444455556666:role/bedrock-gateway";
/// The role in the Commercial partition.
pub const COMMERCIAL_ROLE_ARN: &str = "arn:aws:iam::111122223333:role/bedrock-gateway";
/// The trust anchor, the profile and the role of certificates, as `infra/templates/commercial/identity.yaml` makes them.
pub const TRUST_ANCHOR_ARN: &str =
    "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002";
/// See [`TRUST_ANCHOR_ARN`].
pub const PROFILE_ARN: &str =
    "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001";
/// See [`TRUST_ANCHOR_ARN`].
pub const CERTIFICATE_ROLE_ARN: &str = "arn:aws:iam::111122223333:role/bedrock-gateway-certificate";
/// The common name that the role of certificates requires.
pub const COMMON_NAME: &str = "bedrock-gateway";
/// The audience of the gateway's tokens.
pub const AUDIENCE: &str = "bedrock-gateway";

/// Both accounts.
#[derive(Debug, Clone)]
pub struct Account {
    pub govcloud: GovCloud,
    pub commercial: Commercial,
}

/// The account that the gateway runs in.
#[derive(Debug, Clone)]
pub struct GovCloud {
    /// The account's token issuer, without `https://`.
    pub issuer: String,
    /// Whether outbound web identity federation is enabled.
    pub outbound_federation: bool,
    /// The ARN of the role whose keys the local endpoints give.
    pub role_arn: String,
    /// The identity-based policy of that role, as JSON text.
    pub policy: String,
}

/// The account that Bedrock is called in.
#[derive(Debug, Clone)]
pub struct Commercial {
    /// The account's number, of 12 digits.
    pub id: String,
    pub providers: Vec<Provider>,
    pub roles: Vec<Role>,
    pub trust_anchors: Vec<TrustAnchor>,
    pub profiles: Vec<Profile>,
}

/// A trust anchor of IAM Roles Anywhere.
#[derive(Debug, Clone)]
pub struct TrustAnchor {
    pub arn: String,
    pub enabled: bool,
    /// The certificates of its authority, as PEM. By default there are none, so that a test brings its own.
    pub ca_pem: String,
}

/// A profile of IAM Roles Anywhere.
#[derive(Debug, Clone)]
pub struct Profile {
    pub arn: String,
    pub enabled: bool,
    pub role_arns: Vec<String>,
    /// The longest session, in seconds, and the default.
    pub duration_seconds: u64,
    pub accept_role_session_name: bool,
}

/// An OpenID Connect provider of IAM.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The issuer, without `https://`.
    pub issuer: String,
    /// The audiences that it accepts.
    pub client_ids: Vec<String>,
    pub issuer_kind: IssuerKind,
}

/// Who issues a provider's tokens.
#[derive(Debug, Clone)]
pub enum IssuerKind {
    /// STS of an AWS account in this partition, by GetWebIdentityToken. The doubles know its keys.
    Sts { partition: String },
    /// Another issuer, a Kubernetes cluster for example, with its key set.
    Other { keys: Vec<PublicKey> },
    /// Another issuer, whose key set is read as IAM reads it.
    Published(Published),
}

/// A role of IAM.
#[derive(Debug, Clone)]
pub struct Role {
    pub arn: String,
    /// The trust policy, as JSON text.
    pub trust: String,
    /// MaxSessionDuration: 1 to 12 hours.
    pub max_session: Duration,
}

impl Default for Account {
    fn default() -> Self {
        let role =
            |arn: &str, trust: String| Role { arn: arn.to_owned(), trust, max_session: Duration::from_secs(3600) };
        let roles = vec![
            role(COMMERCIAL_ROLE_ARN, TRUST.replace("ISSUER", ISSUER)),
            role(CERTIFICATE_ROLE_ARN, certificate_trust(TRUST_ANCHOR_ARN, COMMON_NAME)),
        ];
        Self {
            govcloud: GovCloud {
                issuer: ISSUER.to_owned(),
                outbound_federation: true,
                role_arn: GOVCLOUD_ROLE_ARN.to_owned(),
                policy: CALLER.to_owned(),
            },
            commercial: Commercial {
                id: "111122223333".to_owned(),
                providers: vec![Provider {
                    issuer: ISSUER.to_owned(),
                    client_ids: vec![AUDIENCE.to_owned()],
                    issuer_kind: IssuerKind::Sts { partition: "aws-us-gov".to_owned() },
                }],
                roles,
                trust_anchors: vec![TrustAnchor {
                    arn: TRUST_ANCHOR_ARN.to_owned(),
                    enabled: true,
                    ca_pem: String::new(),
                }],
                profiles: vec![Profile {
                    arn: PROFILE_ARN.to_owned(),
                    enabled: true,
                    role_arns: vec![CERTIFICATE_ROLE_ARN.to_owned()],
                    duration_seconds: 3600,
                    accept_role_session_name: false,
                }],
            },
        }
    }
}

/// The trust policy of `CertificateRole` in `infra/templates/commercial/identity.yaml`, as JSON text.
#[must_use]
pub fn certificate_trust(trust_anchor: &str, common_name: &str) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "TheGatewaysCertificate",
            "Effect": "Allow",
            "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
            "Principal": {"Service": "rolesanywhere.amazonaws.com"},
            "Condition": {
                "ArnEquals": {"aws:SourceArn": trust_anchor},
                "StringEquals": {"aws:PrincipalTag/x509Subject/CN": common_name},
            },
        }],
    })
    .to_string()
}

impl GovCloud {
    /// The ARN of the role's session, as errors name it.
    pub(super) fn session_arn(&self) -> String {
        let (head, name) = self.role_arn.split_once(":role/").unwrap_or((&self.role_arn, ""));
        let name = name.rsplit('/').next().unwrap_or_default();
        format!("{}:assumed-role/{name}/i-0123456789abcdef0", head.replace(":iam:", ":sts:"))
    }

    /// The account's number.
    pub(super) fn id(&self) -> &str {
        self.role_arn.split(':').nth(4).unwrap_or_default()
    }
}

impl Commercial {
    pub(super) fn role(&self, arn: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.arn == arn)
    }
}

impl Role {
    /// The ARN of a session.
    pub(super) fn session_arn(&self, session: &str) -> String {
        let (head, name) = self.arn.split_once(":role/").unwrap_or((&self.arn, ""));
        format!(
            "{}:assumed-role/{}/{session}",
            head.replace(":iam:", ":sts:"),
            name.rsplit('/').next().unwrap_or_default()
        )
    }

    /// The role's id and the session's name.
    pub(super) fn session_id(session: &str) -> String {
        format!("AROAEXAMPLEROLEID0001:{session}")
    }
}
