//! Templates with one resource each.

use filter_core::names::Partition;
use infra_checks::rules;
use infra_checks::template::Template;

/// A template with one resource: its type, its properties as YAML, and rule and subject of the expected fault.
type Small = (&'static str, &'static str, Option<(&'static str, &'static str)>);

const RESOURCES: &[Small] = &[
    ("AWS::Logs::LogGroup", "{RetentionInDays: 30}", Some(("encryption", "KmsKeyId"))),
    ("AWS::Logs::LogGroup", "{KmsKeyId: !Ref K}", Some(("encryption", "RetentionInDays"))),
    ("AWS::SNS::Topic", "{}", Some(("encryption", "KmsMasterKeyId"))),
    (
        "AWS::EC2::SecurityGroup",
        "{SecurityGroupIngress: [{CidrIp: 0.0.0.0/0, IpProtocol: tcp}]}",
        Some(("ingress", "0.0.0.0/0")),
    ),
    (
        "AWS::EC2::SecurityGroup",
        "{SecurityGroupIngress: [{CidrIpv6: '::/0', IpProtocol: tcp}]}",
        Some(("ingress", "::/0")),
    ),
    (
        "AWS::EC2::SecurityGroup",
        "{SecurityGroupIngress: [{CidrIp: !Ref Open, IpProtocol: tcp}]}",
        Some(("ingress", "0.0.0.0/0")),
    ),
    (
        "AWS::EC2::SecurityGroup",
        "{SecurityGroupIngress: [{CidrIp: 10.0.0.0/8, IpProtocol: -1}]}",
        Some(("ingress", "IpProtocol -1")),
    ),
    ("AWS::EC2::SecurityGroup", "{SecurityGroupIngress: [{CidrIp: 10.0.0.0/8, IpProtocol: tcp}]}", None),
    ("AWS::EC2::SecurityGroupIngress", "{CidrIp: 0.0.0.0/0, IpProtocol: tcp}", Some(("ingress", "0.0.0.0/0"))),
    ("AWS::EC2::Subnet", "{MapPublicIpOnLaunch: true}", Some(("ingress", "MapPublicIpOnLaunch"))),
    ("AWS::ElasticLoadBalancingV2::LoadBalancer", "{Type: network}", Some(("ingress", "Scheme"))),
    ("AWS::ElasticLoadBalancingV2::LoadBalancer", "{Scheme: internal}", None),
    ("AWS::EC2::VPC", "{CidrBlock: 10.0.0.0/16}", Some(("flow-log", "AWS::EC2::FlowLog"))),
    (
        "AWS::EC2::VPCEndpoint",
        "{PolicyDocument: {}, ServiceName: !Sub 'com.amazonaws.${AWS::Region}.bedrock'}",
        Some(("endpoint", "com.amazonaws.${AWS::Region}.bedrock")),
    ),
    (
        "AWS::EC2::VPCEndpoint",
        "{PolicyDocument: {}, ServiceName: com.amazonaws.us-gov-west-1.sts}",
        Some(("endpoint", "com.amazonaws.us-gov-west-1.sts")),
    ),
    (
        "AWS::EC2::VPCEndpoint",
        "{ServiceName: !Sub 'com.amazonaws.${AWS::Region}.sts'}",
        Some(("endpoint", "PolicyDocument")),
    ),
    ("AWS::EC2::VPCEndpoint", "{PolicyDocument: {}, ServiceName: !Sub 'com.amazonaws.${AWS::Region}.sts'}", None),
    ("AWS::EC2::LaunchTemplate", "{LaunchTemplateData: {}}", Some(("imds", "HttpTokens"))),
    ("AWS::EC2::LaunchTemplate", "{LaunchTemplateData: {}}", Some(("encryption", "BlockDeviceMappings"))),
    (
        "AWS::EC2::LaunchTemplate",
        "{LaunchTemplateData: {BlockDeviceMappings: [{Ebs: {Encrypted: true}}, {Ebs: {VolumeSize: 8}}]}}",
        Some(("encryption", "BlockDeviceMappings/1")),
    ),
    (
        "AWS::EC2::LaunchTemplate",
        "{LaunchTemplateData: {BlockDeviceMappings: [{Ebs: {Encrypted: true}}], MetadataOptions: {HttpTokens: required, HttpPutResponseHopLimit: 1}}}",
        None,
    ),
    ("AWS::EC2::VPNConnection", "{}", Some(("alarm", "AWS/VPN TunnelState"))),
    ("AWS::EC2::VPNConnection", "{}", Some(("ipsec", "VpnTunnelOptionsSpecifications"))),
    ("AWS::EC2::Instance", "{LaunchTemplate: {LaunchTemplateId: x, Version: 1}}", None),
    ("AWS::EC2::Instance", "{BlockDeviceMappings: [{Ebs: {Encrypted: true}}]}", Some(("imds", "LaunchTemplate"))),
];

#[test]
fn each_rule_reports_faults_only() {
    for (kind, properties, wanted) in RESOURCES {
        let text = format!(
            "Parameters:\n  Environment: {{Type: String}}\n  Open: {{Type: String, Default: 0.0.0.0/0}}\n\
             Resources:\n  R:\n    Type: {kind}\n    Properties: {properties}\n"
        );
        let template = Template::parse("govcloud/x.yaml".to_owned(), Partition::GovCloud, &text).unwrap();
        let found = rules::check(&[template]);
        let named: Vec<(&str, &str)> = found.iter().map(|fault| (fault.rule, fault.subject.as_str())).collect();
        match wanted {
            Some(fault) => assert!(named.contains(fault), "{kind} {properties}: {found:#?}"),
            None => assert!(found.is_empty(), "{kind} {properties}: {found:#?}"),
        }
        assert!(found.iter().all(|fault| (5..=7).contains(&fault.line)), "{found:#?}");
    }
}
