//! What landing zones ask of the real templates and of the example.

use filter_core::names::Partition::GovCloud;
use infra_checks::release::{X86_64, placeholder};
use lab::tools::root;

use crate::deployment::Deployment;

fn copy(deployment: &Deployment, file: &str) {
    deployment.file(file, &std::fs::read_to_string(root().join("infra").join(file)).unwrap());
}

/// A boundary, a transit gateway with its return routes, and a prefix list.
#[test]
fn a_network_joins_a_transit_gateway() {
    let deployment = Deployment::start("landing");
    copy(&deployment, "templates/govcloud/network.yaml");
    let made = |arguments: &[&str]| deployment.aws.call(GovCloud, arguments).unwrap();
    let gateway = made(&["ec2", "create-transit-gateway", "--query", "TransitGateway.TransitGatewayId"]);
    let list = made(&[
        "ec2",
        "create-managed-prefix-list",
        "--prefix-list-name",
        "clients",
        "--address-family",
        "IPv4",
        "--max-entries",
        "5",
        "--entries",
        "Cidr=10.96.0.0/14",
        "--query",
        "PrefixList.PrefixListId",
    ]);
    let (gateway, list) = (gateway.as_str().unwrap(), list.as_str().unwrap());
    let policy =
        r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}]}"#;
    let create =
        ["iam", "create-policy", "--policy-name", "boundary", "--policy-document", policy, "--query", "Policy.Arn"];
    let boundary = made(&create);
    let boundary = boundary.as_str().unwrap();
    let params = format!(
        "ArtifactBucket=artifacts\nPermissionsBoundaryArn={boundary}\nTransitGatewayId={gateway}\nTransitCidr=10.80.0.0/16\n\
         TransitPrefixListId={list}\n"
    );
    deployment.environment("govcloud/network.params", &params);
    deployment.environment("1.plan", "govcloud network\n");
    deployment.succeeds(&["1", "--yes"]);

    let attached =
        made(&["ec2", "describe-transit-gateway-vpc-attachments", "--query", "TransitGatewayVpcAttachments"]);
    let vpc = deployment.output(GovCloud, "network", "VpcId");
    let mine = attached.as_array().unwrap().iter().find(|one| one["VpcId"] == vpc.as_str()).unwrap();
    assert_eq!((mine["TransitGatewayId"].as_str(), mine["SubnetIds"].as_array().unwrap().len()), (Some(gateway), 3));
    let tables = deployment.output(GovCloud, "network", "PrivateRouteTableIds");
    for table in tables.split(',') {
        let routes =
            made(&["ec2", "describe-route-tables", "--route-table-ids", table, "--query", "RouteTables[0].Routes"]);
        let through: Vec<_> =
            routes.as_array().unwrap().iter().filter(|route| route["TransitGatewayId"] == gateway).collect();
        assert!(through.iter().any(|route| route["DestinationCidrBlock"] == "10.80.0.0/16"), "{routes}");
        assert!(through.iter().any(|route| route["DestinationPrefixListId"] == list), "{routes}");
    }
    let stack = ["cloudformation", "describe-stack-resources", "--stack-name", "bedrock-gateway-landing-network"];
    let query = ["--logical-resource-id", "FlowLogRole", "--query", "StackResources[0].PhysicalResourceId"];
    let flow = made(&[stack.as_slice(), &query].concat());
    let flow = flow.as_str().unwrap();
    let query = ["iam", "get-role", "--role-name", flow, "--query", "Role.PermissionsBoundary.PermissionsBoundaryArn"];
    assert_eq!(made(&query), boundary);
}

/// A prefix list may call the gateway on both ports, and a name in a private zone leads to its load balancer.
#[test]
fn a_gateway_has_a_name_and_more_clients() {
    let deployment = Deployment::start("named");
    copy(&deployment, "templates/govcloud/network.yaml");
    copy(&deployment, "templates/govcloud/gateway.yaml");
    copy(&deployment, "instance/user-data");
    let made = |arguments: &[&str]| deployment.aws.call(GovCloud, arguments).unwrap();
    let zone = made(&[
        "route53",
        "create-hosted-zone",
        "--name",
        "example.com",
        "--caller-reference",
        "named",
        "--query",
        "HostedZone.Id",
    ]);
    let zone = zone.as_str().unwrap().trim_start_matches("/hostedzone/");
    let list = made(&[
        "ec2",
        "create-managed-prefix-list",
        "--prefix-list-name",
        "more",
        "--address-family",
        "IPv4",
        "--max-entries",
        "5",
        "--query",
        "PrefixList.PrefixListId",
    ]);
    let list = list.as_str().unwrap();
    let digest = "0".repeat(64);
    let params = format!(
        "VpcId=@{{govcloud/network.VpcId}}\nPrivateSubnetIds=@{{govcloud/network.PrivateSubnetIds}}\n\
         LogKeyArn=@{{govcloud/network.LogKeyArn}}\nTableName=bedrock-gateway-named-audit\n\
         TableArn=arn:aws-us-gov:dynamodb:us-gov-west-1:444455556666:table/bedrock-gateway-named-audit\n\
         TableKeyArn=arn:aws-us-gov:kms:us-gov-west-1:444455556666:key/a\nClientCidr=10.80.0.0/16\n\
         ArtifactBucket=artifacts\nArtifactKey=release/a\nArtifactSha256={digest}\nConfigKey=config/a\nConfigSha256={digest}\n\
         UserData=@{{base64:infra/instance/user-data}}\nPlainListener=yes\nClientPrefixListId={list}\n\
         DnsName=bedrock.example.com\nHostedZoneId={zone}\n"
    );
    deployment.environment("govcloud/network.params", "ArtifactBucket=artifacts\n");
    deployment.environment("govcloud/gateway.params", &params);
    deployment.environment("1.plan", "govcloud network\ngovcloud gateway\n");
    deployment.succeeds(&["1", "--yes"]);

    let records =
        made(&["route53", "list-resource-record-sets", "--hosted-zone-id", zone, "--query", "ResourceRecordSets"]);
    let balancer = deployment.output(GovCloud, "gateway", "NlbDnsName");
    let mine = records.as_array().unwrap().iter().find(|record| record["Name"] == "bedrock.example.com.").unwrap();
    assert_eq!((&mine["Type"], &mine["ResourceRecords"][0]["Value"]), (&"CNAME".into(), &balancer.into()));
    let filter = "Name=description,Values=Clients of the Bedrock gateway";
    let groups =
        made(&["ec2", "describe-security-groups", "--filters", filter, "--query", "SecurityGroups[].IpPermissions[]"]);
    let ports: Vec<i64> = groups
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| {
            rule["PrefixListIds"].as_array().is_some_and(|lists| lists.iter().any(|one| one["PrefixListId"] == list))
        })
        .filter_map(|rule| rule["FromPort"].as_i64())
        .collect();
    assert!(ports.contains(&443) && ports.contains(&80), "{groups}");

    // A machine reads its settings once, so a changed value has to replace the machines.
    let secret = "arn:aws-us-gov:secretsmanager:us-gov-west-1:444455556666:secret:bedrock/named/tls-AbCdEf";
    for key in ["CertificateSecretArn", "ClientCaSecretArn", "TableName"] {
        let value = if key == "TableName" { "another" } else { secret };
        let others: String =
            params.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        deployment.environment("govcloud/gateway.params", &format!("{others}{key}={value}\n"));
        let text = deployment.fails(&["1"], "No terminal to ask on");
        for resource in ["Settings", "Template", "Group"] {
            assert!(text.contains(&format!("~ change   {resource} ")), "{key}, {resource}: {text}");
        }
    }
}

/// The example with literals for the outputs of a network stack that is not in its plans.
#[test]
fn the_example_takes_an_existing_vpc() {
    let deployment = Deployment::start("no-network");
    for folder in ["templates/govcloud", "templates/commercial", "instance", "vpn", "environments/example"] {
        tree(&deployment, folder, &folder.replace("environments/example", "environments/no-network"));
    }
    deployment.environment("settings", &settings(&deployment, "no-network"));
    for version in ["1-internet", "2-vpn", "3-direct-connect"] {
        // The plan is checked before CloudFormation is asked, and nothing is left to consent to.
        deployment.fails(&[version], "No terminal to ask on");
    }
}

/// The example's optional parameters, which are comments, exist and refer to outputs that exist.
#[test]
fn the_examples_comments_are_parameters() {
    let deployment = Deployment::start("optional");
    for folder in ["templates/govcloud", "templates/commercial", "instance", "vpn", "environments/example"] {
        tree(&deployment, folder, &folder.replace("environments/example", "environments/optional"));
    }
    let example = root().join("infra/environments/example");
    let mut found = 0;
    for partition in ["govcloud", "commercial"] {
        for entry in std::fs::read_dir(example.join(partition)).unwrap() {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let named =
                |line: &&str| line.starts_with('#') && line.as_bytes().get(1).is_some_and(u8::is_ascii_uppercase);
            found += text.lines().filter(named).count();
            let lines = text.lines().map(|line| if named(&line) { &line[1..] } else { line });
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            // The gateway's own certificate is one of the options.
            let text = text.replace("Certificate=no\n", "Certificate=yes\n");
            let text = text.replace("@{outbound-issuer}", "example.tokens.sts.global.api.aws");
            deployment.environment(&format!("{partition}/{}", entry.file_name().display()), &text);
        }
    }
    assert!(found > 15, "found only {found} optional parameters");
    for plan in ["1-internet.plan", "3-direct-connect.plan"] {
        deployment.environment(plan, &std::fs::read_to_string(example.join(plan)).unwrap());
    }
    deployment.environment("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    deployment.environment("settings", &settings(&deployment, "optional"));
    deployment.fails(&["1-internet"], "No terminal to ask on");
    deployment.fails(&["3-direct-connect"], "No terminal to ask on");
}

/// The example's settings, with a release that exists.
fn settings(deployment: &Deployment, environment: &str) -> String {
    let settings = std::fs::read_to_string(root().join("infra/environments/example/settings")).unwrap();
    let release = deployment.dir.join(format!("infra/environments/{environment}/release.tar.gz"));
    placeholder(&release, X86_64, "", "").unwrap();
    settings.replace("../bedrock-gateway-0.1.0-x86_64.tar.gz", release.to_str().unwrap())
}

/// Copies a folder of `infra`, without the network stack and its references.
fn tree(deployment: &Deployment, from: &str, to: &str) {
    let literals = [
        ("VpcId", "vpc-0123456789abcdef0"),
        ("VpcCidr", "10.64.0.0/20"),
        ("PrivateSubnetIds", "subnet-0a,subnet-0b,subnet-0c"),
        ("PublicSubnetIds", "subnet-1a,subnet-1b"),
        ("PrivateRouteTableIds", "rtb-0a,rtb-0b,rtb-0c"),
        ("LogKeyArn", "arn:aws-us-gov:kms:us-gov-west-1:444455556666:key/a"),
    ];
    for entry in std::fs::read_dir(root().join("infra").join(from)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            tree(deployment, &format!("{from}/{name}"), &format!("{to}/{name}"));
            continue;
        }
        if name == "network.params" && from.ends_with("govcloud") {
            continue;
        }
        let mut text = std::fs::read_to_string(entry.path()).unwrap();
        if name.ends_with(".plan") {
            text = text.replace("\ngovcloud network\n", "\n");
        }
        if name.ends_with(".params") {
            // A parameter that may be left out.
            text = text
                .lines()
                .filter(|line| !line.contains("network.NatGatewayIds"))
                .map(|line| format!("{line}\n"))
                .collect();
            text = text.replace("@{outbound-issuer}", "example.tokens.sts.global.api.aws");
            for (output, value) in literals {
                text = text.replace(&format!("@{{govcloud/network.{output}}}"), value);
            }
        }
        deployment.file(&format!("{to}/{name}"), &text);
    }
}
