//! The plan's step `smoke`, against the real Envoy with a double of Bedrock behind it.

use filter_core::names::Partition::GovCloud;
use infra_checks::release::{X86_64, placeholder};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::deployment::{Deployment, SETTINGS};
use crate::local::gateway;

const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";

#[test]
fn restores_the_gateway_if_the_smoke_test_fails() {
    let deployment = Deployment::start("smoke");
    let (_doubles, gateway) = gateway(&deployment.dir, &["internet"]);
    let bucket = "Resources:\n  Bucket: { Type: 'AWS::S3::Bucket' }\nOutputs:\n  Name:\n    Value: !Ref Bucket\n";
    deployment.file("templates/govcloud/bucket.yaml", bucket);
    deployment.file("templates/govcloud/gateway.yaml", GATEWAY);
    deployment.environment(
        "govcloud/gateway.params",
        &format!(
            "ConfigKey=@{{config.Key}}\nConfigSha256=@{{config.Sha256}}\nArtifactSha256=@{{release.Sha256}}\n\
             UserData=@{{base64:infra/user-data}}\nTargetGroup={}\n",
            target_group(&deployment)
        ),
    );
    deployment.file("user-data", "#!/bin/sh\n");
    let release = deployment.dir.join("release.tar.gz");
    placeholder(&release, X86_64, "", "").unwrap();
    let settings = |url: &str| {
        format!(
            "{SETTINGS}RELEASE={}\nBUCKET=@{{govcloud/bucket.Name}}\nGATEWAY=govcloud/gateway\nSMOKE_URL={url}\n\
             SMOKE_MODEL={MODEL}\n",
            release.display()
        )
    };
    let url = format!("http://{}", gateway.plain);
    deployment.environment("settings", &settings(&url));
    deployment.environment("policy.json", &policy("anthropic.*"));
    deployment
        .environment("1.plan", "govcloud bucket\nrelease\nconfig policy.json internet\ngovcloud gateway\nsmoke\n");
    let running = || deployment.output(GovCloud, "gateway", "Config");

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("is refused: UnknownOperationException"), "{text}");
    assert!(text.contains(&format!("{MODEL} answers")), "{text}");
    let first = running();
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("release: no change\nconfig: no change\ngovcloud/gateway: no change\n"), "{text}");

    // It cannot be reached from here, which says nothing about it.
    deployment.environment("policy.json", &policy("a*"));
    deployment.file("user-data", "#!/bin/sh\nanother\n");
    let address = gateway.plain;
    gateway.stop(|| true);
    let (status, text) = deployment.status(&["1", "--yes"]);
    assert_eq!(status, Some(3), "{text}");
    for part in [
        "not reached from here: ",
        "finds 1 of 1 machines healthy; nothing was restored",
        "and not tested: run this again",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let second = running();
    assert_ne!(second, first);

    // It is lost after the first answer, which says as little.
    let listener = TcpListener::bind(address).unwrap();
    let once = std::thread::spawn(move || answer(&listener.accept().unwrap().0, REFUSAL));
    let (status, text) = deployment.status(&["1", "--yes"]);
    once.join().unwrap();
    assert_eq!(status, Some(3), "{text}");
    assert!(text.contains("is refused: UnknownOperationException") && text.contains("nothing was restored"), "{text}");

    // The load balancer says the same: a failed deployment.
    deployment.environment("policy.json", &policy("an*"));
    deployment.aws.set_state(GovCloud, &serde_json::json!({ "unhealthy": true })).unwrap();
    let text = deployment.fails(&["1", "--yes"], "govcloud/gateway has its former release and configuration again");
    assert!(text.contains("failed: its load balancer finds 0 of 1 machines healthy"), "{text}");
    deployment.aws.set_state(GovCloud, &serde_json::json!({})).unwrap();
    assert_eq!(running(), second);

    // It answers, but not as the gateway does.
    let listener = TcpListener::bind(address).unwrap();
    let _other = std::thread::spawn(move || answer_503(&listener));
    let text = deployment.fails(&["1", "--yes"], "govcloud/gateway has its former release and configuration again");
    assert!(text.contains("failed: a call that the filter must refuse"), "{text}");
    assert_eq!(running(), second);

    // A gateway that this run created has no former configuration.
    deployment.succeeds(&["remove", "govcloud/gateway", "--yes"]);
    deployment.fails(&["1", "--yes"], "nothing to restore");
}

/// The smoke test verifies an own certificate, also where its name does not resolve yet.
#[test]
fn verifies_an_own_certificate() {
    let deployment = Deployment::start("own-certificate");
    let (_doubles, gateway) = gateway(&deployment.dir, &["internet"]);
    let template = "Parameters:\n  CertificateSecretArn: { Type: String }\nResources:\n  Running:\n    Type: AWS::SSM::Parameter\n    \
        Properties: { Name: /own, Type: String, Value: !Ref CertificateSecretArn }\nOutputs:\n  NlbDnsName:\n    Value: nowhere.invalid\n";
    deployment.file("templates/govcloud/gateway.yaml", template);
    deployment.environment("govcloud/gateway.params", "CertificateSecretArn=a-secret\n");
    deployment.environment("1.plan", "govcloud gateway\nsmoke\n");
    let config = deployment.dir.join("curl.config");
    let run = |host: &str, options: &str| {
        let url = format!("SMOKE_URL=https://{host}\nSMOKE_MODEL={MODEL}\nSMOKE_CURL_CONFIG={}\n", config.display());
        deployment.environment("settings", &format!("{SETTINGS}GATEWAY=govcloud/gateway\n{url}"));
        std::fs::write(&config, options).unwrap();
        deployment.status(&["1", "--yes"])
    };
    let ca = format!("cacert = {}\n", gateway.ca.display());
    let connect = format!("connect-to = \"localhost:443:{}\"\n", gateway.tls);
    let (status, text) = run("gateway.invalid", &ca);
    assert_eq!(status, Some(3), "{text}");
    let record = "make a DNS record of gateway.invalid that leads to nowhere.invalid, or set connect-to";
    assert!(text.contains("Could not resolve host: gateway.invalid") && text.contains(record), "{text}");
    let (status, text) = run("@{govcloud/gateway.NlbDnsName}", &ca);
    assert_eq!(status, Some(3), "{text}");
    assert!(text.contains("a new load balancer has its name after minutes"), "{text}");
    assert!(text.ends_with("run this again where https://nowhere.invalid is reached\n"), "{text}");
    let (status, text) = run("localhost", &connect);
    assert_eq!(status, Some(3), "{text}");
    let trust = "set cacert in the file of SMOKE_CURL_CONFIG to the CA of the certificate of localhost";
    assert!(text.contains("not reached from here: curl: (60) ") && text.contains(trust), "{text}");
    let (status, text) = run("localhost", &format!("{ca}{connect}"));
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(&format!("{MODEL} answers")) && !text.contains("self-signed"), "{text}");
}

/// The full name of a target group with one machine.
fn target_group(deployment: &Deployment) -> String {
    let call = |arguments: &[&str]| deployment.aws.call(GovCloud, arguments).unwrap();
    let vpc = call(&["ec2", "create-vpc", "--cidr-block", "10.9.0.0/24", "--query", "Vpc.VpcId"]);
    let create = ["elbv2", "create-target-group", "--name", "smoke", "--protocol", "TCP", "--port", "10443"];
    let more = ["--target-type", "ip", "--vpc-id", vpc.as_str().unwrap(), "--query", "TargetGroups[0].TargetGroupArn"];
    let arn = call(&[create.as_slice(), &more].concat());
    let arn = arn.as_str().unwrap();
    let register = ["elbv2", "register-targets", "--target-group-arn", arn, "--targets", "Id=10.9.0.7"];
    deployment.aws.raw(GovCloud, &register).unwrap();
    arn.rsplit(':').next().unwrap().to_owned()
}

fn answer_503(listener: &TcpListener) {
    listener.incoming().for_each(|stream| answer(&stream.unwrap(), UNAVAILABLE));
}

pub(crate) const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
pub(crate) const REFUSAL: &[u8] = b"HTTP/1.1 404 Not Found\r\nx-amzn-errortype: UnknownOperationException\r\n\
    content-length: 0\r\nconnection: close\r\n\r\n";

pub(crate) fn answer(mut stream: &TcpStream, response: &[u8]) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(response);
}

const GATEWAY: &str = "\
Parameters:
  ConfigKey: { Type: String }
  ConfigSha256: { Type: String }
  ArtifactSha256: { Type: String }
  UserData: { Type: String }
  TargetGroup: { Type: String }
Resources:
  Running:
    Type: AWS::SSM::Parameter
    Properties: { Name: /running, Type: String, Value: !Ref ConfigSha256 }
Outputs:
  TargetGroupName:
    Value: !Ref TargetGroup
  Config:
    Value: !Sub '${ConfigKey} ${ConfigSha256} ${ArtifactSha256} ${UserData}'
";

pub(crate) fn policy(models: &str) -> String {
    serde_json::json!({
        "regions": { "us-east-1": {} },
        "models": { "allow": [models] },
        "route_classes": [{ "name": "any", "paths": ["internet"] }],
        "credentials": { "source": "imds", "cluster": "imds" },
    })
    .to_string()
}
