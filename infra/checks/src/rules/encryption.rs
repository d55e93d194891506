//! Storage is encrypted with a customer-managed key, outlives its stack, and has a retention time.

use serde_json::Value;

use super::{Report, given, is_true};

/// Required properties, by type.
const WANTED: [(&str, &str, &str); 9] = [
    ("AWS::DynamoDB::Table", "/SSESpecification/KMSMasterKeyId", "no customer-managed key"),
    (
        "AWS::DynamoDB::Table",
        "/PointInTimeRecoverySpecification/PointInTimeRecoveryEnabled",
        "no point-in-time recovery",
    ),
    ("AWS::Logs::LogGroup", "/KmsKeyId", "no customer-managed key"),
    ("AWS::Logs::LogGroup", "/RetentionInDays", "no retention time: logs would be kept for ever"),
    ("AWS::SNS::Topic", "/KmsMasterKeyId", "no customer-managed key"),
    ("AWS::SQS::Queue", "/KmsMasterKeyId", "no customer-managed key"),
    ("AWS::SecretsManager::Secret", "/KmsKeyId", "no customer-managed key"),
    ("AWS::S3::Bucket", "/BucketEncryption/ServerSideEncryptionConfiguration", "no encryption"),
    ("AWS::KMS::Key", "/KeyPolicy", "no key policy"),
];

/// Properties that must be `true`, by type.
const TRUE: [(&str, &str, &str); 3] = [
    ("AWS::DynamoDB::Table", "/SSESpecification/SSEEnabled", "not encrypted with the key"),
    ("AWS::KMS::Key", "/EnableKeyRotation", "the key does not rotate"),
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
        // RetainExceptOnCreate: a resource that a failed creation leaves behind is empty, and its name would block the next.
        for (policy, wanted) in [("DeletionPolicy", "RetainExceptOnCreate"), ("UpdateReplacePolicy", "Retain")] {
            if resource.body.get(policy).and_then(Value::as_str) != Some(wanted) {
                report.fault("kept", "", policy, format!("want {wanted}: the resource must outlive its stack"));
            }
        }
    }
    let machine = match resource.kind {
        "AWS::EC2::LaunchTemplate" => "/LaunchTemplateData",
        // With a launch template, that names the disks.
        "AWS::EC2::Instance" if !given(resource.property("/LaunchTemplate")) => "",
        _ => return,
    };
    disks(report, machine);
}

/// Each disk of a machine must be named, since an unnamed one takes the image's setting, and encrypted.
fn disks(report: &mut Report<'_>, machine: &str) {
    let resource = report.resource;
    let pointer = format!("{machine}/BlockDeviceMappings");
    let Some(disks) = resource.property(&pointer).as_array().filter(|disks| !disks.is_empty()) else {
        report.fault(
            "encryption",
            "/Properties",
            "BlockDeviceMappings",
            "no disk is named, so the image decides on encryption",
        );
        return;
    };
    for (index, disk) in disks.iter().enumerate() {
        if !disk.pointer("/Ebs/Encrypted").is_some_and(is_true) {
            let place = format!("/Properties{pointer}/{index}");
            report.fault("encryption", &place, format!("BlockDeviceMappings/{index}"), "the disk is not encrypted");
        }
    }
}
