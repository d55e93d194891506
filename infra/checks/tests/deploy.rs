//! `infra/deploy`, run with the AWS CLI against the mock of AWS, with small templates of the test's own.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bedrock_gateway::gateway::{Gateway, Options};
use bedrock_gateway::process::Process;
use bedrock_gateway::programs::Programs;
use infra_checks::aws_mock::Aws;
use infra_checks::template::Partition::{self, Commercial, GovCloud};
use lab::tools::{DOUBLE, ENVOY, MODULE, required, root};

const KEYS: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";

/// A copy of the script beside templates and an environment of a test's own, and two accounts to deploy to.
struct Deployment {
    dir: PathBuf,
    aws: Aws,
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Deployment {
    fn start(name: &str) -> Deployment {
        let dir = std::env::temp_dir().join(format!("deploy-{name}-{}", std::process::id()));
        let aws = Aws::start(&dir.join("aws")).unwrap();
        let deployment = Deployment { dir, aws };
        std::fs::create_dir_all(deployment.dir.join("infra")).unwrap();
        std::fs::copy(root().join("infra/deploy"), deployment.script()).unwrap();
        deployment.file("environments/test/settings", SETTINGS);
        deployment
    }

    fn script(&self) -> PathBuf {
        self.dir.join("infra/deploy")
    }

    fn file(&self, name: &str, text: &str) {
        let file = self.dir.join("infra").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Runs it; whether it ended well, and what it said.
    fn deploy(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.aws.deploy(&self.script(), &[&["test"], arguments].concat()).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let (well, text) = self.deploy(arguments);
        assert!(well, "{arguments:?}: {text}");
        text
    }

    fn fails(&self, arguments: &[&str], part: &str) -> String {
        let (well, text) = self.deploy(arguments);
        assert!(!well && text.contains(part), "{arguments:?}: want {part:?} in: {text}");
        text
    }

    fn stacks(&self, partition: Partition) -> Vec<String> {
        let answer = self
            .aws
            .call(partition, &["cloudformation", "describe-stacks", "--query", "Stacks[].[StackName, StackStatus]"])
            .unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let pairs = answer.as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1])));
        pairs.map(|(name, status)| format!("{} {status}", name.trim_start_matches("bedrock-gateway-test-"))).collect()
    }

    fn topics(&self) -> String {
        self.aws.call(GovCloud, &["sns", "list-topics"]).unwrap().to_string()
    }
}

const SETTINGS: &str = "\
GOVCLOUD_PROFILE=govcloud
GOVCLOUD_REGION=us-gov-west-1
GOVCLOUD_ACCOUNT=444455556666
COMMERCIAL_PROFILE=commercial
COMMERCIAL_REGION=us-east-1
COMMERCIAL_ACCOUNT=111122223333
";

/// A topic: what it is called is its parameter.
const TOPIC: &str = "\
Parameters:
  Environment: { Type: String }
  Name: { Type: String, AllowedPattern: '[a-z-]+', ConstraintDescription: lower-case letters and hyphens }
  Label:
    Type: String
    Default: none
Resources:
  Topic:
    Type: AWS::SNS::Topic
    Properties:
      TopicName: !Sub '${Environment}-${Name}'
      DisplayName: !Ref Label
Outputs:
  TopicName:
    Value: !GetAtt Topic.TopicName
";

#[test]
fn outputs_feed_parameters_and_a_second_run_changes_nothing() {
    let deployment = Deployment::start("twice");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.file("templates/commercial/topic.yaml", TOPIC);
    deployment.file("environments/test/govcloud/topic.params", "Name=first\n");
    deployment.file("environments/test/commercial/second.params", "# fed\nName=of-@{govcloud/topic.TopicName}-x\n");
    deployment.file("environments/test/1.plan", "govcloud topic   # the one\ncommercial topic second\n");

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("+ add      Topic") && text.ends_with("test is at 1\n"), "{text}");
    assert!(deployment.topics().contains("us-gov-west-1:444455556666:test-first"));
    let topics = deployment.aws.call(Commercial, &["sns", "list-topics"]).unwrap().to_string();
    assert!(topics.contains("us-east-1:111122223333:test-of-test-first-x"), "{topics}");

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("govcloud/topic: no change\ncommercial/second: no change\n"), "{text}");

    // Another label is a change in place, and is asked for: without a terminal and --yes, nothing is done.
    deployment.file("environments/test/govcloud/topic.params", "Name=first\nLabel=new\n");
    deployment.fails(&["1"], "There is no terminal to ask on");
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("~ change   Topic"), "{text}");
    assert_eq!(deployment.stacks(GovCloud), ["topic UPDATE_COMPLETE"]);

    let text = deployment.succeeds(&["status"]);
    assert!(text.contains("commercial/second ") && text.contains("UPDATE_COMPLETE"), "{text}");
    deployment.fails(&["remove", "govcloud/second", "--yes"], "there is no such stack");
    let text = deployment.succeeds(&["remove", "commercial/second", "--yes"]);
    assert!(text.contains("- remove   Topic") && text.contains("commercial/second: removed"), "{text}");
    assert_eq!(deployment.stacks(Commercial), [""; 0]);
}

#[test]
fn what_is_mistyped_is_named_before_anything_is_changed() {
    let deployment = Deployment::start("mistyped");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.file("templates/commercial/topic.yaml", TOPIC);
    let (plan, params) = ("environments/test/1.plan", "environments/test/commercial/topic.params");
    deployment.file("environments/test/govcloud/topic.params", "Name=first\n");
    deployment.file(plan, "govcloud topic\ncommercial topic\n");
    for (text, part) in [
        ("Naem=second\n", "Naem is no parameter of"),
        ("Label=second\n", "Name is missing"),
        ("Name=a\nName=b\n", "Name is given twice"),
        ("Name: second\n", "topic.params:1: want KEY=VALUE"),
        ("Environment=x\nName=a\n", "Environment is the directory's name"),
        ("Name=@{govcloud/topic.TopicNaem}\n", "has no output TopicNaem; it has: TopicName"),
        ("Name=@{govcloud/tpoic.TopicName}\n", "no stack govcloud/tpoic comes before it"),
        ("Name=@{commercial/topic.TopicName}\n", "no stack commercial/topic comes before it"),
        ("Name=@{topic}\n", "want PARTITION/STACK.Output"),
        ("Name=@{config.Key}\n", "before the plan's config"),
        ("Name=@{base64:infra/nothing}\n", "there is no such file"),
        (
            "Name=@{base64:infra/deploy}\n",
            "over 3,072 bytes without its comments, which are the 4,096 letters that a parameter takes",
        ),
        ("Name=@{govcloud/topic.TopicName\n", "not closed"),
    ] {
        deployment.file(params, text);
        deployment.fails(&["1", "--yes"], part);
    }
    deployment.file(params, "Name=second\n");
    for (text, part) in [
        ("govcloud topic\ngovcloud tpoic\n", "templates/govcloud/tpoic.yaml"),
        ("govcloud topic\ngovcloud topic\n", "govcloud/topic is there twice"),
        ("govcloud topic\ngvocloud topic\n", "there is no step gvocloud"),
        ("govcloud topic\nconfig\n", "want config POLICY PATH"),
        ("govcloud topic\nrelease\n", "RELEASE is missing"),
        ("govcloud topic\nsmoke\n", "SMOKE_URL is missing"),
        ("# nothing\n", "it is empty"),
    ] {
        deployment.file(plan, text);
        deployment.fails(&["1", "--yes"], part);
    }
    deployment.fails(&["2", "--yes"], "there is no such plan; there are: 1.plan");
    deployment.file(plan, "govcloud topic\n");
    for (from, to, part) in [
        ("GOVCLOUD_ACCOUNT=444455556666", "GOVCLOUD_ACCOUNT=444455556667", "are of arn:aws-us-gov:"),
        ("COMMERCIAL_PROFILE=commercial", "COMMERCIAL_PROFILE=govcloud", "the credentials for commercial are of"),
        ("GOVCLOUD_REGION=us-gov-west-1", "GOVCLOUD_REGION=us-east-1", "no region of GovCloud"),
        ("COMMERCIAL_ACCOUNT=", "COMMERCIAL_ACOUNT=", "there is no setting COMMERCIAL_ACOUNT"),
    ] {
        deployment.file("environments/test/settings", &SETTINGS.replace(from, to));
        deployment.fails(&["1", "--yes"], part);
    }
    assert_eq!((deployment.stacks(GovCloud), deployment.stacks(Commercial)), (vec![], vec![]));
    // What CloudFormation alone can tell, it tells.
    deployment.file("environments/test/settings", SETTINGS);
    deployment.file("environments/test/govcloud/topic.params", "Name=First\n");
    deployment.fails(&["1", "--yes"], "lower-case letters and hyphens");
}

#[test]
fn a_stack_that_fails_is_rolled_back_and_the_cause_is_named() {
    let deployment = Deployment::start("failing");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.file("environments/test/govcloud/topic.params", "Name=first\n");
    // A rule cannot be in a group that is not there.
    let failing = TOPIC.replace(
        "Outputs:",
        "  Rule:\n    Type: AWS::EC2::SecurityGroupIngress\n    DependsOn: Topic\n    Properties: { GroupId: sg-0123456789abcdef0, \
         IpProtocol: tcp, FromPort: 443, ToPort: 443, CidrIp: 10.0.0.0/8 }\nOutputs:",
    );
    deployment.file("templates/govcloud/failing.yaml", &failing);
    deployment.file("environments/test/govcloud/failing.params", "Name=second\n");
    deployment.file("environments/test/1.plan", "govcloud failing\ngovcloud topic\n");

    let text = deployment.fails(
        &["1", "--yes"],
        "govcloud/failing: ROLLBACK_COMPLETE. First to fail: Rule AWS::EC2::SecurityGroupIngress",
    );
    assert!(text.contains("sg-0123456789abcdef0"), "{text}");
    assert_eq!(deployment.stacks(GovCloud), ["failing ROLLBACK_COMPLETE"], "what comes after it is not begun");
    assert!(!deployment.topics().contains("test-second"), "what was made is gone");

    // Mended, it is made anew; then an update fails, and the old state is back.
    deployment.file("templates/govcloud/failing.yaml", TOPIC);
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("govcloud/failing: removed"), "{text}");
    deployment.file("templates/govcloud/failing.yaml", &failing);
    deployment.file("environments/test/govcloud/failing.params", "Name=second\nLabel=new\n");
    deployment.fails(
        &["1", "--yes"],
        "govcloud/failing: UPDATE_ROLLBACK_COMPLETE. First to fail: Rule AWS::EC2::SecurityGroupIngress",
    );
    let topic = "arn:aws-us-gov:sns:us-gov-west-1:444455556666:test-second";
    let attributes = deployment.aws.call(GovCloud, &["sns", "get-topic-attributes", "--topic-arn", topic]).unwrap();
    assert_eq!(attributes["Attributes"]["DisplayName"], "none", "{attributes}");
}

#[test]
fn a_change_that_would_replace_the_table_or_remove_its_key_is_refused() {
    let deployment = Deployment::start("kept");
    let audit = std::fs::read_to_string(root().join("infra/templates/govcloud/audit.yaml")).unwrap();
    deployment.file("templates/govcloud/audit.yaml", &audit);
    deployment.file("environments/test/1.plan", "govcloud audit\n");
    deployment.succeeds(&["1", "--yes"]);
    let table = || deployment.aws.call(GovCloud, &["dynamodb", "list-tables"]).unwrap()["TableNames"].clone();
    assert_eq!(table(), serde_json::json!(["bedrock-gateway-test-audit"]));

    let renamed =
        audit.replace("bedrock-gateway-${Environment}-audit\"\n      BillingMode", "other-audit\"\n      BillingMode");
    assert_ne!(renamed, audit);
    deployment.file("templates/govcloud/audit.yaml", &renamed);
    let text = deployment.fails(&["1", "--yes"], "Table (AWS::DynamoDB::Table) would be replaced or removed");
    assert!(text.contains("! replace  Table") && text.contains("--replace govcloud/audit.Table lets it"), "{text}");
    assert_eq!(deployment.stacks(GovCloud), ["audit CREATE_COMPLETE"]);
    assert_eq!(table(), serde_json::json!(["bedrock-gateway-test-audit"]));

    let (before, after) = audit.split_once("  KeyAlias:").unwrap();
    let (_, after) = after.split_once("  # What the collector").unwrap();
    deployment.file("templates/govcloud/audit.yaml", &format!("{before}  # What the collector{after}"));
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("- remove   KeyAlias"), "an alias is none of those: {text}");
}

/// Two VPN connections, with the AS numbers of their customer gateways.
const VPN: &str = "\
Parameters:
  AsnA: { Type: Number, Default: 65010 }
  AsnB: { Type: Number, Default: 65010 }
Resources:
  Gateway: { Type: 'AWS::EC2::VPNGateway', Properties: { Type: ipsec.1, AmazonSideAsn: 64512 } }
  CustomerA: { Type: 'AWS::EC2::CustomerGateway', Properties: { Type: ipsec.1, BgpAsn: !Ref AsnA, IpAddress: 198.51.100.10 } }
  CustomerB: { Type: 'AWS::EC2::CustomerGateway', Properties: { Type: ipsec.1, BgpAsn: !Ref AsnB, IpAddress: 198.51.100.11 } }
  ConnectionA:
    Type: AWS::EC2::VPNConnection
    Properties:
      Type: ipsec.1
      CustomerGatewayId: !Ref CustomerA
      VpnGatewayId: !Ref Gateway
      VpnTunnelOptionsSpecifications:
        - { TunnelInsideCidr: 169.254.101.0/30, PreSharedKey: example.key_of_A1 }
        - { TunnelInsideCidr: 169.254.101.4/30 }
  ConnectionB:
    Type: AWS::EC2::VPNConnection
    Properties:
      Type: ipsec.1
      CustomerGatewayId: !Ref CustomerB
      VpnGatewayId: !Ref Gateway
      VpnTunnelOptionsSpecifications:
        - { TunnelInsideCidr: 169.254.102.0/30 }
        - { TunnelInsideCidr: 169.254.102.4/30 }
Outputs:
  A: { Value: !Ref ConnectionA }
  B: { Value: !Ref ConnectionB }
";

const SECRET: &str = "\
Resources:
  Secret: { Type: 'AWS::SecretsManager::Secret', Properties: { Name: bedrock/test/vpn } }
Outputs:
  Arn: { Value: !Ref Secret }
";

/// A deployment with these templates, and a topic whose name is what its parameters' file says.
fn tunnels(name: &str) -> Deployment {
    let deployment = Deployment::start(name);
    deployment.file("templates/commercial/vpn.yaml", VPN);
    deployment.file("templates/govcloud/secret.yaml", SECRET);
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.file("environments/test/govcloud/topic.params", "Name=x\nLabel=@{tunnels.A1} @{tunnels.B2}\n");
    deployment
}

const STEP: &str = "tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.A} b=@{commercial/vpn.B}";

#[test]
fn tunnels_go_from_commercial_into_a_secret_of_govcloud_and_their_keys_nowhere_else() {
    let deployment = tunnels("tunnels");
    deployment.file("environments/test/1.plan", &format!("govcloud secret\ncommercial vpn\n{STEP}\ngovcloud topic\n"));
    let secret = || {
        let get = ["secretsmanager", "get-secret-value", "--secret-id", "bedrock/test/vpn", "--query", "SecretString"];
        deployment.aws.call(GovCloud, &get).unwrap().as_str().unwrap().to_owned()
    };

    let text = deployment.succeeds(&["1", "--yes"]);
    let first = secret();
    let value: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&value["local_asn"], &value["remote_asn"]), (&65010.into(), &64512.into()), "{value}");
    assert_eq!(value["gateways"]["b"]["outside"], "198.51.100.11");
    let tunnel = &value["gateways"]["a"]["tunnels"][0];
    assert_eq!((&tunnel["inside"], &tunnel["psk"]), (&"169.254.101.0/30".into(), &"example.key_of_A1".into()));
    assert!(text.contains("tunnels: 2 connections, in bedrock/test/vpn"), "{text}");
    for gateway in ["a", "b"] {
        for tunnel in value["gateways"][gateway]["tunnels"].as_array().unwrap() {
            assert!(!text.contains(tunnel["psk"].as_str().unwrap()), "a key is told");
        }
    }
    let topic = "arn:aws-us-gov:sns:us-gov-west-1:444455556666:test-x";
    let label = || {
        let attributes = deployment.aws.call(GovCloud, &["sns", "get-topic-attributes", "--topic-arn", topic]).unwrap();
        attributes["Attributes"]["DisplayName"].as_str().unwrap().to_owned()
    };
    let outside =
        |gateway: &str, tunnel: usize| value["gateways"][gateway]["tunnels"][tunnel]["outside"].as_str().unwrap();
    assert_eq!(label(), format!("{} {}", outside("a", 0), outside("b", 1)));

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("tunnels: no change\ngovcloud/topic: no change\n"), "{text}");

    // Somebody has changed the secret: it is put right.
    let put = ["secretsmanager", "put-secret-value", "--secret-id", "bedrock/test/vpn", "--secret-string", "{}"];
    deployment.aws.call(GovCloud, &put).unwrap();
    deployment.fails(&["1"], "There is no terminal to ask on");
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("tunnels: 2 connections") && text.contains("govcloud/topic: no change"), "{text}");
    assert_eq!(secret(), first);
}

#[test]
fn tunnels_that_are_mistyped_or_not_as_they_should_be_are_named() {
    let deployment = tunnels("mistunnelled");
    let plan = "environments/test/1.plan";
    for (text, part) in [
        ("tunnels @{govcloud/secret.Arn}", "want tunnels SECRET NAME=CONNECTION"),
        ("tunnels @{commercial/vpn.A} a=@{commercial/vpn.A}", "the secret is @{commercial/vpn.A}; want @{govcloud/"),
        (
            "tunnels @{govcloud/secret.Arn} @{commercial/vpn.A}",
            "want NAME=@{commercial/STACK.Output} with a letter as NAME",
        ),
        ("tunnels @{govcloud/secret.Arn} a=vpn-0123", "want NAME=@{commercial/STACK.Output}"),
        ("tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.A} a=@{commercial/vpn.B}", "a is given twice"),
        ("tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.C}", "has no output C; it has: A B"),
        ("tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.A}", "@{tunnels.B2}: there are tunnels.A1 tunnels.A2"),
        ("", "@{tunnels.A1} before the plan's tunnels"),
    ] {
        deployment.file(plan, &format!("govcloud secret\ncommercial vpn\n{text}\ngovcloud topic\n"));
        deployment.fails(&["1", "--yes"], part);
    }
    assert_eq!((deployment.stacks(GovCloud), deployment.stacks(Commercial)), (vec![], vec![]));

    deployment.file(plan, &format!("govcloud secret\ncommercial vpn\n{STEP}\ngovcloud topic\n"));
    deployment.file("environments/test/commercial/vpn.params", "AsnB=65011\n");
    deployment.fails(&["1", "--yes"], "the AS numbers of the customer gateways differ: 65010, and 65011 of cgw-");
    deployment.succeeds(&["remove", "commercial/vpn", "--yes"]);
    deployment.file("environments/test/commercial/vpn.params", "");
    deployment.file("templates/commercial/vpn.yaml", &VPN.replace("example.key_of_A1", "no \\\"key"));
    let text = deployment.fails(&["1", "--yes"], "the pre-shared key of tunnel 1 of vpn-");
    assert!(text.contains("is missing, or not of the form that AWS makes") && !text.contains("no \\\"key"), "{text}");
    deployment.succeeds(&["remove", "commercial/vpn", "--yes"]);
    deployment.file("templates/commercial/vpn.yaml", VPN);
    deployment.file(plan, "govcloud secret\ncommercial vpn\n");
    deployment.succeeds(&["1", "--yes"]);
    let found = deployment.aws.call(Commercial, &["ec2", "describe-vpn-connections"]).unwrap();
    let id =
        found["VpnConnections"].as_array().unwrap().last().unwrap()["VpnConnectionId"].as_str().unwrap().to_owned();
    deployment.aws.raw(Commercial, &["ec2", "delete-vpn-connection", "--vpn-connection-id", &id]).unwrap();
    deployment.file(plan, &format!("govcloud secret\ncommercial vpn\n{STEP}\ngovcloud topic\n"));
    deployment.fails(&["1", "--yes"], &format!("tunnels: {id} is deleted"));
    let get = ["secretsmanager", "get-secret-value", "--secret-id", "bedrock/test/vpn"];
    assert!(!deployment.aws.raw(GovCloud, &get).unwrap().status.success(), "nothing was put into the secret");
}

/// A gateway that is reached through the settings' `SMOKE_URL`, on real Envoy, with a double of Bedrock behind it.
#[test]
fn a_gateway_that_fails_its_smoke_test_has_its_former_configuration_again() {
    let deployment = Deployment::start("smoke");
    let (_double, gateway) = gateway(&deployment.dir);
    let bucket = "Resources:\n  Bucket: { Type: 'AWS::S3::Bucket' }\nOutputs:\n  Name:\n    Value: !Ref Bucket\n";
    deployment.file("templates/govcloud/bucket.yaml", bucket);
    deployment.file("templates/govcloud/gateway.yaml", GATEWAY);
    deployment.file(
        "environments/test/govcloud/gateway.params",
        "ConfigKey=@{config.Key}\nConfigSha256=@{config.Sha256}\nArtifactSha256=@{release.Sha256}\n",
    );
    let release = deployment.dir.join("release.tar.gz");
    std::fs::write(&release, "an archive").unwrap();
    let settings = |url: &str| {
        format!(
            "{SETTINGS}RELEASE={}\nBUCKET=@{{govcloud/bucket.Name}}\nGATEWAY=govcloud/gateway\nSMOKE_URL={url}\n\
             SMOKE_MODEL={MODEL}\n",
            release.display()
        )
    };
    let url = format!("http://{}", gateway.plain);
    deployment.file("environments/test/settings", &settings(&url));
    deployment.file("environments/test/policy.json", &policy("anthropic.*"));
    deployment.file(
        "environments/test/1.plan",
        "govcloud bucket\nrelease\nconfig policy.json internet\ngovcloud gateway\nsmoke\n",
    );
    let running = || {
        let query = ["cloudformation", "describe-stacks", "--stack-name", "bedrock-gateway-test-gateway"];
        let answer =
            deployment.aws.call(GovCloud, &[&query[..], &["--query", "Stacks[0].Outputs[0].OutputValue"]].concat());
        answer.unwrap().as_str().unwrap().to_owned()
    };

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("is refused: UnknownOperationException"), "{text}");
    assert!(text.contains(&format!("{MODEL} answers")), "{text}");
    let first = running();
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("release: no change\nconfig: no change\ngovcloud/gateway: no change\n"), "{text}");

    // A new configuration, and a gateway that does not answer any more.
    deployment.file("environments/test/policy.json", &policy("amazon.*"));
    gateway.stop(|| true);
    let text = deployment.fails(&["1", "--yes"], "govcloud/gateway has its former release and configuration again");
    assert!(text.contains("failed: a call that is to be refused"), "{text}");
    assert_eq!(running(), first);

    // A gateway that was made just now has nothing to go back to, and that is said.
    deployment.succeeds(&["remove", "govcloud/gateway", "--yes"]);
    deployment.fails(&["1", "--yes"], "there is no former configuration to go back to");
}

const GATEWAY: &str = "\
Parameters:
  ConfigKey: { Type: String }
  ConfigSha256: { Type: String }
  ArtifactSha256: { Type: String }
Resources:
  Running:
    Type: AWS::SSM::Parameter
    Properties: { Name: /running, Type: String, Value: !Ref ConfigSha256 }
Outputs:
  Config:
    Value: !Sub '${ConfigKey} ${ConfigSha256} ${ArtifactSha256}'
";

fn policy(models: &str) -> String {
    serde_json::json!({
        "regions": { "us-east-1": {} },
        "models": { "allow": [models] },
        "route_classes": [{ "name": "any", "paths": ["internet"] }],
        "credentials": { "source": "imds", "cluster": "imds" },
    })
    .to_string()
}

fn gateway(dir: &Path) -> (Process, Gateway) {
    let mut command = Command::new(required(DOUBLE).unwrap());
    command.args(["serve", "--listen", "127.0.0.1:0", "--region", "us-east-1", "--path-name", "internet"]);
    command.args(["--access-key", KEYS.0, "--secret-key", KEYS.1, "--tls-dir"]).arg(dir.join("tls"));
    let limit = Duration::from_secs(10);
    let (double, address) = Process::start_and_wait("bedrock-double", command, &dir.join("double.log"), limit).unwrap();
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let programs = Programs {
        envoy: Some(required(ENVOY).unwrap()),
        module: Some(required(MODULE).unwrap()),
        state: Some(dir.join("gateway")),
        ..Programs::default()
    };
    let options = Options {
        programs,
        paths: vec![format!("internet={address}").parse().unwrap()],
        upstream_ca: Some(dir.join("tls/ca.pem")),
        concurrency: Some(1),
        regions: vec!["us-east-1".parse().unwrap()],
        environment: vec![
            set("AWS_ACCESS_KEY_ID", KEYS.0),
            set("AWS_SECRET_ACCESS_KEY", KEYS.1),
            set("AWS_SESSION_TOKEN", ""),
            set("AWS_BEARER_TOKEN_BEDROCK", ""),
            set("BEDROCK_PATHS", ""),
        ],
        ..Options::default()
    };
    let gateway = Gateway::start(&options, || false).unwrap();
    (double, gateway)
}
