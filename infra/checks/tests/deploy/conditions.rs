//! References to outputs that have a condition: each is refused while the parameters leave the output out, before anything is made.

use std::collections::BTreeSet;

use filter_core::names::Partition::GovCloud;
use lab::tools::root;

use crate::deployment::Deployment;

const READER: &str = "\
Parameters:
  Value: { Type: String }
Resources:
  Topic: { Type: AWS::SNS::Topic }
";

/// Stack, its parameters, output, what the message asks for, and what gives the output.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

const NETWORK: &str = "ArtifactBucket=artifacts\n";
const IDENTITY: &str = "Issuer=issuer.example.com\nGatewayRoleArn=arn:aws-us-gov:iam::444455556666:role/bedrock-gateway-absent\n\
                        ModelArns=arn:aws:bedrock:*::foundation-model/anthropic.*\n";
const COMMERCIAL_NETWORK: &str = "Path=vpn\nVpcCidr=10.100.0.0/24\nZoneA=us-east-1a\nZoneB=us-east-1b\nGovCloudCidr=10.64.0.0/20\n\
                                  ModelArns=arn:aws:bedrock:*::foundation-model/anthropic.*\n\
                                  RoleArn=arn:aws:iam::111122223333:role/bedrock-gateway\n";
const ANCHOR: &str = "TrustAnchorCertificate=@{file:ca.pem}\n";
const CASES: &[Case] = &[
    ("govcloud/secrets", "", "CertificateSecretArn", "Certificate=yes", "Certificate=yes\n"),
    ("govcloud/network", NETWORK, "PublicSubnetIds", "Internet other than none", "Internet=routers\n"),
    ("commercial/identity", IDENTITY, "ApiKeyUserName", "ApiKeyUser=yes", "ApiKeyUser=yes\n"),
    ("commercial/network", COMMERCIAL_NETWORK, "BedrockAgentRuntimeName", "AgentRuntime=yes", "AgentRuntime=yes\n"),
    ("commercial/identity", IDENTITY, "TrustAnchorArn", "TrustAnchorCertificate", ANCHOR),
    ("commercial/identity", IDENTITY, "ProfileArn", "TrustAnchorCertificate", ANCHOR),
    ("commercial/identity", IDENTITY, "CertificateRoleArn", "TrustAnchorCertificate", ANCHOR),
];

#[test]
fn refuses_outputs_that_parameters_leave_out() {
    let deployment = Deployment::start("absent");
    deployment.file("templates/govcloud/reader.yaml", READER);
    deployment.environment("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    for (stack, given, output, wanted, gives) in CASES {
        let template = std::fs::read_to_string(root().join("infra/templates").join(format!("{stack}.yaml"))).unwrap();
        deployment.file(&format!("templates/{stack}.yaml"), &template);
        deployment.environment("1.plan", &format!("{}\ngovcloud reader\nsmoke\n", stack.replace('/', " ")));
        deployment.environment("govcloud/reader.params", &format!("Value=@{{{stack}.{output}}}\n"));
        let params = format!("{stack}.params");
        deployment.environment(&params, given);
        let part = format!(
            "reader.params: Value: @{{{stack}.{output}}}: the stack {stack} has this output only with {wanted} in "
        );
        let text = deployment.fails(&["1", "--yes"], &part);
        assert!(text.contains(&format!("/environments/absent/{params}\n")), "{text}");
        // With it the check goes on to the plan's next line.
        deployment.environment(&params, &format!("{given}{gives}"));
        deployment.fails(&["1", "--yes"], "SMOKE_URL is missing");
        std::fs::remove_file(deployment.dir.join("infra/environments/absent").join(&params)).unwrap();
    }
    assert_eq!(deployment.stacks(GovCloud), [""; 0]);
}

/// A new output with a condition needs a case.
#[test]
fn each_output_with_a_condition_has_a_case() {
    let mut found = BTreeSet::new();
    for partition in ["govcloud", "commercial"] {
        for entry in std::fs::read_dir(root().join("infra/templates").join(partition)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let Some((_, outputs)) = text.split_once("\nOutputs:\n") else { continue };
            let mut output = "";
            for line in outputs.lines() {
                match line.strip_prefix("    ") {
                    None => output = line.trim().trim_end_matches(':'),
                    Some(inner) if inner.starts_with("Condition:") => {
                        let stack = path.file_stem().unwrap().to_string_lossy();
                        found.insert(format!("{partition}/{stack}.{output}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    let cases: BTreeSet<String> = CASES.iter().map(|(stack, _, output, ..)| format!("{stack}.{output}")).collect();
    assert_eq!(found, cases);
}

/// All functions that a condition may have, and the text of one that `infra/deploy` cannot read.
#[test]
fn conditions_are_read_as_aws_reads_them() {
    let deployment = Deployment::start("conditions");
    deployment.file("templates/govcloud/reader.yaml", READER);
    deployment.environment("1.plan", "govcloud source\ngovcloud reader\nsmoke\n");
    deployment.environment("govcloud/reader.params", "Value=@{govcloud/source.Out}\n");
    let source = |condition: &str| {
        let text = format!(
            "Parameters:\n  Environment: {{ Type: String }}\n  Name:\n    Type: String\n    Default: \"\"\n  \
             Kind: {{ Type: String, Default: slow }}\n  List:\n    Type: CommaDelimitedList\n    Default: none,one\n\
             Conditions:\n  # What others use.\n  HasName: !Not [!Equals [!Ref Name, \"\"]]\n  IsSlow: !Equals [slow, !Ref Kind]\n  \
             Wanted: {condition}\nResources:\n  Topic: {{ Type: AWS::SNS::Topic }}\nOutputs:\n  Out:\n    Condition: Wanted\n    \
             Value: a\n"
        );
        deployment.file("templates/govcloud/source.yaml", &text);
    };
    // Condition, parameters, and what the message asks for; empty where the output exists or cannot be known.
    for (condition, given, wanted) in [
        ("!Condition HasName", "", "Name"),
        ("!Condition HasName", "Name=a", ""),
        ("!Condition HasName", "Name=@{govcloud/reader.No}", "no stack govcloud/reader comes before it"),
        ("!Equals [!Ref Name, a]  # a", "Name=@{environment}", ""),
        ("!Equals [!Ref Name, \"\"]", "Name=@{environment}", "Name="),
        ("!And [{ Condition: HasName }, !Not [{ Condition: IsSlow }]]", "", "Name and Kind other than slow"),
        ("!And [{ Condition: HasName }, !Not [{ Condition: IsSlow }]]", "Kind=fast", "Name in"),
        ("!Or [{ Condition: HasName }, !Not [{ Condition: IsSlow }]]", "", "Name or Kind other than slow"),
        ("!Or [{ Condition: HasName }, !Not [{ Condition: IsSlow }]]", "Kind=fast", ""),
        ("!Not [!Or [!Condition HasName, !Condition IsSlow]]", "", "Kind other than slow in"),
        ("!Not [!Equals [!Select [0, !Ref List], none]]", "", "List other than none"),
        ("!Not [!Equals [!Select [0, !Ref List], 'none']]", "List=some,one", ""),
        ("!Equals [!Ref AWS::Region, us-gov-west-1]", "", ""),
        ("!Equals [!Ref Environment, conditions]", "", ""),
        ("!Equals [!Ref Environment, other]", "", "Environment=other"),
        ("!Equals [!Join [\"\", [a]], a]", "", "cannot read the condition Wanted"),
    ] {
        source(condition);
        deployment.environment("govcloud/source.params", &format!("{given}\n"));
        let part = match wanted {
            "" => "SMOKE_URL is missing".to_owned(),
            wanted if wanted.starts_with("no ") || wanted.starts_with("cannot") => wanted.to_owned(),
            wanted => format!("has this output only with {wanted}"),
        };
        deployment.fails(&["1", "--yes"], &part);
    }
}
