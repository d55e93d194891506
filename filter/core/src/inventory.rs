//! The members of requests that tie a call to a region or name a model.
//!
//! Source: the service models of botocore 1.44.8. `host-tests/api` reads every member of every operation here in the
//! models and fails if one is missing, or if one here has gone. All other members name nothing.
//!
//! Not in AWS's models: a body that is a model's own JSON (InvokeModel's, `modelInput` of StartAsyncInvoke,
//! `additionalModelRequestFields`). Amazon Nova's may have `s3Location.uri`
//! (<https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html>).

use crate::operation::Operation;

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

/// What an operation's requests name.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The operation.
    pub operation: Operation,
    /// Whether AWS marks it as read-only. Calls that run a model are not.
    pub read_only: bool,
    /// What its requests name. A list of an account's resources is one region's, whether or not it names anything.
    pub members: &'static [Member],
}

macro_rules! inventory {
    ($($operation:ident $($read_only:ident)? {
        $($place:ident $member:literal $names:ident,)*
    })*) => {
        /// The operations, in the order of the documentation.
        pub const INVENTORY: &[Entry] = &[$(Entry {
            operation: Operation::$operation,
            read_only: inventory!(@flag $($read_only)?),
            members: &[$(Member { place: Place::$place, name: $member, names: Names::$names },)*],
        },)*];
    };
    (@flag read_only) => { true };
    (@flag) => { false };
}

inventory! {
    InvokeModel {
        Path "modelId" Model,
        Header "x-amzn-bedrock-guardrailidentifier" Guardrail,
        Header "x-amzn-bedrock-projectidentifier" Project,
    }
    InvokeModelWithResponseStream {
        Path "modelId" Model,
        Header "x-amzn-bedrock-guardrailidentifier" Guardrail,
        Header "x-amzn-bedrock-projectidentifier" Project,
    }
    Converse {
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
    ConverseStream {
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
    CountTokens read_only {
        Path "modelId" Model,
        Body "input.converse.messages[].content[].image.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].document.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].video.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].audio.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].toolResult.content[].image.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].toolResult.content[].document.source.s3Location.uri" Bucket,
        Body "input.converse.messages[].content[].toolResult.content[].video.source.s3Location.uri" Bucket,
    }
    InvokeModelWithBidirectionalStream {
        Path "modelId" Model,
    }
    ApplyGuardrail {
        Path "guardrailIdentifier" Guardrail,
    }
    InvokeGuardrailChecks {}
    StartAsyncInvoke {
        Body "modelId" Model,
        Body "outputDataConfig.s3OutputDataConfig.s3Uri" Bucket,
        Body "outputDataConfig.s3OutputDataConfig.kmsKeyId" Key,
    }
    ListAsyncInvokes read_only {
        Query "nextToken" Page,
    }
    GetAsyncInvoke read_only {
        Path "invocationArn" Resource,
    }
    ListFoundationModels read_only {
        Query "projectIdentifier" Project,
    }
    GetFoundationModel read_only {
        Path "modelIdentifier" Model,
        Query "projectIdentifier" Project,
    }
    GetFoundationModelAvailability read_only {
        Path "modelId" Model,
    }
    ListInferenceProfiles read_only {
        Query "nextToken" Page,
        Query "projectIdentifier" Project,
    }
    GetInferenceProfile read_only {
        Path "inferenceProfileIdentifier" Model,
        Query "projectIdentifier" Project,
    }
    ListImportedModels read_only {
        Query "nextToken" Page,
    }
    GetImportedModel read_only {
        Path "modelIdentifier" Resource,
    }
    ListCustomModels read_only {
        Query "baseModelArnEquals" Model,
        Query "foundationModelArnEquals" Model,
        Query "nextToken" Page,
    }
    GetCustomModel read_only {
        Path "modelIdentifier" Resource,
    }
    GetCustomModelDeployment read_only {
        Path "customModelDeploymentIdentifier" Resource,
    }
    ListProvisionedModelThroughputs read_only {
        Query "modelArnEquals" Model,
        Query "nextToken" Page,
    }
    GetProvisionedModelThroughput read_only {
        Path "provisionedModelId" Resource,
    }
    ListPromptRouters read_only {
        Query "nextToken" Page,
    }
    GetPromptRouter read_only {
        Path "promptRouterArn" Resource,
    }
    ListMarketplaceModelEndpoints read_only {
        Query "modelSourceIdentifier" Model,
        Query "nextToken" Page,
    }
    GetMarketplaceModelEndpoint read_only {
        Path "endpointArn" Resource,
    }
    ListGuardrails read_only {
        Query "guardrailIdentifier" Guardrail,
        Query "nextToken" Page,
    }
    GetGuardrail read_only {
        Path "guardrailIdentifier" Guardrail,
    }
    GetAccountDataRetention read_only {
    }
    GetProject read_only {
        Path "projectIdentifier" Project,
    }
    CreateModelInvocationJob {
        Body "modelId" Model,
        Body "inputDataConfig.s3InputDataConfig.s3Uri" Bucket,
        Body "outputDataConfig.s3OutputDataConfig.s3Uri" Bucket,
        Body "outputDataConfig.s3OutputDataConfig.s3EncryptionKeyId" Key,
        Body "vpcConfig.subnetIds[]" Network,
        Body "vpcConfig.securityGroupIds[]" Network,
    }
    GetModelInvocationJob read_only {
        Path "jobIdentifier" Resource,
    }
    ListModelInvocationJobs read_only {
        Query "nextToken" Page,
    }
    StopModelInvocationJob {
        Path "jobIdentifier" Resource,
    }
    Rerank {
        Body "rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "nextToken" Page,
    }
    Retrieve {
        Path "knowledgeBaseId" KnowledgeBase,
        Body "guardrailConfiguration.guardrailId" Guardrail,
        Body "nextToken" Page,
        Body "retrievalConfiguration.vectorSearchConfiguration.implicitFilterConfiguration.modelArn" Model,
        Body "retrievalConfiguration.vectorSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
        Body "retrievalConfiguration.managedSearchConfiguration.rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn" Model,
    }
    RetrieveAndGenerate {
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
    RetrieveAndGenerateStream {
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
        INVENTORY.iter().find(|entry| entry.operation == operation)
    }

    /// Whether the gateway carries it. It refuses bidirectional streams by name.
    pub fn carried(&self) -> bool {
        self.operation != Operation::InvokeModelWithBidirectionalStream
    }

    /// The members of a class.
    pub fn of_class(&self, class: Class) -> impl Iterator<Item = &'static Member> {
        self.members.iter().filter(move |member| member.names.class() == class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Method, OPERATIONS};

    #[test]
    fn every_operation_has_an_entry() {
        for &operation in OPERATIONS {
            let entry = Entry::of(operation).unwrap_or_else(|| panic!("{operation} is not in INVENTORY"));
            for member in entry.members.iter().filter(|member| member.place == Place::Query) {
                assert!(operation.parameters().contains(&member.name), "{operation} {}", member.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_written_as_they_match() {
        for (index, entry) in INVENTORY.iter().enumerate() {
            assert!(
                INVENTORY.iter().skip(index + 1).all(|other| other.operation != entry.operation),
                "{}",
                entry.operation
            );
            for member in entry.members {
                let label = || entry.operation.template().contains(&format!("{{{}}}", member.name));
                let written = match member.place {
                    Place::Path => label(),
                    Place::Header => member.name == member.name.to_ascii_lowercase(),
                    Place::Query => !member.name.contains('.'),
                    Place::Body => entry.operation.method() == Method::Post,
                };
                assert!(written, "{} {}", entry.operation, member.name);
                assert!(entry.members.iter().filter(|other| **other == *member).count() == 1, "{}", member.name);
            }
        }
    }

    #[test]
    fn models_are_told_from_what_is_in_a_region() {
        let retrieve = Entry::of(Operation::Retrieve).unwrap();
        assert_eq!(retrieve.of_class(Class::Model).count(), 3);
        let region: Vec<_> = retrieve.of_class(Class::Region).map(|member| member.name).collect();
        assert_eq!(region, ["knowledgeBaseId", "guardrailConfiguration.guardrailId", "nextToken"]);
        assert!(!Entry::of(Operation::InvokeModelWithBidirectionalStream).unwrap().carried());
    }
}
