//! The kinds of resources, and how Bedrock is asked about each.
//!
//! Sources: botocore 1.44.8 (`bedrock`), and the page of each operation, such as
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetInferenceProfile.html>. Which ids a call may name:
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html>.

use crate::operation::Operation;

/// The calls that say what an id runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    One(Operation),
    /// The id may be of either kind, and what is found of both counts.
    Either(&'static [Operation]),
}

/// Why Bedrock cannot say what an id runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolvable {
    #[error("AWS does not tell the base model of an imported model")]
    Imported,
    #[error("a prompt has its model in another service")]
    Prompt,
    #[error("no operation of Bedrock describes such a resource")]
    Unknown,
}

/// A name without an ARN is a profile's id or a provisioned throughput's name.
const BY_NAME: &[Operation] = &[Operation::GetInferenceProfile, Operation::GetProvisionedModelThroughput];
const BY_ID: &[Operation] = &[Operation::GetInferenceProfile];

impl Steps {
    /// How Bedrock is asked about an id that does not name its model.
    pub(crate) fn of(id: &str) -> Result<Self, Unresolvable> {
        let Some(arn) = id.strip_prefix("arn:") else {
            let is =
                |others: &[u8]| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b));
            return match (is(b"-_"), is(b"-:.")) {
                (true, _) if !id.contains('_') => Ok(Self::Either(BY_NAME)),
                (true, _) => Ok(Self::One(Operation::GetProvisionedModelThroughput)),
                (_, true) => Ok(Self::Either(BY_ID)),
                _ => Err(Unresolvable::Unknown),
            };
        };
        let parts: Vec<&str> = arn.splitn(5, ':').collect();
        let ["aws", service, region, account, resource] = parts.as_slice() else { return Err(Unresolvable::Unknown) };
        if region.is_empty() || account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Unresolvable::Unknown);
        }
        let Some((kind, name)) = resource.split_once('/').filter(|(_, name)| !name.is_empty()) else {
            return Err(Unresolvable::Unknown);
        };
        let known = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:./".contains(&b));
        if !known(name) {
            return Err(Unresolvable::Unknown);
        }
        match (*service, kind) {
            ("bedrock", "application-inference-profile" | "inference-profile") => {
                Ok(Self::One(Operation::GetInferenceProfile))
            }
            ("bedrock", "default-prompt-router" | "prompt-router") => Ok(Self::One(Operation::GetPromptRouter)),
            ("bedrock", "provisioned-model") => Ok(Self::One(Operation::GetProvisionedModelThroughput)),
            ("bedrock", "custom-model") => Ok(Self::One(Operation::GetCustomModel)),
            ("bedrock", "custom-model-deployment") => Ok(Self::One(Operation::GetCustomModelDeployment)),
            ("sagemaker", "endpoint") => Ok(Self::One(Operation::GetMarketplaceModelEndpoint)),
            ("bedrock", "imported-model") => Err(Unresolvable::Imported),
            ("bedrock", "prompt") => Err(Unresolvable::Prompt),
            _ => Err(Unresolvable::Unknown),
        }
    }

    /// The calls.
    pub(crate) fn operations(&self) -> &[Operation] {
        match self {
            Self::One(operation) => std::slice::from_ref(operation),
            Self::Either(operations) => operations,
        }
    }
}
