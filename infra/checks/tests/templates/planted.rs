//! The real templates, each with one fault planted.

use infra_checks::rules::{self, Fault};
use infra_checks::template::Template;

use super::{partition, text};

/// Template, original text, planted text; rule, resource and subject of the expected fault.
type Planted = (&'static str, &'static str, &'static str, (&'static str, &'static str, &'static str));

const PACKAGES: &str = "arn:${AWS::Partition}:s3:::al2023-repos-${AWS::Region}-de612dc2/*";

const BOUNDARY: &str = "      PermissionsBoundary: !If [HasBoundary, !Ref PermissionsBoundaryArn, !Ref AWS::NoValue]\n";

const IDLE: &str = "tcp.idle_timeout.seconds";

const PLANTED: &[Planted] = &[
    // Policies.
    ("commercial/identity.yaml", "- bedrock:InvokeModel\n", "- bedrock:*\n", ("wildcard", "CallBedrock", "bedrock:*")),
    (
        "commercial/identity.yaml",
        "Resource: !Ref ModelArns",
        "Resource: '*'",
        ("operations", "CallBedrock", "bedrock:CountTokens"),
    ),
    (
        "commercial/identity.yaml",
        "Action: bedrock:CallWithBearerToken",
        "NotAction: bedrock:CallWithBearerToken",
        ("wildcard", "Group", "NotAction"),
    ),
    (
        "commercial/identity.yaml",
        "Service: rolesanywhere.amazonaws.com",
        "AWS: '*'",
        ("wildcard", "CertificateRole", "Principal *"),
    ),
    // The operations that the filter carries.
    (
        "commercial/identity.yaml",
        "              - bedrock:CountTokens\n",
        "",
        ("operations", "CallBedrock", "bedrock:CountTokens"),
    ),
    (
        "commercial/identity.yaml",
        "bedrock:ListCustomModels\n",
        "bedrock:DeleteCustomModel\n",
        ("operations", "CallBedrock", "bedrock:DeleteCustomModel"),
    ),
    (
        "commercial/identity.yaml",
        "              - bedrock:GetFoundationModel\n",
        "              - bedrock:ListPromptRouters\n              - bedrock:GetFoundationModel\n",
        ("operations", "CallBedrock", "bedrock:ListPromptRouters"),
    ),
    (
        "commercial/network.yaml",
        "Action: [bedrock:Rerank, bedrock:RetrieveAndGenerate]",
        "Action: [bedrock:RetrieveAndGenerate]",
        ("operations", "BedrockAgentRuntimeEndpoint", "bedrock:Rerank"),
    ),
    (
        "commercial/identity.yaml",
        "              - bedrock:StopModelInvocationJob\n",
        "",
        ("operations", "BatchJobs", "bedrock:StopModelInvocationJob"),
    ),
    (
        "commercial/network.yaml",
        "Action: [bedrock:ApplyGuardrail]",
        "Action: [bedrock:ListGuardrails]",
        ("operations", "BedrockRuntimeEndpoint", "bedrock:ApplyGuardrail"),
    ),
    (
        "commercial/network.yaml",
        "bedrock:ListInferenceProfiles\n",
        "bedrock:InvokeModel\n",
        ("operations", "BedrockEndpoint", "bedrock:InvokeModel"),
    ),
    (
        "commercial/network.yaml",
        "Action: [bedrock:GetFoundationModel, bedrock:GetInferenceProfile]\n            Resource: !Ref ModelArns",
        "Action: [bedrock:GetFoundationModel, bedrock:GetInferenceProfile]\n            Resource: \"*\"",
        ("operations", "BedrockEndpoint", "bedrock:GetInferenceProfile"),
    ),
    // Trust.
    (
        "commercial/identity.yaml",
        "Default: bedrock-gateway\n",
        "Default: sts.amazonaws.com\n",
        ("trust", "Role", "aud"),
    ),
    ("commercial/identity.yaml", "${Issuer}:aud\": \"${Audience}", "${Issuer}:aud\": \"sts", ("trust", "Role", "aud")),
    ("commercial/identity.yaml", "${Issuer}:aud", "${Issuer}:amr", ("trust", "Role", "aud")),
    ("commercial/identity.yaml", "${Issuer}:sub", "${Issuer}:amr", ("trust", "Role", "sub")),
    ("commercial/identity.yaml", ":sub\": \"${GatewayRoleArn}", ":sub\": \"arn:x:*", ("trust", "Role", "sub")),
    ("commercial/identity.yaml", "[\"sts:AssumeRoleWithWebIdentity\",", "[", ("trust", "Role", "Action")),
    (
        "commercial/identity.yaml",
        "Service: rolesanywhere.amazonaws.com",
        "Service: ecs-tasks.amazonaws.com",
        ("trust", "CertificateRole", "ecs-tasks.amazonaws.com"),
    ),
    ("commercial/identity.yaml", "\"Sid\": \"The", "Sid: \"The", ("policy-json", "Role", "policy")),
    // ARNs of one partition.
    ("govcloud/audit.yaml", "\"arn:${AWS::Partition}:iam", "\"arn:aws:iam", ("partition", "Key", "arn:aws:")),
    // Encryption and retention.
    (
        "govcloud/audit.yaml",
        "        KMSMasterKeyId: !GetAtt Key.Arn\n",
        "",
        ("encryption", "Table", "SSESpecification/KMSMasterKeyId"),
    ),
    (
        "govcloud/audit.yaml",
        "KMSMasterKeyId: !GetAtt Key.Arn",
        "KMSMasterKeyId: !Ref AWS::NoValue",
        ("encryption", "Table", "SSESpecification/KMSMasterKeyId"),
    ),
    (
        "govcloud/audit.yaml",
        "SSEEnabled: true",
        "SSEEnabled: false",
        ("encryption", "Table", "SSESpecification/SSEEnabled"),
    ),
    (
        "govcloud/audit.yaml",
        "PointInTimeRecoveryEnabled: true",
        "X: true",
        ("encryption", "Table", "PointInTimeRecoverySpecification/PointInTimeRecoveryEnabled"),
    ),
    (
        "govcloud/audit.yaml",
        "EnableKeyRotation: true",
        "EnableKeyRotation: false",
        ("encryption", "Key", "EnableKeyRotation"),
    ),
    ("govcloud/secrets.yaml", "      KmsKeyId: !GetAtt Key.Arn\n", "", ("encryption", "Secret", "KmsKeyId")),
    (
        "govcloud/secrets.yaml",
        "DeletionPolicy: RetainExceptOnCreate",
        "DeletionPolicy: Delete",
        ("kept", "Key", "DeletionPolicy"),
    ),
    // The collector's table.
    (
        "govcloud/audit.yaml",
        "AttributeName: expires_at",
        "AttributeName: expires",
        ("table", "Table", "TimeToLiveSpecification"),
    ),
    (
        "govcloud/audit.yaml",
        "        Enabled: true",
        "        Enabled: false",
        ("table", "Table", "TimeToLiveSpecification"),
    ),
    ("govcloud/audit.yaml", "IndexName: by_time", "IndexName: by-time", ("table", "Table", "GlobalSecondaryIndexes")),
    (
        "govcloud/audit.yaml",
        "ProjectionType: ALL",
        "ProjectionType: KEYS_ONLY",
        ("table", "Table", "GlobalSecondaryIndexes"),
    ),
    (
        "govcloud/audit.yaml",
        "time, AttributeType: S",
        "time, AttributeType: N",
        ("table", "Table", "AttributeDefinitions"),
    ),
    ("govcloud/audit.yaml", "PAY_PER_REQUEST", "PROVISIONED", ("table", "Table", "BillingMode")),
    // Exceptions.
    ("govcloud/audit.yaml", "subject: \"kms:*\"", "subject: \"kms:Get*\"", ("wildcard", "Key", "kms:*")),
    ("govcloud/audit.yaml", "Action: kms:*", "Action: kms:Decrypt", ("exception", "Key", "wildcard kms:*")),
    (
        "govcloud/audit.yaml",
        "why: \"in a key policy this means the key itself\"",
        "why: \" \"",
        ("exception", "Key", "wildcard Resource *"),
    ),
    // VPN and Direct Connect.
    (
        "commercial/network.yaml",
        "${AWS::Region}.bedrock-runtime",
        "${AWS::Region}.bedrock-agent",
        ("endpoint", "BedrockRuntimeEndpoint", "com.amazonaws.${AWS::Region}.bedrock-agent"),
    ),
    (
        "commercial/network.yaml",
        "      PolicyDocument:\n        Version: \"2012-10-17\"\n        Statement:\n          - Sid: DescribeTheAllowedModels",
        "      X:\n        Version: \"2012-10-17\"\n        Statement:\n          - Sid: DescribeTheAllowedModels",
        ("endpoint", "BedrockEndpoint", "PolicyDocument"),
    ),
    (
        "commercial/network.yaml",
        "CidrIp: !Ref GovCloudCidr",
        "CidrIp: 0.0.0.0/0",
        ("ingress", "EndpointSecurityGroup", "0.0.0.0/0"),
    ),
    (
        "commercial/vpn.yaml",
        "StaticRoutesOnly: false",
        "StaticRoutesOnly: true",
        ("bgp", "ConnectionA", "StaticRoutesOnly"),
    ),
    ("commercial/vpn.yaml", "      BgpAsn: !Ref GovCloudAsn\n", "", ("bgp", "CustomerGatewayA", "BgpAsn")),
    (
        "commercial/vpn.yaml",
        "- TunnelInsideCidr: !Ref InsideA2\n",
        "- TunnelInsideCidr: !Ref InsideA2\n          PreSharedKey: EXAMPLE_example_0\n",
        ("clear", "ConnectionA", "PreSharedKey"),
    ),
    ("commercial/vpn.yaml", "[{ Value: ikev2 }]", "[{ Value: ikev1 }]", ("ipsec", "ConnectionA", "IKEVersions")),
    (
        "commercial/vpn.yaml",
        "Phase2DHGroupNumbers: [{ Value: 20 }]",
        "Phase2DHGroupNumbers: [{ Value: 2 }, { Value: 20 }]",
        ("ipsec", "ConnectionA", "Phase2DHGroupNumbers"),
    ),
    (
        "commercial/vpn.yaml",
        "          Phase1IntegrityAlgorithms: [{ Value: SHA2-384 }]\n",
        "",
        ("ipsec", "ConnectionA", "Phase1IntegrityAlgorithms"),
    ),
    ("govcloud/vpn.yaml", "CidrIp: !Sub \"${TunnelA1}/32\"", "CidrIp: 0.0.0.0/0", ("ingress", "TunnelsA", "0.0.0.0/0")),
    (
        "govcloud/vpn.yaml",
        "IpProtocol: udp, FromPort: 500",
        "IpProtocol: -1, FromPort: 500",
        ("ingress", "TunnelsA", "IpProtocol -1"),
    ),
    ("govcloud/vpn.yaml", "\"IKE from tunnel 1\"", "\"AWS's tunnel 1\"", ("description", "TunnelsA", "'")),
    ("govcloud/vpn.yaml", "HttpTokens: required", "HttpTokens: optional", ("imds", "TemplateA", "HttpTokens")),
    ("govcloud/vpn.yaml", "Encrypted: true", "Encrypted: false", ("encryption", "TemplateA", "BlockDeviceMappings/0")),
    ("govcloud/vpn.yaml", "\"ec2:ReplaceRoute\"", "\"ec2:*\"", ("wildcard", "Role", "ec2:*")),
    ("govcloud/vpn.yaml", "      KmsKeyId: !Ref LogKeyArn\n", "", ("encryption", "Log", "KmsKeyId")),
    ("govcloud/vpn-secret.yaml", "      KmsKeyId: !GetAtt Key.Arn\n", "", ("encryption", "Secret", "KmsKeyId")),
    (
        "govcloud/direct-connect.yaml",
        "AuthKey: !Sub \"{{resolve:secretsmanager:${BgpKey}:SecretString}}\"",
        "AuthKey: !Ref BgpAuthKey",
        ("clear", "Interface", "AuthKey"),
    ),
    (
        "commercial/direct-connect.yaml",
        "          AuthKey: !Sub \"{{resolve:secretsmanager:${BgpKey}:SecretString}}\"\n",
        "",
        ("bgp", "Interface", "AuthKey"),
    ),
    (
        "govcloud/direct-connect.yaml",
        "      AllowedPrefixesToDirectConnectGateway: [!Ref VpcCidr]\n",
        "",
        ("bgp", "Association", "AllowedPrefixesToDirectConnectGateway"),
    ),
    (
        "govcloud/direct-connect.yaml",
        "DependsOn: [Attachment, Association]",
        "DependsOn: Attachment",
        ("propagation", "Propagation", "Association"),
    ),
    (
        "commercial/direct-connect.yaml",
        "DependsOn: [Attachment, Association]",
        "DependsOn: [Association]",
        ("propagation", "Propagation", "Attachment"),
    ),
    (
        "commercial/vpn.yaml",
        "    DependsOn: Attachment\n    Properties:\n      VpnGatewayId",
        "    Properties:\n      VpnGatewayId",
        ("propagation", "Propagation", "Attachment"),
    ),
    (
        "govcloud/direct-connect.yaml",
        "MetricName: VirtualInterfaceBgpStatus",
        "MetricName: VirtualInterfaceBpsEgress",
        ("alarm", "Interface", "AWS/DX VirtualInterfaceBgpStatus"),
    ),
    (
        "commercial/direct-connect.yaml",
        "MetricName: ConnectionState",
        "MetricName: ConnectionBpsEgress",
        ("alarm", "Connection", "AWS/DX ConnectionState"),
    ),
    ("commercial/vpn.yaml", "      AlarmActions: [!Ref AlarmTopicArn]\n", "", ("alarm", "TunnelDownA", "AlarmActions")),
    (
        "govcloud/network.yaml",
        "al2023-repos-${AWS::Region}-de612dc2/*",
        "al2023-repos-de612dc2/*",
        ("packages", "S3Endpoint", PACKAGES),
    ),
    (
        "govcloud/network.yaml",
        "-de612dc2/*\"\n",
        "-de612dc2/*\"\n            Condition:\n              StringEquals:\n                \"aws:PrincipalAccount\": !Ref AWS::AccountId\n",
        ("packages", "S3Endpoint", PACKAGES),
    ),
    // Idle connections, and machines that install themselves.
    ("govcloud/gateway.yaml", "Value: \"3900\"", "Value: \"3600\"", ("idle", "TlsListener", IDLE)),
    ("govcloud/gateway.yaml", "Value: \"3900\"", "Value: \"6001\"", ("idle", "TlsListener", IDLE)),
    (
        "govcloud/gateway.yaml",
        "      ListenerAttributes:\n        - { Key: tcp.idle_timeout.seconds, Value: \"3900\" }\n",
        "",
        ("idle", "TlsListener", IDLE),
    ),
    (
        "govcloud/gateway.yaml",
        "Protocol: TCP\n      Port: 443",
        "Protocol: TLS\n      Port: 443",
        ("idle", "TlsListener", "Protocol TLS"),
    ),
    (
        "govcloud/gateway.yaml",
        "HealthCheckGracePeriod: 960",
        "HealthCheckGracePeriod: 900",
        ("grace", "Group", "HealthCheckGracePeriod"),
    ),
    ("govcloud/gateway.yaml", "PauseTime: PT15M", "PauseTime: PT1H", ("grace", "Group", "HealthCheckGracePeriod")),
    // Names that the endpoints allow, and keys of secrets.
    (
        "govcloud/secrets.yaml",
        "Name: !Sub \"bedrock/${Environment}",
        "Name: !Sub \"${Environment}",
        ("reach", "Secret", "Name"),
    ),
    ("govcloud/vpn-secret.yaml", "\"bedrock/${Environment}/vpn", "\"vpn", ("reach", "Secret", "Name")),
    (
        "govcloud/gateway.yaml",
        "!Sub \"/bedrock-gateway/${Environment}/gateway/",
        "!Sub \"/${Environment}/gateway/",
        ("reach", "Settings", "Name"),
    ),
    ("govcloud/vpn.yaml", "secret:bedrock/[", "secret:[", ("reach", "Role", "SecretArn")),
    ("govcloud/vpn.yaml", "begins with bedrock/,", "is short,", ("reach", "Role", "SecretArn")),
    ("govcloud/gateway.yaml", ":table/bedrock-gateway-[", ":table/[", ("reach", "Role", "TableArn")),
    (
        "govcloud/gateway.yaml",
        "              Action: kms:Decrypt\n              Resource: !Ref CertificateSecretKeyArn\n",
        "              Action: kms:Encrypt\n              Resource: !Ref CertificateSecretKeyArn\n",
        ("reach", "ReadCertificate", "kms:Decrypt"),
    ),
    (
        "govcloud/gateway.yaml",
        "              Action: kms:Decrypt\n              Resource: !Ref IdentitySecretKeyArn\n",
        "              Action: kms:Encrypt\n              Resource: !Ref IdentitySecretKeyArn\n",
        ("reach", "ReadIdentity", "kms:Decrypt"),
    ),
    (
        "govcloud/vpn.yaml",
        "\"kms:ViaService\": !Sub \"secretsmanager",
        "\"kms:ViaService\": !Sub \"s3",
        ("reach", "Role", "kms:Decrypt"),
    ),
    (
        "govcloud/gateway.yaml",
        "${ArtifactBucket}/release/*",
        "${ArtifactBucket}/${ArtifactKey}",
        ("reach", "Role", "arn:${AWS::Partition}:s3:::${ArtifactBucket}/${ArtifactKey}"),
    ),
    (
        "govcloud/vpn.yaml",
        "${ArtifactBucket}/release/*",
        "${ArtifactBucket}/${ArtifactKey}",
        ("reach", "Role", "arn:${AWS::Partition}:s3:::${ArtifactBucket}/${ArtifactKey}"),
    ),
    // ARNs of log groups.
    (
        "govcloud/vpn.yaml",
        "!Sub \"arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${Log}:log-stream:*\"",
        "!GetAtt Log.Arn",
        ("logs", "Role", "Log.Arn"),
    ),
    ("govcloud/vpn.yaml", "log-group:${Log}:log-stream:*", "log-group:${Log}", ("logs", "Role", "logs:PutLogEvents")),
    (
        "commercial/network.yaml",
        "Action: [logs:CreateLogStream, logs:DescribeLogStreams",
        "Action: [logs:CreateLogStream, logs:DescribeLogGroups",
        ("logs", "FlowLogRole", "logs:DescribeLogGroups"),
    ),
    (
        "govcloud/network.yaml",
        "log-group:${FlowLogGroup}\"",
        "log-group:${FlowLogGroup}:*\"",
        ("logs", "FlowLogRole", "logs:DescribeLogStreams"),
    ),
    (
        "commercial/vpn.yaml",
        "!Sub \"arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${TunnelLog}\"",
        "!GetAtt TunnelLog.Arn",
        ("logs", "ConnectionA", "TunnelLog.Arn"),
    ),
    // Landing zones.
    ("govcloud/gateway.yaml", BOUNDARY, "", ("boundary", "Role", "PermissionsBoundary")),
    ("govcloud/network.yaml", BOUNDARY, "", ("boundary", "FlowLogRole", "PermissionsBoundary")),
    ("govcloud/vpn.yaml", BOUNDARY, "", ("boundary", "Role", "PermissionsBoundary")),
    ("commercial/network.yaml", BOUNDARY, "", ("boundary", "FlowLogRole", "PermissionsBoundary")),
    (
        "commercial/identity.yaml",
        "      PermissionsBoundary: !If [HasBoundary, !Ref PermissionsBoundaryArn, !Ref AWS::NoValue]\n      UserName",
        "      UserName",
        ("boundary", "User", "PermissionsBoundary"),
    ),
    (
        "govcloud/network.yaml",
        "    Condition: HasTransitCidr\n    DependsOn: TransitAttachment\n",
        "    Condition: HasTransitCidr\n",
        ("transit", "TransitRouteA", "TransitAttachment"),
    ),
    (
        "govcloud/network.yaml",
        "RouteTableId: !Ref PrivateRoutesC\n      DestinationPrefixListId",
        "RouteTableId: !Ref PrivateRoutesB\n      DestinationPrefixListId",
        ("transit", "TransitAttachment", "PrivateRoutesC"),
    ),
    (
        "govcloud/gateway.yaml",
        "      ResourceRecords: [!GetAtt Balancer.DNSName]\n",
        "      AliasTarget: { DNSName: !GetAtt Balancer.DNSName, HostedZoneId: !GetAtt Balancer.CanonicalHostedZoneID }\n",
        ("name", "Name", "AliasTarget"),
    ),
    // Environments.
    ("govcloud/audit.yaml", "  Environment:\n", "  Stage:\n", ("environment", "", "Parameters")),
];

#[test]
fn finds_each_planted_fault() {
    for (file, from, to, (rule, resource, subject)) in PLANTED {
        let found = planted(file, from, to);
        let named =
            found.iter().any(|f| (f.rule, f.resource.as_str(), f.subject.as_str()) == (*rule, resource, subject));
        assert!(named, "{file}, {to:?}: wanted [{rule}] {resource} {subject}, found {found:#?}");
    }
}

/// The faults of a real template with one text replaced.
fn planted(file: &str, from: &str, to: &str) -> Vec<Fault> {
    let text = text(file);
    assert!(text.contains(from), "{file} has no {from:?}");
    let template = Template::parse(file.to_owned(), partition(file), &text.replacen(from, to, 1)).unwrap();
    rules::check(&[template])
}
