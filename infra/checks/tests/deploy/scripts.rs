//! The scripts of `infra/deploy` themselves, and the table of rights that `preflight` reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use infra_checks::CFN_LINT_PYTHON;
use lab::tools::{required, root};
use serde_json::Value;

/// The parts are checked as the one program that they are: each uses variables of the others.
#[test]
fn deploy_passes_shellcheck() {
    let infra = root().join("infra");
    let deploy = std::fs::read_to_string(infra.join("deploy")).unwrap();
    let (_, parts) = deploy.split_once("for part in ").unwrap();
    let (parts, rest) = parts.split_once("; do\n").unwrap();
    let (_, rest) = rest.split_once("\ndone\n").unwrap();
    let (head, _) = deploy.split_once("for part in ").unwrap();
    let parts: Vec<&str> = parts.split(' ').collect();
    assert_eq!(
        parts.len(),
        std::fs::read_dir(infra.join("lib")).unwrap().count() - 1,
        "each file but rights.tsv is a part"
    );
    let text: String =
        parts.iter().map(|part| std::fs::read_to_string(infra.join(format!("lib/{part}.sh"))).unwrap()).collect();
    let file = std::env::temp_dir().join(format!("deploy-{}.sh", std::process::id()));
    std::fs::write(&file, format!("{head}{text}{rest}")).unwrap();
    let shellcheck = lab::machine::find().unwrap().file("usr/bin/shellcheck");
    let output = Command::new(shellcheck).arg("--shell=bash").arg(&file).env("LANG", "C.UTF-8").output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// AWS's resource schemas, which cfn-lint has, list the calls that create a resource.
#[test]
fn rights_are_those_of_the_resource_schemas() {
    let table = std::fs::read_to_string(root().join("infra/lib/rights.tsv")).unwrap();
    let rows: BTreeMap<&str, Vec<&str>> = table
        .lines()
        .map(|line| line.splitn(3, '\t').collect::<Vec<_>>())
        .map(|row| (row[0], row[1].split(' ').collect()))
        .collect();
    let python = required(CFN_LINT_PYTHON).unwrap();
    let schemas = python.parent().unwrap().join("../site/cfnlint/data/schemas");
    let read = |file: &Path| -> Value { serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap() };
    let names = read(&schemas.join("providers/us-east-1.json"));
    for (kind, actions) in &rows {
        let schema = read(&schemas.join(format!("resources/{}.json", names[kind].as_str().unwrap())));
        let allowed = schema["handlers"]["create"]["permissions"].as_array().unwrap().clone();
        for action in actions {
            assert!(allowed.contains(&Value::from(*action)), "{kind}: {action}");
        }
    }
    let mut found = 0;
    for partition in ["govcloud", "commercial"] {
        for entry in std::fs::read_dir(root().join("infra/templates").join(partition)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let (_, resources) = text.split_once("\nResources:").unwrap();
            for kind in resources.lines().filter_map(|line| line.strip_prefix("    Type: AWS::")) {
                assert!(rows.contains_key(format!("AWS::{kind}").as_str()), "no row for AWS::{kind}");
                found += 1;
            }
        }
    }
    assert!(found > 100, "found only {found} resources");
}
