//! The forms of guardrails, their versions and projects.
//!
//! The patterns are those of botocore 1.44.8's service models and of AWS's API Reference:
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GuardrailConfiguration.html>,
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ApplyGuardrail.html>,
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html> and
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>. Bedrock's text was not seen.

/// Most characters of each of these identifiers.
const LONGEST: usize = 2048;
/// The partitions of a project's ARN, after `aws`.
const PARTITIONS: [&str; 7] = ["", "-us-gov", "-cn", "-iso", "-iso-b", "-iso-f", "-eusc"];

/// `[a-z0-9]+`, or the ARN of a guardrail, whose partition is `aws` or begins with `aws-`.
pub(crate) fn is_guardrail(id: &str) -> bool {
    id.len() <= LONGEST
        && (is_lower(id)
            || arn(id).is_some_and(|arn| {
                let named = arn.partition.strip_prefix('-').is_some_and(|rest| !rest.is_empty());
                (arn.partition.is_empty() || named) && arn.resource.strip_prefix("guardrail/").is_some_and(is_lower)
            }))
}

/// `DRAFT`, or a number of at most eight digits that does not begin with 0.
pub(crate) fn is_guardrail_version(version: &str) -> bool {
    let is_number = (1..=8).contains(&version.len())
        && !version.starts_with('0')
        && version.bytes().all(|byte| byte.is_ascii_digit());
    version == "DRAFT" || is_number
}

/// `[a-zA-Z0-9_-]+`, or the ARN of a project in one of the partitions that bedrock-runtime names.
pub(crate) fn is_project(id: &str) -> bool {
    let is_name =
        |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    id.len() <= LONGEST
        && (is_name(id)
            || arn(id).is_some_and(|arn| {
                PARTITIONS.contains(&arn.partition) && arn.resource.strip_prefix("project/").is_some_and(is_name)
            }))
}

struct Arn<'a> {
    /// After `aws`.
    partition: &'a str,
    resource: &'a str,
}

/// `arn:aws…:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:…`.
fn arn(id: &str) -> Option<Arn<'_>> {
    let parts: Vec<&str> = id.splitn(6, ':').collect();
    let ["arn", partition, "bedrock", region, account, resource] = parts[..] else { return None };
    let is_region = (1..=20).contains(&region.len())
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let partition = partition.strip_prefix("aws").filter(|_| is_region && is_account)?;
    Some(Arn { partition, resource })
}

fn is_lower(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_those_of_the_api_reference() {
        let arn =
            |partition: &str, resource: &str| format!("arn:{partition}:bedrock:us-east-1:123456789012:{resource}");
        let (in_aws, in_govcloud) = (arn("aws", "guardrail/g1"), arn("aws-us-gov", "guardrail/g1"));
        for (id, wanted) in [
            ("g1", true),
            (in_aws.as_str(), true),
            (in_govcloud.as_str(), true),
            ("", false),
            ("G1", false),
            ("g-1", false),
            (&arn("aws-", "guardrail/g1"), false),
            (&arn("aws", "guardrail/g-1"), false),
            (&arn("aws", "project/g1"), false),
            ("arn:aws:bedrock::123456789012:guardrail/g1", false),
            ("arn:aws:bedrock:us-east-1:1:guardrail/g1", false),
            (&"g".repeat(2049), false),
        ] {
            assert_eq!(is_guardrail(id), wanted, "guardrail {id}");
        }
        for (version, wanted) in [
            ("DRAFT", true),
            ("1", true),
            ("12345678", true),
            ("", false),
            ("0", false),
            ("01", false),
            ("123456789", false),
            ("draft", false),
            ("v1", false),
        ] {
            assert_eq!(is_guardrail_version(version), wanted, "version {version}");
        }
        for (id, wanted) in [
            ("default", true),
            ("Team_1-a", true),
            (&arn("aws", "project/p1"), true),
            (&arn("aws-eusc", "project/p1"), true),
            ("", false),
            ("team 1", false),
            ("team.1", false),
            ("team/1", false),
            (&arn("aws-other", "project/p1"), false),
            (&arn("aws", "guardrail/p1"), false),
            (&arn("aws", "project/"), false),
        ] {
            assert_eq!(is_project(id), wanted, "project {id}");
        }
    }
}
