//! The members of requests that tie a call to a region or name a model.
//!
//! Source: the service models of botocore 1.44.8. `host-tests/api` reads every member of every operation here in the
//! models and fails if one is missing, or if one here has gone. All other members name nothing.
//!
//! Not in AWS's models: a body that is a model's own JSON (InvokeModel's, `modelInput` of StartAsyncInvoke,
//! `additionalModelRequestFields`). Amazon Nova's may have `s3Location.uri`
//! (<https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html>).

use crate::operation::{Method, OPERATIONS, Operation};

/// An endpoint of Bedrock, the first part of its host names. All sign as `bedrock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `bedrock-runtime`
    Runtime,
    /// `bedrock`
    Control,
    /// `bedrock-agent-runtime`
    AgentRuntime,
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A label of the path.
    Path,
    /// A parameter of the query.
    Query,
    /// A header; its name is in lower case.
    Header,
    /// The JSON body: keys from the root, joined by dots; `[]` is any item of a list.
    Body,
}

/// What a member names. Each may be an ARN, which says its region itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// A model: an id, an alias or a profile. As an ARN also a custom, imported or provisioned model, a prompt or a prompt
    /// router, each of which is in one region.
    Model,
    /// A guardrail.
    Guardrail,
    /// A project, which AWS wants in the region to which the request is sent (botocore 1.44.8, `ConverseRequest`). `default` is
    /// the account's own, as if it were not named.
    Project,
    /// A knowledge base.
    KnowledgeBase,
    /// A job, a custom, imported or provisioned model, a prompt router or an endpoint of the account.
    Resource,
    /// A bucket of S3, which is in one region. Bedrock's pages that we found do not say whether a model reads a bucket of
    /// another region; nobody has tried.
    Bucket,
    /// A key of KMS, which is in one region unless it is replicated.
    Key,
    /// A subnet or security group.
    Network,
    /// A session, which is where an earlier call created it.
    Session,
    /// The next page of an answer. Pages do not say where a token is valid; the region that gave it is the safe one.
    Page,
}

/// How the gateway treats what a member names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It exists in one region: the call has to stay there.
    Region,
    /// A model: aliases, policy and the translation of GovCloud's ids apply. An ARN's region ties the call too.
    Model,
}

/// A member that names something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub place: Place,
    /// Its name there.
    pub name: &'static str,
    /// What it names.
    pub names: Names,
}

/// An operation that the gateway carries or is to carry.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The endpoint that serves it.
    pub endpoint: Endpoint,
    /// Its name in the service model.
    pub name: &'static str,
    /// Its HTTP method.
    pub method: Method,
    /// Its path template.
    pub path: &'static str,
    /// Whether AWS marks it as read-only. Calls that run a model are not.
    pub read_only: bool,
    /// What its requests name. A list of an account's resources is one region's, whether or not it names anything.
    pub members: &'static [Member],
}

macro_rules! inventory {
    ($($endpoint:ident $name:literal $method:ident $path:literal $($read_only:ident)? {
        $($place:ident $member:literal $names:ident,)*
    })*) => {
        /// The operations, in the order of the documentation.
        pub const INVENTORY: &[Entry] = &[$(Entry {
            endpoint: Endpoint::$endpoint,
            name: $name,
            method: Method::$method,
            path: $path,
            read_only: inventory!(@flag $($read_only)?),
            members: &[$(Member { place: Place::$place, name: $member, names: Names::$names },)*],
        },)*];
    };
    (@flag read_only) => { true };
    (@flag) => { false };
}

inventory! {
    Runtime "InvokeModel" Post "/model/{modelId}/invoke" {
        Path "modelId" Model,
        Header "x-amzn-bedrock-guardrailidentifier" Guardrail,
        Header "x-amzn-bedrock-projectidentifier" Project,
    }
    Runtime "InvokeModelWithResponseStream" Post "/model/{modelId}/invoke-with-response-stream" {
        Path "modelId" Model,
        Header "x-amzn-bedrock-guardrailidentifier" Guardrail,
        Header "x-amzn-bedrock-projectidentifier" Project,
    }
    Runtime "Converse" Post "/model/{modelId}/converse" {
        Path "modelId" Model,
        Body "guardrailConfig.guardrailIdentifier" Guardrail,
        Body "projectIdentifier" Project,
        Body "messages[].content[].image.source.s3Location.uri" Bucket,
        Body "messages[].content[].document.source.s3Location.uri" Bucket,
        Body "messages[].content[].video.source.s3Location.uri" Bucket,
        Body "messages[].content[].audio.source.s3Location.uri" Bucket,
        Body "messages[].content[].toolResult.content[].image.source.s3Location.uri" Bucket,
        Body "messages[].content[].toolResult.content[].document.source.s3Location.uri" Bucket,
        Body "messages[].content[].toolResult.content[].video.source.s3Location.uri" Bucket,
    }
    Runtime "ConverseStream" Post "/model/{modelId}/converse-stream" {
        Path "modelId" Model,
        Body "guardrailConfig.guardrailIdentifier" Guardrail,
        Body "projectIdentifier" Project,
        Body "messages[].content[].image.source.s3Location.uri" Bucket,
        Body "messages[].content[].document.source.s3Location.uri" Bucket,
        Body "messages[].content[].video.source.s3Location.uri" Bucket,
        Body "messages[].content[].audio.source.s3Location.uri" Bucket,
        Body "messages[].content[].toolResult.content[].image.source.s3Location.uri" Bucket,
        Body "messages[].content[].toolResult.content[].document.source.s3Location.uri" Bucket,
        Body "messages[].content[].toolResult.content[].video.source.s3Location.uri" Bucket,
    }
    Runtime "CountTokens" Post "/model/{modelId}/count-tokens" read_only {
        Path "modelId" Model,
        Body "input.converse.messages[].content[].image.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].document.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].video.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].audio.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].toolResult.content[].image.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].toolResult.content[].document.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].toolResult.content[].video.source.s3Location.uri" Bucket,
    }
    Runtime "InvokeModelWithBidirectionalStream" Post "/model/{modelId}/invoke-with-bidirectional-stream" {
        Path "modelId" Model,
    }
    Runtime "ApplyGuardrail" Post "/guardrail/{guardrailIdentifier}/version/{guardrailVersion}/apply" {
        Path "guardrailIdentifier" Guardrail,
    }
    Runtime "InvokeGuardrailChecks" Post "/guardrail-checks/invoke" {}
    Runtime "StartAsyncInvoke" Post "/async-invoke" {
        Body "modelId" Model,
        Body "outputDataConfig.s3OutputDataConfig.s3Uri" Bucket,
        Body "outputDataConfig.s3OutputDataConfig.kmsKeyId" Key,
    }
    Runtime "ListAsyncInvokes" Get "/async-invoke" read_only {
        Query "nextToken" Page,
    }
    Runtime "GetAsyncInvoke" Get "/async-invoke/{invocationArn}" read_only {
        Path "invocationArn" Resource,
    }
    Control "ListFoundationModels" Get "/foundation-models" read_only {
        Query "projectIdentifier" Project,
    }
    Control "GetFoundationModel" Get "/foundation-models/{modelIdentifier}" read_only {
        Path "modelIdentifier" Model,
        Query "projectIdentifier" Project,
    }
    Control "GetFoundationModelAvailability" Get "/foundation-model-availability/{modelId}" read_only {
        Path "modelId" Model,
    }
    Control "ListInferenceProfiles" Get "/inference-profiles" read_only {
        Query "nextToken" Page,
        Query "projectIdentifier" Project,
    }
    Control "GetInferenceProfile" Get "/inference-profiles/{inferenceProfileIdentifier}" read_only {
        Path "inferenceProfileIdentifier" Model,
        Query "projectIdentifier" Project,
    }
    Control "ListImportedModels" Get "/imported-models" read_only {
        Query "nextToken" Page,
    }
    Control "GetImportedModel" Get "/imported-models/{modelIdentifier}" read_only {
        Path "modelIdentifier" Resource,
    }
    Control "ListCustomModels" Get "/custom-models" read_only {
        Query "baseModelArnEquals" Model,
        Query "foundationModelArnEquals" Model,
        Query "nextToken" Page,
    }
    Control "GetCustomModel" Get "/custom-models/{modelIdentifier}" read_only {
        Path "modelIdentifier" Resource,
    }
    Control "ListProvisionedModelThroughputs" Get "/provisioned-model-throughputs" read_only {
        Query "modelArnEquals" Model,
        Query "nextToken" Page,
    }
    Control "GetProvisionedModelThroughput" Get "/provisioned-model-throughput/{provisionedModelId}" read_only {
        Path "provisionedModelId" Resource,
    }
    Control "ListPromptRouters" Get "/prompt-routers" read_only {
        Query "nextToken" Page,
    }
    Control "GetPromptRouter" Get "/prompt-routers/{promptRouterArn}" read_only {
        Path "promptRouterArn" Resource,
    }
    Control "ListMarketplaceModelEndpoints" Get "/marketplace-model/endpoints" read_only {
        Query "modelSourceIdentifier" Model,
        Query "nextToken" Page,
    }
    Control "GetMarketplaceModelEndpoint" Get "/marketplace-model/endpoints/{endpointArn}" read_only {
        Path "endpointArn" Resource,
    }
    Control "ListGuardrails" Get "/guardrails" read_only {
        Query "guardrailIdentifier" Guardrail,
        Query "nextToken" Page,
    }
    Control "GetGuardrail" Get "/guardrails/{guardrailIdentifier}" read_only {
        Path "guardrailIdentifier" Guardrail,
    }
    Control "CreateModelInvocationJob" Post "/model-invocation-job" {
        Body "modelId" Model,
        Body "inputDataConfig.s3InputDataConfig.s3Uri" Bucket,
        Body "outputDataConfig.s3OutputDataConfig.s3Uri" Bucket,
        Body "outputDataConfig.s3OutputDataConfig.s3EncryptionKeyId" Key,
        Body "vpcConfig.subnetIds[]" Network,
        Body "vpcConfig.securityGroupIds[]" Network,
    }
    Control "GetModelInvocationJob" Get "/model-invocation-job/{jobIdentifier}" read_only {
        Path "jobIdentifier" Resource,
    }
    Control "ListModelInvocationJobs" Get "/model-invocation-jobs" read_only {
        Query "nextToken" Page,
    }
    Control "StopModelInvocationJob" Post "/model-invocation-job/{jobIdentifier}/stop" {
        Path "jobIdentifier" Resource,
    }
    AgentRuntime "Rerank" Post "/rerank" {
        Body "rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "nextToken" Page,
    }
    AgentRuntime "Retrieve" Post "/knowledgebases/{knowledgeBaseId}/retrieve" {
        Path "knowledgeBaseId" KnowledgeBase,
        Body "guardrailConfiguration.guardrailId" Guardrail,
        Body "nextToken" Page,
        Body "retrievalConfiguration.vectorSearchConfiguration.implicitFilterConfiguration.modelArn" Model,
        Body "retrievalConfiguration.vectorSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "retrievalConfiguration.managedSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
    }
    AgentRuntime "RetrieveAndGenerate" Post "/retrieveAndGenerate" {
        Body "sessionId" Session,
        Body "sessionConfiguration.kmsKeyArn" Key,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.knowledgeBaseId" KnowledgeBase,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.generationConfiguration.guardrailConfiguration.guardrailId" Guardrail,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.retrievalConfiguration.vectorSearchConfiguration.implicitFilterConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.retrievalConfiguration.vectorSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.retrievalConfiguration.managedSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.externalSourcesConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.externalSourcesConfiguration.generationConfiguration.guardrailConfiguration.guardrailId" Guardrail,
        Body "retrieveAndGenerateConfiguration.externalSourcesConfiguration.sources[].s3Location.uri" Bucket,
    }
    AgentRuntime "RetrieveAndGenerateStream" Post "/retrieveAndGenerateStream" {
        Body "sessionId" Session,
        Body "sessionConfiguration.kmsKeyArn" Key,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.knowledgeBaseId" KnowledgeBase,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.generationConfiguration.guardrailConfiguration.guardrailId" Guardrail,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.retrievalConfiguration.vectorSearchConfiguration.implicitFilterConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.retrievalConfiguration.vectorSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.retrievalConfiguration.managedSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.externalSourcesConfiguration.modelArn" Model,
        Body "retrieveAndGenerateConfiguration.externalSourcesConfiguration.generationConfiguration.guardrailConfiguration.guardrailId" Guardrail,
        Body "retrieveAndGenerateConfiguration.externalSourcesConfiguration.sources[].s3Location.uri" Bucket,
    }
}

impl Endpoint {
    /// All endpoints.
    pub const ALL: [Self; 3] = [Self::Runtime, Self::Control, Self::AgentRuntime];

    /// Its name, which is also that of its service model.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runtime => "bedrock-runtime",
            Self::Control => "bedrock",
            Self::AgentRuntime => "bedrock-agent-runtime",
        }
    }
}

impl Names {
    /// How the gateway treats it.
    pub const fn class(self) -> Class {
        match self {
            Self::Model => Class::Model,
            Self::Guardrail
            | Self::Project
            | Self::KnowledgeBase
            | Self::Resource
            | Self::Bucket
            | Self::Key
            | Self::Network
            | Self::Session
            | Self::Page => Class::Region,
        }
    }

    /// Its name in the tables of `host-tests/api`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Guardrail => "guardrail",
            Self::Project => "project",
            Self::KnowledgeBase => "knowledge-base",
            Self::Resource => "resource",
            Self::Bucket => "bucket",
            Self::Key => "key",
            Self::Network => "network",
            Self::Session => "session",
            Self::Page => "page",
        }
    }
}

impl Entry {
    /// The entry of an operation; each has one.
    pub fn of(operation: Operation) -> Option<&'static Self> {
        INVENTORY.iter().find(|entry| entry.name == operation.name())
    }

    /// The operation, if the gateway knows it.
    pub fn operation(&self) -> Option<Operation> {
        OPERATIONS.iter().copied().find(|operation| operation.name() == self.name)
    }

    /// Whether the gateway carries it. It refuses bidirectional streams by name.
    pub fn carried(&self) -> bool {
        self.operation().is_some_and(|operation| operation != Operation::InvokeModelWithBidirectionalStream)
    }

    /// The members of a class.
    pub fn of_class(&self, class: Class) -> impl Iterator<Item = &'static Member> {
        self.members.iter().filter(move |member| member.names.class() == class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_an_equal_entry() {
        for &operation in OPERATIONS {
            let entry = Entry::of(operation).unwrap_or_else(|| panic!("{operation} is not in INVENTORY"));
            assert_eq!(entry.operation(), Some(operation));
            assert_eq!(entry.endpoint.name(), operation.service().name(), "{operation}");
            assert_eq!(entry.method, operation.method(), "{operation}");
            assert_eq!(entry.path, operation.template(), "{operation}");
            for member in entry.members.iter().filter(|member| member.place == Place::Query) {
                assert!(operation.parameters().contains(&member.name), "{operation} {}", member.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_written_as_they_match() {
        for (index, entry) in INVENTORY.iter().enumerate() {
            assert!(INVENTORY.iter().skip(index + 1).all(|other| other.name != entry.name), "{}", entry.name);
            for member in entry.members {
                let label = || entry.path.contains(&format!("{{{}}}", member.name));
                let written = match member.place {
                    Place::Path => label(),
                    Place::Header => member.name == member.name.to_ascii_lowercase(),
                    Place::Query => !member.name.contains('.'),
                    Place::Body => entry.method == Method::Post,
                };
                assert!(written, "{} {}", entry.name, member.name);
                assert!(entry.members.iter().filter(|other| **other == *member).count() == 1, "{}", member.name);
            }
        }
    }

    #[test]
    fn models_are_told_from_what_is_in_a_region() {
        let retrieve = INVENTORY.iter().find(|entry| entry.name == "Retrieve").unwrap();
        assert_eq!(retrieve.of_class(Class::Model).count(), 3);
        let region: Vec<_> = retrieve.of_class(Class::Region).map(|member| member.name).collect();
        assert_eq!(region, ["knowledgeBaseId", "guardrailConfiguration.guardrailId", "nextToken"]);
        assert!(!Entry::of(Operation::InvokeModelWithBidirectionalStream).unwrap().carried());
    }
}
