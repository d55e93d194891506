//! How credentials are fetched: the calls that a source needs, one after the other.
//!
//! No call is made here: [`Fetch::next`] takes the response to the last call and says which call is next. Errors hold nothing
//! of a response but its status, and AWS's or Envoy's reason ([`super::errors`]).

use super::call::{Call, CallOutcome};
use super::create_session::SessionRequest;
use super::errors;
use super::identity::{CertificateMaterial, IdentityError, SigningIdentity, Validity};
use super::provider::{CertificatePlan, ContainerToken, FetchPlan, LocalEndpoint, SecretPlan, TokenPlan, tags_form};
use super::responses::{self, ResponseError};
use super::session;
use super::{Credentials, Fetched, Keys, Secret};
use crate::clock::Times;
use crate::encoding::{encode, hex};
use crate::headers::Headers;
use crate::sigv4::{self, Scope, Unsigned};
use sha2::{Digest, Sha256};

/// Seconds that a session of the instance metadata service lives: a fetch takes a few.
const IMDS_SESSION_SECONDS: &str = "60";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const IMDS_PATH: &str = "/latest/meta-data/iam/security-credentials/";

/// The next step of a fetch.
#[derive(Debug)]
pub enum Next {
    /// Make a call.
    Call(Call),
    /// The fetch is complete.
    Done(Fetched),
}

/// Why a fetch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {problem}")]
pub struct FetchError {
    /// The call, by the name in its API.
    pub step: &'static str,
    /// What went wrong.
    pub problem: Problem,
}

/// What went wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No response.
    #[error("no answer from cluster '{0}'")]
    NoAnswer(String),
    /// Envoy answered for a cluster that it could not reach.
    #[error("cluster '{cluster}' was not reached: Envoy answered {status}: {reason}")]
    NotReached {
        /// The cluster.
        cluster: String,
        /// Envoy's status.
        status: u16,
        /// Envoy's reason, such as `no healthy upstream`.
        reason: String,
    },
    /// An error status.
    #[error("answered {status}{}{}", prefixed(" ", code.as_deref()), prefixed(": ", message.as_deref()))]
    Status {
        /// Its status.
        status: u16,
        /// AWS's error code.
        code: Option<String>,
        /// AWS's message, of services that are called over TLS.
        message: Option<String>,
    },
    /// A response without credentials.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// Expired keys.
    #[error("the fetched keys have expired already")]
    Expired,
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] IdentityError),
    /// The request could not be signed.
    #[error(transparent)]
    Sign(#[from] sigv4::SignError),
}

impl FetchError {
    /// Whether another worker may fetch. Each worker of Envoy can connect to an internal listener, and its main thread, which
    /// has a VM, too, cannot (`source/extensions/bootstrap/internal_listener`).
    pub fn is_of_this_thread(&self) -> bool {
        self.step == Step::TokenFile.name() && matches!(self.problem, Problem::NotReached { .. } | Problem::NoAnswer(_))
    }
}

/// A fetch in progress.
#[derive(Debug)]
pub struct Fetch {
    plan: FetchPlan,
    step: Step,
}

/// The last call made.
#[derive(Debug)]
enum Step {
    Nothing,
    TokenFile,
    ContainerKeys,
    ImdsSession,
    ImdsRole { session: Secret },
    ImdsKeys,
    AgentSecret,
    Secret,
    Token,
    Role { token_id: Option<String> },
    Session { certificate: Validity },
}

impl Step {
    /// The call's name in its API.
    fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "start",
            Self::TokenFile => "token file",
            Self::ContainerKeys => "container credentials",
            Self::ImdsSession => "IMDSv2 token",
            Self::ImdsRole { .. } => "IMDSv2 role",
            Self::ImdsKeys => "IMDSv2 credentials",
            Self::AgentSecret => "Secrets Manager Agent",
            Self::Secret => "GetSecretValue",
            Self::Token => "GetWebIdentityToken",
            Self::Role { .. } => "AssumeRoleWithWebIdentity",
            Self::Session { .. } => "CreateSession",
        }
    }

    /// Whether the call is one of AWS's APIs over TLS, whose messages may be logged.
    fn is_aws(&self) -> bool {
        matches!(self, Self::Secret | Self::Token | Self::Role { .. } | Self::Session { .. })
    }

    /// Whether a status means success. AWS documents 201 for CreateSession, and its own client takes any 2xx.
    fn succeeded(&self, status: u16) -> bool {
        status == 200 || (status == 201 && matches!(self, Self::Session { .. }))
    }
}

impl Fetch {
    /// A fetch before its first call.
    pub fn new(plan: FetchPlan) -> Self {
        Self { plan, step: Step::Nothing }
    }

    /// Takes the outcome of the last call and says what is next. The first outcome is ignored: pass [`CallOutcome::NoResponse`].
    ///
    /// # Errors
    /// [`FetchError`] names the call and what went wrong. The fetch is over then.
    pub fn next(&mut self, outcome: CallOutcome<'_>, now: impl Into<Times>) -> Result<Next, FetchError> {
        let step = std::mem::replace(&mut self.step, Step::Nothing);
        let name = step.name();
        self.advance(step, outcome, now.into()).map_err(|problem| {
            let step = if matches!(problem, Problem::Certificate(_)) { "certificate" } else { name };
            FetchError { step, problem }
        })
    }

    fn advance(&mut self, step: Step, outcome: CallOutcome<'_>, now: Times) -> Result<Next, Problem> {
        if matches!(step, Step::Nothing) {
            return self.first_call(now).map(Next::Call);
        }
        let body = match outcome {
            CallOutcome::NoResponse => return Err(Problem::NoAnswer(self.cluster_of(&step).to_owned())),
            CallOutcome::Response { headers, body } => self.ok_body(&step, headers, body)?,
        };
        match step {
            Step::Nothing => self.first_call(now).map(Next::Call),
            Step::TokenFile => Ok(Next::Call(match &self.plan {
                FetchPlan::WebIdentity { token: TokenPlan::File { .. }, .. } => {
                    self.assume_role(&responses::web_identity_token(body)?)
                }
                _ => self.container_keys(Some(&responses::container_token(body)?)),
            })),
            Step::ContainerKeys | Step::ImdsKeys => self.with_local_keys(responses::local_keys(body)?, now),
            Step::ImdsSession => {
                let session = Secret::new(responses::line(body)?);
                let role = match self.local() {
                    Some(LocalEndpoint::Imds { role: Some(role), .. }) => Some(role.clone()),
                    _ => None,
                };
                Ok(Next::Call(match role {
                    Some(role) => self.imds_keys(&role, &session),
                    None => {
                        let call = self.imds(IMDS_PATH, &session);
                        self.step = Step::ImdsRole { session };
                        call
                    }
                }))
            }
            Step::ImdsRole { session } => {
                let role = responses::line(body)?;
                Ok(Next::Call(self.imds_keys(role, &session)))
            }
            Step::AgentSecret | Step::Secret => self.with_secret(body, now),
            Step::Token => {
                Ok(Next::Call(self.assume_role(&Secret::new(responses::xml_text(body, "WebIdentityToken")?))))
            }
            Step::Role { token_id } => done(responses::sts_keys(body, token_id)?, now),
            Step::Session { certificate } => done(responses::session_keys(body, certificate)?, now),
        }
    }

    /// The body of a successful response. Envoy answers a call that it could not make with a response, too.
    fn ok_body<'b>(&self, step: &Step, headers: &Headers, body: &'b [u8]) -> Result<&'b [u8], Problem> {
        let status = headers.get_str(":status").and_then(|status| status.parse().ok()).unwrap_or(0);
        if step.succeeded(status) {
            return Ok(body);
        }
        if let Some(reason) = errors::envoys_reason(body) {
            return Err(Problem::NotReached { cluster: self.cluster_of(step).to_owned(), status, reason });
        }
        let message = step.is_aws().then(|| errors::message(body)).flatten();
        Err(Problem::Status { status, code: errors::code(headers, body), message })
    }

    fn local(&self) -> Option<&LocalEndpoint> {
        match &self.plan {
            FetchPlan::Local(local)
            | FetchPlan::WebIdentity { token: TokenPlan::GovCloud { using: local, .. }, .. } => Some(local),
            FetchPlan::WebIdentity { token: TokenPlan::File { .. }, .. } => None,
            FetchPlan::Secret(_) | FetchPlan::RolesAnywhere { .. } => match self.secret() {
                Some(SecretPlan::Service { using, .. }) => Some(using),
                Some(SecretPlan::Agent { .. }) | None => None,
            },
        }
    }

    fn secret(&self) -> Option<&SecretPlan> {
        match &self.plan {
            FetchPlan::Secret(secret)
            | FetchPlan::RolesAnywhere { certificate: CertificatePlan::Secret(secret), .. } => Some(secret),
            _ => None,
        }
    }

    /// The cluster that answers with a token's file, if the plan has one.
    fn token_file(&self) -> Option<&str> {
        match (&self.plan, self.local()) {
            (FetchPlan::WebIdentity { token: TokenPlan::File { cluster }, .. }, _)
            | (_, Some(LocalEndpoint::Container { token: ContainerToken::File { cluster }, .. })) => Some(cluster),
            _ => None,
        }
    }

    fn cluster_of(&self, step: &Step) -> &str {
        match (&self.plan, self.secret(), step) {
            (_, _, Step::TokenFile) => self.token_file().unwrap_or_default(),
            (FetchPlan::RolesAnywhere { session, .. }, _, Step::Session { .. }) => &session.cluster,
            (_, Some(SecretPlan::Agent { cluster, .. }), _)
            | (_, Some(SecretPlan::Service { cluster, .. }), Step::Secret) => cluster,
            (FetchPlan::WebIdentity { token: TokenPlan::GovCloud { cluster, .. }, .. }, _, Step::Token)
            | (FetchPlan::WebIdentity { cluster, .. }, _, Step::Role { .. }) => cluster,
            _ => match self.local() {
                Some(LocalEndpoint::Container { cluster, .. } | LocalEndpoint::Imds { cluster, .. }) => cluster,
                None => "",
            },
        }
    }

    fn first_call(&mut self, now: Times) -> Result<Call, Problem> {
        if let FetchPlan::RolesAnywhere { certificate: CertificatePlan::Given(material), session } = &self.plan {
            let (step, call) = create_session(session, material, now)?;
            self.step = step;
            return Ok(call);
        }
        if let Some(cluster) = self.token_file() {
            let call =
                Call { cluster: cluster.to_owned(), headers: request("GET", "localhost", "/"), body: Vec::new() };
            self.step = Step::TokenFile;
            return Ok(call);
        }
        let (step, call) = match (self.secret(), self.local()) {
            (Some(SecretPlan::Agent { cluster, secret, token }), _) => {
                let path = format!("/secretsmanager/get?secretId={}", encode(secret));
                let mut headers = request("GET", "localhost:2773", &path);
                headers.push("x-aws-parameters-secrets-token", token.reveal());
                (Step::AgentSecret, Call { cluster: cluster.clone(), headers, body: Vec::new() })
            }
            (_, Some(LocalEndpoint::Container { token, .. })) => {
                let token = match token {
                    ContainerToken::Given(token) => Some(token.clone()),
                    ContainerToken::None | ContainerToken::File { .. } => None,
                };
                return Ok(self.container_keys(token.as_ref()));
            }
            (_, Some(LocalEndpoint::Imds { .. }) | None) => {
                let mut headers = request("PUT", IMDS_HOST, "/latest/api/token");
                headers.push("x-aws-ec2-metadata-token-ttl-seconds", IMDS_SESSION_SECONDS);
                headers.push("content-length", "0");
                let cluster = self.cluster_of(&Step::ImdsSession).to_owned();
                (Step::ImdsSession, Call { cluster, headers, body: Vec::new() })
            }
        };
        self.step = step;
        Ok(call)
    }

    fn container_keys(&mut self, token: Option<&Secret>) -> Call {
        self.step = Step::ContainerKeys;
        let Some(LocalEndpoint::Container { cluster, host, path, .. }) = self.local() else { return Call::default() };
        let mut headers = request("GET", host, path);
        if let Some(token) = token {
            headers.push("authorization", token.reveal());
        }
        Call { cluster: cluster.clone(), headers, body: Vec::new() }
    }

    fn imds_keys(&mut self, role: &str, session: &Secret) -> Call {
        let call = self.imds(&format!("{IMDS_PATH}{}", encode(role)), session);
        self.step = Step::ImdsKeys;
        call
    }

    fn imds(&self, path: &str, session: &Secret) -> Call {
        let mut headers = request("GET", IMDS_HOST, path);
        headers.push("x-aws-ec2-metadata-token", session.reveal());
        Call { cluster: self.cluster_of(&Step::ImdsKeys).to_owned(), headers, body: Vec::new() }
    }

    /// Local keys are the result, or sign the next request.
    fn with_local_keys(&mut self, fetched: Fetched, now: Times) -> Result<Next, Problem> {
        let Credentials::Keys(keys) = &fetched.credentials else { return done(fetched, now) };
        let (step, call) = match (&self.plan, self.secret()) {
            (_, Some(SecretPlan::Service { cluster, region, secret, .. })) => {
                let body = serde_json::json!({ "SecretId": secret }).to_string();
                let extra =
                    [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];
                let scope = Scope { service: "secretsmanager", region };
                (Step::Secret, signed(cluster, scope, &extra, body, keys, now)?)
            }
            (FetchPlan::WebIdentity { token, session_name, .. }, _) => {
                let TokenPlan::GovCloud { cluster, region, form, tags, .. } = token else { return done(fetched, now) };
                let scope = Scope { service: "sts", region };
                let extra = [("content-type", FORM)];
                let form = format!("{form}{}", tags_form(tags, session_name));
                (Step::Token, signed(cluster, scope, &extra, form, keys, now)?)
            }
            _ => return done(fetched, now),
        };
        self.step = step;
        Ok(Next::Call(call))
    }

    /// A secret holds the result, or the certificate that asks for a session.
    fn with_secret(&mut self, body: &[u8], now: Times) -> Result<Next, Problem> {
        let FetchPlan::RolesAnywhere { session, .. } = &self.plan else { return done(responses::secret(body)?, now) };
        let (step, call) = create_session(session, &responses::certificate(body)?, now)?;
        self.step = step;
        Ok(Next::Call(call))
    }

    /// The token authenticates this request: it needs no signature.
    fn assume_role(&mut self, token: &Secret) -> Call {
        self.step = Step::Role { token_id: session::token_id(token.reveal()) };
        let FetchPlan::WebIdentity { cluster, region, form, session_name, .. } = &self.plan else {
            return Call::default();
        };
        let (name, token) = (encode(session_name), encode(token.reveal()));
        let body = format!("{form}&RoleSessionName={name}&WebIdentityToken={token}");
        let mut headers = request("POST", &format!("sts.{region}.amazonaws.com"), "/");
        headers.push("content-type", FORM);
        headers.push("content-length", body.len().to_string());
        Call { cluster: cluster.clone(), headers, body: body.into_bytes() }
    }
}

const IMDS_HOST: &str = "169.254.169.254";

/// Reads the identity anew for each session, because its certificates expire.
fn create_session(
    session: &SessionRequest,
    material: &CertificateMaterial,
    now: Times,
) -> Result<(Step, Call), Problem> {
    let identity = SigningIdentity::parse(material)?;
    let valid = identity.valid_at(now.signing).or_else(|_| identity.valid_at(now.machine))?;
    Ok((Step::Session { certificate: valid.validity() }, session.call(valid, now.signing)?))
}

fn signed(
    cluster: &str,
    scope: Scope<'_>,
    extra: &[(&str, &str)],
    body: String,
    keys: &Keys,
    now: Times,
) -> Result<Call, Problem> {
    let host = format!("{}.{}.amazonaws.com", scope.service, scope.region);
    let body_sha256 = hex(&Sha256::digest(&body));
    let unsigned = Unsigned { method: "POST", host: &host, path: "/", headers: extra, body_sha256: &body_sha256 };
    let mut headers = request("POST", &host, "/");
    for (name, value) in extra {
        headers.push(*name, *value);
    }
    headers.push("content-length", body.len().to_string());
    for (name, value) in sigv4::sign(unsigned, keys, scope, now.signing)? {
        headers.push(name, value);
    }
    Ok(Call { cluster: cluster.to_owned(), headers, body: body.into_bytes() })
}

fn prefixed(prefix: &str, text: Option<&str>) -> String {
    text.map(|text| format!("{prefix}{text}")).unwrap_or_default()
}

fn request(method: &str, host: &str, path: &str) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in [(":method", method), (":authority", host), (":path", path)] {
        headers.push(name, value);
    }
    headers
}

fn done(fetched: Fetched, now: Times) -> Result<Next, Problem> {
    if fetched.expires.is_some_and(|expires| now.are_after(expires)) {
        return Err(Problem::Expired);
    }
    Ok(Next::Done(fetched))
}

#[cfg(test)]
#[path = "roles_anywhere_tests.rs"]
mod roles_anywhere_tests;
#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "token_file_tests.rs"]
mod token_file_tests;
