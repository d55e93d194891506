//! A machine of the gateway, from its user data to a call that is answered and recorded, in a root with Amazon Linux 2023's paths, with
//! strict stubs of `dnf` and `systemctl` and the network that the templates allow. It is not the original: the kernel, glibc and the
//! programs are this host's, no image of Amazon's was started, and `stubs` stands in for systemd, dnf, the AWS CLI and the CloudWatch
//! agent.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod documents;
mod doubles;
mod machine;
mod policy;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lab::namespace;
use lab::tools::{required, root, target};
use serde_json::{Value, json};

use machine::{MACHINE, Machine, Plan, executable, pack};
use policy::Templates;

/// One real call by the SDK, over the machine's TLS listener.
const CALL: &str = r#"
import sys
import boto3
from botocore.config import Config
client = boto3.client("bedrock-runtime", region_name="us-gov-west-1", endpoint_url=sys.argv[1], verify=sys.argv[2],
                      aws_access_key_id="AKIDOFTHECLIENT", aws_secret_access_key="ignored-by-the-gateway",
                      config=Config(connect_timeout=5, retries={"total_max_attempts": 1}))
message = {"role": "user", "content": [{"text": "Say ok."}]}
answer = client.converse(modelId="anthropic.claude-3-5-sonnet-20241022-v2:0", messages=[message])
print(answer["output"]["message"]["role"], answer["usage"]["outputTokens"])
"#;

/// Whether this host lets the test make a machine.
fn can_run() -> bool {
    let Err(why) = namespace::check("the machine of Amazon Linux") else { return true };
    // Past the capture of libtest, so that the line is seen though the test passes.
    std::io::stderr().write_all(format!("\n*** NO MACHINE WAS STARTED: {why} ***\n").as_bytes()).unwrap();
    false
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "not seen within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The S3 endpoint's policy without the repositories of Amazon Linux: only the account's principals.
fn only_the_account() -> Value {
    json!({"Statement": [{
        "Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": format!("arn:aws-us-gov:s3:::{}/*", policy::BUCKET),
        "Condition": {"StringEquals": {"aws:PrincipalAccount": policy::ACCOUNT}},
    }]})
}

#[test]
fn user_data_leads_to_a_call_and_its_record() {
    if !can_run() {
        return;
    }
    let mut machine = Machine::start(Plan { name: "serves", s3: Some(only_the_account()), ..Plan::default() });
    let (status, said) = machine.user_data();
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("bedrock-gateway: installed"), "{said}");
    let signal = |status: u8| {
        format!("-e {status} --region us-gov-west-1 --stack bedrock-gateway-prod-gateway --resource Group")
    };
    assert_eq!(machine.signals(), [signal(0)], "{said}");

    // A call from the load balancer's side, through the listener with the secret's certificate.
    let mut call = machine.aws.exec(&required("GATEWAY_PYTHON").unwrap());
    call.args(["-c", CALL, &format!("https://{MACHINE}:10443")]).arg(machine.dir.join("gateway.pem"));
    let output = call.output().unwrap();
    let answered = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        answered.starts_with("assistant "),
        "{answered}{}{}",
        String::from_utf8_lossy(&output.stderr),
        machine.read("var/log/bedrock-gateway/envoy.log")
    );
    let calls: Vec<_> =
        machine.doubles().received().into_iter().filter(|call| call.path.starts_with("/model/")).collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
    // Records of a kind are the collector's own: of the start of Envoy, for example.
    let record = eventually("the record", || {
        let items = machine.doubles().state.items.lock().unwrap();
        items.iter().find(|item| item["kind"].is_null()).cloned()
    });
    assert_eq!(record["path"]["S"], "internet", "{record}");

    // The gateway serves without the agent, which dnf cannot install. That is on the console.
    let console = eventually("the agent's failure", || {
        Some(machine.read("run/stub/console")).filter(|text| text.contains("AGENT"))
    });
    assert!(
        console.contains("Status code: 403") && console.contains("THE CLOUDWATCH AGENT DOES NOT RUN: dnf"),
        "{console}"
    );
    let (status, said) = machine.sh("systemctl start bedrock-gateway-metrics.service");
    assert_eq!(status, 0, "{said}{}", machine.read("run/stub/journal"));
    let line = machine.read("var/log/bedrock-gateway/metrics.jsonl");
    documents::assert_is_emf(&line);
    let line: Value = serde_json::from_str(&line).unwrap();
    for (metric, wanted) in [
        ("ServicesDown", 1.0),
        ("Calls", 1.0),
        ("CallErrors", 0.0),
        ("EndpointsDown", 0.0),
        ("CollectorBehindBytes", 0.0),
        ("CollectorUp", 1.0),
        ("AuditGaps", 0.0),
        ("EnvoyWritesFailed", 0.0),
    ] {
        assert_eq!(line[metric].as_f64(), Some(wanted), "{metric}: {line}");
    }
    for metric in [
        "ClockErrorMs",
        "CredentialsSecondsLeft",
        "InputTokens",
        "OutputTokens",
        "MemoryUsedPercent",
        "RecordsStored",
        "DiskUsedPercent",
    ] {
        assert!(line[metric].as_f64().is_some_and(|value| value > 0.0), "{metric}: {line}");
    }
    assert_eq!(machine.dropped(), 0, "the security group drops nothing that the machine needs");
    let refused = std::mem::take(&mut *machine.doubles().state.refused.lock().unwrap());
    assert!(!refused.is_empty() && refused.iter().all(|each| each.contains("de612dc2")), "{refused:?}");

    // With the template's policy of the endpoint the agent comes, as when systemd tries again.
    *machine.doubles().state.s3.lock().unwrap() = None;
    let (status, said) = machine.sh("systemctl start bedrock-gateway-agent.service");
    assert_eq!(status, 0, "{said}{}", machine.read("run/stub/console"));
    assert_eq!(machine.read("run/stub/agent"), "started\n");
    assert_eq!(machine.sh("systemctl is-active bedrock-gateway-agent.service").1, "active\n");

    // The group terminates the machine: the drain stops the services, and tells the group.
    machine.doubles().state.terminates.store(true, Ordering::Relaxed);
    let told = eventually("the end of the drain", || {
        let told = machine.doubles().state.lifecycle.lock().unwrap().clone();
        told.last().is_some_and(|last| last.ends_with("--lifecycle-action-result CONTINUE")).then_some(told)
    });
    assert!(told.last().unwrap().starts_with("complete-lifecycle-action "), "{told:?}");
    for service in ["envoy", "collector"] {
        let state = machine.sh(&format!("systemctl is-active bedrock-gateway-{service}.service"));
        assert_eq!(state, (3, "inactive\n".to_owned()), "{service}");
    }
    let refused = machine.doubles().state.refused.lock().unwrap().clone();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn refuses_to_serve_without_a_ca_bundle() {
    if !can_run() {
        return;
    }
    let mut machine = Machine::start(Plan { name: "bundle", no_ca_bundle: true, ..Plan::default() });
    let (status, said) = machine.user_data();
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("/etc/pki/tls/certs/ca-bundle.crt") && said.contains("Envoy refuses its configuration"),
        "{said}"
    );
    assert_fails_the_stack(&machine);
}

/// Nothing was started, and CloudFormation rolls back.
fn assert_fails_the_stack(machine: &Machine) {
    assert_eq!(machine.signals().len(), 1);
    assert!(machine.signals()[0].starts_with("-e 1 "), "{:?}", machine.signals());
    assert!(!machine.dir.join("root/run/systemd/stub/bedrock-gateway-envoy.service").exists(), "Envoy was started");
}

/// A release whose programs do nothing, with a change to its units.
fn small_release(dir: &Path, change: impl Fn(&str, String) -> String) -> PathBuf {
    let folder = dir.join("release");
    for program in ["envoy", "audit-collector"] {
        executable(&folder.join(program), "#!/bin/sh\nexit 0\n");
    }
    for entry in std::fs::read_dir(root().join("infra/instance")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = change(&name, std::fs::read_to_string(&file).unwrap());
        executable(&folder.join("infra/instance").join(name), &text);
    }
    let archive = dir.join("release.tar.gz");
    pack(&folder, &archive);
    archive
}

/// A machine with a small release.
fn small(name: &'static str, expired: bool, change: impl Fn(&str, String) -> String) -> Machine {
    let dir = target().join("tmp").join(format!("al2023-release-{name}-{}", std::process::id()));
    let release = Some(small_release(&dir, change));
    let machine = Machine::start(Plan { name, release, expired, ..Plan::default() });
    std::fs::remove_dir_all(dir).unwrap();
    machine
}

#[test]
fn refuses_an_expired_certificate() {
    if !can_run() {
        return;
    }
    let mut machine = small("expired", true, |_, text| text);
    let (status, said) = machine.user_data();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(":secret:bedrock/prod/tls-AbCdEf: the certificate expired on "), "{said}");
    assert_fails_the_stack(&machine);
}

#[test]
fn refuses_units_that_cannot_start() {
    if !can_run() {
        return;
    }
    let collector = "bedrock-gateway-collector.service";
    // It never reports that it serves.
    let dead = "systemd cannot start the gateway: /var/log/bedrock-gateway/collector.log";
    let cases: [(&str, &str, &str, &str); 5] = [
        (
            "path",
            "/audit-collector run",
            "/audit-colector run",
            "Failed to execute /opt/bedrock-gateway/audit-colector",
        ),
        ("user", "User=bedrock-gateway", "User=bedrock", "User=bedrock: no such user"),
        ("directive", "ProtectHome=true", "ProtectHouse=true", "unknown directive ProtectHouse=true"),
        ("ended", "Restart=always", "Restart=no", dead),
        ("loops", "Restart=always", "Restart=always", dead),
    ];
    for (name, old, new, reason) in cases {
        let mut machine = small(name, false, |file, text| {
            if file == collector {
                assert!(text.contains(old), "{old}");
                return text.replace(old, new);
            }
            // Small releases have no Envoy that gets ready.
            text.replace("until curl ", "until true || curl ")
        });
        let (status, said) = machine.user_data();
        assert_eq!(status, 1, "{name}: {said}");
        assert!(said.contains(reason), "{name}: {said}");
        assert_eq!(machine.signals().len(), 1, "{name}");
    }
}

#[test]
fn the_s3_endpoint_allows_amazons_packages() {
    let (_, policy) = Templates::read().endpoint("s3").unwrap();
    let resource = "arn:aws-us-gov:s3:::al2023-repos-us-gov-west-1-de612dc2/core/mirrors/latest/x86_64/mirror.list";
    let request = |resource, signed| policy::Request { action: "s3:GetObject", resource, signed };
    assert!(policy::allows(&policy, request(resource, false)), "dnf reads without credentials: {policy}");
    assert!(!policy::allows(&policy, request("arn:aws-us-gov:s3:::another-bucket/a", false)), "{policy}");
    assert!(!policy::allows(&policy, request("arn:aws-us-gov:s3:::another-bucket/a", true)), "{policy}");
    assert!(!policy::allows(&only_the_account(), request(resource, false)));
}
