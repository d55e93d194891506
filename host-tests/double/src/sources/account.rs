//! The two AWS accounts of the doubles. By default their policies are those of `infra/policies`; a test changes a member to
//! plant a refusal.

use std::time::Duration;

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
        let roles = vec![role(COMMERCIAL_ROLE_ARN, TRUST.replace("ISSUER", ISSUER))];
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
            },
        }
    }
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
