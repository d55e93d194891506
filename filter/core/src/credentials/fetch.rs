//! How credentials are fetched: the calls that a source needs, one after the other, and what their answers say.
//!
//! No call is made here: [`Fetch::next`] says which is wanted, and takes its answer. Nothing that is told of a failure holds
//! what an answer said, beyond its status and AWS's error code.

use super::answers::{self, AnswerError};
use super::{Credentials, Keys, Secret};
use crate::config::Sts;
use crate::headers::Headers;
use crate::sigv4::{self, Scope, Unsigned};
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// Seconds that a session of the instance metadata service lives: one fetch needs a few.
const IMDS_SESSION_SECONDS: &str = "60";
/// Seconds that a federation token lives: it is changed for keys at once.
const TOKEN_SECONDS: &str = "300";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const IMDS_PATH: &str = "/latest/meta-data/iam/security-credentials/";

/// Where credentials come from, and all that is needed to ask for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Keys of a local endpoint.
    Local(Local),
    /// The Secrets Manager Agent.
    Agent {
        /// Envoy's cluster of it.
        cluster: String,
        /// The secret's name or ARN.
        secret: String,
        /// What the agent wants to see, so that no web page can ask it.
        token: Secret,
    },
    /// Secrets Manager itself.
    SecretsManager {
        /// Who asks.
        using: Local,
        /// Envoy's cluster of it.
        cluster: String,
        /// Its region.
        region: String,
        /// The secret's name or ARN.
        secret: String,
    },
    /// A GovCloud identity's token, changed for a Commercial role's keys.
    Federation {
        /// Who asks for the token.
        using: Local,
        /// Who gives it.
        govcloud: Sts,
        /// Who takes it.
        commercial: Sts,
        /// The question for the token, as a form.
        token_form: String,
        /// The question for the keys, as a form, less the token.
        role_form: String,
    },
}

/// A local endpoint that gives keys to whoever can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// ECS, EKS Pod Identity.
    Container {
        /// Envoy's cluster of it.
        cluster: String,
        /// Host as it is sent.
        host: String,
        /// The path.
        path: String,
        /// The value of `authorization`.
        token: Option<Secret>,
    },
    /// The instance metadata service, version 2.
    Imds {
        /// Envoy's cluster of it.
        cluster: String,
        /// The role; none: the service is asked for its name.
        role: Option<String>,
    },
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Envoy's cluster.
    pub cluster: String,
    /// All headers, pseudo-headers too.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// An answer.
    Came {
        /// Its headers.
        headers: &'a Headers,
        /// Its body.
        body: &'a [u8],
    },
    /// None came in time, or its cluster could not be reached.
    None,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Next {
    /// Make a call.
    Call(Call),
    /// There they are.
    Done(Fetched),
}

/// Credentials, fresh.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The credentials.
    pub credentials: Credentials,
    /// Until when they may be used; none: no end is known.
    pub expires: Option<SystemTime>,
}

/// Why there are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {problem}")]
pub struct FetchError {
    /// Which call, in the words of its API.
    pub step: &'static str,
    /// What became of it.
    pub problem: Problem,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing.
    #[error("no answer from cluster '{0}'")]
    NoAnswer(String),
    /// An error.
    #[error("answered {status}{}", .code.as_ref().map(|code| format!(" {code}")).unwrap_or_default())]
    Status {
        /// Its status.
        status: u16,
        /// AWS's error code.
        code: Option<String>,
    },
    /// Something else than credentials.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// Keys that may not be used any more.
    #[error("the keys that came have expired already")]
    Expired,
    /// The question could not be signed.
    #[error(transparent)]
    Sign(#[from] sigv4::SignError),
}

/// A fetch on its way.
#[derive(Debug)]
pub struct Fetch {
    source: Source,
    step: Step,
}

/// What was asked last.
#[derive(Debug)]
enum Step {
    Nothing,
    ContainerKeys,
    ImdsSession,
    ImdsRole { session: Secret },
    ImdsKeys,
    AgentSecret,
    Secret,
    Token,
    Role,
}

impl Step {
    /// In the words of its API.
    fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "start",
            Self::ContainerKeys => "container credentials",
            Self::ImdsSession => "IMDSv2 token",
            Self::ImdsRole { .. } => "IMDSv2 role",
            Self::ImdsKeys => "IMDSv2 credentials",
            Self::AgentSecret => "Secrets Manager Agent",
            Self::Secret => "GetSecretValue",
            Self::Token => "GetWebIdentityToken",
            Self::Role => "AssumeRoleWithWebIdentity",
        }
    }
}

impl Fetch {
    /// A fetch of which no call has been made.
    pub fn new(source: Source) -> Self {
        Self { source, step: Step::Nothing }
    }

    /// Takes the answer to the last call ([`Answer::None`] at first, which is not looked at), and says what is next.
    ///
    /// # Errors
    /// [`FetchError`] names the call and what became of it. The fetch is over then.
    pub fn next(&mut self, answer: Answer<'_>, now: SystemTime) -> Result<Next, FetchError> {
        let step = std::mem::replace(&mut self.step, Step::Nothing);
        let name = step.name();
        self.advance(step, answer, now).map_err(|problem| FetchError { step: name, problem })
    }

    fn advance(&mut self, step: Step, answer: Answer<'_>, now: SystemTime) -> Result<Next, Problem> {
        if matches!(step, Step::Nothing) {
            return Ok(Next::Call(self.first_call()));
        }
        let body = match answer {
            Answer::None => return Err(Problem::NoAnswer(self.cluster_of(&step).to_owned())),
            Answer::Came { headers, body } => good(headers, body)?,
        };
        match step {
            Step::Nothing => Ok(Next::Call(self.first_call())),
            Step::ContainerKeys | Step::ImdsKeys => self.with_local_keys(answers::local_keys(body)?, now),
            Step::ImdsSession => {
                let session = Secret::new(answers::line(body)?);
                let role = match self.local() {
                    Some(Local::Imds { role: Some(role), .. }) => Some(role.clone()),
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
                let role = answers::line(body)?;
                Ok(Next::Call(self.imds_keys(role, &session)))
            }
            Step::AgentSecret | Step::Secret => done(answers::secret(body)?, now),
            Step::Token => Ok(Next::Call(self.assume_role(answers::xml_text(body, "WebIdentityToken")?))),
            Step::Role => done(answers::sts_keys(body)?, now),
        }
    }

    fn local(&self) -> Option<&Local> {
        match &self.source {
            Source::Local(local)
            | Source::SecretsManager { using: local, .. }
            | Source::Federation { using: local, .. } => Some(local),
            Source::Agent { .. } => None,
        }
    }

    fn cluster_of(&self, step: &Step) -> &str {
        match (&self.source, step) {
            (Source::Agent { cluster, .. }, _) | (Source::SecretsManager { cluster, .. }, Step::Secret) => cluster,
            (Source::Federation { govcloud, .. }, Step::Token) => &govcloud.cluster,
            (Source::Federation { commercial, .. }, Step::Role) => &commercial.cluster,
            _ => match self.local() {
                Some(Local::Container { cluster, .. } | Local::Imds { cluster, .. }) => cluster,
                None => "",
            },
        }
    }

    fn first_call(&mut self) -> Call {
        let (step, call) = match (&self.source, self.local()) {
            (Source::Agent { cluster, secret, token }, _) => {
                let path = format!("/secretsmanager/get?secretId={}", encode(secret));
                let mut headers = request("GET", "localhost:2773", &path);
                headers.push("x-aws-parameters-secrets-token", token.reveal());
                (Step::AgentSecret, Call { cluster: cluster.clone(), headers, body: Vec::new() })
            }
            (_, Some(Local::Container { cluster, host, path, token })) => {
                let mut headers = request("GET", host, path);
                if let Some(token) = token {
                    headers.push("authorization", token.reveal());
                }
                (Step::ContainerKeys, Call { cluster: cluster.clone(), headers, body: Vec::new() })
            }
            (_, Some(Local::Imds { .. }) | None) => {
                let mut headers = request("PUT", IMDS_HOST, "/latest/api/token");
                headers.push("x-aws-ec2-metadata-token-ttl-seconds", IMDS_SESSION_SECONDS);
                headers.push("content-length", "0");
                let cluster = self.cluster_of(&Step::ImdsSession).to_owned();
                (Step::ImdsSession, Call { cluster, headers, body: Vec::new() })
            }
        };
        self.step = step;
        call
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

    /// Local keys are what was wanted, or what the next question is signed with.
    fn with_local_keys(&mut self, fetched: Fetched, now: SystemTime) -> Result<Next, Problem> {
        let Credentials::Keys(keys) = &fetched.credentials else { return done(fetched, now) };
        let (step, call) = match &self.source {
            Source::SecretsManager { cluster, region, secret, .. } => {
                let body = serde_json::json!({ "SecretId": secret }).to_string();
                let extra =
                    [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];
                let scope = Scope { service: "secretsmanager", region };
                (Step::Secret, signed(cluster, scope, &extra, body, keys, now)?)
            }
            Source::Federation { govcloud, token_form, .. } => {
                let scope = Scope { service: "sts", region: &govcloud.region };
                let extra = [("content-type", FORM)];
                (Step::Token, signed(&govcloud.cluster, scope, &extra, token_form.clone(), keys, now)?)
            }
            Source::Local(_) | Source::Agent { .. } => return done(fetched, now),
        };
        self.step = step;
        Ok(Next::Call(call))
    }

    /// This question needs no signature: the token is the proof.
    fn assume_role(&mut self, token: String) -> Call {
        self.step = Step::Role;
        let Source::Federation { commercial, role_form, .. } = &self.source else {
            return Call { cluster: String::new(), headers: Headers::default(), body: Vec::new() };
        };
        let body = format!("{role_form}&WebIdentityToken={}", encode(&token));
        let mut headers = request("POST", &format!("sts.{}.amazonaws.com", commercial.region), "/");
        headers.push("content-type", FORM);
        headers.push("content-length", body.len().to_string());
        Call { cluster: commercial.cluster.clone(), headers, body: body.into_bytes() }
    }
}

const IMDS_HOST: &str = "169.254.169.254";

/// The forms of federation: the question for a token, and the one for keys.
pub fn forms(
    role_arn: &str,
    audience: &str,
    session_name: &str,
    duration_seconds: u32,
    tags: &std::collections::BTreeMap<String, String>,
) -> (String, String) {
    let version = "2011-06-15";
    let mut token = format!(
        "Action=GetWebIdentityToken&Version={version}&Audience.member.1={}&DurationSeconds={TOKEN_SECONDS}&SigningAlgorithm=RS256",
        encode(audience)
    );
    for (index, (key, value)) in tags.iter().enumerate() {
        let nth = index + 1;
        token += &format!("&Tags.member.{nth}.Key={}&Tags.member.{nth}.Value={}", encode(key), encode(value));
    }
    let role = format!(
        "Action=AssumeRoleWithWebIdentity&Version={version}&RoleArn={}&RoleSessionName={}&DurationSeconds={duration_seconds}",
        encode(role_arn),
        encode(session_name)
    );
    (token, role)
}

fn signed(
    cluster: &str,
    scope: Scope<'_>,
    extra: &[(&str, &str)],
    body: String,
    keys: &Keys,
    now: SystemTime,
) -> Result<Call, Problem> {
    let host = format!("{}.{}.amazonaws.com", scope.service, scope.region);
    let body_sha256 = crate::encoding::hex(&Sha256::digest(&body));
    let unsigned = Unsigned { method: "POST", host: &host, path: "/", headers: extra, body_sha256: &body_sha256 };
    let mut headers = request("POST", &host, "/");
    for (name, value) in extra {
        headers.push(*name, *value);
    }
    headers.push("content-length", body.len().to_string());
    for (name, value) in sigv4::sign(unsigned, keys, scope, now)? {
        headers.push(name, value);
    }
    Ok(Call { cluster: cluster.to_owned(), headers, body: body.into_bytes() })
}

fn request(method: &str, host: &str, path: &str) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in [(":method", method), (":authority", host), (":path", path)] {
        headers.push(name, value);
    }
    headers
}

fn good<'b>(headers: &Headers, body: &'b [u8]) -> Result<&'b [u8], Problem> {
    let status = headers.get_str(":status").and_then(|status| status.parse().ok()).unwrap_or(0);
    if status == 200 { Ok(body) } else { Err(Problem::Status { status, code: answers::error_code(headers, body) }) }
}

fn done(fetched: Fetched, now: SystemTime) -> Result<Next, Problem> {
    if fetched.expires.is_some_and(|expires| expires <= now) {
        return Err(Problem::Expired);
    }
    Ok(Next::Done(fetched))
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    crate::encoding::encode_into(text.as_bytes(), &mut encoded);
    encoded
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
