//! The plan's step `tunnels`: from Commercial's VPN connections into a secret of GovCloud.

use filter_core::names::Partition::{Commercial, GovCloud};

use crate::deployment::{Deployment, TOPIC};

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
Parameters:
  Environment: { Type: String }
Resources:
  Secret: { Type: 'AWS::SecretsManager::Secret', Properties: { Name: !Sub 'bedrock/${Environment}/vpn' } }
Outputs:
  Arn: { Value: !Ref Secret }
";

/// A deployment with these templates, and a topic whose label has two of the tunnels' addresses.
fn tunnels(name: &'static str) -> Deployment {
    let deployment = Deployment::start(name);
    deployment.file("templates/commercial/vpn.yaml", VPN);
    deployment.file("templates/govcloud/secret.yaml", SECRET);
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    // Some plans of the tests do not use this one's parameters.
    deployment.environment("9.plan", "govcloud topic\n");
    deployment.environment("govcloud/topic.params", "Name=x\nLabel=@{tunnels.A1} @{tunnels.B2}\n");
    deployment
}

const STEP: &str = "tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.A} b=@{commercial/vpn.B}";

#[test]
fn keys_go_into_the_secret_and_nowhere_else() {
    let deployment = tunnels("tunnels");
    deployment.environment("1.plan", &format!("govcloud secret\ncommercial vpn\n{STEP}\ngovcloud topic\n"));
    let secret = || {
        let get =
            ["secretsmanager", "get-secret-value", "--secret-id", "bedrock/tunnels/vpn", "--query", "SecretString"];
        deployment.aws.call(GovCloud, &get).unwrap().as_str().unwrap().to_owned()
    };

    let text = deployment.succeeds(&["1", "--yes"]);
    let first = secret();
    let value: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&value["local_asn"], &value["remote_asn"]), (&65010.into(), &64512.into()), "{value}");
    assert_eq!(value["gateways"]["b"]["outside"], "198.51.100.11");
    let tunnel = &value["gateways"]["a"]["tunnels"][0];
    assert_eq!((&tunnel["inside"], &tunnel["psk"]), (&"169.254.101.0/30".into(), &"example.key_of_A1".into()));
    assert!(text.contains("tunnels: 2 connections, in bedrock/tunnels/vpn"), "{text}");
    for gateway in ["a", "b"] {
        for tunnel in value["gateways"][gateway]["tunnels"].as_array().unwrap() {
            assert!(!text.contains(tunnel["psk"].as_str().unwrap()), "a key is printed");
        }
    }
    let topic = "arn:aws-us-gov:sns:us-gov-west-1:444455556666:tunnels-x";
    let label = || {
        let attributes = deployment.aws.call(GovCloud, &["sns", "get-topic-attributes", "--topic-arn", topic]).unwrap();
        attributes["Attributes"]["DisplayName"].as_str().unwrap().to_owned()
    };
    let outside =
        |gateway: &str, tunnel: usize| value["gateways"][gateway]["tunnels"][tunnel]["outside"].as_str().unwrap();
    assert_eq!(label(), format!("{} {}", outside("a", 0), outside("b", 1)));

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("tunnels: no change\ngovcloud/topic: no change\n"), "{text}");

    // A secret that somebody has changed is corrected.
    let put = ["secretsmanager", "put-secret-value", "--secret-id", "bedrock/tunnels/vpn", "--secret-string", "{}"];
    deployment.aws.call(GovCloud, &put).unwrap();
    deployment.fails(&["1"], "No terminal to ask on");
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("tunnels: 2 connections") && text.contains("govcloud/topic: no change"), "{text}");
    assert_eq!(secret(), first);
}

#[test]
fn names_each_mistake_and_mismatch() {
    let deployment = tunnels("badtunnels");
    let plan = "1.plan";
    for (text, part) in [
        ("tunnels @{govcloud/secret.Arn}", "want tunnels SECRET NAME=CONNECTION"),
        ("tunnels @{commercial/vpn.A} a=@{commercial/vpn.A}", "the secret is @{commercial/vpn.A}; want @{govcloud/"),
        (
            "tunnels @{govcloud/secret.Arn} @{commercial/vpn.A}",
            "want NAME=@{commercial/STACK.Output} with a letter as NAME",
        ),
        ("tunnels @{govcloud/secret.Arn} a=vpn-0123", "want NAME=@{commercial/STACK.Output}"),
        ("tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.A} a=@{commercial/vpn.B}", "a is given twice"),
        ("tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.C}", "has no output C; there are: A B"),
        (
            "tunnels @{govcloud/secret.Arn} a=@{commercial/vpn.A}",
            "@{tunnels.B2}: no such tunnel; did you mean tunnels.A2? There are: tunnels.A1 tunnels.A2",
        ),
        ("", "@{tunnels.A1} before the plan's tunnels"),
    ] {
        deployment.environment(plan, &format!("govcloud secret\ncommercial vpn\n{text}\ngovcloud topic\n"));
        deployment.fails(&["1", "--yes"], part);
    }
    assert_eq!((deployment.stacks(GovCloud), deployment.stacks(Commercial)), (vec![], vec![]));

    deployment.environment(plan, &format!("govcloud secret\ncommercial vpn\n{STEP}\ngovcloud topic\n"));
    deployment.environment("commercial/vpn.params", "AsnB=65011\n");
    deployment.fails(&["1", "--yes"], "the AS numbers of the customer gateways differ: 65010 and 65011 (cgw-");
    deployment.succeeds(&["remove", "commercial/vpn", "--yes"]);
    deployment.environment("commercial/vpn.params", "");
    deployment.file("templates/commercial/vpn.yaml", &VPN.replace("example.key_of_A1", "no \\\"key"));
    let text = deployment.fails(&["1", "--yes"], "the pre-shared key of tunnel 1 of vpn-");
    assert!(text.contains("is missing, or not in AWS's format") && !text.contains("no \\\"key"), "{text}");
    deployment.succeeds(&["remove", "commercial/vpn", "--yes"]);
    deployment.file("templates/commercial/vpn.yaml", VPN);
    deployment.environment(plan, "govcloud secret\ncommercial vpn\n");
    deployment.succeeds(&["1", "--yes"]);
    let id = deployment.output(Commercial, "vpn", "A");
    deployment.aws.raw(Commercial, &["ec2", "delete-vpn-connection", "--vpn-connection-id", &id]).unwrap();
    deployment.environment(plan, &format!("govcloud secret\ncommercial vpn\n{STEP}\ngovcloud topic\n"));
    deployment.fails(&["1", "--yes"], &format!("tunnels: {id} is deleted"));
    let get = ["secretsmanager", "get-secret-value", "--secret-id", "bedrock/badtunnels/vpn"];
    assert!(!deployment.aws.raw(GovCloud, &get).unwrap().status.success(), "the secret has no value");
}
