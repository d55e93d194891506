//! The policies of `infra/policies`, which operators copy. Each is judged by `cfn-lint` inside a template of its kind, and by its
//! size.

use std::path::{Path, PathBuf};

use filter_core::names::Partition;
use lab::tools::{root, target};
use serde_json::{Value, json};

use crate::linters::{self, LinterError};
use crate::template::{directory, region};
use crate::{Error, InfraError};

/// What a policy is for, by its file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Identity,
    Trust,
    ServiceControl,
}

impl Kind {
    /// The most characters, without white space.
    /// Sources: AWS IAM User Guide, "IAM and AWS STS quotas" (managed policies; a role's trust policy, by default),
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>; AWS Organizations User Guide, "Quotas"
    /// (service control policies), <https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html>.
    const fn limit(self) -> usize {
        match self {
            Self::Identity => 6144,
            Self::Trust => 2048,
            Self::ServiceControl => 5120,
        }
    }
}

#[derive(Debug, Clone)]
pub struct PolicyFile {
    /// Below `infra/policies`: `commercial-trust.json`.
    pub name: String,
    pub policy: Value,
}

pub fn directory_of_policies() -> PathBuf {
    root().join("infra/policies")
}

impl PolicyFile {
    /// Every policy, by name.
    ///
    /// # Errors
    /// A file cannot be read, or is not JSON.
    pub fn all() -> Result<Vec<Self>, Error> {
        let folder = directory_of_policies();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::file("cannot read", &folder))? {
            let path = entry.map_err(Error::file("cannot read", &folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).map_err(Error::file("cannot read", &path))?;
            let policy = serde_json::from_str(&text)
                .map_err(|error| Error::Failed(format!("infra/policies/{name}: {error}")))?;
            found.push(Self { name, policy });
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    fn kind(&self) -> Kind {
        match &self.name {
            name if name.contains("-trust") => Kind::Trust,
            name if name.ends_with("-scp.json") => Kind::ServiceControl,
            _ => Kind::Identity,
        }
    }

    /// The partition of the account that has it.
    pub fn partition(&self) -> Partition {
        let govcloud = self.name.starts_with(directory(Partition::GovCloud));
        if govcloud { Partition::GovCloud } else { Partition::Commercial }
    }

    /// A fault if AWS would refuse the policy for its size.
    pub fn oversize(&self) -> Option<String> {
        let (size, limit) = (self.policy.to_string().chars().count(), self.kind().limit());
        (size > limit)
            .then(|| format!("policies/{}: {size} characters without white space; AWS takes {limit}", self.name))
    }

    /// A template with the policy as AWS takes it.
    fn template(&self) -> Value {
        let policy = &self.policy;
        // `cfn-lint` does not look into a service control policy, whose grammar is that of an identity's policy.
        let identity = json!({ "Type": "AWS::IAM::ManagedPolicy", "Properties": { "PolicyDocument": policy } });
        let resources = match self.kind() {
            Kind::Identity => json!({ "Policy": identity }),
            Kind::Trust => {
                json!({ "Role": { "Type": "AWS::IAM::Role", "Properties": { "AssumeRolePolicyDocument": policy } } })
            }
            Kind::ServiceControl => json!({
                "Grammar": identity,
                "Policy": { "Type": "AWS::Organizations::Policy", "Properties": {
                    "Name": self.name.trim_end_matches(".json"), "Type": "SERVICE_CONTROL_POLICY", "Content": policy,
                } },
            }),
        };
        json!({ "AWSTemplateFormatVersion": "2010-09-09", "Resources": resources })
    }
}

/// What `cfn-lint` finds in the policies, each in its partition's region.
///
/// # Errors
/// [`LinterError`], or a template cannot be written.
pub fn cfn_lint(python: &Path, policies: &[PolicyFile]) -> Result<Vec<String>, InfraError> {
    let folder = target().join("tmp").join(format!("policies-{}", std::process::id())).join("policies");
    std::fs::create_dir_all(&folder).map_err(Error::file("cannot create", &folder))?;
    let linted = lint(python, policies, &folder);
    let parent = folder.parent().unwrap_or(&folder);
    std::fs::remove_dir_all(parent).map_err(Error::file("cannot remove", parent))?;
    linted
}

fn lint(python: &Path, policies: &[PolicyFile], folder: &Path) -> Result<Vec<String>, InfraError> {
    let mut faults = Vec::new();
    for partition in crate::template::PARTITIONS {
        let mut files = Vec::new();
        for policy in policies.iter().filter(|policy| policy.partition() == partition) {
            let file = folder.join(&policy.name);
            std::fs::write(&file, format!("{:#}", policy.template())).map_err(Error::file("cannot write", &file))?;
            files.push(file);
        }
        let found: Result<_, LinterError> = linters::cfn_lint(python, region(partition), &files);
        faults.extend(found?);
    }
    Ok(faults)
}
