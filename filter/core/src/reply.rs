//! The gateway's own replies, in Bedrock's form: the one table from error to reply.

use crate::access::AccessRefusal;
use crate::answer_problem::AnswerProblem;
use crate::buffers::Full;
use crate::headers::{Headers, Repeated};
use crate::intent::IntentError;
use crate::lambda_api::{self, EnvelopeProblem};
use crate::limits::Exhausted;
use crate::model::GovCloudId;
use crate::operation::{CallError, Operation};
use crate::policy::{ModelRefusal, OperationRefusal};
use crate::principal::PrincipalError;
use crate::request_body::BodyProblem;
use crate::request_metadata::MetadataProblem;
use crate::resolve::table::Problem;
use crate::rules::RuleRefusal;
use crate::sigv4::SignError;

/// Why a call is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request line does not ask for a carried operation.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A known operation that is not carried.
    #[error(
        "{0} is not supported by this gateway: bidirectional streams cannot be carried. Use ConverseStream or InvokeModelWithResponseStream."
    )]
    Bidirectional(Operation),
    /// Who calls is refused, whatever is called.
    #[error("Access denied: {0}.")]
    Access(#[from] AccessRefusal),
    /// The caller may not read the gateway's own API.
    #[error("Access denied: no pattern of `gateway_api.principals` matches this caller.")]
    GatewayApi,
    /// A header that crosses is repeated.
    #[error("The request is malformed: {0}.")]
    Repeated(#[from] Repeated),
    /// A header that is signed holds bytes that are not visible ASCII.
    #[error("The request is malformed: the value of header '{0}' is not visible ASCII.")]
    HeaderValue(String),
    /// One of Bedrock's own headers, which is not known.
    #[error(
        "The request has the header '{0}', which this version of the gateway does not know. Without it the call could mean another thing, so nothing was sent. `headers.allow` in the gateway's configuration lets it cross."
    )]
    UnknownHeader(String),
    /// The body cannot be read where it matters.
    #[error(transparent)]
    Body(#[from] BodyProblem),
    /// The call's own request metadata, where the operator sets some.
    #[error(transparent)]
    Metadata(#[from] MetadataProblem),
    /// An id of GovCloud's, elsewhere than where a model is named.
    #[error("Access denied: {problem} (in '{place}').")]
    GovCloud {
        /// The header, parameter or member.
        place: String,
        /// What is wrong.
        problem: GovCloudId,
    },
    /// ARNs of two regions.
    #[error("The call names resources of two regions: {first}, {second}. A call is served in one region.")]
    TwoRegions {
        /// Place and region of one.
        first: String,
        /// And of another.
        second: String,
    },
    /// The body is compressed.
    #[error("The request body has a content-encoding, which Bedrock does not accept: send it without.")]
    EncodedBody,
    /// A body that is read, in another charset.
    #[error(
        "The content type names another charset than UTF-8, which JSON has (RFC 8259, section 8.1): send it without."
    )]
    Charset,
    /// Trailers follow a body that Envoy was to hash: its filter hashes at the end of a body alone.
    #[error(
        "The request body has trailers, which the gateway does not take after a body of this length: send it without."
    )]
    Trailers,
    /// The call is gRPC's.
    #[error("The content type is gRPC's, which Bedrock does not accept: send application/json.")]
    Grpc,
    /// The caller's name cannot be used.
    #[error("Access denied: {0}.")]
    Principal(#[from] PrincipalError),
    /// A pseudo-header is missing or not text.
    #[error("The request is malformed: it has no usable {0}.")]
    RequestLine(&'static str),
    /// The model may not be called.
    #[error("Access denied: {0}.")]
    Model(#[from] ModelRefusal),
    /// No region of its class offers the model, by the regions' own lists.
    #[error("{}", not_offered(model, regions, *global, *stale))]
    NotOffered {
        /// The model.
        model: String,
        /// The regions' names.
        regions: String,
        /// Whether there is a global profile that may not be chosen.
        global: bool,
        /// The lists' age in seconds, if a poll has failed since.
        stale: Option<u64>,
    },
    /// Envoy's failover led to a region that does not offer the model, or its list has changed meanwhile.
    #[error(
        "The call came to region {region}, which does not offer the model '{model}'. Try again. Nothing was sent there."
    )]
    NotOfferedHere {
        /// The model.
        model: String,
        /// The region.
        region: String,
    },
    /// The lists of the regions have changed since the rules decided, and the call would go by a profile that they did not judge.
    #[error(
        "The regions' lists have changed since the gateway's rules decided about '{model}', which now goes by '{profile}'. Try again. Nothing was sent there."
    )]
    OtherProfile {
        /// The model.
        model: String,
        /// The profile.
        profile: String,
    },
    /// No region that the call may go to has the data retention that its class demands.
    #[error(
        "Route class '{class}' of the gateway demands the data retention mode {wanted}, and the call found the mode {found}. Nothing was sent there."
    )]
    Retention {
        /// The class.
        class: String,
        /// The mode, or whose it is.
        wanted: String,
        /// The modes of the regions.
        found: String,
        /// Whether all of them are known, so that another try makes no difference.
        known: bool,
    },
    /// Nobody knows what a resource runs, and a rule depends on that.
    #[error(
        "The gateway does not know which models '{id}' runs, and {rule} depends on that: {problem}. Name a foundation model or a system-defined inference profile, or let the operator list '{id}' in `resolve.runs`. Nothing was sent."
    )]
    Lookup {
        /// The resource.
        id: String,
        /// The key of the rule.
        rule: &'static str,
        /// What was tried.
        problem: Problem,
    },
    /// Too many resources wait for a lookup.
    #[error(
        "Too many requests: the gateway is looking up what many resources run, and '{0}' has to wait. Nothing was sent."
    )]
    LookupQueue(String),
    /// An id without an ARN is of the region and account of another class than its models'.
    #[error(
        "'{id}' was looked up in {region}, and route class '{class}', which its models belong to, begins in another region or has other credentials: name the resource by its ARN."
    )]
    LookedUpElsewhere {
        /// The resource.
        id: String,
        /// Where it was looked up.
        region: String,
        /// The class.
        class: String,
    },
    /// The model is named where the gateway does not look.
    #[error(
        "Access denied: {0} names its model in the body, and the gateway's rules for models are applied before the body arrives."
    )]
    HiddenModel(Operation),
    /// The model in a body has another name in the Commercial partition. The gateway does not change it there.
    #[error("The gateway does not change the model in a body, and '{place}' is '{id}': write '{instead}'.")]
    ModelInBody {
        /// The member.
        place: String,
        /// What it is.
        id: String,
        /// What the gateway would send.
        instead: String,
    },
    /// The operation is not carried.
    #[error("Access denied: {0}.")]
    Operation(#[from] OperationRefusal),
    /// The rules do not let the call pass.
    #[error("Access denied: {0}.")]
    Rule(#[from] RuleRefusal),
    /// No route class matches the call.
    #[error("Access denied: no route class of the gateway takes this call.")]
    NoRouteClass,
    /// The environment leaves the route class without a path.
    #[error("No path of route class '{class}' may be taken: BEDROCK_PATHS names none of them. Nothing was sent.")]
    NoPath {
        /// The class.
        class: String,
    },
    /// The caller has used up its allowance.
    #[error(
        "Too many requests: route class '{class}' of the gateway allows its callers less. Try again in {seconds} s. Nothing was sent."
    )]
    Throttled {
        /// The class.
        class: String,
        /// Seconds until a call is allowed again.
        seconds: u64,
    },
    /// The lists that would decide the call are older than its class allows.
    #[error("{}", old_catalogue(class, regions, *age, *most))]
    OldCatalogue {
        /// The class.
        class: String,
        /// The regions whose lists are too old.
        regions: String,
        /// Seconds since the oldest of them were read; `None`: one has not been read yet.
        age: Option<u64>,
        /// Seconds that they may have.
        most: u64,
    },
    /// The caller has as many calls in flight as it may have.
    #[error(
        "Too many requests: route class '{class}' of the gateway allows each of its callers {limit} calls at the same time. Nothing was sent."
    )]
    Busy {
        /// The class.
        class: String,
        /// How many.
        limit: u32,
    },
    /// The body is too long.
    #[error("The request body is longer than the {limit} bytes that this gateway carries.")]
    BodyTooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// The bodies of all calls would occupy too much memory, and this call's owner has most of it.
    #[error("{}. Nothing was sent. Try again when fewer calls are in flight.", full_budget(*.0))]
    BuffersFull(Full),
    /// The audit collector has no intent of the call on disk, and the call's class requires it.
    #[error(
        "Route class '{class}' of the gateway sends no call that is not recorded for audit first, and {error}. Nothing was sent."
    )]
    NoIntent {
        /// The class.
        class: String,
        /// Why.
        error: IntentError,
    },
    /// The gateway has no Commercial credentials.
    #[error("The gateway has no credentials for Commercial Bedrock. Nothing was sent.")]
    NoCredentials,
    /// The first credentials did not arrive in time.
    #[error("The gateway is still waiting for its first credentials for Commercial Bedrock. Nothing was sent.")]
    PendingCredentials,
    /// The class makes sessions by name, and the caller has none.
    #[error(
        "Access denied: route class '{class}' of the gateway calls Bedrock in its callers' own names, and this caller has proved none."
    )]
    NoSession {
        /// The class.
        class: String,
    },
    /// The caller's session waits for others.
    #[error(
        "Too many requests: the gateway is beginning sessions for many new callers. Try again in {seconds} s. Nothing was sent."
    )]
    SessionQueue {
        /// Seconds until it is begun.
        seconds: u64,
    },
    /// The credentials have expired and could not be replaced.
    #[error(
        "The gateway's credentials for Commercial Bedrock have expired, and new ones could not be fetched. Nothing was sent."
    )]
    ExpiredCredentials,
    /// The module is not configured.
    #[error("The gateway is not configured. Nothing was sent.")]
    NotConfigured,
    /// A call reached the signer without the gateway role.
    #[error("The gateway's signer got a call that its gateway role did not pass ({0}). Nothing was sent.")]
    NotPassed(&'static str),
    /// Envoy's filter was asked for the body's hash, and has left none.
    #[error(
        "Envoy's filter `bedrock.hash` has left no hash of the body: it must follow the gateway's filter in the Envoy configuration. Nothing was sent."
    )]
    NotHashed,
    /// A call reached the relay that no gateway role of its VM sent.
    #[error(
        "The gateway's relay got a call that no gateway role in its VM sent: both need the same `vm_config`, and the relay an internal listener. Nothing was sent."
    )]
    NotRelayed,
    /// A call reached a source's cluster for which no headers were left.
    #[error(
        "The filter of a source's cluster got a call that the gateway did not make: both need the same `vm_id`. Nothing was sent."
    )]
    ForeignCall,
    /// The endpoint's labels name a path or region that the call's route class does not have.
    #[error(
        "The endpoint that Envoy chose is labelled '{label}', which route class '{class}' does not have as a {kind}. Nothing was sent."
    )]
    ForeignEndpoint {
        /// `path` or `region`.
        kind: &'static str,
        /// The label.
        label: String,
        /// The class.
        class: String,
    },
    /// A call of the host failed.
    #[error("The gateway failed inside Envoy ({0}). Nothing was sent.")]
    Host(String),
    /// The upstream wants another protocol, which no client of the gateway has asked for.
    #[error("Amazon Bedrock answered with a change of protocol (101), which the gateway does not carry.")]
    SwitchedProtocols,
    /// A call of the Lambda-based proxy's API whose body is not as that has it.
    #[error(transparent)]
    Envelope(#[from] EnvelopeProblem),
    /// An answer that the gateway edits cannot be read, so that nothing of it may pass.
    #[error("The gateway cannot read the answer of Amazon Bedrock, which it has to edit: {0}.")]
    Answer(#[from] AnswerProblem),
    /// Signing failed.
    #[error("{0}. Nothing was sent.")]
    Sign(#[from] SignError),
}

/// A reply of the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The exception that SDKs raise.
    pub error: &'static str,
    /// What is wrong, in plain text.
    pub message: String,
    /// Seconds after which to try again (RFC 9110, `Retry-After`).
    pub retry_after: Option<u64>,
    /// Whether it has the form of the Lambda-based proxy's API.
    pub lambda: bool,
}

/// An answer of the gateway's own that is not a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Refusal {
    /// A caller's allowance in a class is used up.
    pub(crate) fn exhausted(class: &str, exhausted: Exhausted) -> Self {
        let class = class.to_owned();
        match exhausted {
            Exhausted::For(seconds) => Self::Throttled { class, seconds },
            Exhausted::Calls(limit) => Self::Busy { class, limit },
        }
    }

    /// The refusal of a call whose resource was not looked up, because nobody was asked.
    pub fn not_looked_up(id: &str) -> Self {
        let problem = Problem::new(503, "Bedrock is asked by a running gateway only");
        Self::Lookup { id: id.to_owned(), rule: "a rule", problem }
    }

    /// The reply to the client.
    pub fn reply(&self) -> Reply {
        let (status, error) = match self {
            Self::Call(CallError::Unknown) => (404, "UnknownOperationException"),
            Self::Call(CallError::Label { .. } | CallError::Query(_))
            | Self::Bidirectional(_)
            | Self::Repeated(_)
            | Self::UnknownHeader(_)
            | Self::Body(_)
            | Self::Envelope(_)
            | Self::Metadata(_)
            | Self::TwoRegions { .. }
            | Self::ModelInBody { .. }
            | Self::LookedUpElsewhere { .. }
            | Self::Lookup { problem: Problem { status: 400, .. }, .. }
            | Self::HeaderValue(_)
            | Self::EncodedBody
            | Self::Charset
            | Self::Trailers
            | Self::RequestLine(_) => (400, "ValidationException"),
            Self::Grpc => (415, "ValidationException"),
            Self::BodyTooLong { .. } => (413, "ValidationException"),
            Self::Access(_)
            | Self::GatewayApi
            | Self::Model(_)
            | Self::GovCloud { .. }
            | Self::HiddenModel(_)
            | Self::Operation(_)
            | Self::Rule(_)
            | Self::NoRouteClass
            | Self::NoSession { .. }
            | Self::Retention { known: true, .. }
            | Self::Principal(_) => (403, "AccessDeniedException"),
            Self::Lookup { problem: Problem { status: 0 | 403, .. }, .. } => (403, "AccessDeniedException"),
            Self::NotOffered { .. } | Self::Lookup { problem: Problem { status: 404, .. }, .. } => {
                (404, "ResourceNotFoundException")
            }
            Self::SwitchedProtocols | Self::Answer(_) => (502, "ServiceUnavailableException"),
            Self::Throttled { .. }
            | Self::Busy { .. }
            | Self::SessionQueue { .. }
            | Self::LookupQueue(_)
            | Self::BuffersFull(Full::Connection | Full::Caller) => (429, "ThrottlingException"),
            Self::NoCredentials
            | Self::PendingCredentials
            | Self::ExpiredCredentials
            | Self::NotConfigured
            | Self::NotPassed(_)
            | Self::NotHashed
            | Self::NotRelayed
            | Self::ForeignCall
            | Self::ForeignEndpoint { .. }
            | Self::NoPath { .. }
            | Self::NotOfferedHere { .. }
            | Self::OldCatalogue { .. }
            | Self::OtherProfile { .. }
            | Self::Retention { known: false, .. }
            | Self::Lookup { .. }
            | Self::BuffersFull(Full::Process)
            | Self::NoIntent { .. }
            | Self::Host(_)
            | Self::Sign(_) => (503, "ServiceUnavailableException"),
        };
        let retry_after = match self {
            Self::Throttled { seconds, .. } | Self::SessionQueue { seconds } => Some(*seconds),
            Self::Lookup { problem: Problem { status: 503, .. }, .. } | Self::LookupQueue(_) => Some(1),
            Self::BuffersFull(_) | Self::Busy { .. } | Self::NoIntent { .. } => Some(1),
            _ => None,
        };
        Reply { status, error, message: self.to_string(), retry_after, lambda: false }
    }
}

fn full_budget(full: Full) -> &'static str {
    match full {
        Full::Connection => {
            "Too many requests: the calls of this connection have more data in the gateway than it buffers for one"
        }
        Full::Caller => {
            "Too many requests: the calls of this caller have more data in the gateway than it buffers for one"
        }
        Full::Process => "The gateway has no memory left for this call",
    }
}

impl Reply {
    /// The headers of the reply. SDKs show `request_id` as the request's id.
    pub fn headers(&self, request_id: &str) -> Vec<(&'static str, Vec<u8>)> {
        let mut headers =
            vec![("content-type", b"application/json".to_vec()), ("x-amzn-errortype", self.error.as_bytes().to_vec())];
        if !request_id.is_empty() {
            headers.push(("x-amzn-requestid", request_id.as_bytes().to_vec()));
        }
        if let Some(seconds) = self.retry_after {
            headers.push(("retry-after", seconds.to_string().into_bytes()));
        }
        if self.lambda {
            headers.push(("x-request-id", request_id.as_bytes().to_vec()));
        }
        headers
    }

    /// The body: `{"message": …}`.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        if self.lambda {
            return lambda_api::failure(self.error, &self.message, request_id);
        }
        serde_json::json!({ "message": self.message }).to_string().into_bytes()
    }
}

impl Answer {
    /// A success with a JSON text.
    pub(crate) fn json(body: Vec<u8>) -> Self {
        Self { status: 200, headers: vec![("content-type", b"application/json".to_vec())], body }
    }
}

fn not_offered(model: &str, regions: &str, global: bool, stale: Option<u64>) -> String {
    let global = if global {
        " It has a profile 'global.', which the gateway's operator does not let it choose (`catalogue.global`)."
    } else {
        ""
    };
    let stale = stale.map(|age| {
        let (age, unit) = if age < 120 { (age, "s") } else { (age / 60, "min") };
        format!(" The list is {age} {unit} old: newer ones could not be read.")
    });
    format!(
        "The model '{model}' is not offered in {regions}, as their lists of models and inference profiles say.{global}{} Nothing was sent.",
        stale.unwrap_or_default()
    )
}

fn old_catalogue(class: &str, regions: &str, age: Option<u64>, most: u64) -> String {
    let age = age.map_or_else(|| "have not been read yet".to_owned(), |age| format!("are {age} s old"));
    format!(
        "The lists of models and inference profiles of {regions} {age}, and route class '{class}' of the gateway sends calls only by lists of at most {most} s (`catalogue_max_age_seconds`). Nothing was sent."
    )
}

// === gRPC ===

/// Whether the content type is one of gRPC's (`application/grpc`, `application/grpc+proto`, `application/grpc-web` …).
pub(crate) fn is_grpc(headers: &Headers) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let types = headers.iter().filter(|(name, _)| *name == "content-type");
    types
        .map(|(_, value)| value.trim_ascii_start())
        .any(|value| value.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC)))
}

/// Whether the content type names a charset that JSON cannot have.
pub(crate) fn names_other_charset(headers: &Headers) -> bool {
    let kind = headers.get_str("content-type").unwrap_or_default().to_ascii_lowercase();
    let charset = kind.split_once("charset=").map(|(_, rest)| rest.split([';', ',']).next().unwrap_or_default());
    charset.is_some_and(|name| !["utf-8", "utf8", "us-ascii"].contains(&name.trim().trim_matches('"')))
}

/// The headers of a reply before Envoy turned it into gRPC's form, in which every status is 200 and the body is gone. The message
/// goes to the header from which AWS's SDK for Java reads it. `None` if Envoy did not turn it.
pub(crate) fn restored(headers: &Headers, status: Option<u16>) -> Option<Headers> {
    headers.get("grpc-status")?;
    let status = status.filter(|status| (400..600).contains(status)).unwrap_or(503);
    let mut restored = Headers::default();
    restored.push(":status", status.to_string());
    for (name, value) in headers.iter() {
        match name {
            ":status" | "content-type" | "grpc-status" => {}
            "grpc-message" => restored.push("x-amzn-error-message", message(value)),
            name => restored.push(name, value),
        }
    }
    Some(restored)
}

/// The message of a body that Envoy percent-encoded.
fn message(encoded: &[u8]) -> Vec<u8> {
    let body =
        std::str::from_utf8(encoded).ok().and_then(|text| crate::encoding::decode(text).ok()).unwrap_or_default();
    let json = serde_json::from_str::<serde_json::Value>(&body).ok();
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str()).unwrap_or(&body);
    message.bytes().map(|byte| if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_spelling_of_grpcs_types_is_known() {
        for (value, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", true),
            ("APPLICATION/gRPC", true),
            (" application/grpc", true),
            ("application/grpc, application/json", true),
            ("application/json", false),
            ("application/gr", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", value)])), wanted, "{value}");
        }
        assert!(!is_grpc(&Headers::default()));
        let twice = [("content-type", "application/json"), ("content-type", "application/grpc")];
        assert!(is_grpc(&headers(&twice)));
    }

    #[test]
    fn json_has_one_charset() {
        for (value, other) in [
            ("application/json", false),
            ("application/json; charset=UTF-8", false),
            ("application/json;charset=\"utf-8\"; x=y", false),
            ("application/json; Charset=utf-16", true),
            ("application/json; charset=utf-7; charset=utf-8", true),
            ("application/json; charset=", true),
        ] {
            assert_eq!(names_other_charset(&headers(&[("content-type", value)])), other, "{value}");
        }
        assert!(!names_other_charset(&Headers::default()));
    }

    #[test]
    fn a_translated_reply_is_restored() {
        let translated = headers(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("x-amzn-errortype", "ValidationException"),
            ("grpc-status", "2"),
            ("grpc-message", "{\"message\":\"100%25 wr\u{f6}ng\"}"),
        ]);
        let wanted = headers(&[
            (":status", "415"),
            ("x-amzn-errortype", "ValidationException"),
            ("x-amzn-error-message", "100% wr??ng"),
        ]);
        assert_eq!(restored(&translated, Some(415)), Some(wanted));
        for (status, wanted) in [(None, "503"), (Some(200), "503"), (Some(404), "404")] {
            assert_eq!(restored(&translated, status).unwrap().get_str(":status"), Some(wanted));
        }
        assert_eq!(restored(&headers(&[(":status", "403")]), Some(403)), None);
    }
}
