//! The machine's files: scripts, units, the agent's configuration, the metrics, and the C library that the archive needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::tools::{required, root, target};
use serde_json::Value;

use crate::machine::{here, programs, run};
use crate::policy::{Request, Templates, allows};

fn instance(name: &str) -> PathBuf {
    root().join("infra/instance").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(instance(name)).unwrap()
}

const SCRIPTS: [&str; 5] = ["user-data", "install", "agent", "drain", "rotate"];

/// Words that start a command or stand before one, and the shell's own commands.
const SHELL: [&str; 36] = [
    ".", ":", "[", "break", "case", "cd", "command", "continue", "do", "done", "elif", "else", "esac", "eval", "exec",
    "exit", "export", "fi", "for", "if", "in", "printf", "pwd", "read", "return", "set", "shift", "test", "then",
    "trap", "umask", "unset", "until", "wait", "while", "}",
];

/// A script's commands without comments and texts; each is on a line of its own, as far as `$(…)` matters.
fn commands(script: &str) -> String {
    let script: String =
        script.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect();
    let mut out = String::new();
    // Whether each level is a text in double quotes. `$(` begins a level of commands, also within a text.
    let mut levels = vec![false];
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        let quoted = levels.last() == Some(&true);
        match c {
            '\\' => drop(chars.next()),
            '"' if quoted => drop(levels.pop()),
            '"' => {
                levels.push(true);
                out.push('"');
            }
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                if chars.peek() == Some(&'(') {
                    // Arithmetic has no commands.
                    let _ = chars.by_ref().find(|c| *c == ')');
                    let _ = chars.next();
                    continue;
                }
                levels.push(false);
                out.push('\n');
            }
            _ if quoted => {}
            '\'' => drop(chars.by_ref().find(|c| *c == '\'')),
            // Not the end of a pattern of `case`.
            ')' if levels.len() > 1 => drop(levels.pop()),
            ')' => out.push('\n'),
            c => out.push(c),
        }
    }
    out
}

/// The programs that a script calls by name: the first word of each command.
fn called(script: &str) -> BTreeSet<String> {
    let text = commands(script);
    let functions: BTreeSet<&str> =
        script.lines().filter_map(|line| line.split_once("() {")).map(|(name, _)| name.trim()).collect();
    let mut found = BTreeSet::new();
    for line in text.split(['\n', ';', '|', '&', '{', '(']) {
        for word in line.split_whitespace() {
            let before =
                ["!", "do", "if", "then", "until", "while", "else", "exec"].contains(&word) || word.contains('=');
            if before && !word.starts_with('"') {
                continue;
            }
            let name = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
            if name && word.len() > 1 && !SHELL.contains(&word) && !functions.contains(word) {
                found.insert(word.to_owned());
            }
            break;
        }
    }
    found
}

#[test]
fn scripts_call_only_the_images_programs() {
    let known: BTreeSet<String> = programs().into_iter().collect();
    let mut all = BTreeSet::new();
    for script in SCRIPTS {
        let called = called(&read(script));
        let unknown: Vec<_> = called.iter().filter(|name| !known.contains(*name)).collect();
        assert!(unknown.is_empty(), "{script} calls {unknown:?}, which packages.txt does not have");
        all.extend(called);
    }
    // What this reading finds at least, and what it would find.
    for program in [
        "aws",
        "curl",
        "dnf",
        "find",
        "install",
        "openssl",
        "python3",
        "sed",
        "sha256sum",
        "stat",
        "systemctl",
        "tar",
        "useradd",
    ] {
        assert!(all.contains(program), "{program} is not found any more: {all:?}");
    }
    assert_eq!(called("a=1 jq . <x || crontab -l\nif ! foo; then x=$(bar 1); fi\n").len(), 4);
}

#[test]
fn scripts_and_units_are_sound() {
    let files = target().join("tmp").join(format!("al2023-units-{}", std::process::id()));
    let machine = lab::machine::find().unwrap().machine(&files).unwrap();
    let entered = machine.exec(None, "true").output().unwrap();
    if !entered.status.success() {
        return;
    }
    let place = machine.outside("/opt/bedrock-gateway/infra/instance");
    std::fs::create_dir_all(&place).unwrap();
    // systemd looks for the programs and for the agent's place.
    for name in ["envoy", "audit-collector"] {
        std::fs::copy("/bin/true", machine.outside("/opt/bedrock-gateway").join(name)).unwrap();
    }
    let mut units = Vec::new();
    for entry in std::fs::read_dir(instance("")).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::copy(&from, place.join(&name)).unwrap();
        if name.ends_with(".service") || name.ends_with(".timer") {
            std::fs::copy(&from, machine.outside("/etc/systemd/system").join(&name)).unwrap();
            units.push(format!("/etc/systemd/system/{name}"));
        }
    }
    assert_eq!(units.len(), 8);
    let said = |program: &str, arguments: &[String]| {
        let output = machine.exec(None, program).args(arguments).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let verify = [vec!["verify".to_owned(), "--man=no".to_owned()], units].concat();
    assert_eq!(said("systemd-analyze", &verify), "");
    for script in SCRIPTS {
        assert_eq!(said("shellcheck", &[format!("/opt/bedrock-gateway/infra/instance/{script}")]), "");
    }
    std::fs::remove_dir_all(files).unwrap();
}

/// Runs a Python program on a file.
fn python(program: &str, file: &Path) -> String {
    let python = required("INFRA_AWS_MOCK_PYTHON").unwrap();
    run(Command::new(python).args(["-c", program]).arg(file).arg(here().join("cloudwatch-agent.schema.json")))
}

/// Amazon Linux 2023 has Python 3.9: "What's new in Python 3.10" lists the syntax that it refuses.
#[test]
fn python_files_are_for_python_3_9() {
    let parse = "import ast, sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 9))";
    python(parse, &instance("metrics.py"));
    // The user data calls Python too.
    let (_, rest) = std::fs::read_to_string(instance("user-data"))
        .unwrap()
        .split_once("python3 -c '")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let file = target().join("tmp").join(format!("al2023-python-{}.py", std::process::id()));
    std::fs::write(&file, rest.split('\'').next().unwrap()).unwrap();
    python(parse, &file);
    std::fs::write(&file, "match 1:\n    case _: pass\n").unwrap();
    let fails = format!(
        "import ast, sys\ntry:\n    {}\nexcept SyntaxError: print('refused')",
        parse.split_once("; ").unwrap().1
    );
    assert_eq!(python(&fails, &file), "refused\n");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_agents_configuration_is_valid() {
    let program = "import json, jsonschema, sys\n\
                   config = json.loads(open(sys.argv[1]).read().replace('@ENVIRONMENT@', 'prod'))\n\
                   schema = json.load(open(sys.argv[2]))\n\
                   jsonschema.Draft4Validator.check_schema(schema)\n\
                   print([error.message for error in jsonschema.Draft4Validator(schema).iter_errors(config)])";
    assert_eq!(python(program, &instance("cloudwatch-agent.json")), "[]\n");
    let wrong = target().join("tmp").join(format!("al2023-agent-{}.json", std::process::id()));
    std::fs::write(&wrong, read("cloudwatch-agent.json").replacen("log_group_name", "log_group", 1)).unwrap();
    assert!(python(program, &wrong).contains("'log_group' was unexpected"));
    std::fs::remove_file(wrong).unwrap();
}

/// The agent creates streams in these groups and writes to them, and does not create groups.
#[test]
fn the_machine_may_write_each_log_group() {
    let config: Value = serde_json::from_str(&read("cloudwatch-agent.json").replace("@ENVIRONMENT@", "prod")).unwrap();
    let templates = Templates::read();
    let (_, endpoint) = templates.endpoint("logs").unwrap();
    for entry in config["logs"]["logs_collected"]["files"]["collect_list"].as_array().unwrap() {
        let group = entry["log_group_name"].as_str().unwrap();
        let name = group.rsplit('/').next().unwrap();
        assert_eq!(templates.log_group(group).len(), 1, "{group}");
        let arn = format!("arn:aws-us-gov:logs:us-gov-west-1:444455556666:log-group:{group}");
        for (action, resource) in [
            ("logs:CreateLogStream", format!("{arn}:log-stream:i-0123456789abcdef0")),
            ("logs:PutLogEvents", format!("{arn}:log-stream:i-0123456789abcdef0")),
            ("logs:DescribeLogStreams", arn.clone()),
        ] {
            let request = Request { action, resource: &resource, signed: true };
            assert!(templates.role_allows(request), "{name}: {action}: the role");
            assert!(allows(&endpoint, request), "{name}: {action}: the endpoint");
        }
    }
}

/// CloudWatch User Guide, "Specification: Embedded metric format".
pub(crate) fn assert_is_emf(line: &str) {
    assert_eq!(line.lines().count(), 1, "{line}");
    let line: Value = serde_json::from_str(line).unwrap();
    assert!(line["_aws"]["Timestamp"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{line}");
    let [directive] = line["_aws"]["CloudWatchMetrics"].as_array().unwrap().as_slice() else { panic!("{line}") };
    assert_eq!(directive["Namespace"], "BedrockGateway/prod");
    // An empty set: no dimension. The page allows that.
    assert_eq!(directive["Dimensions"], serde_json::json!([[]]));
    let metrics = directive["Metrics"].as_array().unwrap();
    assert!(metrics.len() <= 100);
    let units = ["Seconds", "Milliseconds", "Bytes", "Percent", "Count"];
    for metric in metrics {
        let name = metric["Name"].as_str().unwrap();
        assert!(line[name].is_number() && units.contains(&metric["Unit"].as_str().unwrap()), "{name}: {line}");
    }
}

/// The page of metrics has each that the script may write, with its unit, and no other.
#[test]
fn the_page_names_each_metric_of_a_machine() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let (_, section) = page.split_once("## In CloudWatch").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('`').nth(1));
    let written =
        run(Command::new(required("INFRA_CFN_LINT_PYTHON").unwrap()).args(["-c", LIST]).arg(instance("metrics.py")));
    assert_eq!(rows.collect::<BTreeSet<_>>(), written.split_whitespace().collect::<BTreeSet<_>>());
}

/// The names in `metrics.py`: keys of the dictionaries, and the first members of the tables.
const LIST: &str = r#"
import re, sys
text = open(sys.argv[1]).read()
names = set(re.findall(r'found\["([A-Z][A-Za-z]+)"\]', text)) | set(re.findall(r'[{ (]"([A-Z][A-Za-z]+)"(?::|, "bedrock_|, \[?"[a-z_]+")', text))
print(*sorted(names - {"Namespace", "Dimensions", "Metrics", "Name", "Unit", "Timestamp", "CloudWatchMetrics", "CollectorStart", "Machine", "NaN"}))
"#;

/// The newest version of glibc that a file names: those that its symbols need, and maybe more.
fn glibc(file: &Path) -> (u32, u32) {
    let named = run(Command::new("grep").args(["-aohE", "GLIBC_[0-9]+\\.[0-9]+"]).arg(file));
    let versions = named.lines().filter_map(|name| name.strip_prefix("GLIBC_")?.split_once('.'));
    versions.map(|(major, minor)| (major.parse().unwrap(), minor.parse().unwrap())).max().unwrap()
}

/// Amazon Linux 2023 has glibc 2.34 for its whole life (https://docs.aws.amazon.com/linux/al2023/ug/core-glibc.html). The archive's other
/// programs are static (`cargo xtask release`); a debug build's are this host's.
#[test]
fn envoy_needs_no_newer_glibc() {
    let newest = glibc(&required("ENVOY_BIN").unwrap());
    assert!(newest <= (2, 34), "Envoy needs glibc {newest:?}");
    // The guide says which.
    let page = std::fs::read_to_string(root().join("docs/deployment.md")).unwrap();
    assert!(page.contains("glibc 2.31 or later (Amazon Linux 2023 has 2.34)") && newest <= (2, 31), "{newest:?}");
}
