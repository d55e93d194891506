//! `infra/deploy … evidence`: calls by the real Envoy, records by the real collector, in the mock's table.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bedrock_gateway::process::Process;
use filter_core::names::Partition::{Commercial, GovCloud};
use lab::tools::{COLLECTOR, required, root};

use crate::deployment::{Deployment, SETTINGS};
use crate::local::gateway;
use crate::smoke::policy;

const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";
const GATEWAY: &str = "\
Parameters:
  ArtifactSha256: { Type: String }
Resources:
  Running:
    Type: AWS::SSM::Parameter
    Properties: { Name: /evidence, Type: String, Value: !Ref ArtifactSha256 }
";
const PATH: &str = "\
Resources:
  Vpc: { Type: AWS::EC2::VPC, Properties: { CidrBlock: 10.100.0.0/24 } }
Outputs:
  VpcId:
    Value: !Ref Vpc
";

#[test]
fn evidence_says_what_was_seen() {
    let deployment = Arc::new(Deployment::start("evidence"));
    let (mut doubles, gateway) = gateway(&deployment.dir, &["vpn", "internet"]);
    let audit = root().join("infra/templates/govcloud/audit.yaml");
    deployment.file("templates/govcloud/audit.yaml", &std::fs::read_to_string(audit).unwrap());
    deployment.file("templates/govcloud/gateway.yaml", GATEWAY);
    deployment.file("templates/commercial/network.yaml", PATH);
    deployment.environment("govcloud/gateway.params", "ArtifactSha256=0123abcd\n");
    deployment.environment("policy.json", &policy("anthropic.*"));
    let plan = "govcloud audit\ncommercial network vpn-network\ngovcloud gateway\n";
    deployment.environment("1.plan", plan);
    deployment.environment("2.plan", &format!("{plan}config policy.json vpn/bedrock=x:443 internet\nsmoke\n"));
    let url = format!("SMOKE_URL=http://{}\nSMOKE_MODEL={MODEL}\n", gateway.plain);
    deployment.environment("settings", &format!("{SETTINGS}BUCKET=b\nGATEWAY=govcloud/gateway\n{url}"));
    deployment.fails(&["evidence", "2"], "evidence: govcloud/audit is not deployed (no such stack)");
    deployment.succeeds(&["1", "--yes"]);
    let _collector = collector(&deployment);

    // Without a broken path the second one is not seen.
    let (status, text) = deployment.status(&["evidence", "2"]);
    assert_eq!(status, Some(1), "{text}");
    for part in [
        "| as it is: signed calls to anthropic.claude-3-5-sonnet-20241022-v2:0 that Bedrock answers | seen: 12 of 12 |",
        "| as it is: an audit record of each answered call | seen: 12 of 12 |",
        "| vpn | us-east-1 | 12 | 200 | ",
        "| a signed call by internet | NOT SEEN |",
        "| a broken path, other calls than before, an alarm (--break PATH) | not tried |",
        "0123abcd.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let alarm = ["--alarm-name", "bedrock-gateway-evidence-FailingOver"];
    let put = ["cloudwatch", "put-metric-alarm", "--metric-name", "m", "--namespace", "n", "--period", "60"];
    let more = ["--evaluation-periods", "1", "--threshold", "1", "--comparison-operator", "GreaterThanThreshold"];
    let statistic = ["--statistic", "Sum"];
    deployment.aws.raw(GovCloud, &[put.as_slice(), &alarm, &more, &statistic].concat()).unwrap();
    let vpn = doubles.remove(0);
    let broke = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (deployment, broke) = (Arc::clone(&deployment), Arc::clone(&broke));
        move || {
            broke.store(when_denied(&deployment, vpn), Ordering::Relaxed);
            let set = ["cloudwatch", "set-alarm-state", "--state-value", "ALARM", "--state-reason", "failing over"];
            deployment.aws.raw(GovCloud, &[set.as_slice(), &alarm].concat()).unwrap();
        }
    });
    let text = deployment.succeeds(&["evidence", "2", "--break", "vpn", "--yes"]);
    watcher.join().unwrap();
    assert!(broke.load(Ordering::Relaxed), "rule 1 was not made: {text}");
    for part in [
        "| vpn broken for 8 s: calls go on | seen: ",
        "| vpn broken: records show another path | seen: ",
        " by internet |",
        "| vpn broken: an alarm | seen: bedrock-gateway-evidence-FailingOver",
        "| a signed call by internet | seen: us-east-1 ",
        "0 not seen.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(rules(&deployment), 0, "the rule is removed");
    let report = text.rsplit("report: ").next().unwrap().trim();
    let written = std::fs::read_to_string(report).unwrap();
    assert!(written.starts_with("# Evidence: evidence at 2, 20") && written.contains("0 not seen."), "{written}");
}

fn collector(deployment: &Deployment) -> Process {
    let mut command = Command::new(required(COLLECTOR).unwrap());
    command.arg("run").arg("--file").arg(deployment.dir.join("access.jsonl")).arg("--dynamodb");
    command.arg(deployment.output(GovCloud, "audit", "TableName"));
    command.envs(deployment.aws.environment()).env("AWS_PROFILE", "govcloud");
    let log = deployment.dir.join("collector.log");
    Process::start_and_wait("audit-collector", command, &log, Duration::from_secs(20)).unwrap().0
}

/// How many rules of number 1 the network ACLs of Commercial have.
fn rules(deployment: &Deployment) -> u64 {
    let query = "length(NetworkAcls[].Entries[?RuleNumber==`1`][])";
    let answer = deployment.aws.call(Commercial, &["ec2", "describe-network-acls", "--query", query]).unwrap();
    answer.as_u64().unwrap()
}

/// Ends the double of the path when the path is denied, as the network would. The mock has none.
fn when_denied(deployment: &Deployment, double: Process) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(120) {
        if rules(deployment) > 0 {
            drop(double);
            return true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    false
}
