//! The operations of Bedrock that cross, known by method and path template.
//!
//! Source: the service models of botocore 1.44.8 (`bedrock-runtime`, `bedrock`, `bedrock-agent-runtime`). The path that crosses is rendered
//! from the template and the decoded labels, so that only one spelling (`:` → `%3A`, `/` → `%2F`) is ever signed.

use crate::encoding::{self, DecodeError};
use crate::query::{self, QueryProblem};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A service endpoint of Bedrock. All sign as `bedrock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// `bedrock-runtime`: inference.
    BedrockRuntime,
    /// `bedrock`: the control plane. All is read only, but for batch jobs.
    Bedrock,
    /// `bedrock-agent-runtime`: knowledge bases and reranking.
    BedrockAgentRuntime,
}

/// Operations that are carried only where the document's `optional_operations` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationGroup {
    /// Batch inference: jobs that read prompts from S3 and write the responses there, with a role that the caller names.
    BatchJobs,
    /// Knowledge bases and reranking, on an endpoint of their own.
    AgentRuntime,
}

/// Every group.
pub const GROUPS: [OperationGroup; 2] = [OperationGroup::BatchJobs, OperationGroup::AgentRuntime];

/// HTTP method of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
}

/// Where an operation's successful response has its token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metering {
    /// Nowhere: it uses no tokens.
    Free,
    /// Nowhere either; a JSON body has a guardrail's units.
    Guardrail,
    /// Response headers, else a JSON body with a `usage` object.
    Json,
    /// An event stream.
    EventStream,
    /// Nowhere: an event stream without them.
    UncountedStream,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident: $service:ident $method:ident $template:literal $metering:ident $action:literal $([$($parameter:literal)*])?,)*) => {
        /// A Bedrock API call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub enum Operation { $(#[doc = concat!("`", $template, "`")] $name,)* }

        /// Every operation, in the order of the documentation.
        pub const OPERATIONS: &[Operation] = &[$(Operation::$name,)*];

        impl Operation {
            const fn row(self) -> &'static Row {
                match self {
                    $(Self::$name => &Row {
                        name: stringify!($name),
                        service: Service::$service,
                        method: Method::$method,
                        template: $template,
                        metering: Metering::$metering,
                        iam_action: $action,
                        parameters: &[$($($parameter),*)?],
                    },)*
                }
            }
        }
    };
}

struct Row {
    name: &'static str,
    service: Service,
    method: Method,
    template: &'static str,
    metering: Metering,
    iam_action: &'static str,
    /// Parameters of the query; none is a list.
    parameters: &'static [&'static str],
}

operations! {
    InvokeModel: BedrockRuntime Post "/model/{modelId}/invoke" Json "bedrock:InvokeModel",
    InvokeModelWithResponseStream: BedrockRuntime Post "/model/{modelId}/invoke-with-response-stream" EventStream "bedrock:InvokeModelWithResponseStream",
    Converse: BedrockRuntime Post "/model/{modelId}/converse" Json "bedrock:InvokeModel",
    ConverseStream: BedrockRuntime Post "/model/{modelId}/converse-stream" EventStream "bedrock:InvokeModelWithResponseStream",
    CountTokens: BedrockRuntime Post "/model/{modelId}/count-tokens" Free "bedrock:CountTokens",
    InvokeModelWithBidirectionalStream: BedrockRuntime Post "/model/{modelId}/invoke-with-bidirectional-stream" EventStream "bedrock:InvokeModelWithBidirectionalStream",
    ApplyGuardrail: BedrockRuntime Post "/guardrail/{guardrailIdentifier}/version/{guardrailVersion}/apply" Guardrail "bedrock:ApplyGuardrail",
    InvokeGuardrailChecks: BedrockRuntime Post "/guardrail-checks/invoke" Free "bedrock:InvokeGuardrailChecks",
    StartAsyncInvoke: BedrockRuntime Post "/async-invoke" Free "bedrock:InvokeModel",
    ListAsyncInvokes: BedrockRuntime Get "/async-invoke" Free "bedrock:ListAsyncInvokes" [
        "submitTimeAfter" "submitTimeBefore" "statusEquals" "maxResults" "nextToken" "sortBy" "sortOrder"
    ],
    GetAsyncInvoke: BedrockRuntime Get "/async-invoke/{invocationArn}" Free "bedrock:GetAsyncInvoke",
    ListFoundationModels: Bedrock Get "/foundation-models" Free "bedrock:ListFoundationModels" [
        "byProvider" "byCustomizationType" "byOutputModality" "byInferenceType" "projectIdentifier"
    ],
    GetFoundationModel: Bedrock Get "/foundation-models/{modelIdentifier}" Free "bedrock:GetFoundationModel" ["projectIdentifier"],
    GetFoundationModelAvailability: Bedrock Get "/foundation-model-availability/{modelId}" Free "bedrock:GetFoundationModelAvailability",
    ListInferenceProfiles: Bedrock Get "/inference-profiles" Free "bedrock:ListInferenceProfiles" [
        "maxResults" "nextToken" "type" "projectIdentifier"
    ],
    GetInferenceProfile: Bedrock Get "/inference-profiles/{inferenceProfileIdentifier}" Free "bedrock:GetInferenceProfile" [
        "projectIdentifier"
    ],
    ListImportedModels: Bedrock Get "/imported-models" Free "bedrock:ListImportedModels" [
        "creationTimeBefore" "creationTimeAfter" "nameContains" "maxResults" "nextToken" "sortBy" "sortOrder"
    ],
    GetImportedModel: Bedrock Get "/imported-models/{modelIdentifier}" Free "bedrock:GetImportedModel",
    ListCustomModels: Bedrock Get "/custom-models" Free "bedrock:ListCustomModels" [
        "creationTimeBefore" "creationTimeAfter" "nameContains" "baseModelArnEquals"
        "foundationModelArnEquals" "maxResults" "nextToken" "sortBy" "sortOrder" "isOwned" "modelStatus"
    ],
    GetCustomModel: Bedrock Get "/custom-models/{modelIdentifier}" Free "bedrock:GetCustomModel",
    GetCustomModelDeployment: Bedrock Get "/model-customization/custom-model-deployments/{customModelDeploymentIdentifier}" Free "bedrock:GetCustomModelDeployment",
    ListProvisionedModelThroughputs: Bedrock Get "/provisioned-model-throughputs" Free "bedrock:ListProvisionedModelThroughputs" [
        "creationTimeAfter" "creationTimeBefore" "statusEquals" "modelArnEquals" "nameContains" "maxResults"
        "nextToken" "sortBy" "sortOrder"
    ],
    GetProvisionedModelThroughput: Bedrock Get "/provisioned-model-throughput/{provisionedModelId}" Free "bedrock:GetProvisionedModelThroughput",
    ListPromptRouters: Bedrock Get "/prompt-routers" Free "bedrock:ListPromptRouters" [
        "maxResults" "nextToken" "type"
    ],
    GetPromptRouter: Bedrock Get "/prompt-routers/{promptRouterArn}" Free "bedrock:GetPromptRouter",
    ListMarketplaceModelEndpoints: Bedrock Get "/marketplace-model/endpoints" Free "bedrock:ListMarketplaceModelEndpoints" [
        "maxResults" "nextToken" "modelSourceIdentifier"
    ],
    GetMarketplaceModelEndpoint: Bedrock Get "/marketplace-model/endpoints/{endpointArn}" Free "bedrock:GetMarketplaceModelEndpoint",
    ListGuardrails: Bedrock Get "/guardrails" Free "bedrock:ListGuardrails" [
        "guardrailIdentifier" "maxResults" "nextToken"
    ],
    GetGuardrail: Bedrock Get "/guardrails/{guardrailIdentifier}" Free "bedrock:GetGuardrail" [
        "guardrailVersion"
    ],
    GetAccountDataRetention: Bedrock Get "/data-retention" Free "bedrock:GetAccountDataRetention",
    GetProject: Bedrock Get "/projects/{projectIdentifier}" Free "bedrock:GetProject",
    CreateModelInvocationJob: Bedrock Post "/model-invocation-job" Free "bedrock:CreateModelInvocationJob",
    GetModelInvocationJob: Bedrock Get "/model-invocation-job/{jobIdentifier}" Free "bedrock:GetModelInvocationJob",
    ListModelInvocationJobs: Bedrock Get "/model-invocation-jobs" Free "bedrock:ListModelInvocationJobs" [
        "submitTimeAfter" "submitTimeBefore" "statusEquals" "nameContains" "maxResults" "nextToken" "sortBy" "sortOrder"
    ],
    StopModelInvocationJob: Bedrock Post "/model-invocation-job/{jobIdentifier}/stop" Free "bedrock:StopModelInvocationJob",
    Rerank: BedrockAgentRuntime Post "/rerank" Free "bedrock:Rerank",
    Retrieve: BedrockAgentRuntime Post "/knowledgebases/{knowledgeBaseId}/retrieve" Free "bedrock:Retrieve",
    RetrieveAndGenerate: BedrockAgentRuntime Post "/retrieveAndGenerate" Free "bedrock:RetrieveAndGenerate",
    RetrieveAndGenerateStream: BedrockAgentRuntime Post "/retrieveAndGenerateStream" UncountedStream "bedrock:RetrieveAndGenerate",
}

/// The call that a request line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// The decoded values of the template's labels, in order.
    pub labels: Vec<String>,
    /// The query in canonical form: encoded once, sorted; empty if there is none.
    pub query: String,
}

/// Which regions can serve a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionScope {
    /// Any: every region has the resources that it names.
    Anywhere,
    /// The region of the account's resources: the route class's first.
    First,
    /// The one that an ARN names.
    Region(String),
}

/// Why a request line is not a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No operation has this method and path.
    #[error(
        "Unable to determine the operation of this request: no operation of Bedrock that this gateway carries has its method and path."
    )]
    Unknown,
    /// A label is badly encoded, or not a possible Bedrock identifier.
    #[error("Value at '{label}' failed to satisfy constraint: {problem}.")]
    Label {
        /// The label's name in the template.
        label: &'static str,
        /// What is wrong with it.
        problem: LabelProblem,
    },
    /// The query does not cross.
    #[error(transparent)]
    Query(#[from] QueryProblem),
}

/// What is wrong with a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelProblem {
    /// Bad percent-encoding.
    #[error("{0}")]
    Encoding(DecodeError),
    /// Longer than [`MAX_LABEL`].
    #[error("member must have length less than or equal to {MAX_LABEL}")]
    TooLong,
    /// A character outside those of Bedrock identifiers and ARNs.
    #[error("member must only hold letters, digits and . _ : / -")]
    Character,
    /// An empty, `.` or `..` segment, which a server may normalise into another path.
    #[error("member must not hold empty, '.' or '..' segments")]
    Segment,
}

/// Longest label in bytes (botocore: `modelId` max 2048).
pub const MAX_LABEL: usize = 2048;

impl Service {
    /// The endpoint's name, the first part of its host names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BedrockRuntime => "bedrock-runtime",
            Self::Bedrock => "bedrock",
            Self::BedrockAgentRuntime => "bedrock-agent-runtime",
        }
    }

    /// The group of all its operations, if they are carried only where the document lists it.
    pub const fn group(self) -> Option<OperationGroup> {
        match self {
            Self::BedrockRuntime | Self::Bedrock => None,
            Self::BedrockAgentRuntime => Some(OperationGroup::AgentRuntime),
        }
    }
}

impl OperationGroup {
    /// Its name in the document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BatchJobs => "batch_jobs",
            Self::AgentRuntime => "agent_runtime",
        }
    }
}

impl Method {
    /// The method, as in the request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Operation {
    /// The operation's name in the service model.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The endpoint that serves it.
    pub const fn service(self) -> Service {
        self.row().service
    }

    /// Its HTTP method.
    pub const fn method(self) -> Method {
        self.row().method
    }

    /// Its path template: literal segments and `{label}`s.
    pub const fn template(self) -> &'static str {
        self.row().template
    }

    /// The parameters of the query that cross.
    pub const fn parameters(self) -> &'static [&'static str] {
        self.row().parameters
    }

    /// The group that the document has to list for it.
    pub const fn group(self) -> Option<OperationGroup> {
        match self {
            Self::CreateModelInvocationJob
            | Self::GetModelInvocationJob
            | Self::ListModelInvocationJobs
            | Self::StopModelInvocationJob => Some(OperationGroup::BatchJobs),
            _ => self.service().group(),
        }
    }

    /// Where its response has its token counts.
    pub const fn metering(self) -> Metering {
        self.row().metering
    }

    /// The IAM action that allows it. Source: AWS's Service Authorization Reference, "Actions defined by Amazon Bedrock", and
    /// the Bedrock user guide, "Prerequisites for running model inference". The reference has no action for
    /// RetrieveAndGenerateStream; that it is RetrieveAndGenerate's was not tried. That GetProject has one of its name is an assumption.
    pub const fn iam_action(self) -> &'static str {
        self.row().iam_action
    }

    /// Whether a model runs, and uses tokens.
    pub fn uses_tokens(self) -> bool {
        matches!(self.metering(), Metering::Json | Metering::EventStream)
    }

    /// Whether its request's body has the service tier, the latency mode and the request metadata; others have them in headers.
    /// Source: botocore 1.44.8, `ConverseRequest` and `InvokeModelRequest`.
    pub fn asks_in_body(self) -> bool {
        matches!(self, Self::Converse | Self::ConverseStream)
    }

    /// Whether its request has a header with metadata. Source: botocore 1.44.8, `InvokeModelRequest`.
    pub(crate) fn has_metadata_header(self) -> bool {
        matches!(self, Self::InvokeModel | Self::InvokeModelWithResponseStream)
    }

    /// Whether its response is an event stream.
    pub fn streams(self) -> bool {
        matches!(self.metering(), Metering::EventStream | Metering::UncountedStream)
    }

    /// The exception with which its stream ends if the connection to Bedrock breaks off, as SDKs name it: one of those that the
    /// service model gives the stream, or SDKs do not read its message.
    pub fn stream_exception(self) -> &'static str {
        match self.service() {
            Service::BedrockRuntime | Service::Bedrock => "ServiceUnavailableException",
            Service::BedrockAgentRuntime => "BadGatewayException",
        }
    }

    /// Whether Bedrock takes an API key for it
    /// (<https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-reference.html>).
    pub fn takes_api_key(self) -> bool {
        self.service() != Service::BedrockAgentRuntime
    }

    /// Whether its first label is a model, to which aliases and model policy apply.
    pub fn names_model(self) -> bool {
        self.row().template.starts_with("/model/")
    }

    /// Whether its first label is a foundation model that it describes.
    pub(crate) fn describes_model(self) -> bool {
        matches!(self, Self::GetFoundationModel | Self::GetFoundationModelAvailability)
    }

    /// Whether its model may be, and for newer models must be, an inference profile. CountTokens takes the bare id only: to a
    /// profile it answers "The provided model doesn't support counting tokens".
    pub fn takes_profile(self) -> bool {
        self.names_model() && self != Self::CountTokens
    }

    /// Renders the wire path: labels percent-encoded, the query (if any) unchanged.
    pub fn path(self, labels: &[String], query: &str) -> String {
        let mut path = String::with_capacity(96);
        let mut labels = labels.iter();
        for segment in segments(self.row().template) {
            path.push('/');
            match label_name(segment) {
                Some(_) => encoding::encode_into(labels.next().map_or(&[], |label| label.as_bytes()), &mut path),
                None => path.push_str(segment),
            }
        }
        if !query.is_empty() {
            path.push('?');
            path.push_str(query);
        }
        path
    }

    /// Matches `path` (as on the wire, without query) against this operation's template.
    fn labels(self, path: &str) -> Option<Result<Vec<String>, CallError>> {
        let mut wire = segments(path);
        let mut raw = Vec::new();
        for segment in segments(self.row().template) {
            let given = wire.next()?;
            match label_name(segment) {
                Some(name) if !given.is_empty() => raw.push((name, given)),
                None if given == segment => {}
                _ => return None,
            }
        }
        if wire.next().is_some() {
            return None;
        }
        Some(
            raw.into_iter()
                .map(|(label, given)| decode_label(given).map_err(|problem| CallError::Label { label, problem }))
                .collect(),
        )
    }
}

impl Call {
    /// Recognises a request line: `method` and `path` (with query) as on the wire.
    ///
    /// # Errors
    /// [`CallError`] says what is wrong. An unknown method and an unknown path are the same error, as at AWS.
    pub fn recognise(method: &str, path: &str) -> Result<Self, CallError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (operation, labels) = OPERATIONS
            .iter()
            .filter(|operation| operation.method().as_str() == method)
            .find_map(|operation| Some((*operation, operation.labels(path)?)))
            .ok_or(CallError::Unknown)?;
        Ok(Self { operation, labels: labels?, query: query::canonical(query, operation.row().parameters)? })
    }

    /// Which regions can serve the call, by its operation alone.
    pub(crate) fn region_scope(&self) -> RegionScope {
        match self.operation {
            Operation::InvokeModel
            | Operation::InvokeModelWithResponseStream
            | Operation::InvokeModelWithBidirectionalStream
            | Operation::Converse
            | Operation::ConverseStream
            | Operation::CountTokens
            | Operation::InvokeGuardrailChecks
            | Operation::ListFoundationModels
            | Operation::GetFoundationModel
            | Operation::GetFoundationModelAvailability => RegionScope::Anywhere,
            // An account's guardrails, jobs, profiles and models are in one region, and a list covers one region.
            _ => RegionScope::First,
        }
    }

    /// Names and decoded values of the query's parameters.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        // It is in canonical form, so that decoding cannot fail.
        pairs.filter_map(|(name, value)| Some((name.to_owned(), encoding::decode(value).ok()?)))
    }

    /// The model that the client named, if the operation names one.
    pub fn model(&self) -> Option<&str> {
        self.operation.names_model().then(|| self.labels.first().map(String::as_str)).flatten()
    }
}

/// `arn:aws:bedrock:us-east-1:123456789012:guardrail/x` → `us-east-1`.
pub fn arn_region(id: &str) -> Option<&str> {
    id.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
}

/// `arn:aws:bedrock:us-east-1:123456789012:guardrail/x` → `123456789012`.
pub fn arn_account(id: &str) -> Option<&str> {
    id.strip_prefix("arn:")?.split(':').nth(3).filter(|account| !account.is_empty())
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    // A path without its leading slash has no segments that a template could match.
    path.strip_prefix('/').into_iter().flat_map(|path| path.split('/'))
}

fn label_name(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn decode_label(raw: &str) -> Result<String, LabelProblem> {
    let value = encoding::decode(raw).map_err(LabelProblem::Encoding)?;
    if value.len() > MAX_LABEL {
        return Err(LabelProblem::TooLong);
    }
    if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b)) {
        return Err(LabelProblem::Character);
    }
    if value.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(LabelProblem::Segment);
    }
    Ok(value)
}

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
