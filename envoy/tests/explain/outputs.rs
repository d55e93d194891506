//! What `explain` prints: whole outputs, from the program too, and no secret in any.

use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use bedrock_gateway::explain::{AmzDate, Explain};

use super::{CONVERSE, explain, golden, nothing, report};

/// Runs `bedrock-gateway explain` without credentials in its environment.
fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bedrock-gateway"));
    command.arg("explain").args(arguments).env_clear();
    command.output().unwrap()
}

#[test]
fn the_program_prints_a_report() {
    let output = program(&[CONVERSE]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("Request\n  POST /model/anthropic.claude-opus-5/converse, body of 2 bytes\n"), "{text}");
    assert!(text.contains("\nFirst attempt: dx us-east-1 bedrock-runtime.us-east-1.amazonaws.com\n"), "{text}");
}

#[test]
fn the_program_refuses_a_bad_request() {
    let output = program(&["curl 'http://gw"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: REQUEST: column 6: the quote ' is not closed\n");
}

#[test]
fn prints_no_secret() {
    let keys = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("AKIDEXAMPLE".to_owned()),
        "AWS_SECRET_ACCESS_KEY" | "AWS_SESSION_TOKEN" => Some("hush-hush".to_owned()),
        _ => None,
    };
    let api_key = |name: &str| (name == "AWS_BEARER_TOKEN_BEDROCK").then(|| "hush-hush".to_owned());
    let request = format!("{CONVERSE} -H 'authorization: Bearer hush-hush' -H 'x-amz-security-token: hush-hush'");
    for json in [false, true] {
        let explain = Explain { request: request.clone(), json, ..Explain::default() };
        let signed = explain.run(&keys).unwrap();
        assert!(signed.contains("x-amz-security-token") && signed.contains("Signature="), "{signed}");
        let bearer = explain.run(&api_key).unwrap();
        assert!(bearer.contains("Bearer ***") && bearer.contains("no signature is made"), "{bearer}");
        for output in [signed, bearer] {
            assert!(!output.contains("hush-hush"), "{output}");
        }
    }
}

#[test]
fn half_a_pair_of_keys_is_refused() {
    let half = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "AKIDEXAMPLE".to_owned());
    let error = explain(&[CONVERSE]).unwrap().run(&half).unwrap_err().to_string();
    assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
}

#[test]
fn without_a_time_signs_for_now() {
    let before = SystemTime::now();
    let report = report(&[CONVERSE]);
    let date = report.attempts[0].signature.as_ref().unwrap().string_to_sign.lines().nth(1).unwrap().to_owned();
    let AmzDate(time) = date.parse().unwrap();
    assert!(time + std::time::Duration::from_secs(1) >= before && time <= SystemTime::now());
}

fn output_is_golden(case: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain").join(case);
    let file = |name: &str| dir.join(name).display().to_string();
    let options: Vec<String> = serde_json::from_str(&golden(case, "options.json")).unwrap();
    let options = options.into_iter().map(|option| if option == "error.json" { file(&option) } else { option });
    let arguments: Vec<String> =
        [file("request"), "--policy".to_owned(), file("policy.json")].into_iter().chain(options).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = explain(&arguments).unwrap().run(&nothing).unwrap() + "\n";
    if std::env::var_os("UPDATE_EXPLAIN").is_some() {
        std::fs::write(file("output.txt"), &output).unwrap();
    }
    let kept = std::fs::read_to_string(file("output.txt")).unwrap_or_default();
    assert!(kept == output, "{} is old (UPDATE_EXPLAIN=1 writes it); now:\n{output}", file("output.txt"));
}

#[test]
fn output_of_weighted_classes_is_golden() {
    output_is_golden("weighted_classes");
}

#[test]
fn output_of_a_refused_model_is_golden() {
    output_is_golden("refused_model");
}

#[test]
fn output_of_a_refused_geography_is_golden() {
    output_is_golden("refused_geography");
}

#[test]
fn output_of_a_call_that_no_rule_allows() {
    output_is_golden("no_rule_allows");
}

#[test]
fn output_of_a_list_that_is_cut_is_golden() {
    output_is_golden("filtered_list");
}

#[test]
fn output_of_the_gateways_own_list_is_golden() {
    output_is_golden("shown_models");
}

#[test]
fn a_list_that_passes_says_so() {
    let dir = super::Dir::new("lists");
    let policy =
        r#"{"regions": {"us-east-1": {}}, "gateway_api": {}, "route_classes": [{"name": "any", "paths": ["dx"]}]}"#;
    let policy = dir.file("policy.json", policy).display().to_string();
    let text = |request: &str| explain(&[request, "--policy", &policy]).unwrap().run(&nothing).unwrap();
    let list = text("curl http://gw/inference-profiles");
    assert!(list.contains("\nAnswer\n  the list passes as it is: no `models`"), "{list}");
    let status = text("curl http://gw/gateway/v1/status");
    assert!(status.contains("  HTTP/1.1 200, by the gateway itself:\n") && status.contains("\"version\""), "{status}");
    assert!(!text("curl http://gw/guardrails").contains("\nAnswer\n"));
}

#[test]
fn the_age_that_lists_may_have_is_shown() {
    let dir = super::Dir::new("ages");
    let policy = r#"{"regions": {"us-east-1": {}}, "catalogue": {"cluster": "polls"},
        "route_classes": [{"name": "any", "paths": ["dx"], "catalogue_max_age_seconds": 900}]}"#;
    let policy = dir.file("policy.json", policy).display().to_string();
    let text = explain(&[CONVERSE, "--policy", &policy]).unwrap().run(&nothing).unwrap();
    assert!(text.contains("  lists of models (`catalogue`): at most 900 s old, else the call is refused\n"), "{text}");
    assert!(text.contains("\nFirst attempt: dx us-east-1"), "{text}");
}

#[test]
fn the_rule_that_decided_is_shown() {
    let dir = super::Dir::new("rules");
    for (rules, wanted) in [
        (
            r#"[{"id": "a", "effect": "allow", "principals": ["al*"]}]"#,
            "rules[0] a allows the call\n    `principals`: al* matches alice\n",
        ),
        (r#"[{"id": "a", "effect": "allow"}, {"id": "b", "effect": "deny"}]"#, "rules[1] b denies the call\n"),
        (
            r#"[{"id": "a", "effect": "allow", "body_bytes": {"max": 1}}]"#,
            "rules[0] a allows the call only within its limit\n",
        ),
        (
            r#"[{"id": "b", "effect": "deny", "principals": ["bob"]}]"#,
            "no rule denies the call, and it needs no rule that allows it\n",
        ),
        (
            r#"[{"id": "b", "effect": "deny", "mode": "dry_run"}]"#,
            "the call passes; rules[0] b would refuse it (`mode: dry_run`)\n",
        ),
        (
            r#"[{"id": "b", "effect": "allow", "mode": "dry_run", "operations": ["InvokeModel"]}]"#,
            "the call passes; no rule would allow it if those of `mode: dry_run` were enforced\n    rules[0] b: `operations` does not list Converse\n",
        ),
    ] {
        let policy = format!(
            r#"{{"regions": {{"us-east-1": {{}}}}, "principal": [{{"from": "mtls"}}], "route_classes": [{{"name": "any", "paths": ["dx"]}}], "rules": {rules}}}"#
        );
        let policy = dir.file("policy.json", policy).display().to_string();
        let text = explain(&[CONVERSE, "--policy", &policy, "--principal", "alice"]).unwrap().run(&nothing).unwrap();
        assert!(text.contains(&format!("\nRules\n  {wanted}")), "{rules}\n{text}");
    }
}

#[test]
fn output_of_a_request_that_was_changed() {
    output_is_golden("changed_on_the_way");
}
