//! What the VPN's tests share: a scratch directory, the documents of an example, and doubles of AWS.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bedrock_gateway::process::Process;
use lab::machine::{self, Machine};
use lab::tools::{root, target};
use lab::vpn::cloud::Cloud;
use lab::vpn::daemons;
use serde_json::{Value, json};

pub(crate) const TABLES: [&str; 2] = ["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"];
pub(crate) const REMOTE: &str = "10.100.0.0/16";
pub(crate) const SECRET: &str =
    "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:bedrock-gateway-prod-tunnels";

/// A directory for one test, removed when it ends.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let path = target().join("tmp").join(format!("vpn-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    pub(crate) fn program(&self, name: &str, text: &str) -> PathBuf {
        let file = self.write(name, text);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn infra(name: &str) -> PathBuf {
    root().join("infra/vpn").join(name)
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn settings(name: &str) -> Value {
    json!({
        "stack": "bedrock-gateway-prod-vpn", "resource": "GatewayA", "environment": "prod", "name": name,
        "other": "198.51.100.20", "bucket": "artifacts", "release": { "key": "release.tar.gz", "sha256": "0".repeat(64) },
        "secret": SECRET, "local_cidr": "10.20.0.0/16", "remote_cidr": REMOTE, "route_tables": TABLES,
        "log_group": "/bedrock-gateway/prod/vpn",
    })
}

pub(crate) fn secret() -> Value {
    let tunnel = |nth: u32, net: u32| {
        json!({ "outside": format!("203.0.113.{nth}"), "inside": format!("169.254.{net}.{}/30", 4 * nth),
                "psk": format!("example_key.of.tunnel_{nth}") })
    };
    json!({ "local_asn": 65010, "remote_asn": 64512, "gateways": {
        "a": { "outside": "198.51.100.10", "tunnels": [tunnel(1, 101), tunnel(2, 101)] },
        "b": { "outside": "198.51.100.20", "tunnels": [tunnel(3, 102), tunnel(4, 102)] },
    } })
}

pub(crate) fn render(scratch: &Scratch, secret: &Value, settings: &Value) -> Output {
    let mut command = Command::new(infra("render.py"));
    command.arg("--secret").arg(scratch.write("secret.json", &secret.to_string()));
    command.arg("--settings").arg(scratch.write("settings.json", &settings.to_string()));
    command.arg("--out").arg(scratch.0.join("out")).output().unwrap()
}

/// Writes to stderr past the capture of libtest, so that the line is seen though the test passes.
pub(crate) fn notice(line: &str) {
    std::io::stderr().write_all(format!("\n*** {line} ***\n").as_bytes()).unwrap();
}

/// A root of Debian's packages to run programs in. `None` where this host allows no namespaces.
pub(crate) fn bare_machine(scratch: &Scratch) -> Option<Machine> {
    let root = machine::find().unwrap();
    let machine = root.machine(&scratch.0.join("machine")).unwrap();
    let output = Command::new("unshare").args(["--user", "--mount", "true"]).output().unwrap();
    let entered = run(&machine, "true", &[]);
    if entered.status.success() {
        return Some(machine);
    }
    // With namespaces the machine itself is at fault.
    assert!(!output.status.success(), "{}", text(&entered));
    notice(&format!(
        "DEBIAN'S PROGRAMS DID NOT CHECK THE RENDERED FILES: no namespaces here: {}",
        text(&entered).trim()
    ));
    None
}

/// [`bare_machine`] with the files that are rendered for gateway `name`.
pub(crate) fn machine(scratch: &Scratch, name: &str) -> Option<Machine> {
    let rendered = render(scratch, &secret(), &settings(name));
    assert!(rendered.status.success(), "{}", text(&rendered));
    let machine = bare_machine(scratch)?;
    let out = scratch.0.join("out");
    for (name, place) in [
        ("swanctl.conf", "/etc/swanctl/conf.d/bedrock-gateway.conf"),
        ("frr.conf", "/etc/frr/frr.conf"),
        ("firewall.nft", "/etc/firewall.nft"),
        ("interfaces", "/etc/interfaces"),
    ] {
        std::fs::create_dir_all(machine.outside(place).parent().unwrap()).unwrap();
        std::fs::copy(out.join(name), machine.outside(place)).unwrap();
    }
    let conf = machine.outside("/etc/strongswan.d/bedrock-gateway.conf");
    std::fs::copy(infra("strongswan.conf"), conf).unwrap();
    Some(machine)
}

pub(crate) fn run(machine: &Machine, program: &str, arguments: &[&str]) -> Output {
    machine.exec(None, program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A double of AWS whose routes have no effect.
pub(crate) fn cloud() -> Cloud {
    Cloud::new(REMOTE, &TABLES, Box::new(|_, _| Ok(())))
}

/// The real Python: a wrapper of that name on PATH may put other programs before the doubles.
pub(crate) fn python(script: &Path, scratch: &Scratch) -> Command {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let mut command = with_cloud(Path::new(String::from_utf8(output.stdout).unwrap().trim()), scratch);
    command.arg(script);
    command
}

/// A program that finds the double's `aws` on its PATH.
pub(crate) fn with_cloud(program: &Path, scratch: &Scratch) -> Command {
    let mut command = Command::new(program);
    let path = format!("{}:{}", scratch.0.join("bin").display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("CLOUD_DIR", scratch.0.join("cloud"));
    command
}

pub(crate) fn metadata(scratch: &Scratch, items: &[String]) -> (Process, String) {
    let mut command = Command::new("python3");
    command.arg(scratch.write("imds.py", daemons::IMDS)).args(["127.0.0.1", "0"]).args(items);
    Process::start_and_wait("the metadata service", command, &scratch.0.join("imds.log"), Duration::from_secs(20))
        .unwrap()
}
