//! Resources that a test gives to the double's account: application inference profiles, prompt routers, provisioned and custom models,
//! deployments and Marketplace endpoints.

use serde_json::{Value, json};

use super::answer::{Answer, MADE, Step};
use super::fault::error_type_of;
use super::operation::Operation;

/// A resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    /// Its ARN.
    pub arn: String,
    /// The members of its description that name what it runs, such as `models` or `foundationModelArn`.
    pub runs: Value,
}

/// A fault of the operations that describe one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GetFault {
    #[default]
    None,
    /// An error of this status.
    Status(u16),
    /// No answer, ever.
    Silent,
    /// 200, and no JSON.
    Garbage,
}

impl Planted {
    /// The name or id in its ARN.
    fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// Whether an ARN names it, or an id where the operation takes one.
    #[must_use]
    pub fn is(&self, given: &str, region: &str) -> bool {
        self.arn.split(':').nth(3) == Some(region) && (given == self.arn || given == self.name())
    }

    /// Its description, with the members that AWS's API Reference requires.
    pub(crate) fn description(&self, operation: Operation) -> Option<Value> {
        let kind = self.arn.splitn(6, ':').nth(5)?.split('/').next()?;
        let mut description = match (operation, kind) {
            (Operation::GetInferenceProfile, "application-inference-profile") => json!({
                "inferenceProfileName": "planted", "createdAt": MADE, "updatedAt": MADE, "inferenceProfileArn": self.arn,
                "inferenceProfileId": self.name(), "status": "ACTIVE", "type": "APPLICATION",
            }),
            (Operation::GetPromptRouter, "default-prompt-router") => json!({
                "promptRouterName": "planted", "routingCriteria": { "responseQualityDifference": 25.0 }, "createdAt": MADE,
                "updatedAt": MADE, "promptRouterArn": self.arn, "status": "AVAILABLE", "type": "custom",
            }),
            (Operation::GetProvisionedModelThroughput, "provisioned-model") => json!({
                "provisionedModelName": "planted", "provisionedModelArn": self.arn, "modelUnits": 1, "desiredModelUnits": 1,
                "status": "InService", "creationTime": MADE, "lastModifiedTime": MADE,
            }),
            (Operation::GetCustomModel, "custom-model") => json!({
                "modelArn": self.arn, "modelName": "planted", "creationTime": MADE, "customizationType": "FINE_TUNING",
                "modelStatus": "Active",
            }),
            (Operation::GetCustomModelDeployment, "custom-model-deployment") => json!({
                "customModelDeploymentArn": self.arn, "modelDeploymentName": "planted", "createdAt": MADE, "status": "Active",
            }),
            (Operation::GetMarketplaceModelEndpoint, "endpoint") => json!({
                "endpointArn": self.arn, "status": "REGISTERED", "createdAt": MADE, "updatedAt": MADE, "endpointStatus": "InService",
                "endpointConfig": { "sageMaker": {
                    "initialInstanceCount": 1, "instanceType": "ml.g5.xlarge", "executionRole": "arn:aws:iam::123456789012:role/market",
                } },
            }),
            _ => return None,
        };
        if let (Some(description), Some(runs)) = (description.as_object_mut(), self.runs.as_object()) {
            description.extend(runs.clone());
        }
        let wrapped = operation == Operation::GetMarketplaceModelEndpoint;
        Some(if wrapped { json!({ "marketplaceModelEndpoint": description }) } else { description })
    }
}

impl GetFault {
    /// Whether it concerns an operation.
    #[must_use]
    pub fn concerns(operation: Operation) -> bool {
        matches!(
            operation,
            Operation::GetInferenceProfile
                | Operation::GetPromptRouter
                | Operation::GetProvisionedModelThroughput
                | Operation::GetCustomModel
                | Operation::GetCustomModelDeployment
                | Operation::GetMarketplaceModelEndpoint
        )
    }

    /// The answer instead of a good one; `None`: there is none.
    #[must_use]
    pub fn spoil(self, answer: Answer) -> Option<Answer> {
        match self {
            Self::None => Some(answer),
            Self::Status(status) => Some(Answer::error(status, error_type_of(status), "The resource is answered so.")),
            Self::Silent => None,
            Self::Garbage => {
                let mut answer = answer;
                answer.body = vec![Step::Send(b"<html>not a resource</html>".to_vec().into())];
                Some(answer)
            }
        }
    }
}
