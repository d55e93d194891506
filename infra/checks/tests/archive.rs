//! The release archive on a machine without Rust: its `bedrock-gateway up` serves boto3, and its `infra/deploy` deploys version 1
//! to the mock of AWS. `PATH` has only what the archive contains and docs/deployment.md names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bedrock_gateway::process::{Process, on_path};
use filter_core::names::Partition::GovCloud;
use infra_checks::aws_mock::Aws;
use lab::tools::{DOUBLE, required, root, target};

const KEYS: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");

/// One real call by the SDK.
const CALL: &str = r#"
import sys
import boto3
client = boto3.client("bedrock-runtime", region_name="us-gov-west-1", endpoint_url=sys.argv[1],
                      aws_access_key_id="AKIDOFTHECLIENT", aws_secret_access_key="ignored-by-the-gateway")
message = {"role": "user", "content": [{"text": "Say ok."}]}
answer = client.converse(modelId="anthropic.claude-3-5-sonnet-20241022-v2:0", messages=[message])
print(answer["output"]["message"]["role"], answer["usage"]["outputTokens"])
"#;

/// A directory, removed when its last user ends.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The archive, unpacked once for all tests that run at the same time.
fn release() -> Arc<Directory> {
    static SHARED: Mutex<Weak<Directory>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let release = Directory(target().join("tmp").join(format!("archive-release-{}", std::process::id())));
        std::fs::create_dir_all(&release.0).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(required("RELEASE_ARCHIVE").unwrap()).arg("-C").arg(&release.0);
        assert!(tar.status().unwrap().success());
        let release = Arc::new(release);
        *shared = Arc::downgrade(&release);
        release
    })
}

/// The unpacked archive in a directory for one test.
struct Unpacked {
    dir: Directory,
    _release: Arc<Directory>,
}

/// A gateway, and the double behind it.
struct Running {
    gateway: Option<Process>,
    _double: Process,
}

impl Drop for Running {
    /// `up` ends its Envoy and its collector when it is asked to stop; killed, it could not.
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop(Duration::from_secs(10));
        }
    }
}

impl Unpacked {
    fn new(name: &str) -> Unpacked {
        let dir = target().join("tmp").join(format!("archive-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for folder in ["home", "bin"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        // Links to the same files: the tests do not write into the release.
        let release = release();
        let mut copy = Command::new("cp");
        copy.arg("-al").arg(&release.0).arg(dir.join("release"));
        assert!(copy.status().unwrap().success());
        Unpacked { dir: Directory(dir), _release: release }
    }

    /// The archive's top directory.
    fn root(&self) -> PathBuf {
        self.dir.0.join("release")
    }

    /// `program`, below the archive's top directory, with this `PATH`, an empty `HOME`, these variables and no others.
    fn command(&self, path: &Path, variables: &[(&str, &str)], program: &str) -> Command {
        // `env -i`, since `Process` does not pass on that a command's environment was cleared.
        let mut command = Command::new("env");
        command.arg("-i").arg(format!("PATH={}", path.display()));
        command.arg(format!("HOME={}", self.dir.0.join("home").display()));
        command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program).current_dir(self.root());
        command
    }

    /// The archive's gateway with a double of Bedrock behind it, and the URLs of its listeners, HTTP and HTTPS.
    fn gateway(&self) -> (Running, String, String) {
        let mut double = Command::new(required(DOUBLE).unwrap());
        double.args(["serve", "--listen", "127.0.0.1:0", "--region", "us-east-1", "--path-name", "internet"]);
        double.args(["--access-key", KEYS.0, "--secret-key", KEYS.1, "--tls-dir"]).arg(self.dir.0.join("tls"));
        let log = self.dir.0.join("double.log");
        let limit = Duration::from_secs(20);
        let (double, address) = Process::start_and_wait("bedrock-double", double, &log, limit).unwrap();

        let variables = [("AWS_ACCESS_KEY_ID", KEYS.0), ("AWS_SECRET_ACCESS_KEY", KEYS.1)];
        let mut up = self.command(&self.root(), &variables, "./bedrock-gateway");
        up.args(["up", "--listen", "127.0.0.1:0", "--concurrency", "1", "--region", "us-east-1"]);
        up.arg("--path").arg(format!("internet={address}"));
        // The name of the mock's load balancer.
        up.args(["--host", "*.us-gov-west-1.elb.amazonaws.com"]);
        up.arg("--upstream-ca").arg(self.dir.0.join("tls/ca.pem")).arg("--audit").arg(self.dir.0.join("audit.db"));
        let log = self.dir.0.join("gateway.log");
        let limit = Duration::from_secs(60);
        let (gateway, ready) = Process::start_and_wait("bedrock-gateway", up, &log, limit).unwrap();
        let (plain, rest) = ready.split_once(' ').unwrap();
        let (tls, _) = rest.split_once(' ').unwrap();
        (Running { gateway: Some(gateway), _double: double }, plain.to_owned(), tls.to_owned())
    }

    /// A directory with the programs that docs/deployment.md names, for `PATH`.
    fn documented_programs(&self, aws: &Path) -> PathBuf {
        let page = std::fs::read_to_string(root().join("docs/deployment.md")).unwrap();
        let (_, list) = page.split_once("needs these programs on `PATH`").unwrap();
        let list = list.split("```").nth(1).unwrap();
        let bin = self.dir.0.join("bin");
        for name in list.split_whitespace() {
            let file = if name == "aws" { aws.to_path_buf() } else { on_path(name).unwrap() };
            std::os::unix::fs::symlink(file, bin.join(name)).unwrap();
        }
        bin
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn up_serves_boto3_from_the_archive_alone() {
    let unpacked = Unpacked::new("up");
    let (_running, url, _) = unpacked.gateway();
    let python = required("GATEWAY_PYTHON").unwrap();
    let output = Command::new(python).args(["-c", CALL, &url]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).starts_with("assistant "), "{}", text(&output));
}

#[test]
fn deploys_the_untouched_example() {
    let unpacked = Unpacked::new("deploy");
    let aws = Aws::start(&unpacked.dir.0.join("aws")).unwrap();
    // As docs/deployment.md says, before the first deployment.
    aws.call(GovCloud, &["iam", "enable-outbound-web-identity-federation"]).unwrap();
    let (_running, _, url) = unpacked.gateway();
    // The archive is where the example's settings expect it.
    let name = format!("bedrock-gateway-{}-x86_64.tar.gz", env!("CARGO_PKG_VERSION"));
    std::os::unix::fs::symlink(required("RELEASE_ARCHIVE").unwrap(), unpacked.dir.0.join(name)).unwrap();
    // The mock's load balancer has a name but no machines: curl takes this gateway for it.
    let address = url.strip_prefix("https://").unwrap();
    std::fs::write(unpacked.dir.0.join("home/.curlrc"), format!("connect-to = \"::{address}\"\n")).unwrap();

    let path = unpacked.documented_programs(&aws.cli());
    let mock = aws.environment();
    let mut variables = vec![("DEPLOY_POLL_SECONDS", "0.1")];
    variables.extend(mock.iter().map(|(name, value)| (*name, value.to_str().unwrap())));
    let mut deploy = unpacked.command(&path, &variables, "infra/deploy");
    let output = deploy.args(["example", "1-internet", "--yes"]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in ["release: uploaded as release/", "config: uploaded as config/", "govcloud/gateway: create"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for part in [
        "smoke test of https://bedrock-gateway-",
        "self-signed (no CertificateSecretArn): they are not verified",
        "an unknown operation is refused: UnknownOperationException",
        "  anthropic.claude-haiku-4-5-20251001-v1:0 answers\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.ends_with("example is at 1-internet\n"), "{said}");
}
