//! Failed stacks, and changes that would lose something.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use filter_core::names::Partition::GovCloud;
use lab::tools::root;
use serde_json::{Value, json};

use crate::deployment::{Deployment, SETTINGS, TOPIC};
use crate::smoke::{REFUSAL, UNAVAILABLE, answer};

#[test]
fn names_the_cause_of_a_failed_stack() {
    let deployment = Deployment::start("failing");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.environment("govcloud/topic.params", "Name=first\n");
    // The security group does not exist.
    let failing = TOPIC.replace(
        "Outputs:",
        "  Rule:\n    Type: AWS::EC2::SecurityGroupIngress\n    DependsOn: Topic\n    Properties: { GroupId: sg-0123456789abcdef0, \
         IpProtocol: tcp, FromPort: 443, ToPort: 443, CidrIp: 10.0.0.0/8 }\nOutputs:",
    );
    deployment.file("templates/govcloud/failing.yaml", &failing);
    deployment.environment("govcloud/failing.params", "Name=second\n");
    deployment.environment("1.plan", "govcloud failing\ngovcloud topic\n");

    let text = deployment.fails(
        &["1", "--yes"],
        "govcloud/failing: ROLLBACK_COMPLETE. First to fail: Rule AWS::EC2::SecurityGroupIngress",
    );
    assert!(text.contains("sg-0123456789abcdef0"), "{text}");
    assert_eq!(deployment.stacks(GovCloud), ["failing ROLLBACK_COMPLETE"], "later stacks are not begun");
    assert!(!deployment.topics().contains("failing-second"), "the created topic is removed again");

    // Corrected, it is created again. Then an update fails and is rolled back.
    deployment.file("templates/govcloud/failing.yaml", TOPIC);
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("govcloud/failing: removed"), "{text}");
    deployment.file("templates/govcloud/failing.yaml", &failing);
    deployment.environment("govcloud/failing.params", "Name=second\nLabel=new\n");
    deployment.fails(
        &["1", "--yes"],
        "govcloud/failing: UPDATE_ROLLBACK_COMPLETE. First to fail: Rule AWS::EC2::SecurityGroupIngress",
    );
    let topic = "arn:aws-us-gov:sns:us-gov-west-1:444455556666:failing-second";
    let attributes = deployment.aws.call(GovCloud, &["sns", "get-topic-attributes", "--topic-arn", topic]).unwrap();
    assert_eq!(attributes["Attributes"]["DisplayName"], "none", "{attributes}");
}

#[test]
fn refuses_to_replace_or_remove_kept_resources() {
    let deployment = Deployment::start("kept");
    let audit = std::fs::read_to_string(root().join("infra/templates/govcloud/audit.yaml")).unwrap();
    deployment.file("templates/govcloud/audit.yaml", &audit);
    deployment.environment("1.plan", "govcloud audit\n");
    deployment.succeeds(&["1", "--yes"]);
    // Other tests have tables of their own in the mock.
    let tables = ["dynamodb", "list-tables", "--query", "TableNames[?contains(@, 'kept-') || @ == 'other-audit']"];
    let table = || deployment.aws.call(GovCloud, &tables).unwrap();
    assert_eq!(table(), serde_json::json!(["bedrock-gateway-kept-audit"]));

    let renamed =
        audit.replace("bedrock-gateway-${Environment}-audit\"\n      BillingMode", "other-audit\"\n      BillingMode");
    assert_ne!(renamed, audit);
    deployment.file("templates/govcloud/audit.yaml", &renamed);
    let text = deployment.fails(&["1", "--yes"], "Table (AWS::DynamoDB::Table) would be replaced or removed");
    assert!(
        text.contains("! replace  Table") && text.contains("to allow it: --replace govcloud/audit.Table"),
        "{text}"
    );
    assert_eq!(deployment.stacks(GovCloud), ["audit CREATE_COMPLETE"]);
    assert_eq!(table(), serde_json::json!(["bedrock-gateway-kept-audit"]));

    let (before, after) = audit.split_once("  KeyAlias:").unwrap();
    let (_, after) = after.split_once("  # The collector's table").unwrap();
    deployment.file("templates/govcloud/audit.yaml", &format!("{before}  # The collector's table{after}"));
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("- remove   KeyAlias"), "an alias may be removed: {text}");
}

/// The real template: it has list parameters, and its new version has one parameter more and one less than the former.
#[test]
fn restores_the_real_gateway_template() {
    let deployment = Deployment::start("restores");
    let network = std::fs::read_to_string(root().join("infra/templates/govcloud/network.yaml")).unwrap();
    deployment.file("templates/govcloud/network.yaml", &network);
    let template = std::fs::read_to_string(root().join("infra/templates/govcloud/gateway.yaml")).unwrap();
    let gateway = |parameter: &str| {
        let with = template.replacen("Parameters:\n", &format!("Parameters:\n{parameter}"), 1);
        deployment.file("templates/govcloud/gateway.yaml", &with);
    };
    let good = Arc::new(AtomicBool::new(true));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!(
        "{SETTINGS}GATEWAY=govcloud/gateway\nSMOKE_URL=http://{}\nSMOKE_MODEL=none\n",
        listener.local_addr().unwrap()
    );
    deployment.environment("settings", &settings);
    let _server = std::thread::spawn({
        let good = Arc::clone(&good);
        move || {
            listener.incoming().for_each(|stream| {
                answer(&stream.unwrap(), if good.load(Ordering::Relaxed) { REFUSAL } else { UNAVAILABLE });
            });
        }
    });
    deployment.environment("govcloud/network.params", "ArtifactBucket=artifacts\n");
    deployment.environment("1.plan", "govcloud network\ngovcloud gateway\nsmoke\n");
    let params = |release: &str, more: &str| {
        let digest = release.repeat(64);
        let text = format!(
            "VpcId=@{{govcloud/network.VpcId}}\nPrivateSubnetIds=@{{govcloud/network.PrivateSubnetIds}}\n\
             LogKeyArn=@{{govcloud/network.LogKeyArn}}\nTableName=bedrock-gateway-restores-audit\n\
             TableArn=arn:aws-us-gov:dynamodb:us-gov-west-1:444455556666:table/bedrock-gateway-restores-audit\n\
             TableKeyArn=arn:aws-us-gov:kms:us-gov-west-1:444455556666:key/a\nClientCidr=10.80.0.0/16\n\
             ArtifactBucket=artifacts\nArtifactKey=release/{release}\nArtifactSha256={digest}\nConfigKey=config/{release}\n\
             ConfigSha256={digest}\nUserData={}\n{more}",
            release.repeat(4)
        );
        deployment.environment("govcloud/gateway.params", &text);
    };
    let given = || {
        let stack = ["cloudformation", "describe-stacks", "--stack-name", "bedrock-gateway-restores-gateway"];
        let query = ["--query", "Stacks[0].[StackStatus, Parameters[].[ParameterKey, ParameterValue]]"];
        let answer = deployment.aws.call(GovCloud, &[stack.as_slice(), &query].concat()).unwrap();
        let parameters = answer[1].as_array().unwrap().iter();
        let pairs: serde_json::Map<String, Value> =
            parameters.map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].clone())).collect();
        (answer[0].as_str().unwrap().to_owned(), Value::Object(pairs))
    };

    gateway("  Old: { Type: String, Default: old }\n");
    params("a", "");
    deployment.succeeds(&["1", "--yes"]);
    let (_, first) = given();
    assert_eq!(first["PrivateSubnetIds"].as_str().unwrap().split(',').count(), 3, "{first}");

    good.store(false, Ordering::Relaxed);
    gateway("  New: { Type: String }\n");
    params("b", "New=new\nMinSize=6\n");
    let text = deployment.fails(&["1", "--yes"], "govcloud/gateway has its former release and configuration again");
    assert!(text.contains("govcloud/gateway: restoring its former release and configuration"), "{text}");
    let (status, restored) = given();
    assert_eq!(status, "UPDATE_COMPLETE");
    // Release and configuration are the former ones, and the other parameters stay.
    let mut wanted = first.clone();
    wanted.as_object_mut().unwrap().remove("Old");
    wanted["New"] = json!("new");
    wanted["MinSize"] = json!("6");
    assert_eq!(restored, wanted);

    // Another parameter changed: no former release has to be restored, and nothing is said to be.
    params("a", "New=new\nMinSize=4\n");
    let text = deployment.fails(&["1", "--yes"], "the smoke test failed; nothing to restore");
    assert!(text.contains("release and configuration are what they were") && !text.contains("restoring"), "{text}");
    assert_eq!(given().1["MinSize"], "4");
}

#[test]
fn removal_keeps_what_outlives_its_stack() {
    let deployment = Deployment::start("outlive");
    let audit = std::fs::read_to_string(root().join("infra/templates/govcloud/audit.yaml")).unwrap();
    deployment.file("templates/govcloud/audit.yaml", &audit);
    deployment.environment("1.plan", "govcloud audit\n");
    deployment.succeeds(&["1", "--yes"]);
    let text = deployment.succeeds(&["remove", "govcloud/audit", "--yes"]);
    assert!(text.ends_with("govcloud/audit: removed\n"), "{text}");
    assert!(deployment.stacks(GovCloud).is_empty());
    let table = ["dynamodb", "describe-table", "--table-name", "bedrock-gateway-outlive-audit"];
    assert!(deployment.aws.raw(GovCloud, &table).unwrap().status.success());
    // Its name is in use.
    deployment.fails(&["1", "--yes"], "govcloud/audit: ROLLBACK_COMPLETE. First to fail: Table AWS::DynamoDB::Table");

    // A table that does not outlive its stack, and that AWS does not delete.
    let protected = audit.replace("    DeletionPolicy: RetainExceptOnCreate\n", "").replace("-audit\"", "-protected\"");
    deployment.file("templates/govcloud/protected.yaml", &protected);
    deployment.environment("2.plan", "govcloud protected\n");
    deployment.succeeds(&["2", "--yes"]);
    let remove = ["remove", "govcloud/protected", "--yes"];
    let text = deployment.fails(&remove, "govcloud/protected: DELETE_FAILED. First to fail: Table ");
    assert!(text.contains("DeletionProtectionEnabled"), "{text}");
    deployment.fails(&["2", "--yes"], "govcloud/protected: DELETE_FAILED: repair it by hand");
    let name = "bedrock-gateway-outlive-protected";
    let unprotect = ["dynamodb", "update-table", "--no-deletion-protection-enabled", "--table-name", name];
    deployment.aws.call(GovCloud, &unprotect).unwrap();
    deployment.succeeds(&remove);
}
