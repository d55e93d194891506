//! Failed stacks, and changes that would lose something.

use filter_core::names::Partition::GovCloud;
use lab::tools::root;

use crate::deployment::{Deployment, TOPIC};

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
