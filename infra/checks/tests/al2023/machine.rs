//! A machine with Amazon Linux 2023's paths: a directory as root, in namespaces of its own. Its programs are this host's: what of
//! Amazon Linux they stand in for is in `packages.txt`, and the test of glibc's versions in `documents.rs`.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lab::namespace::{Namespace, join};
use lab::tools::{GATEWAY, required, root, target};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};

use crate::doubles::{Doubles, Found, Host, hosts};
use crate::policy::{BUCKET, TABLE, Templates, value};

/// Where clients reach the machine, from the balancer's address, which is the router's too.
pub(crate) const MACHINE: &str = "10.64.0.10";
const BALANCER: &str = "10.64.1.1";

/// Mounts the host's libraries into ROOT and runs its first process. glibc looks for libraries in these folders.
const ENTER: &str = r#"
mount --bind "$1" "$1"
for folder in lib lib64 usr/lib usr/lib64; do
    [ ! -d "/$folder" ] || [ -L "$1/$folder" ] || { mount --bind "/$folder" "$1/$folder" && mount -o remount,bind,ro "$1/$folder"; }
done
mount -t proc proc "$1/proc"
for device in null zero random urandom; do mount --bind "/dev/$device" "$1/dev/$device"; done
cd "$1"
exec env -i "$(command -v chroot)" . /usr/sbin/init
"#;

/// What differs from a sound machine.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// The archive of the release; by default that of `cargo xtask`.
    pub(crate) release: Option<PathBuf>,
    pub(crate) no_ca_bundle: bool,
    pub(crate) expired: bool,
    /// Replaces the policy of the S3 endpoint.
    pub(crate) s3: Option<Value>,
}

/// A machine that was started. Dropping it ends its processes.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) dir: PathBuf,
    pub(crate) doubles: Option<Doubles>,
    pub(crate) aws: Namespace,
    own: Namespace,
    process: Child,
    commands: u32,
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

pub(crate) fn executable(file: &Path, text: &str) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Packs a directory, and returns the archive's SHA-256.
pub(crate) fn pack(folder: &Path, archive: &Path) -> String {
    run(Command::new("tar").arg("-czf").arg(archive).arg("-C").arg(folder).arg("."));
    digest(archive)
}

/// By the program: a debug build takes seconds for an archive.
fn digest(file: &Path) -> String {
    run(Command::new("sha256sum").arg(file)).split(' ').next().unwrap().to_owned()
}

/// The programs of `packages.txt`.
pub(crate) fn programs() -> Vec<String> {
    let list = std::fs::read_to_string(here().join("packages.txt")).unwrap();
    let packages = list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
    packages.flat_map(|(_, programs)| programs.split_whitespace().map(str::to_owned)).collect()
}

pub(crate) fn here() -> PathBuf {
    root().join("infra/checks/tests/al2023")
}

/// A file below the root.
fn write(root: &Path, file: &str, text: &str) {
    let file = root.join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

/// The root of a machine, as Amazon Linux 2023 has it before the user data runs.
fn image(root: &Path, hosts: &[Host]) {
    for folder in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "usr/libexec/stub",
        "usr/share/stub",
        "dev",
        "proc",
        "run",
        "root",
    ] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for folder in ["etc/systemd/system", "opt/aws/bin", "var/log", "var/lib", "tmp"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("usr/sbin", root.join("sbin")).unwrap();
    for folder in ["lib", "lib64"] {
        // Where the host has links too. Otherwise its own folder is mounted.
        match Path::new("/").join(folder).read_link() {
            Ok(_) => symlink(format!("usr/{folder}"), root.join(folder)).unwrap(),
            Err(_) => std::fs::create_dir_all(root.join(folder)).unwrap(),
        }
    }
    for device in ["null", "zero", "random", "urandom"] {
        std::fs::write(root.join("dev").join(device), "").unwrap();
    }
    // Programs: those of the packages and no others, from this host or from `stubs`.
    for program in programs() {
        let stub = here().join("stubs").join(&program);
        let own = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|folder| Path::new(folder).join(&program));
        let own = own.iter().find(|file| file.exists()).map(|file| file.canonicalize().unwrap());
        let own = if program == "sh" { Some(PathBuf::from("/bin/bash")) } else { own };
        let place = root.join(if program == "useradd" { "usr/sbin" } else { "usr/bin" }).join(&program);
        if stub.exists() {
            std::fs::copy(&stub, place).unwrap();
            if program == "openssl" {
                std::fs::copy(own.expect("this host has no openssl"), root.join("usr/libexec/stub/openssl")).unwrap();
            }
        } else {
            let own = own.unwrap_or_else(|| panic!("this host has no {program}"));
            std::fs::copy(own, place).unwrap();
        }
    }
    for (stub, place) in [
        ("init", "usr/sbin/init"),
        ("cfn-signal", "opt/aws/bin/cfn-signal"),
        ("amazon-cloudwatch-agent-ctl", "usr/share/stub/amazon-cloudwatch-agent-ctl"),
    ] {
        std::fs::copy(here().join("stubs").join(stub), root.join(place)).unwrap();
    }
    executable(&root.join("usr/sbin/nologin"), "#!/bin/sh\nexit 1\n");
    for (file, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nbin:x:1:1:bin:/bin:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n",
        ),
        ("etc/group", "root:x:0:\nbin:x:1:\nnobody:x:65534:\n"),
        ("etc/shadow", "root:*LOCK*:14600::::::\nbin:*:19387:0:99999:7:::\n"),
        ("etc/gshadow", "root:::\nbin:::\n"),
        ("etc/login.defs", "USERGROUPS_ENAB yes\nSYS_UID_MIN 201\nSYS_UID_MAX 999\nSYS_GID_MIN 201\nSYS_GID_MAX 999\n"),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
        // The VPC's resolver. Nothing answers there: /etc/hosts stands in for it.
        ("etc/resolv.conf", "nameserver 169.254.169.253\noptions timeout:1 attempts:1\n"),
        (
            "etc/pki/tls/openssl.cnf",
            "[req]\ndistinguished_name = dn\nx509_extensions = v3_ca\n[dn]\n[v3_ca]\nbasicConstraints = CA:true\n",
        ),
    ] {
        write(root, file, text);
    }
    let names: String = hosts.iter().map(|host| format!("{} {}\n", host.address, host.name)).collect();
    write(root, "etc/hosts", &format!("127.0.0.1 localhost\n{names}"));
    let user_data = std::fs::read_to_string(lab::tools::root().join("infra/instance/user-data")).unwrap();
    executable(&root.join("var/lib/cloud/instance/scripts/part-001"), &user_data);
}

/// Envoy's bootstrap of version 1, as `infra/deploy` renders it.
pub(crate) fn bootstrap(dir: &Path) -> String {
    let document = std::fs::read_to_string(root().join("infra/environments/example/policy-1.json")).unwrap();
    let document = document.replace("@{commercial/identity.RoleArn}", "arn:aws:iam::111122223333:role/bedrock-gateway");
    write(dir, "policy.json", &document.replace("@{environment}", "prod"));
    let mut render = Command::new(required(GATEWAY).unwrap());
    // Notes on the document go to stderr.
    let file = dir.join("envoy.json");
    render.args(["render", "envoy", "--path", "internet", "--policy"]).arg(dir.join("policy.json"));
    run(render.arg("--output").arg(&file));
    std::fs::read_to_string(file).unwrap()
}

/// The certificate of the TLS listener: itself, and with its key.
fn certificate(expired: bool) -> (String, String) {
    let mut params = CertificateParams::new(vec!["gateway.example.com".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress(MACHINE.parse().unwrap()));
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(30);
    params.not_after = now + time::Duration::days(if expired { -1 } else { 30 });
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem.clone(), pem + &key.serialize_pem())
}

impl Machine {
    /// Starts a machine, and waits until its user data has ended.
    pub(crate) fn start(plan: Plan) -> Machine {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = target().join("tmp").join(format!("al2023-{}-{}", plan.name, std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let root = dir.join("root");
        let config = dir.join("config");
        std::fs::create_dir_all(&config).unwrap();
        let envoy = bootstrap(&dir);
        write(&config, "envoy.json", &envoy);
        let hosts = hosts(&envoy);
        image(&root, &hosts);

        let (own, aws) =
            (Namespace::add(&format!("gw{number}")).unwrap(), Namespace::add(&format!("aws{number}")).unwrap());
        own.loopback().unwrap();
        aws.loopback().unwrap();
        join([(&aws, "cable", &format!("{BALANCER}/20")), (&own, "eth0", &format!("{MACHINE}/20"))]).unwrap();
        let add = |address: &str| aws.set(&["address", "add", address, "dev", "cable"]).unwrap();
        add("169.254.169.254/32");
        hosts.iter().for_each(|host| add(&format!("{}/32", host.address)));
        own.set(&["route", "add", "169.254.169.254", "dev", "eth0"]).unwrap();
        // The NAT gateway's, and the prefix lists of S3 and DynamoDB.
        own.set(&["route", "add", "default", "via", BALANCER]).unwrap();
        own.rules(&Templates::read().rules(BALANCER)).unwrap();

        let release = plan.release.unwrap_or_else(|| required("RELEASE_ARCHIVE").unwrap());
        let (ca, pem) = certificate(plan.expired);
        write(&dir, "gateway.pem", &ca);
        let config_digest = pack(&config, &dir.join("config.tar.gz"));
        let settings = json!({
            "stack": "bedrock-gateway-prod-gateway", "group": "bedrock-gateway-prod", "environment": "prod", "bucket": BUCKET,
            "release": { "key": "release/release.tar.gz", "sha256": digest(&release) },
            "config": { "key": "config/config.tar.gz", "sha256": config_digest },
            "table": TABLE, "certificate": value("CertificateSecretArn"), "client_ca": "",
        });
        let found = Found { settings, certificate: pem, release, config: dir.join("config.tar.gz") };
        let doubles = Doubles::start(&dir, &aws.file(), &hosts, found);
        *doubles.state.s3.lock().unwrap() = plan.s3;
        if !plan.no_ca_bundle {
            write(&root, "etc/pki/tls/certs/ca-bundle.crt", &std::fs::read_to_string(&doubles.ca).unwrap());
        }

        let mut enter = own.exec(Path::new("unshare"));
        enter.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", ENTER, "sh"]).arg(&root);
        enter.stdin(Stdio::piped()).stdout(Stdio::null());
        let process = enter.spawn().unwrap();
        let mut machine = Machine { dir, doubles: Some(doubles), aws, own, process, commands: 0 };
        machine.wait(0);
        machine
    }

    /// The status of a command.
    fn wait(&mut self, number: u32) -> i32 {
        let start = Instant::now();
        let file = self.dir.join(format!("root/run/stub/{number}.status"));
        while !file.exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "command {number} has not ended: {}", self.said(number));
            assert!(self.process.try_wait().unwrap().is_none(), "the machine has ended: {}", self.said(number));
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(file).unwrap().parse().unwrap()
    }

    fn said(&self, number: u32) -> String {
        self.read(&format!("run/stub/{number}.out"))
    }

    /// The exit status of the user data, and what it wrote.
    pub(crate) fn user_data(&mut self) -> (i32, String) {
        (self.wait(0), self.said(0))
    }

    /// A command on the machine: status and output.
    pub(crate) fn sh(&mut self, command: &str) -> (i32, String) {
        self.commands += 1;
        writeln!(self.process.stdin.as_mut().unwrap(), "{command}").unwrap();
        (self.wait(self.commands), self.said(self.commands))
    }

    /// A file of the machine; empty if it does not exist.
    pub(crate) fn read(&self, file: &str) -> String {
        let bytes = std::fs::read(self.dir.join("root").join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn doubles(&self) -> &Doubles {
        self.doubles.as_ref().unwrap()
    }

    /// What CloudFormation was told.
    pub(crate) fn signals(&self) -> Vec<String> {
        self.doubles().state.signals.lock().unwrap().clone()
    }

    /// The packets that the security group dropped.
    pub(crate) fn dropped(&self) -> u64 {
        let listed = self.own.list(&["table", "inet", "groups"]).unwrap();
        let counters = listed["nftables"].as_array().unwrap().iter().filter_map(|each| each["rule"]["expr"].as_array());
        counters.flatten().filter_map(|each| each["counter"]["packets"].as_u64()).sum()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process ends with its standard input, and all others with it.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        if let Some(doubles) = self.doubles.take() {
            doubles.stop();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
