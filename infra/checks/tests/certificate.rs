//! `infra/certificate` with an authority of OpenSSL, a strict double of AWS Private CA (`infra/checks/acm_pca.py`), and the mock's
//! Secrets Manager. The gateway's own parser reads what is in the secret.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use filter_core::credentials::identity::SigningIdentity;
use filter_core::credentials::responses;
use filter_core::names::Partition::GovCloud;
use infra_checks::aws_mock::Aws;
use infra_checks::policy_files::PolicyFile;
use lab::tools::root;
use serde_json::Value;

const CA: &str =
    "arn:aws-us-gov:acm-pca:us-gov-west-1:444455556666:certificate-authority/11223344-1234-1122-2233-112233445566";
const DAY: u64 = 24 * 60 * 60;

/// The mock, which the tests share. Its servers end with the thread that starts them.
fn mock() -> &'static Aws {
    static MOCK: OnceLock<Aws> = OnceLock::new();
    MOCK.get_or_init(|| {
        let (sender, started) = channel();
        std::thread::spawn(move || {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificate-aws");
            let _ = std::fs::remove_dir_all(&dir);
            sender.send(Aws::start(&dir)).unwrap();
            loop {
                std::thread::park();
            }
        });
        started.recv().unwrap().unwrap()
    })
}

/// One test's authority, secret and `aws`.
struct Bench {
    dir: PathBuf,
    secret: String,
}

impl Bench {
    /// `algorithm` is that of the authority's key, as `openssl genpkey` takes it.
    fn new(name: &str, algorithm: &[&str]) -> Bench {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("certificate-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("bin")).unwrap();
        let program = root().join("infra/checks/acm_pca.py");
        std::fs::write(dir.join("bin/aws"), format!("#!/bin/sh\nexec python3 '{}' \"$@\"\n", program.display()))
            .unwrap();
        std::fs::set_permissions(dir.join("bin/aws"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let made = mock().call(
            GovCloud,
            &[
                "secretsmanager",
                "create-secret",
                "--name",
                &format!("bedrock/{name}/certificate"),
                "--secret-string",
                "{}",
            ],
        );
        let bench = Bench { dir, secret: text_of(&made.unwrap(), "/ARN") };
        bench.authority("ca", algorithm);
        bench
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.dir).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A root: NAME.pem and NAME.key.
    fn authority(&self, name: &str, algorithm: &[&str]) {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        self.openssl(&[&["genpkey", "-out", &key], algorithm].concat());
        self.openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-subj",
            "/CN=Example CA",
            "-days",
            "30",
            "-out",
            &certificate,
        ]);
    }

    /// Signs a request by `ca`, as `openssl ca` does with this section of extensions.
    fn sign(&self, csr: &str, out: &str, ca: &str, extensions: &str, more: &[&str]) {
        let config = format!(
            "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_days = 5\npolicy = p\n\
             unique_subject = no\n[p]\ncommonName = supplied\n[e]\n{extensions}\n"
        );
        std::fs::write(self.dir.join("config"), config).unwrap();
        std::fs::write(self.dir.join("index"), "").unwrap();
        std::fs::write(self.dir.join("serial"), "1000\n").unwrap();
        let (certificate, key) = (format!("{ca}.pem"), format!("{ca}.key"));
        let mut arguments =
            vec!["ca", "-batch", "-notext", "-config", "config", "-extensions", "e", "-in", csr, "-out", out];
        arguments.extend(["-cert", &certificate, "-keyfile", &key]);
        if !more.contains(&"-md") {
            arguments.extend(["-md", "sha256"]);
        }
        arguments.extend(more);
        self.openssl(&arguments);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(root().join("infra/certificate"));
        let path = format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap());
        command.args(arguments).args(["--secret", &self.secret, "--profile", "govcloud"]);
        command.envs(mock().environment()).env("PATH", path).env("DOUBLE", &self.dir).env("REAL_AWS", mock().cli());
        command.output().unwrap()
    }

    /// What it says; no key is in that, nor in an argument of the AWS CLI.
    fn says(&self, output: &Output) -> String {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        for text in [&text, &self.calls()] {
            assert!(!text.contains("PRIVATE KEY") && !text.contains("MIGHAgEA"), "{text}");
        }
        text
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = self.says(&output);
        assert!(output.status.success(), "{text}");
        text
    }

    fn fails(&self, arguments: &[&str], wanted: &str) {
        let before = self.version();
        let output = self.run(arguments);
        let text = self.says(&output);
        assert!(!output.status.success() && text.contains(wanted), "want {wanted:?}, found {text}");
        assert_eq!(self.version(), before, "the secret has changed");
    }

    fn renew(&self, more: &[&str]) -> Vec<String> {
        let anchor = self.file("ca.pem");
        let given = ["renew", "--ca-arn", CA, "--trust-anchor", &anchor].into_iter().chain(more.iter().copied());
        given.map(str::to_owned).collect()
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.dir.join("calls")).unwrap_or_default()
    }

    fn read(&self) -> Value {
        mock().call(GovCloud, &["secretsmanager", "get-secret-value", "--secret-id", &self.secret]).unwrap()
    }

    fn version(&self) -> String {
        text_of(&self.read(), "/VersionId")
    }

    /// The identity in the secret, as the filter reads it: certificate, number of intermediates, and how long it lives.
    fn identity(&self) -> (Vec<u8>, usize, Duration) {
        let material = responses::certificate(self.read().to_string().as_bytes()).unwrap();
        let identity = SigningIdentity::parse(&material).unwrap();
        let valid = identity.valid_at(SystemTime::now()).unwrap();
        (valid.certificate().to_vec(), valid.chain().count(), valid.validity().left(SystemTime::now()))
    }
}

fn text_of(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).unwrap().as_str().unwrap().to_owned()
}

fn strs(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const LEAF: &str = "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature";

#[test]
fn renews_by_aws_private_ca() {
    let bench = Bench::new("renews", &P256);
    let text = bench.succeeds(&strs(&bench.renew(&[])));
    assert!(text.contains("of the secret has certificate") && text.contains("which ends"), "{text}");
    let (first, _, left) = bench.identity();
    assert!(left > Duration::from_secs(6 * DAY) && left <= Duration::from_secs(7 * DAY), "{left:?}");

    // A timer runs it each day: nothing happens while the certificate lives long.
    let before = bench.version();
    let text = bench.succeeds(&strs(&bench.renew(&["--if-left-under", "96"])));
    assert!(text.contains("nothing to do"), "{text}");
    assert_eq!(bench.version(), before);
    bench.succeeds(&strs(&bench.renew(&["--if-left-under", "200", "--days", "3"])));
    let (second, _, left) = bench.identity();
    assert!(left <= Duration::from_secs(3 * DAY), "{left:?}");
    assert_ne!(first, second);
}

#[test]
fn renews_by_an_authority_with_rsa() {
    let bench = Bench::new("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    bench.succeeds(&strs(&bench.renew(&[])));
    assert!(bench.calls().contains("--signing-algorithm SHA256WITHRSA"));
    bench.identity();
}

#[test]
fn names_what_private_ca_refuses() {
    let bench = Bench::new("refused", &P256);
    bench.fails(&strs(&bench.renew(&["--days", "8"])), "exceeds the seven days");
    bench.fails(&strs(&bench.renew(&["--common-name", "a/CN=b"])), "--common-name: want");
    bench.fails(&strs(&bench.renew(&["--days", "1"])), "want a number, 2 or more");
    std::fs::write(bench.dir.join("status"), "DISABLED").unwrap();
    bench.fails(&strs(&bench.renew(&[])), "the authority is DISABLED; want ACTIVE");
    let anchor = bench.file("ca.pem");
    let other = CA.replace("11223344", "00000000");
    bench.fails(&["renew", "--ca-arn", &other, "--trust-anchor", &anchor], "Could not find Certificate Authority");
    let missing = Bench { dir: bench.dir.clone(), secret: bench.secret.replace("bedrock/", "other/") };
    let output = missing.run(&strs(&bench.renew(&[])));
    assert!(missing.says(&output).contains("want the ARN of a secret whose name begins with bedrock/"));
}

#[test]
fn installs_what_another_authority_signed() {
    let bench = Bench::new("installs", &P256);
    let (anchor, csr) = (bench.file("ca.pem"), bench.file("csr"));
    let install = |certificate: &str| {
        let certificate = bench.file(certificate);
        ["install", "--trust-anchor", &anchor, "--certificate", &certificate].map(str::to_owned)
    };
    bench.succeeds(&["request", "--csr", &csr]);
    bench.fails(&["request", "--csr", &csr], "csr exists");
    // The authority itself signs, without an intermediate.
    bench.sign("csr", "direct", "ca", LEAF, &[]);
    bench.succeeds(&strs(&install("direct")));
    assert_eq!(bench.identity().1, 0, "no intermediate");
    std::fs::remove_file(bench.dir.join("csr")).unwrap();
    bench.succeeds(&["request", "--csr", &csr]);
    // An intermediate signs; its certificate follows.
    bench.openssl(&[&["genpkey", "-out", "mid.key"], &P256[..]].concat());
    bench.openssl(&["req", "-new", "-key", "mid.key", "-subj", "/CN=Middle", "-out", "mid.csr"]);
    bench.sign("mid.csr", "mid.pem", "ca", "basicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign", &[]);
    bench.sign("csr", "signed", "mid", LEAF, &[]);
    let both = std::fs::read_to_string(bench.dir.join("signed")).unwrap()
        + &std::fs::read_to_string(bench.dir.join("mid.pem")).unwrap();
    std::fs::write(bench.dir.join("both"), both.replace('\n', "\r\n")).unwrap();
    bench
        .fails(&strs(&install("signed")), "does not trust the certificate: 0 depth lookup: unable to get local issuer");
    bench.succeeds(&strs(&install("both")));
    assert_eq!(bench.identity().1, 1, "one intermediate");
}

#[test]
fn refuses_certificates_that_would_not_work() {
    let bench = Bench::new("unfit", &P256);
    bench.authority("other", &P256);
    let (anchor, csr) = (bench.file("ca.pem"), bench.file("csr"));
    bench.fails(&["install", "--trust-anchor", &anchor, "--certificate", &anchor], "no request waits in the secret");
    bench.succeeds(&["request", "--csr", &csr]);
    bench.openssl(&[&["genpkey", "-out", "stranger.key"], &P256[..]].concat());
    for (name, out) in [("bedrock-gateway", "stranger.csr"), ("somebody", "named.csr")] {
        bench.openssl(&["req", "-new", "-key", "stranger.key", "-subj", &format!("/CN={name}"), "-out", out]);
    }
    let past = ["-startdate", "20260101000000Z", "-enddate", "20260102000000Z"];
    let future = ["-startdate", "20980101000000Z", "-enddate", "20990101000000Z"];
    let hour = Command::new("date").args(["-u", "-d", "+1 hour", "+%Y%m%d%H%M%SZ"]).output().unwrap();
    let hour = String::from_utf8(hour.stdout).unwrap().trim().to_owned();
    let cases: [(&str, &str, &str, &[&str], &str); 9] = [
        ("stranger.csr", "ca", LEAF, &[], "does not belong to the key"),
        ("csr", "ca", "basicConstraints = CA:TRUE\nkeyUsage = digitalSignature", &[], "one of an authority (CA:TRUE)"),
        (
            "csr",
            "ca",
            "basicConstraints = CA:FALSE\nkeyUsage = keyAgreement",
            &[],
            "lacks the key usage digitalSignature",
        ),
        (
            "csr",
            "ca",
            LEAF,
            &["-subj", "/CN=somebody"],
            "common name is \"somebody\"; the role trusts \"bedrock-gateway\"",
        ),
        ("csr", "ca", LEAF, &past, "the certificate has ended"),
        ("csr", "ca", LEAF, &future, "is this clock right?"),
        ("csr", "ca", LEAF, &["-enddate", &hour], "lives less than a day"),
        ("csr", "ca", LEAF, &["-md", "sha1"], "weaker than SHA-256"),
        ("csr", "other", LEAF, &[], "does not trust the certificate: 0 depth lookup: unable to get local issuer"),
    ];
    let signed = bench.file("signed");
    for (request, ca, extensions, more, wanted) in cases {
        bench.sign(request, "signed", ca, extensions, more);
        bench.fails(&["install", "--trust-anchor", &anchor, "--certificate", &signed], wanted);
    }
    std::fs::write(&signed, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    bench.fails(&["install", "--trust-anchor", &anchor, "--certificate", &signed], "cannot be read");
    std::fs::write(&signed, "garbage").unwrap();
    bench.fails(&["install", "--trust-anchor", &anchor, "--certificate", &signed], "no certificate in PEM");
}

#[test]
fn shellcheck_passes_the_script() {
    let shellcheck = lab::machine::find().unwrap().file("usr/bin/shellcheck");
    let output = Command::new(shellcheck).arg(root().join("infra/certificate")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The policy allows each call that the script makes, and no other.
#[test]
fn the_policy_allows_the_calls_of_certificate() {
    let bench = Bench::new("policy", &P256);
    bench.succeeds(&strs(&bench.renew(&["--if-left-under", "96"])));
    let action = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let at = words.iter().position(|word| ["acm-pca", "secretsmanager"].contains(word)).unwrap();
        // The waiter polls GetCertificate.
        let operation = if words[at + 1] == "wait" { "get-certificate" } else { words[at + 1] };
        let camel = operation.split('-').map(|part| part[..1].to_uppercase() + &part[1..]);
        format!("{}:{}", words[at], camel.collect::<String>())
    };
    let calls = bench.calls();
    let made: BTreeSet<String> = calls.lines().map(action).collect();
    let all = PolicyFile::all().unwrap();
    let policy = &all.iter().find(|file| file.name == "govcloud-certificate.json").unwrap().policy;
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements.iter().flat_map(|statement| match &statement["Action"] {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    });
    let allowed: BTreeSet<String> = actions.filter(|action| !action.starts_with("kms:")).collect();
    assert_eq!(made, allowed);
}
