//! The scripts of a gateway machine: install, user data, drain and rotate. `cargo xtask test` names Envoy, the module, the
//! binaries and the release archive in the environment.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bedrock_gateway::platform::{self, Platform};
use lab::tools::{GATEWAY, required, root, target};
use sha2::{Digest as _, Sha256};

fn instance(script: &str) -> PathBuf {
    root().join("infra/instance").join(script)
}

/// A directory for one test, removed when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = target().join("tmp").join(format!("instance-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// A program that appends its arguments to `calls` and succeeds.
    fn program(&self, name: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, format!("#!/bin/sh\necho \"{name} $*\" >>'{}'\n", self.0.join("calls").display()))
            .unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An HTTP server that answers by method and path and keeps the requests.
struct Double {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn double(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Double {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            let mut headers = String::new();
            reader.read_line(&mut line).unwrap();
            while reader.read_line(&mut headers).unwrap() > 2 {}
            let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
            // The metadata service refuses requests without a token (IMDSv2).
            let tokenless = request.contains("/meta-data/") && !headers.contains("X-aws-ec2-metadata-token: TOKEN");
            let (status, body) = if tokenless { (401, String::new()) } else { answer(&request) };
            kept.lock().unwrap().push(request);
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = reader.get_mut().write_all((head + &body).as_bytes());
        }
    });
    Double { address, asked }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Envoy's bootstrap of version 1, with its files below `root`.
fn bootstrap(root: &Path) -> String {
    let example = lab::tools::root().join("infra/environments/example/policy-1.json");
    // `infra/deploy` replaces these references by outputs of stacks.
    let document = std::fs::read_to_string(example).unwrap();
    let document = document.replace("@{commercial/identity.RoleArn}", "arn:aws:iam::111122223333:role/bedrock-gateway");
    let policy = root.join("policy.json");
    std::fs::write(&policy, document.replace("@{environment}", "prod")).unwrap();
    let mut command = Command::new(required(GATEWAY).unwrap());
    command.args(["render", "envoy", "--path", "internet", "--policy"]).arg(policy);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let below = |path: &str| root.join(path.trim_start_matches('/')).display().to_string();
    let bundle = below(Platform::AmazonLinux.ca_bundle());
    std::fs::create_dir_all(Path::new(&bundle).parent().unwrap()).unwrap();
    std::fs::copy(platform::host_bundle().unwrap(), bundle).unwrap();
    let config = String::from_utf8(output.stdout).unwrap();
    ["/etc/bedrock-gateway", "/etc/pki", "/var/log/bedrock-gateway"]
        .iter()
        .fold(config, |config, path| config.replace(&format!("\"{path}"), &format!("\"{}", below(path))))
}

fn install(root: &Path, table: &str) -> Output {
    let mut command = Command::new(root.join("opt/bedrock-gateway/infra/instance/install"));
    command.args([table, "", "prod", "bedrock-gateway-prod", ""]);
    command.env("BEDROCK_GATEWAY_ROOT", root).env("AWS_REGION", "us-gov-west-1").output().unwrap()
}

#[test]
fn installs_a_release() {
    let scratch = Scratch::new("release");
    let archive = required("RELEASE_ARCHIVE").unwrap();

    let root = scratch.0.join("root");
    let opt = root.join("opt/bedrock-gateway");
    let etc = root.join("etc/bedrock-gateway");
    std::fs::create_dir_all(&opt).unwrap();
    std::fs::create_dir_all(&etc).unwrap();
    let status = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&opt).status().unwrap();
    assert!(status.success());

    // It fails if Envoy refuses the configuration.
    std::fs::write(etc.join("envoy.json"), "{\"static_resources\": {\"listeners\": [{\"nam\": 1}]}}").unwrap();
    let refused = install(&root, "bedrock-gateway-prod-audit");
    assert!(!refused.status.success());
    assert!(text(&refused).contains("bedrock-gateway: Envoy refuses its configuration"), "{}", text(&refused));

    std::fs::write(etc.join("envoy.json"), bootstrap(&root)).unwrap();
    let installed = install(&root, "bedrock-gateway-prod-audit");
    assert!(installed.status.success(), "{}", text(&installed));
    let environment = std::fs::read_to_string(etc.join("environment")).unwrap();
    assert!(environment.contains("BEDROCK_GATEWAY_TABLE=bedrock-gateway-prod-audit\n"), "{environment}");
    let key = std::fs::metadata(etc.join("tls/key.pem")).unwrap();
    assert_eq!(key.mode() & 0o077, 0, "only the owner may read the key");
    let agent: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(etc.join("cloudwatch-agent.json")).unwrap()).unwrap();
    let groups = agent["logs"]["logs_collected"]["files"]["collect_list"].as_array().unwrap();
    let named: Vec<&str> = groups.iter().filter_map(|group| group["log_group_name"].as_str()).collect();
    assert_eq!(named, ["envoy", "collector", "access", "metrics"].map(|log| format!("/bedrock-gateway/prod/{log}")));

    // The units' programs are executable, and the collector accepts the arguments of its unit.
    let units = root.join("etc/systemd/system");
    let mut started = 0;
    for unit in std::fs::read_dir(&units).unwrap().map(|entry| entry.unwrap().path()) {
        let unit = std::fs::read_to_string(unit).unwrap();
        for line in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let program = root.join(line.split(' ').next().unwrap().trim_start_matches('/'));
            assert_eq!(std::fs::metadata(&program).unwrap().mode() & 0o111, 0o111, "{}", program.display());
            started += 1;
            if let Some((_, arguments)) = line.split_once("audit-collector ") {
                let mut collector = Command::new(program);
                // `--help` is answered only if the arguments before it are known.
                collector.args(arguments.replace("${BEDROCK_GATEWAY_TABLE}", "t").split(' ')).arg("--help");
                let output = collector.output().unwrap();
                assert!(output.status.success(), "{}", text(&output));
            }
        }
    }
    assert_eq!(started, 6);
}

/// An archive of one file, and its SHA-256 in hex.
fn archive(file: &Path, name: &str, text: &str) -> String {
    let content = file.with_extension("content");
    let inner = content.join(name);
    std::fs::create_dir_all(inner.parent().unwrap()).unwrap();
    std::fs::write(&inner, text).unwrap();
    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = Command::new("tar").arg("-czf").arg(file).arg("-C").arg(&content).arg(".").status().unwrap();
    assert!(status.success());
    hex::encode(Sha256::digest(std::fs::read(file).unwrap()))
}

#[test]
fn installs_only_what_the_settings_name() {
    let scratch = Scratch::new("user-data");
    let imds = double(|request| match request {
        "PUT /latest/api/token" => (200, "TOKEN".to_owned()),
        "GET /latest/meta-data/placement/region" => (200, "us-gov-west-1".to_owned()),
        "GET /latest/meta-data/tags/instance/bedrock-gateway:settings" => (200, "/the/settings".to_owned()),
        other => panic!("asked for {other}"),
    });
    let install = format!("#!/bin/sh\necho \"install $1|$2|$3|$4|$5\" >>'{}'\n", scratch.0.join("calls").display());
    let release = archive(&scratch.0.join("release.tar.gz"), "infra/instance/install", &install);
    let config = archive(&scratch.0.join("config.tar.gz"), "envoy.json", "{}");
    // The AWS CLI, for the calls that the script should make.
    std::fs::create_dir_all(scratch.0.join("bin")).unwrap();
    let aws = format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         'ssm get-parameter --name /the/settings --query Parameter.Value --output text') cat '{0}/settings' ;;\n\
         's3 cp --only-show-errors s3://artifacts/'*) cp \"{0}/${{4##*/}}\" \"$5\" ;;\n\
         *) echo \"unexpected: $*\" >&2; exit 64 ;;\nesac\n",
        scratch.0.display()
    );
    std::fs::write(scratch.0.join("bin/aws"), aws).unwrap();
    std::fs::set_permissions(scratch.0.join("bin/aws"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let root = scratch.0.join("root");
    std::fs::create_dir_all(root.join("opt/aws/bin")).unwrap();
    std::fs::rename(scratch.program("cfn-signal"), root.join("opt/aws/bin/cfn-signal")).unwrap();
    let settings = serde_json::json!({
        "stack": "the-stack", "group": "the-group", "environment": "prod", "bucket": "artifacts",
        "release": { "key": "release/release.tar.gz", "sha256": release },
        "config": { "key": "config/config.tar.gz", "sha256": config },
        "table": "the-table", "certificate": "", "client_ca": "arn:the-authority",
    });
    let run = |settings: &serde_json::Value| {
        std::fs::write(scratch.0.join("settings"), settings.to_string()).unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        command.arg(instance("user-data")).env("PATH", format!("{}:{path}", scratch.0.join("bin").display()));
        command.env("BEDROCK_GATEWAY_IMDS", &imds.address).env("BEDROCK_GATEWAY_ROOT", &root).output().unwrap()
    };
    let signal =
        |status: u8| format!("cfn-signal -e {status} --region us-gov-west-1 --stack the-stack --resource Group");

    let good = run(&settings);
    assert!(good.status.success(), "{}", text(&good));
    assert_eq!(scratch.calls(), ["install the-table||prod|the-group|arn:the-authority".to_owned(), signal(0)]);
    assert_eq!(std::fs::read_to_string(root.join("etc/bedrock-gateway/envoy.json")).unwrap(), "{}");

    // With another digest or a missing setting nothing is installed, and the stack is signalled.
    for (pointer, value, said) in [
        ("/config/sha256", serde_json::json!("0".repeat(64)), "config: config/config.tar.gz is another file"),
        ("/client_ca", serde_json::Value::Null, "settings /the/settings: no client_ca"),
        ("/release", serde_json::Value::Null, "settings /the/settings: no release.key"),
    ] {
        let mut wrong = settings.clone();
        if value.is_null() {
            wrong.as_object_mut().unwrap().remove(&pointer[1..]);
        } else {
            *wrong.pointer_mut(pointer).unwrap() = value;
        }
        let before = scratch.calls().len();
        let refused = run(&wrong);
        assert!(!refused.status.success() && text(&refused).contains(said), "{said}: {}", text(&refused));
        assert_eq!(scratch.calls()[before..], [signal(1)], "{said}");
    }
}

#[test]
fn drains_calls_and_records_before_termination() {
    let scratch = Scratch::new("drain");
    let looked = Mutex::new(0);
    let imds = double(move |request| match request {
        "PUT /latest/api/token" => (200, "TOKEN".to_owned()),
        "GET /latest/meta-data/instance-id" => (200, "i-0123456789abcdef0".to_owned()),
        "GET /latest/meta-data/autoscaling/target-lifecycle-state" => {
            let mut looked = looked.lock().unwrap();
            *looked += 1;
            match *looked {
                1 => (404, String::new()),
                2 => (200, "InService".to_owned()),
                _ => (200, "Terminated".to_owned()),
            }
        }
        other => panic!("asked for {other}"),
    });
    let active = Mutex::new(3);
    let admin = double(move |request| match request {
        "POST /healthcheck/fail" => (200, "OK\n".to_owned()),
        r"GET /stats?filter=^http\.gateway\.downstream_rq_active$" => {
            let mut active = active.lock().unwrap();
            *active -= 1;
            (200, format!("http.gateway.downstream_rq_active: {active}\n"))
        }
        other => panic!("asked for {other}"),
    });
    let log = scratch.0.join("access.jsonl");
    std::fs::write(&log, "{}\n{}\n").unwrap();
    let inode = std::fs::metadata(&log).unwrap().ino();
    let checkpoint = |offset: u32| {
        let text = format!("{{\"inode\":{inode},\"offset\":{offset},\"head\":1,\"head_bytes\":6}}");
        std::fs::write(scratch.0.join("access.jsonl.checkpoint.json"), text).unwrap();
    };
    checkpoint(3);
    scratch.program("aws");
    let stop = scratch.program("stop");
    let path = format!("{}:{}", scratch.0.display(), std::env::var("PATH").unwrap());
    let mut drain = Command::new(instance("drain"))
        .env("PATH", path)
        .env("BEDROCK_GATEWAY_IMDS", &imds.address)
        .env("BEDROCK_GATEWAY_ADMIN", &admin.address)
        .env("BEDROCK_GATEWAY_LOG", &log)
        .env("BEDROCK_GATEWAY_GROUP", "bedrock-gateway-prod")
        .env("BEDROCK_GATEWAY_STOP", &stop)
        .env("BEDROCK_GATEWAY_POLL_SECONDS", "0.1")
        .spawn()
        .unwrap();

    // It waits until all records are stored.
    let start = Instant::now();
    let heartbeats = || scratch.calls().iter().filter(|call| call.contains("heartbeat")).count();
    while heartbeats() < 5 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(drain.try_wait().unwrap().is_none() && !scratch.calls().iter().any(|call| call.contains("collector")));
    checkpoint(6);
    assert!(drain.wait().unwrap().success());

    let calls = scratch.calls();
    let at =
        |part: &str| calls.iter().position(|call| call.contains(part)).unwrap_or_else(|| panic!("{part}: {calls:#?}"));
    assert!(at("heartbeat") < at("stop bedrock-gateway-envoy.service"), "Envoy stops after the calls: {calls:#?}");
    assert!(at("stop bedrock-gateway-envoy") < at("stop bedrock-gateway-collector.service"), "{calls:#?}");
    assert_eq!(
        calls.last().unwrap(),
        "aws autoscaling complete-lifecycle-action --lifecycle-hook-name drain --auto-scaling-group-name \
         bedrock-gateway-prod --instance-id i-0123456789abcdef0 --lifecycle-action-result CONTINUE"
    );
    let asked = admin.asked.lock().unwrap();
    assert_eq!(asked.first().unwrap(), "POST /healthcheck/fail", "new calls are refused first");
    assert_eq!(asked.len(), 4, "it polls until no call is active: {asked:?}");
    assert!(imds.asked.lock().unwrap().len() >= 8);
}

#[test]
fn rotates_the_log_and_deletes_only_read_files() {
    let scratch = Scratch::new("rotate");
    let admin = double(|request| match request {
        "POST /reopen_logs" => (200, "OK\n".to_owned()),
        other => panic!("asked for {other}"),
    });
    let log = scratch.0.join("access.jsonl");
    let old = |name: &str, days: u64| {
        let file = scratch.0.join(name);
        std::fs::write(&file, "{}\n").unwrap();
        let then = std::time::SystemTime::now() - Duration::from_secs(days * 86_400);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(then).unwrap();
        std::fs::metadata(&file).unwrap().ino()
    };
    old("access.jsonl-1", 30);
    let reading = old("access.jsonl-2", 20);
    old("access.jsonl-3", 10);
    std::fs::write(&log, "{}\n").unwrap();
    let checkpoint = format!("{{\"inode\":{reading},\"offset\":3,\"head\":1,\"head_bytes\":3}}");
    std::fs::write(scratch.0.join("access.jsonl.checkpoint.json"), checkpoint).unwrap();
    let rotate = |max: &str| {
        let mut command = Command::new(instance("rotate"));
        command.env("BEDROCK_GATEWAY_ADMIN", &admin.address).env("BEDROCK_GATEWAY_LOG", &log);
        let output = command.env("BEDROCK_GATEWAY_MAX_BYTES", max).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let mut names: Vec<String> = std::fs::read_dir(&scratch.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with("checkpoint.json"))
            .collect();
        names.sort();
        names
    };
    // The file that is being read stays, and so do newer ones, whatever their age.
    assert_eq!(rotate("1000"), ["access.jsonl", "access.jsonl-2", "access.jsonl-3"]);
    assert!(admin.asked.lock().unwrap().is_empty());
    let names = rotate("3");
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("access.jsonl-20")), "{names:?}");
    assert_eq!(*admin.asked.lock().unwrap(), ["POST /reopen_logs"]);
}

/// A core file would hold the keys that are in a process's memory.
#[test]
fn services_leave_no_core_file() {
    let files = std::fs::read_dir(root().join("infra/instance")).unwrap().map(|entry| entry.unwrap().path());
    let services: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|kind| kind == "service")).collect();
    assert!(services.len() >= 4, "{services:?}");
    for file in services {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().any(|line| line == "LimitCORE=1"), "{}", file.display());
    }
}

#[test]
fn a_crash_of_envoy_writes_no_request() {
    let text = std::fs::read_to_string(instance("bedrock-gateway-envoy.service")).unwrap();
    for wanted in ["StandardError=null", "StandardOutput=null", "MemoryMax=75%"] {
        assert!(text.lines().any(|line| line == wanted), "{wanted}");
    }
    assert!(text.contains(" --log-path /var/log/bedrock-gateway/envoy.log "), "the backtrace goes to the log");
}

// The agent sends the logs, so it has to run as root to read them.
#[test]
fn only_their_user_reads_the_logs() {
    let files = std::fs::read_dir(root().join("infra/instance")).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.map(|file| (file.clone(), std::fs::read_to_string(file).unwrap_or_default()));
    let writers: Vec<_> = texts.filter(|(_, text)| text.contains("ReadWritePaths=/var/log/bedrock-gateway")).collect();
    assert_eq!(writers.len(), 4);
    for (file, text) in writers {
        assert!(text.lines().any(|line| line == "UMask=0077"), "{}", file.display());
    }
    let agent = std::fs::read_to_string(root().join("infra/instance/cloudwatch-agent.json")).unwrap();
    let agent: serde_json::Value = serde_json::from_str(&agent).unwrap();
    assert_eq!(agent["agent"]["run_as_user"], "root");
}

/// The last line that `metrics.py` wrote in `scratch`.
fn metrics(scratch: &Scratch, admin: &str) -> serde_json::Value {
    let path = format!("{}:{}", scratch.0.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(instance("metrics.py"));
    command.env("PATH", path).env("BEDROCK_GATEWAY_ENVIRONMENT", "prod").env("BEDROCK_GATEWAY_ADMIN", admin);
    command.env("BEDROCK_GATEWAY_COLLECTOR", "http://127.0.0.1:9");
    let output = command.env("BEDROCK_GATEWAY_LOG", scratch.0.join("access.jsonl")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines = std::fs::read_to_string(scratch.0.join("metrics.jsonl")).unwrap();
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

#[test]
fn metrics_are_of_the_last_minute() {
    let scratch = Scratch::new("metrics");
    let looked = Mutex::new(0);
    let admin = double(move |request| {
        assert_eq!(request, "GET /stats/prometheus");
        let mut looked = looked.lock().unwrap();
        *looked += 1;
        // The third page is that of an Envoy that was started again.
        let calls = [10, 17, 2][*looked - 1];
        let page = format!(
            "# TYPE bedrock_requests counter\n\
             bedrock_requests{{class=\"any\",path=\"vpn\"}} {calls}\nbedrock_requests{{class=\"bulk\",path=\"dx\"}} {calls}\n\
             bedrock_tokens{{kind=\"input\"}} 5\nbedrock_tokens{{kind=\"output\"}} 7\n\
             bedrock_credentials_seconds_left{{source=\"a\"}} 900\nbedrock_credentials_seconds_left{{source=\"b\"}} 30\n\
             bedrock_catalogue_age_seconds{{region=\"us-east-1\"}} 7\nbedrock_catalogue_age_seconds{{region=\"us-west-2\"}} 900\n\
             envoy_cluster_membership_total{{envoy_cluster_name=\"bedrock-runtime.any\"}} 3\n\
             envoy_cluster_membership_healthy{{envoy_cluster_name=\"bedrock-runtime.any\"}} 1\n\
             envoy_http_downstream_rq_active{{envoy_http_conn_manager_prefix=\"gateway\"}} 4\n\
             envoy_http_downstream_rq_active{{envoy_http_conn_manager_prefix=\"admin\"}} 1\n"
        );
        (200, page)
    });
    let program = |name: &str, text: &str| {
        std::fs::write(scratch.program(name), format!("#!/bin/sh\n{text}\n")).unwrap();
    };
    program(
        "chronyc",
        "echo A9FEA97B,169.254.169.123,4,1764144000.1,-0.002,0.0,0.0,-3.4,0.0,0.0,0.002,0.001,16.1,Normal",
    );
    program("systemctl", "printf 'active\\ninactive\\nactive\\nactivating\\n'; exit 3");
    std::fs::write(scratch.0.join("access.jsonl"), "x".repeat(100)).unwrap();
    std::fs::write(scratch.0.join("access.jsonl-20260101T000000"), "x".repeat(1000)).unwrap();

    let line = metrics(&scratch, &admin.address);
    for (name, wanted) in [
        ("Calls", 20.0),
        ("InputTokens", 5.0),
        ("OutputTokens", 7.0),
        ("CredentialsSecondsLeft", 30.0),
        ("CatalogueAgeSeconds", 900.0),
        ("EndpointsDown", 2.0),
        ("ActiveCalls", 4.0),
        ("ServicesDown", 2.0),
        ("ClockErrorMs", 4.0),
        ("ClockUnsynchronised", 0.0),
        ("CollectorBehindBytes", 1100.0),
        ("CollectorUp", 0.0),
    ] {
        assert_eq!(line[name].as_f64(), Some(wanted), "{name}: {line}");
    }
    // The collector has read the old file and a part of the current one.
    let inode = std::fs::metadata(scratch.0.join("access.jsonl")).unwrap().ino();
    let checkpoint = format!("{{\"inode\":{inode},\"offset\":40,\"head\":1,\"head_bytes\":6}}");
    std::fs::write(scratch.0.join("access.jsonl.checkpoint.json"), checkpoint).unwrap();
    program("chronyc", "echo ,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,'Not synchronised'");
    let line = metrics(&scratch, &admin.address);
    assert_eq!((line["Calls"].as_f64(), line["InputTokens"].as_f64()), (Some(14.0), Some(0.0)), "{line}");
    assert_eq!(line["CollectorBehindBytes"].as_f64(), Some(60.0), "{line}");
    assert_eq!((line["ClockUnsynchronised"].as_f64(), line.get("ClockErrorMs")), (Some(1.0), None), "{line}");
    assert_eq!(metrics(&scratch, &admin.address)["Calls"].as_f64(), Some(4.0));
    // Without Envoy the machine's own remain.
    let line = metrics(&scratch, "http://127.0.0.1:9");
    assert!(line.get("Calls").is_none() && line["DiskUsedPercent"].is_number(), "{line}");
    let named = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
    assert!(named.iter().all(|metric| line[metric["Name"].as_str().unwrap()].is_number()), "{line}");
}
