//! `infra/deploy … preflight`: each thing that would stop a deployment is named, with the page to read, and nothing is made.

use filter_core::names::Partition::{Commercial, GovCloud};
use lab::tools::root;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::deployment::{Deployment, SETTINGS};
use crate::smoke::{REFUSAL, UNAVAILABLE, answer, policy};

const MODEL: &str = "anthropic.claude-haiku-4-5-20251001-v1:0";
const NETWORK: &str = "\
Parameters:
  VpcCidr:
    Type: String
    Default: 10.64.0.0/20
Resources:
  Vpc:
    Type: AWS::EC2::VPC
    Properties: { CidrBlock: !Ref VpcCidr }
Outputs:
  VpcCidr:
    Value: !Ref VpcCidr
";
const GATEWAY: &str = "\
Parameters:
  Environment:
    Type: String
  ClientCidr:
    Type: String
  CertificateSecretArn:
    Type: String
    Default: \"\"
  CertificateSecretKeyArn:
    Type: String
    Default: \"\"
  ClientCaSecretArn:
    Type: String
    Default: \"\"
  ClientCaSecretKeyArn:
    Type: String
    Default: \"\"
  ImageId:
    Type: String
    Default: /aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
  Name:
    Type: String
    Default: nowhere.invalid
Resources:
  Running:
    Type: AWS::SSM::Parameter
    Properties: { Name: /preflight, Type: String, Value: !Ref ClientCidr }
  EnvoyLog:
    Type: AWS::Logs::LogGroup
    Properties:
      LogGroupName: !Sub \"/bedrock-gateway/${Environment}/envoy\"
      RetentionInDays: 30
      KmsKeyId: arn:aws-us-gov:kms:us-gov-west-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab
Outputs:
  NlbDnsName:
    Value: !Ref Name
";
const PATH: &str = "\
Parameters:
  VpcCidr:
    Type: String
  ZoneA:
    Type: String
    Default: us-east-1a
  ZoneB:
    Type: String
    Default: us-east-1b
Resources:
  Vpc:
    Type: AWS::EC2::VPC
    Properties: { CidrBlock: !Ref VpcCidr }
";
const IDENTITY: &str = "\
Parameters:
  Issuer:
    Type: String
  GatewayRoleArn:
    Type: String
    Default: \"\"
  TrustAnchorCertificate:
    Type: String
    Default: \"\"
Resources:
  Issued:
    Type: AWS::SSM::Parameter
    Properties: { Name: /issuer, Type: String, Value: !Ref Issuer }
";

/// An environment that passes.
fn environment(name: &'static str) -> Deployment {
    let deployment = Deployment::alone(name);
    deployment.file("templates/govcloud/network.yaml", NETWORK);
    deployment.file("templates/govcloud/gateway.yaml", GATEWAY);
    deployment.file("templates/commercial/network.yaml", PATH);
    deployment.file("templates/commercial/identity.yaml", IDENTITY);
    deployment.environment("commercial/identity.params", "Issuer=@{outbound-issuer}\n");
    deployment.environment("commercial/vpn-network.params", "VpcCidr=10.100.0.0/24\n");
    deployment.environment("govcloud/gateway.params", "ClientCidr=10.64.0.0/16\n");
    let mut document: Value = serde_json::from_str(&policy("anthropic.*")).unwrap();
    let profiles = json!({ MODEL: format!("us.{MODEL}") });
    document.as_object_mut().unwrap().insert("inference_profiles".to_owned(), profiles);
    deployment.environment("policy.json", &document.to_string());
    deployment.environment(
        "1.plan",
        "govcloud network\ncommercial identity\ncommercial network vpn-network\nconfig policy.json internet\ngovcloud gateway\nsmoke\n",
    );
    // Fewer stacks, so fewer questions.
    deployment.environment("gateway.plan", "govcloud gateway\nsmoke\n");
    deployment.environment("identity.plan", "commercial identity\n");
    deployment.environment("settings", &settings("https://@{govcloud/gateway.NlbDnsName}"));
    deployment
}

fn settings(url: &str) -> String {
    format!("{SETTINGS}BUCKET=artifacts\nGATEWAY=govcloud/gateway\nSMOKE_URL={url}\nSMOKE_MODEL={MODEL}\n")
}

/// Who signs a certificate for what.
enum Use {
    /// The listener, under this name.
    Server(&'static str),
    Leaf,
    Ca,
}

/// A self-signed certificate of the years from 2020 to `until`, with its key, in PEM.
fn certificate(kind: &Use, until: i32) -> String {
    let names = if let Use::Server(name) = kind { vec![(*name).to_owned()] } else { vec![] };
    let mut parameters = CertificateParams::new(names).unwrap();
    if let Use::Ca = kind {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(until, 2, 1);
    let key = KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().pem() + &key.serialize_pem()
}

fn secret(deployment: &Deployment, name: &str, text: &str, key: Option<&str>) -> String {
    let mut create = vec!["secretsmanager", "create-secret", "--name", name, "--secret-string", text];
    create.extend(key.iter().flat_map(|key| ["--kms-key-id", key]));
    deployment.aws.call(GovCloud, &create).unwrap().get("ARN").and_then(Value::as_str).unwrap().to_owned()
}

fn state(deployment: &Deployment, govcloud: &Value, commercial: &Value) {
    deployment.aws.set_state(GovCloud, govcloud).unwrap();
    deployment.aws.set_state(Commercial, commercial).unwrap();
}

/// Fails with all of these findings.
fn stops(deployment: &Deployment, plan: &str, findings: &[&str]) {
    let text = deployment.fails(&["preflight", plan], "STOP");
    for part in findings {
        assert!(text.contains(part), "want {part:?} in: {text}");
    }
    // Each finding is followed by a page.
    let stops = text.matches("  STOP  ").count();
    let pages =
        text.matches("\n        https://docs.aws.amazon.com/").count() + text.matches("\n        docs/").count();
    assert_eq!(stops, pages, "{text}");
}

#[test]
fn preflight_names_what_would_stop_it() {
    let deployment = environment("preflight");
    let denied = json!({ "denied_actions": ["ec2:CreateVpc"], "quotas": { "L-F678F1CE": 0 }, "no_images": true });
    state(&deployment, &denied, &json!({ "denied_regions": ["us-west-2"], "models": { MODEL: { "access": false } } }));
    deployment.environment("commercial/vpn-network.params", "VpcCidr=10.64.8.0/24\nZoneB=us-east-1z\n");
    let role = "arn:aws-us-gov:iam::444455556666:role/bedrock-gateway-example";
    deployment
        .environment("commercial/identity.params", &format!("Issuer=@{{outbound-issuer}}\nGatewayRoleArn={role}\n"));
    let log = ["--log-group-name", "/bedrock-gateway/preflight/envoy"];
    let logs = |verb: &str| deployment.aws.raw(GovCloud, &[&["logs", verb], log.as_slice()].concat()).unwrap();
    assert!(logs("create-log-group").status.success());
    stops(
        &deployment,
        "1",
        &[
            "STOP  federation: @{outbound-issuer}: account 444455556666 issues no web identity tokens",
            "STOP  rights: arn:aws-us-gov:iam::444455556666:user/deployer may not ec2:CreateVpc",
            "STOP  quota of VPCs: 0 allowed",
            "STOP  image of govcloud/gateway: the region has no parameter /aws/service/",
            "no access in us-east-1 (agreement, authorization, entitlement, region: NOT_AVAILABLE, AUTHORIZED",
            "a service control policy denies region us-west-2, which profile us.anthropic.",
            "govcloud/gateway: AWS::Logs::LogGroup /bedrock-gateway/preflight/envoy exists already",
            "GatewayRoleArn of commercial/identity is arn:aws-us-gov:iam::444455556666:role/bedrock-gateway-example",
            "zone us-east-1z has no bedrock-runtime; these have: us-east-1a",
            "govcloud/network VpcCidr (10.64.0.0/20) and commercial/vpn-network VpcCidr (10.64.8.0/24) overlap",
            "commercial/vpn-network VpcCidr (10.64.8.0/24) and govcloud/gateway ClientCidr (10.64.0.0/16) overlap",
        ],
    );
    assert!(logs("delete-log-group").status.success());
    deployment.environment("commercial/identity.params", "Issuer=@{outbound-issuer}\n");
    deployment.aws.call(GovCloud, &["iam", "enable-outbound-web-identity-federation"]).unwrap();
    state(&deployment, &json!({ "denied_regions": ["us-gov-west-1"] }), &json!({}));
    deployment.environment("commercial/vpn-network.params", "VpcCidr=10.100.0.0/33\n");
    stops(
        &deployment,
        "1",
        &["STOP  rights: a service control policy denies", "VpcCidr is 10.100.0.0/33, which is not an IPv4 range"],
    );
    state(&deployment, &json!({}), &json!({}));
    deployment.environment("commercial/vpn-network.params", "VpcCidr=10.100.0.0/24\n");
    let text = deployment.succeeds(&["preflight", "1"]);
    assert!(text.contains("access to anthropic.claude-haiku-4-5-20251001-v1:0 by us.anthropic."), "{text}");
    assert!(text.ends_with("nothing found that would stop a deployment; 1 not known from here\n"), "{text}");

    // The wrong partition's profile; the other partition is still checked.
    let wrong = settings("https://x.invalid").replace("COMMERCIAL_PROFILE=commercial", "COMMERCIAL_PROFILE=govcloud");
    deployment.environment("settings", &wrong);
    stops(
        &deployment,
        "1",
        &["STOP  credentials: the credentials for commercial are not valid", "ok    web identity tokens"],
    );

    documents(&deployment);
    rights(&deployment);
    secrets(&deployment);
    anchor(&deployment);
    address(&deployment);
}

/// The policy and the accounts in parameters: each fault of the policy, and what is not a fault but has to be known.
fn documents(deployment: &Deployment) {
    deployment.environment("settings", &settings("https://@{govcloud/gateway.NlbDnsName}"));
    let mut good: Value = serde_json::from_str(&policy("anthropic.*")).unwrap();
    good.as_object_mut().unwrap().insert("principal".to_owned(), json!([{ "from": "mtls" }]));
    let with = |key: &str, value: Value| {
        let mut document = good.clone();
        document.as_object_mut().unwrap().insert(key.to_owned(), value);
        deployment.environment("policy.json", &document.to_string());
    };
    with("regions", json!({ "us-esat-1": {}, "us-wset-2": {} }));
    stops(deployment, "1", &["STOP  plan: ", "policy.json:", "us-esat-1", "us-wset-2"]);
    let classes = json!([{ "name": "private-only", "principals": ["x"], "paths": ["vpn"] }, { "name": "any", "paths": ["internet"] }]);
    with("route_classes", classes);
    let text = deployment.succeeds(&["preflight", "1"]);
    for part in [
        "  note  ",
        "a caller without a name is not in class 'private-only'",
        "policy.json:",
        "the plan has no address for vpn: every call of class 'private-only' would get 503",
    ] {
        assert!(text.contains(part), "want {part:?} in: {text}");
    }
    deployment.environment("policy.json", &good.to_string());

    let arn = "arn:aws:bedrock:us-east-1:222233334444:inference-profile/us.anthropic.*";
    let identity = IDENTITY
        .replace("  TrustAnchor", "  ModelArns:\n    Type: CommaDelimitedList\n    Default: none\n  TrustAnchor");
    deployment.file("templates/commercial/identity.yaml", &identity);
    let own = "arn:aws:bedrock:us-east-1:@{commercial-account}:inference-profile/us.anthropic.*";
    for (arns, role) in [(format!("{own},{arn}"), "example"), (own.to_owned(), "@{environment}")] {
        let role = format!("arn:aws-us-gov:iam::@{{govcloud-account}}:role/bedrock-gateway-{role}");
        let text = format!("Issuer=@{{outbound-issuer}}\nGatewayRoleArn={role}\nModelArns={arns}\n");
        deployment.environment("commercial/identity.params", &text);
        if arns == own {
            deployment.succeeds(&["preflight", "1"]);
        } else {
            let found = "of account 222233334444; this environment has 111122223333";
            stops(deployment, "1", &["STOP  names: GatewayRoleArn", "STOP  names: ModelArns", found]);
            deployment.fails(&["1", "--yes"], found);
        }
    }
    deployment.environment("commercial/identity.params", "Issuer=@{outbound-issuer}\n");
    deployment.file("templates/commercial/identity.yaml", IDENTITY);
    // A path that does not exist is found before any change.
    let plan = "commercial identity\nconfig policy.json internt\n";
    deployment.environment("mistyped.plan", plan);
    let found = "mistyped.plan: config policy.json: ";
    stops(deployment, "mistyped", &[found, "unknown path 'internt'; known: dx, vpn, internet"]);
    std::fs::remove_file(deployment.dir.join("infra/environments/preflight/mistyped.plan")).unwrap();
}

/// Rights are asked for on the resources that the parameters make.
fn rights(deployment: &Deployment) {
    let real = ["network", "audit", "gateway"];
    for stack in real {
        let file = format!("templates/govcloud/{stack}.yaml");
        deployment.file(&file, &std::fs::read_to_string(root().join("infra").join(&file)).unwrap());
    }
    let network = |more: &str| {
        deployment.environment("govcloud/network.params", &format!("ArtifactBucket=artifacts\nInternet=path\n{more}"));
    };
    let digest = "0".repeat(64);
    let gateway = |more: &str| {
        let text = format!(
            "VpcId=@{{govcloud/network.VpcId}}\nPrivateSubnetIds=@{{govcloud/network.PrivateSubnetIds}}\n\
             LogKeyArn=@{{govcloud/network.LogKeyArn}}\nTableName=@{{govcloud/audit.TableName}}\n\
             TableArn=@{{govcloud/audit.TableArn}}\nTableKeyArn=@{{govcloud/audit.KeyArn}}\nClientCidr=10.80.0.0/16\n\
             ArtifactBucket=artifacts\nArtifactKey=release/a\nArtifactSha256={digest}\nConfigKey=config/a\n\
             ConfigSha256={digest}\nUserData=aaaa\n{more}"
        );
        deployment.environment("govcloud/gateway.params", &text);
    };
    deployment.environment("rights.plan", "govcloud network\ngovcloud audit\ngovcloud gateway\n");
    deployment.environment("settings", &settings("https://gateway.example.com"));
    network("");
    gateway("");

    // The policies of a service role name their resources; here the deployer has them, and may deploy stacks.
    let caller = |table: &str| {
        let mut all = vec![json!({ "Action": "cloudformation:*", "Resource": "arn:*:stack/bedrock-gateway-*" })];
        for part in ["", "-network"] {
            let file = root().join(format!("infra/policies/govcloud-service-role{part}.json"));
            let text = std::fs::read_to_string(file).unwrap().replace("table/bedrock-gateway-*", table);
            let policy: Value = serde_json::from_str(&text).unwrap();
            all.extend(policy.get("Statement").and_then(Value::as_array).unwrap().clone());
        }
        // A transit gateway and Route 53 are asked for only with their parameters.
        let denied = ["ec2:CreateTransitGatewayVpcAttachment", "route53:ChangeResourceRecordSets"];
        json!({ "policy": { "Statement": all }, "denied_actions": denied })
    };
    state(deployment, &caller("table/bedrock-gateway-*"), &json!({}));
    let text = deployment.succeeds(&["preflight", "rights"]);
    assert!(text.contains("ok    rights of arn:aws-us-gov:iam::444455556666:user/deployer for "), "{text}");

    state(deployment, &caller("table/another-*"), &json!({}));
    network("TransitGatewayId=tgw-0123456789abcdef0\n");
    gateway("DnsName=bedrock.example.com\nHostedZoneId=Z0123\n");
    let table = "table/bedrock-gateway-preflight-audit";
    let found = format!("dynamodb:CreateTable on arn:aws-us-gov:dynamodb:us-gov-west-1:444455556666:{table}");
    stops(
        deployment,
        "rights",
        &[
            "ec2:CreateTransitGatewayVpcAttachment on arn:aws-us-gov:ec2:us-gov-west-1:444455556666:transit-gateway-attachment/*",
            &found,
            "route53:ChangeResourceRecordSets on arn:aws-us-gov:route53:::hostedzone/Z0123",
        ],
    );
    state(deployment, &json!({}), &json!({}));
    for (stack, text) in [("network", NETWORK), ("gateway", GATEWAY)] {
        deployment.file(&format!("templates/govcloud/{stack}.yaml"), text);
    }
    for file in ["rights.plan", "govcloud/network.params"] {
        std::fs::remove_file(deployment.dir.join("infra/environments/preflight").join(file)).unwrap();
    }
    deployment.environment("govcloud/gateway.params", "ClientCidr=10.64.0.0/16\n");
}

/// The listener's certificate, and the clients' CA.
fn secrets(deployment: &Deployment) {
    let good = certificate(&Use::Server("gateway.example.com"), 2100);
    let other = certificate(&Use::Server("gateway.example.com"), 2100);
    let expired = certificate(&Use::Server("gateway.example.com"), 2020);
    let name = certificate(&Use::Server("another.example.com"), 2100);
    let (ca, leaf) = (certificate(&Use::Ca, 2100), certificate(&Use::Leaf, 2100));
    let cert = |pem: &str| pem.split_once("-----BEGIN PRIVATE KEY").unwrap().0.to_owned();
    let (_, key) = other.split_once("-----BEGIN PRIVATE KEY").unwrap();
    let mixed = format!("{}-----BEGIN PRIVATE KEY{key}", cert(&good));
    let own = "arn:aws-us-gov:kms:us-gov-west-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let foreign = own.replace("444455556666", "777788889999");
    let arn = |name: &str, text: &str, key: Option<&str>| secret(deployment, name, text, key);
    let missing = "arn:aws-us-gov:secretsmanager:us-gov-west-1:444455556666:secret:bedrock/p/missing";
    let set = |listener: &str, clients: &str, more: &str| {
        let text =
            format!("ClientCidr=10.64.0.0/16\nCertificateSecretArn={listener}\nClientCaSecretArn={clients}\n{more}");
        deployment.environment("govcloud/gateway.params", &text);
    };
    deployment.environment("settings", &settings("https://gateway.example.com"));
    for (listener, finding, clients, of_clients) in [
        (
            arn("bedrock/none", "nothing", None),
            "has no certificate in PEM",
            arn("tls/ca", &cert(&ca), None),
            "whose names begin with bedrock/",
        ),
        (
            arn("bedrock/expired", &expired, None),
            "expired at Feb  1 00:00:00 2020",
            arn("bedrock/key", &ca, None),
            "has a private key",
        ),
        (
            arn("bedrock/cert", &cert(&good), None),
            "has no private key in PEM",
            arn("bedrock/leaf", &cert(&leaf), None),
            "is not a CA's",
        ),
        (
            arn("bedrock/mixed", &mixed, None),
            "is not its first certificate's",
            missing.to_owned(),
            "find the specified secret",
        ),
        (
            arn("tls/gateway", &good, None),
            "whose names begin with bedrock/",
            arn("bedrock/ca-foreign", &cert(&ca), Some(&foreign)),
            "of another account: name it in ClientCaSecretKeyArn",
        ),
        (
            arn("bedrock/own", &good, Some(own)),
            "set CertificateSecretKeyArn",
            arn("bedrock/ca-own", &cert(&ca), Some(own)),
            "set ClientCaSecretKeyArn",
        ),
        (
            arn("bedrock/name", &name, None),
            "does not name gateway.example.com, the host of SMOKE_URL",
            "ca".to_owned(),
            "want the ARN of a secret",
        ),
    ] {
        set(&listener, &clients, "");
        stops(deployment, "gateway", &["STOP  listener: ", "STOP  clients' CA: ", finding, of_clients]);
    }
    let (listener, clients) = (arn("bedrock/good", &good, Some(own)), arn("bedrock/ca", &cert(&ca), None));
    set(&listener, &clients, &format!("CertificateSecretKeyArn={own}\n"));
    let text = deployment.succeeds(&["preflight", "gateway"]);
    assert!(
        text.contains("ok    listener: certificate and key of arn:") && text.contains("ok    clients' CA: arn:"),
        "{text}"
    );
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}

/// The CA that IAM Roles Anywhere is to trust.
fn anchor(deployment: &Deployment) {
    let identity = "Issuer=@{outbound-issuer}\nTrustAnchorCertificate=@{file:anchor.pem}\n";
    deployment.environment("commercial/identity.params", identity);
    stops(deployment, "identity", &["STOP  plan: ", "@{file:anchor.pem}: no file"]);
    let write = |until| {
        let pem = certificate(&Use::Ca, until);
        deployment.environment("anchor.pem", pem.split_once("-----BEGIN PRIVATE KEY").unwrap().0);
    };
    write(2020);
    stops(
        deployment,
        "identity",
        &["STOP  trust anchor: the certificate of commercial/identity TrustAnchorCertificate expired at"],
    );
    write(2100);
    assert!(deployment.succeeds(&["preflight", "identity"]).contains("ok    trust anchor of commercial/identity"));
}

/// The gateway's name and balancer, once the gateway is deployed.
fn address(deployment: &Deployment) {
    deployment.environment("2.plan", "govcloud gateway\n");
    deployment.environment("govcloud/gateway.params", "ClientCidr=10.64.0.0/16\n");
    deployment.succeeds(&["2", "--yes"]);
    deployment.environment("settings", &settings("https://gateway.invalid"));
    stops(
        deployment,
        "gateway",
        &["gateway.invalid has no DNS name here: make a DNS record of gateway.invalid that leads to nowhere.invalid"],
    );
    // A port on which nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    deployment.environment("settings", &settings(&format!("https://{free}")));
    stops(deployment, "gateway", &["127.0.0.1 cannot be reached from here"]);
    // Any proxy may answer under the name.
    for (response, part) in [
        (UNAVAILABLE, "STOP  address: 127.0.0.1 does not answer as the gateway does: status 503"),
        (REFUSAL, "ok    127.0.0.1 answers as the gateway does"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        deployment.environment("settings", &settings(&format!("http://{}", listener.local_addr().unwrap())));
        let once = std::thread::spawn(move || answer(&listener.accept().unwrap().0, response));
        let (_, text) = deployment.status(&["preflight", "gateway"]);
        once.join().unwrap();
        assert!(text.contains(part), "want {part:?} in: {text}");
    }
    let text = format!("{}SMOKE_CURL_CONFIG=/nowhere/curlrc\n", settings("https://gateway.invalid"));
    deployment.environment("settings", &text);
    stops(deployment, "gateway", &["SMOKE_CURL_CONFIG: no file /nowhere/curlrc"]);
}
