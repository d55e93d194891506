//! The upgrade test: `infra/deploy` takes the example environment from version 1 of connectivity to 2, to 3 and back to 1, on the
//! mock of AWS. After each step the test reads the resources back, and Envoy validates the gateway's configuration. At the end
//! the test removes the higher versions' stacks, in the order that the plan of version 1 states.

mod facts;
mod rendered;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::aws_mock::{Aws, Unsupported, write};
use crate::{Error, release as archive};
use bedrock_gateway::gateway::{Gateway, Options};
use bedrock_gateway::programs::Programs;
use bedrock_gateway::progress;
use filter_core::names::Partition::GovCloud;
use lab::tools::{ENVOY, MODULE, required, root};

/// Each plan with the paths of its configuration.
const STEPS: [(&str, &[&str]); 4] = [
    ("1-internet", &["internet"]),
    ("2-vpn", &["vpn", "internet"]),
    ("3-direct-connect", &["dx", "vpn", "internet"]),
    ("1-internet", &["internet"]),
];
/// The environment. The stacks are named after it.
const ENVIRONMENT: &str = "example";
/// The only existing stack that a change of version may change.
const GATEWAY: &str = "govcloud/gateway";

struct UpgradeTest {
    aws: Aws,
    dir: PathBuf,
    place: PathBuf,
}

/// The changes that `infra/deploy` printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    created: Vec<String>,
    changed: Vec<String>,
    same: usize,
    /// Lines of a change set that replace or remove a resource.
    lost: Vec<String>,
}

impl Changes {
    fn read(text: &str) -> Changes {
        let mut done = Changes::default();
        for line in text.lines() {
            let stack = |end| line.strip_suffix(end).filter(|name| !name.starts_with(' ') && name.contains('/'));
            if let Some(name) = stack(": create") {
                done.created.push(name.to_owned());
            } else if let Some(name) = stack(": update") {
                done.changed.push(name.to_owned());
            } else if stack(": no change").is_some() {
                done.same += 1;
            } else if line.starts_with("  ! replace") || line.starts_with("  - remove") {
                done.lost.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        done
    }

    /// A step may change only the gateway's stack, and may replace only the settings of the machines.
    fn faults(&self, step: usize) -> Vec<String> {
        let mut faults = Vec::new();
        let wanted: &[&str] = if step == 0 { &[] } else { &[GATEWAY] };
        if self.changed != wanted {
            faults.push(format!("changed {:?}; want {wanted:?}", self.changed));
        }
        if step + 1 == STEPS.len() && !self.created.is_empty() {
            faults.push(format!("created {:?} on the way back", self.created));
        }
        let settings = "! replace Settings AWS::SSM::Parameter";
        faults.extend(self.lost.iter().filter(|line| *line != settings).cloned());
        faults
    }
}

/// The faults that the test finds, a line each. Writes one line to stderr for each step.
///
/// # Errors
/// A missing tool, a step that fails, or a read that fails.
pub(crate) fn run() -> Result<Vec<String>, Error> {
    let dir = std::env::temp_dir().join(format!("upgrade-test-{}", std::process::id()));
    let faults = upgrade(&dir);
    let _ = std::fs::remove_dir_all(&dir);
    faults
}

fn upgrade(dir: &Path) -> Result<Vec<String>, Error> {
    let envoy = required(ENVOY)?;
    let aws = Aws::start(&dir.join("aws"))?;
    // As docs/deployment.md says, before the first deployment.
    aws.call(GovCloud, &["iam", "enable-outbound-web-identity-federation"])?;
    let gateway = Gateway::start(&gateway_without_upstream(dir)?, || false)?;
    let place = dir.join(ENVIRONMENT);
    environment(&root().join("infra/environments").join(ENVIRONMENT), &place, gateway.plain)?;
    let test = UpgradeTest { aws, dir: dir.to_path_buf(), place };

    let mut faults = Vec::new();
    let mut first = String::new();
    for (step, (version, paths)) in STEPS.into_iter().enumerate() {
        let start = Instant::now();
        let done = Changes::read(&test.deploy(&[version, "--yes"])?);
        let mut found = done.faults(step);
        let config = rendered::config(&test)?;
        found.extend(rendered::faults(&test, &envoy, &config, paths)?);
        found.extend(facts::faults(&test.aws, paths)?);
        if step == 0 {
            facts::leave_a_record(&test.aws)?;
            first = config;
        } else if step + 1 == STEPS.len() {
            if config != first {
                found.push("the configuration differs from version 1's at first".to_owned());
            }
            found.extend(facts::find_the_record(&test.aws)?);
        }
        progress::say(&format!(
            "{version} on the mock: {} stacks created, {} changed, {} unchanged, in {:.0} s",
            done.created.len(),
            done.changed.len(),
            done.same,
            start.elapsed().as_secs_f64()
        ));
        let name = if step + 1 == STEPS.len() { format!("back at {version}") } else { version.to_owned() };
        faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    faults.extend(test.clear()?);
    gateway.stop(|| true);
    print_unsupported(&test.aws.unsupported()?);
    Ok(faults)
}

impl UpgradeTest {
    /// The output of `infra/deploy`; an error if it fails.
    fn deploy(&self, arguments: &[&str]) -> Result<String, Error> {
        let place = self.place.to_string_lossy();
        let output = self.aws.deploy(&root().join("infra/deploy"), &[&[place.as_ref()], arguments].concat())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = text(&output.stdout) + &text(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let end = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
        Err(Error::Failed(format!("infra/deploy {}:\n{}", arguments.join(" "), end.join("\n"))))
    }

    /// Removes the stacks that the plan of version 1 lists, in its order, and checks that version 1's are left.
    fn clear(&self) -> Result<Vec<String>, Error> {
        let plan = self.place.join("1-internet.plan");
        let text = std::fs::read_to_string(&plan).map_err(Error::file("cannot read", &plan))?;
        let named = text.lines().filter_map(|line| line.strip_prefix("#   version "));
        let stacks: Vec<&str> = named.flat_map(|line| line.split_whitespace().skip(1)).collect();
        for stack in &stacks {
            self.deploy(&["remove", stack, "--yes"])?;
        }
        let mut wanted: Vec<String> = text
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [partition @ ("govcloud" | "commercial"), template, rest @ ..] = words.as_slice() else {
                    return None;
                };
                Some(format!("{partition}/{}", rest.first().unwrap_or(template)))
            })
            .collect();
        wanted.push("commercial/topic".to_owned());
        wanted.sort();
        let status = self.deploy(&["status"])?;
        let mut left: Vec<&str> = status.lines().filter_map(|line| line.split_whitespace().next()).collect();
        left.sort_unstable();
        progress::say(&format!("{} stacks removed, {} of version 1 left", stacks.len(), left.len()));
        if left == wanted { Ok(Vec::new()) } else { Ok(vec![format!("after the removal: {left:?}; want {wanted:?}")]) }
    }
}

/// A gateway for the smoke test. It can refuse calls, but reaches no upstream.
fn gateway_without_upstream(dir: &Path) -> Result<Options, Error> {
    let names = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
        "BEDROCK_PATHS",
    ];
    let programs = Programs {
        envoy: Some(required(ENVOY)?),
        module: Some(required(MODULE)?),
        state: Some(dir.join("gateway")),
        ..Programs::default()
    };
    Ok(Options {
        programs,
        // A reserved name that never resolves (RFC 2606).
        paths: vec!["internet=nobody.invalid:443".parse()?],
        concurrency: Some(1),
        environment: names.map(|name| (name.to_owned(), String::new())).into(),
        ..Options::default()
    })
}

/// Copies the environment. The copy's gateway is at `address` and its release is a dummy: `tests/instance.rs` tests a real one.
fn environment(from: &Path, to: &Path, address: SocketAddr) -> Result<(), Error> {
    for folder in ["", "govcloud", "commercial"] {
        let source = from.join(folder);
        for entry in std::fs::read_dir(&source).map_err(Error::file("cannot read", &source))? {
            let file = entry.map_err(Error::file("cannot read", &source))?.path();
            if file.is_file() {
                let text = std::fs::read_to_string(&file).map_err(Error::file("cannot read", &file))?;
                write(&to.join(folder).join(file.file_name().unwrap_or_default()), &text)?;
            }
        }
    }
    let release = to.join("release.tar.gz");
    archive::placeholder(&release, archive::X86_64, "", "")?;
    let settings = to.join("settings");
    let text = std::fs::read_to_string(&settings).map_err(Error::file("cannot read", &settings))?;
    let lines = text.lines().map(|line| match line.split_once('=') {
        Some(("RELEASE", _)) => format!("RELEASE={}\n", release.display()),
        Some(("SMOKE_URL", _)) => format!("SMOKE_URL=http://{address}\n"),
        // `tests/archive.rs` makes the call.
        Some(("SMOKE_MODEL", _)) => "SMOKE_MODEL=none\n".to_owned(),
        _ => format!("{line}\n"),
    });
    write(&settings, &lines.collect::<String>())
}

/// Prints the resources that the mock could not create or update, by type.
fn print_unsupported(all: &[Unsupported]) {
    if all.is_empty() {
        return;
    }
    progress::say("moto does not support:");
    let mut at = 0;
    while let Some(first) = all.get(at) {
        let of: Vec<&Unsupported> =
            all.iter().skip(at).take_while(|one| (&one.what, &one.kind) == (&first.what, &first.kind)).collect();
        let names: Vec<String> = of.iter().map(|one| format!("{} of {}", one.resource, one.stack)).collect();
        progress::say(&format!("  {} {}: {}", first.what, first.kind, names.join(", ")));
        at += of.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
govcloud/network: no change
govcloud/gateway: update
  ! replace  Settings                     AWS::SSM::Parameter
  ~ change   Template                     AWS::EC2::LaunchTemplate
commercial/vpn: create
  + add      Gateway                      AWS::EC2::VPNGateway
smoke test of http://127.0.0.1:10000
";

    #[test]
    fn reads_the_output_of_a_deployment() {
        let done = Changes::read(SAID);
        assert_eq!((done.created.as_slice(), done.same), (["commercial/vpn".to_owned()].as_slice(), 1));
        assert_eq!(done.faults(1), [""; 0]);
        assert_eq!(done.faults(0), ["changed [\"govcloud/gateway\"]; want []"]);
        assert_eq!(done.faults(STEPS.len() - 1), ["created [\"commercial/vpn\"] on the way back"]);
    }

    #[test]
    fn reports_other_changes_and_replacements() {
        let said = format!("{SAID}govcloud/audit: update\n  ! replace  Table  AWS::DynamoDB::Table\n");
        let faults = Changes::read(&said).faults(2);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert_eq!(faults[1], "! replace Table AWS::DynamoDB::Table");
    }
}
