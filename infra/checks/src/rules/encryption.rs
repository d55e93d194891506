//! What is stored is encrypted with a key of one's own, kept, and for a stated time.

use serde_json::Value;

use super::{Report, given, is_true};

/// Properties that must be there, by type.
const WANTED: [(&str, &str, &str); 9] = [
    ("AWS::DynamoDB::Table", "/SSESpecification/KMSMasterKeyId", "no key of its own"),
    (
        "AWS::DynamoDB::Table",
        "/PointInTimeRecoverySpecification/PointInTimeRecoveryEnabled",
        "no point-in-time recovery",
    ),
    ("AWS::Logs::LogGroup", "/KmsKeyId", "no key of its own"),
    ("AWS::Logs::LogGroup", "/RetentionInDays", "kept for ever; say for how long"),
    ("AWS::SNS::Topic", "/KmsMasterKeyId", "no key of its own"),
    ("AWS::SQS::Queue", "/KmsMasterKeyId", "no key of its own"),
    ("AWS::SecretsManager::Secret", "/KmsKeyId", "no key of its own"),
    ("AWS::S3::Bucket", "/BucketEncryption/ServerSideEncryptionConfiguration", "no encryption"),
    ("AWS::KMS::Key", "/KeyPolicy", "no key policy"),
];

/// Properties that must be `true`, by type.
const TRUE: [(&str, &str, &str); 3] = [
    ("AWS::DynamoDB::Table", "/SSESpecification/SSEEnabled", "not encrypted with the key"),
    ("AWS::KMS::Key", "/EnableKeyRotation", "a key that never changes"),
    ("AWS::EC2::Volume", "/Encrypted", "not encrypted"),
];

/// Types that outlive their stack.
const KEPT: [&str; 3] = ["AWS::DynamoDB::Table", "AWS::KMS::Key", "AWS::SecretsManager::Secret"];

pub(super) fn check(report: &mut Report<'_>) {
    let resource = report.resource;
    for (_, pointer, problem) in WANTED.iter().filter(|(kind, ..)| *kind == resource.kind) {
        if !given(resource.property(pointer)) {
            report.fault("encryption", "/Properties", pointer.trim_start_matches('/'), *problem);
        }
    }
    for (_, pointer, problem) in TRUE.iter().filter(|(kind, ..)| *kind == resource.kind) {
        if !is_true(resource.property(pointer)) {
            report.fault("encryption", &format!("/Properties{pointer}"), pointer.trim_start_matches('/'), *problem);
        }
    }
    if KEPT.contains(&resource.kind) {
        // What a creation that failed leaves behind holds nothing, and its name would be in the way of the next.
        for (policy, wanted) in [("DeletionPolicy", "RetainExceptOnCreate"), ("UpdateReplacePolicy", "Retain")] {
            if resource.body.get(policy).and_then(Value::as_str) != Some(wanted) {
                report.fault("kept", "", policy, format!("{wanted} is wanted: it must not go with its stack"));
            }
        }
    }
    let machine = match resource.kind {
        "AWS::EC2::LaunchTemplate" => "/LaunchTemplateData",
        // Where it has one, its disks are those of its launch template.
        "AWS::EC2::Instance" if !given(resource.property("/LaunchTemplate")) => "",
        _ => return,
    };
    disks(report, machine);
}

/// The disks of a machine: each is named, so that none takes the image's own setting, and encrypted.
fn disks(report: &mut Report<'_>, machine: &str) {
    let resource = report.resource;
    let pointer = format!("{machine}/BlockDeviceMappings");
    let Some(disks) = resource.property(&pointer).as_array().filter(|disks| !disks.is_empty()) else {
        report.fault("encryption", "/Properties", "BlockDeviceMappings", "no disk is named, so none is encrypted");
        return;
    };
    for (index, disk) in disks.iter().enumerate() {
        if !disk.pointer("/Ebs/Encrypted").is_some_and(is_true) {
            let place = format!("/Properties{pointer}/{index}");
            report.fault("encryption", &place, format!("BlockDeviceMappings/{index}"), "a disk that is not encrypted");
        }
    }
}
