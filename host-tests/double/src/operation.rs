//! Recognises the API call of a request by method and wire path, and checks the encoding of its labels.

use thiserror::Error;

use super::sigv4::{percent_decode, percent_encode};

/// One of Bedrock's endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `bedrock`: the catalogue.
    Bedrock,
    /// `bedrock-runtime`: inference.
    BedrockRuntime,
    /// `bedrock-agent-runtime`: knowledge bases and reranking.
    BedrockAgentRuntime,
}

impl Service {
    /// The first part of its host name, without `-fips`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bedrock => "bedrock",
            Self::BedrockRuntime => "bedrock-runtime",
            Self::BedrockAgentRuntime => "bedrock-agent-runtime",
        }
    }

    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bedrock, Self::BedrockRuntime, Self::BedrockAgentRuntime];
}

/// The operations, in the API's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    InvokeModel,
    InvokeModelWithResponseStream,
    Converse,
    ConverseStream,
    CountTokens,
    ApplyGuardrail,
    InvokeGuardrailChecks,
    StartAsyncInvoke,
    GetAsyncInvoke,
    ListAsyncInvokes,
    ListFoundationModels,
    GetFoundationModel,
    GetFoundationModelAvailability,
    ListInferenceProfiles,
    GetInferenceProfile,
    ListImportedModels,
    ListCustomModels,
    ListProvisionedModelThroughputs,
    ListPromptRouters,
    ListMarketplaceModelEndpoints,
    GetImportedModel,
    GetCustomModel,
    GetCustomModelDeployment,
    GetProvisionedModelThroughput,
    GetPromptRouter,
    GetMarketplaceModelEndpoint,
    ListGuardrails,
    GetGuardrail,
    GetAccountDataRetention,
    GetProject,
    CreateModelInvocationJob,
    GetModelInvocationJob,
    ListModelInvocationJobs,
    StopModelInvocationJob,
    Rerank,
    Retrieve,
    RetrieveAndGenerate,
    RetrieveAndGenerateStream,
}

/// Method, template with `{}` for a label, operation.
const TABLE: &[(&str, &str, Operation)] = &[
    ("POST", "/model/{}/invoke", Operation::InvokeModel),
    ("POST", "/model/{}/invoke-with-response-stream", Operation::InvokeModelWithResponseStream),
    ("POST", "/model/{}/converse", Operation::Converse),
    ("POST", "/model/{}/converse-stream", Operation::ConverseStream),
    ("POST", "/model/{}/count-tokens", Operation::CountTokens),
    ("POST", "/guardrail/{}/version/{}/apply", Operation::ApplyGuardrail),
    ("POST", "/guardrail-checks/invoke", Operation::InvokeGuardrailChecks),
    ("POST", "/async-invoke", Operation::StartAsyncInvoke),
    ("GET", "/async-invoke", Operation::ListAsyncInvokes),
    ("GET", "/async-invoke/{}", Operation::GetAsyncInvoke),
    ("GET", "/foundation-models", Operation::ListFoundationModels),
    ("GET", "/foundation-models/{}", Operation::GetFoundationModel),
    ("GET", "/foundation-model-availability/{}", Operation::GetFoundationModelAvailability),
    ("GET", "/inference-profiles", Operation::ListInferenceProfiles),
    ("GET", "/inference-profiles/{}", Operation::GetInferenceProfile),
    ("GET", "/imported-models", Operation::ListImportedModels),
    ("GET", "/custom-models", Operation::ListCustomModels),
    ("GET", "/provisioned-model-throughputs", Operation::ListProvisionedModelThroughputs),
    ("GET", "/prompt-routers", Operation::ListPromptRouters),
    ("GET", "/marketplace-model/endpoints", Operation::ListMarketplaceModelEndpoints),
    ("GET", "/imported-models/{}", Operation::GetImportedModel),
    ("GET", "/custom-models/{}", Operation::GetCustomModel),
    ("GET", "/model-customization/custom-model-deployments/{}", Operation::GetCustomModelDeployment),
    ("GET", "/provisioned-model-throughput/{}", Operation::GetProvisionedModelThroughput),
    ("GET", "/prompt-routers/{}", Operation::GetPromptRouter),
    ("GET", "/marketplace-model/endpoints/{}", Operation::GetMarketplaceModelEndpoint),
    ("GET", "/guardrails", Operation::ListGuardrails),
    ("GET", "/guardrails/{}", Operation::GetGuardrail),
    ("GET", "/data-retention", Operation::GetAccountDataRetention),
    ("GET", "/projects/{}", Operation::GetProject),
    ("POST", "/model-invocation-job", Operation::CreateModelInvocationJob),
    ("GET", "/model-invocation-job/{}", Operation::GetModelInvocationJob),
    ("GET", "/model-invocation-jobs", Operation::ListModelInvocationJobs),
    ("POST", "/model-invocation-job/{}/stop", Operation::StopModelInvocationJob),
    ("POST", "/rerank", Operation::Rerank),
    ("POST", "/knowledgebases/{}/retrieve", Operation::Retrieve),
    ("POST", "/retrieveAndGenerate", Operation::RetrieveAndGenerate),
    ("POST", "/retrieveAndGenerateStream", Operation::RetrieveAndGenerateStream),
];

impl Operation {
    /// Every operation that the double answers.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(_, _, operation)| *operation)
    }

    /// The endpoint that serves it.
    #[must_use]
    pub fn service(self) -> Service {
        match self {
            Self::InvokeModel
            | Self::InvokeModelWithResponseStream
            | Self::Converse
            | Self::ConverseStream
            | Self::CountTokens
            | Self::ApplyGuardrail
            | Self::InvokeGuardrailChecks
            | Self::StartAsyncInvoke
            | Self::GetAsyncInvoke
            | Self::ListAsyncInvokes => Service::BedrockRuntime,
            Self::Rerank | Self::Retrieve | Self::RetrieveAndGenerate | Self::RetrieveAndGenerateStream => {
                Service::BedrockAgentRuntime
            }
            _ => Service::Bedrock,
        }
    }

    /// Whether the answer is an event stream.
    #[must_use]
    pub fn streams(self) -> bool {
        matches!(self, Self::ConverseStream | Self::InvokeModelWithResponseStream | Self::RetrieveAndGenerateStream)
    }
}

/// A recognised request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub operation: Operation,
    /// The template's labels in their order, percent-decoded.
    pub labels: Vec<String>,
}

/// Why no operation was recognised.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unrecognised {
    /// No template matches.
    #[error("no operation has method {method} and path {path}")]
    Unknown { method: String, path: String },
    /// A template matches, but a label is not in canonical encoding.
    #[error("the path label {sent:?} is not in canonical encoding: {canonical:?} is")]
    Encoding {
        /// The label as sent.
        sent: String,
        /// In canonical encoding.
        canonical: String,
    },
}

/// Recognises an operation from method and wire path.
///
/// # Errors
/// No template fits, or a label's encoding is not `:` as `%3A`, `/` as `%2F`, in upper case and nothing needless.
pub fn recognise(method: &str, path: &str) -> Result<Call, Unrecognised> {
    let unknown = || Unrecognised::Unknown { method: method.to_owned(), path: path.to_owned() };
    let sent: Vec<&str> = path.split('/').collect();
    let (operation, labels) = TABLE
        .iter()
        .filter(|(of, _, _)| *of == method)
        .find_map(|(_, template, operation)| labels_of(template, &sent).map(|labels| (*operation, labels)))
        .ok_or_else(unknown)?;
    let labels = labels.into_iter().map(decode_label).collect::<Result<_, _>>()?;
    Ok(Call { operation, labels })
}

fn labels_of<'a>(template: &str, sent: &[&'a str]) -> Option<Vec<&'a str>> {
    let wanted: Vec<&str> = template.split('/').collect();
    if wanted.len() != sent.len() {
        return None;
    }
    let mut labels = Vec::new();
    for (want, got) in wanted.into_iter().zip(sent) {
        match want {
            "{}" if !got.is_empty() => labels.push(*got),
            _ if want == *got => {}
            _ => return None,
        }
    }
    Some(labels)
}

fn decode_label(sent: &str) -> Result<String, Unrecognised> {
    let decoded = percent_decode(sent);
    let canonical = percent_encode(&decoded, false);
    let wrong = || Unrecognised::Encoding { sent: sent.to_owned(), canonical: canonical.clone() };
    if canonical != sent {
        return Err(wrong());
    }
    String::from_utf8(decoded).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_every_operation_by_its_template() {
        for (method, template, operation) in TABLE {
            let path = template.replace("{}", "arn%3Aaws%3Abedrock%2Fx");
            let call = recognise(method, &path).unwrap();
            assert_eq!(call.operation, *operation, "{method} {path}");
            assert!(call.labels.iter().all(|label| label == "arn:aws:bedrock/x"));
        }
    }

    #[test]
    fn refuses_labels_in_any_other_encoding() {
        for label in ["a:0", "a%3a0", "%61", "a+b", "a b", "a%2", "%FF"] {
            let got = recognise("POST", &format!("/model/{label}/converse"));
            assert!(matches!(got, Err(Unrecognised::Encoding { .. })), "{label}: {got:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_operation() {
        for (method, path) in [
            ("GET", "/model/a/converse"),
            ("POST", "/model//converse"),
            ("POST", "/model/a/converse/"),
            ("POST", "//model/a/converse"),
            ("POST", "/model/a/invoke-with-bidirectional-stream"),
            ("POST", "/foundation-models"),
            ("GET", "/"),
        ] {
            assert!(matches!(recognise(method, path), Err(Unrecognised::Unknown { .. })), "{method} {path}");
        }
    }
}
