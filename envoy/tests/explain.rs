//! `explain` against the signature vectors, against planted differences, and against whole outputs.
//!
//! `UPDATE_EXPLAIN=1 cargo test -p bedrock-gateway --test explain` writes the outputs of `tests/fixtures/explain` anew.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use base64::Engine;
use bedrock_gateway::explain::compare::{Difference, Part, compare};
use bedrock_gateway::explain::dry_run::DryRun;
use bedrock_gateway::explain::mask::MASK;
use bedrock_gateway::explain::report::Report;
use bedrock_gateway::explain::signature::{SentRequest, Signature, Signer, signature};
use bedrock_gateway::explain::subject::Subject;
use bedrock_gateway::explain::{AmzDate, Explain, aws};
use clap::Parser;
use filter_core::config::Config;
use filter_core::credentials::{Keys, Secret};
use filter_core::policy::Policy;
use serde_json::{Value, json};

/// The command line of `explain` alone.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    explain: Explain,
}

/// A directory that is removed with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("bedrock-gateway-explain-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, content).unwrap();
        file
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn nothing(_: &str) -> Option<String> {
    None
}

// === the vectors ===

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../host-tests/vectors/sigv4.json");
    let vectors: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(vectors.len(), 20);
    vectors
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

fn wire_path(vector: &Value) -> String {
    match text(vector, "wire_query") {
        "" => text(vector, "wire_path").to_owned(),
        query => format!("{}?{query}", text(vector, "wire_path")),
    }
}

/// What `explain` makes of a vector's wire request.
fn signed(vector: &Value) -> Signature {
    let headers = vector["headers_sent"].as_array().unwrap().iter();
    let headers = headers.map(|pair| (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap().to_owned()));
    let sent = SentRequest {
        method: text(vector, "method").to_owned(),
        host: text(vector, "host").to_owned(),
        path: wire_path(vector),
        headers: headers.collect(),
    };
    let keys = Keys {
        access_key_id: text(vector, "access_key").to_owned(),
        secret_access_key: Secret::new(text(vector, "secret_key")),
        session_token: vector["session_token"].as_str().map(Secret::new),
    };
    let AmzDate(now): AmzDate = text(vector, "amz_date").parse().unwrap();
    let signer = Signer { keys: &keys, region: text(vector, "region"), service: text(vector, "signing_name"), now };
    signature(&sent, text(vector, "body_sha256"), &signer).unwrap()
}

#[test]
fn reproduces_every_vector_stage_by_stage() {
    for vector in vectors() {
        let made = signed(&vector);
        assert_eq!(made.canonical_request, text(&vector, "canonical_request"), "{}", vector["name"]);
        assert_eq!(made.string_to_sign, text(&vector, "string_to_sign"), "{}", vector["name"]);
        assert_eq!(made.signature, text(&vector, "signature"), "{}", vector["name"]);
    }
}

/// A document by which the gateway sends a vector's request to the vector's host, as the client named it.
fn policy_for(vector: &Value) -> Value {
    let host = text(vector, "host");
    let vpce = host.starts_with("vpce-");
    let hosts = if vpce { json!({ "dx": { "bedrock-runtime": host } }) } else { json!({}) };
    json!({
        "role": "gateway",
        "auth": "sigv4",
        "fips": host.contains("-fips."),
        "regions": { (text(vector, "region")): { "hosts": hosts } },
        "route_classes": [{ "name": "any", "paths": ["dx", "internet"] }],
    })
}

fn body(vector: &Value) -> Vec<u8> {
    if vector["body_len"] == 1 << 20 {
        // The one that is too long for the file; its note says how it is made.
        return [&b"{\"inputText\":\""[..], &vec![b'a'; (1 << 20) - 16], b"\"}"].concat();
    }
    base64::engine::general_purpose::STANDARD.decode(vector["body_b64"].as_str().unwrap_or_default()).unwrap()
}

#[test]
fn signs_bedrocks_vectors_from_request_files() {
    let dir = Dir::new("vectors");
    let mut reproduced = 0;
    for vector in vectors() {
        // The gateway does not sign `accept`, and calls Bedrock alone.
        if text(&vector, "signing_name") != "bedrock" || text(&vector, "signed_headers").contains("accept;") {
            continue;
        }
        let mut request = format!("{} {} HTTP/1.1\r\nHost: gateway\r\n", text(&vector, "method"), wire_path(&vector));
        for pair in vector["headers_sent"].as_array().unwrap() {
            request += &format!("{}: {}\r\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        }
        let request = dir.file("request", [request.as_bytes(), b"\r\n", &body(&vector)].concat());
        let policy = dir.file("policy.json", policy_for(&vector).to_string());
        let explain = Explain {
            request: request.display().to_string(),
            policy: Some(policy),
            time: Some(text(&vector, "amz_date").parse().unwrap()),
            ..Explain::default()
        };
        let report = explain.report(&|name| environment(&vector, name)).unwrap();
        let stages = report.attempts[0].signature.as_ref().unwrap();
        let token = vector["session_token"].as_str().unwrap_or("no token");
        assert_eq!(
            stages.canonical_request,
            text(&vector, "canonical_request").replace(token, MASK),
            "{}",
            vector["name"]
        );
        assert_eq!(stages.string_to_sign, text(&vector, "string_to_sign"), "{}", vector["name"]);
        assert_eq!(stages.signature, text(&vector, "signature"), "{}", vector["name"]);
        reproduced += 1;
    }
    assert_eq!(reproduced, 16);
}

fn environment(vector: &Value, name: &str) -> Option<String> {
    match name {
        "AWS_ACCESS_KEY_ID" => vector["access_key"].as_str(),
        "AWS_SECRET_ACCESS_KEY" => vector["secret_key"].as_str(),
        "AWS_SESSION_TOKEN" => vector["session_token"].as_str(),
        _ => None,
    }
    .map(str::to_owned)
}

// === planted differences ===

/// AWS's answer to a request of which it makes these texts, as JSON and as XML.
fn answers(canonical_request: &str, string_to_sign: &str) -> [String; 2] {
    let message = format!(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for this \
         request should have been\n'{canonical_request}'\n\nThe String-to-Sign should have been\n'{string_to_sign}'\n"
    );
    let escaped = message.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&#39;");
    let xml = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>SignatureDoesNotMatch</Code><Message>{escaped}</Message></Error></ErrorResponse>"
    );
    [json!({ "message": message }).to_string(), xml]
}

/// What `explain` finds between its own texts of a vector and AWS's, which must not depend on the form of the answer.
fn found(vector: &Value, canonical_request: &str, string_to_sign: &str) -> Vec<Difference> {
    let made = signed(vector);
    let [json, xml] = answers(canonical_request, string_to_sign).map(|body| {
        let refused = aws::parse(&body).unwrap();
        compare(&made, refused.canonical_request.as_deref(), refused.string_to_sign.as_deref())
    });
    assert_eq!(json, xml, "{}", vector["name"]);
    json
}

/// Edits one line of AWS's canonical request, and checks that this part alone is found.
fn finds(part: impl Fn(&Value) -> Part, edit: impl Fn(&Value, &mut Vec<String>)) {
    for vector in vectors() {
        let mut lines: Vec<String> = text(&vector, "canonical_request").split('\n').map(str::to_owned).collect();
        edit(&vector, &mut lines);
        let differences = found(&vector, &lines.join("\n"), text(&vector, "string_to_sign"));
        let parts: Vec<Part> = differences.into_iter().map(|difference| difference.part).collect();
        assert_eq!(parts, [part(&vector)], "{}", vector["name"]);
    }
}

fn header_line(lines: &mut [String], name: &str) -> usize {
    lines.iter().position(|line| line.starts_with(&format!("{name}:"))).unwrap()
}

#[test]
fn finds_nothing_where_nothing_differs() {
    for vector in vectors() {
        let differences = found(&vector, text(&vector, "canonical_request"), text(&vector, "string_to_sign"));
        assert_eq!(differences, [], "{}", vector["name"]);
    }
}

#[test]
fn finds_another_host() {
    finds(
        |_| Part::Host,
        |_, lines| {
            let host = header_line(lines, "host");
            lines[host] = "host:proxy.example.com".to_owned();
        },
    );
}

#[test]
fn finds_another_path_encoding() {
    finds(
        |_| Part::PathEncoding,
        |vector, lines| {
            lines[1] = match text(vector, "canonical_uri") {
                "/" => "/%252E".to_owned(),
                uri if uri.contains("%25") => uri.replace("%25", "%"),
                uri => uri.replacen('-', "%252D", 1),
            };
        },
    );
}

#[test]
fn finds_another_path() {
    finds(|_| Part::Path, |_, lines| lines[1] += "/more");
}

#[test]
fn finds_another_payload() {
    finds(
        |_| Part::Payload,
        |_, lines| {
            let last = lines.len() - 1;
            lines[last] = "0".repeat(64);
        },
    );
}

/// Changes a header that is signed by choice; where there is none, adds one.
#[test]
fn finds_a_changed_or_added_header() {
    let chosen = |vector: &Value| {
        let mut names = text(vector, "signed_headers").split(';').map(str::to_owned);
        names.find(|name| !["host", "x-amz-date", "x-amz-security-token"].contains(&name.as_str()))
    };
    finds(
        |vector| Part::Header(chosen(vector).unwrap_or_else(|| "content-type".to_owned())),
        |vector, lines| match chosen(vector) {
            Some(name) => {
                let at = header_line(lines, &name);
                lines[at].push_str(", changed");
            }
            None => {
                lines.insert(3, "content-type:text/plain".to_owned());
                let list = lines.len() - 2;
                lines[list] = format!("content-type;{}", lines[list]);
            }
        },
    );
}

#[test]
fn finds_another_date() {
    for vector in vectors() {
        for (date, day) in [("20260102T030905Z", "20260102"), ("20260103T000000Z", "20260103")] {
            let canonical = text(&vector, "canonical_request").replace(text(&vector, "amz_date"), date);
            let to_sign = text(&vector, "string_to_sign").replace(text(&vector, "amz_date"), date);
            let to_sign = to_sign.replace("\n20260102/", &format!("\n{day}/"));
            let differences = found(&vector, &canonical, &to_sign);
            assert_eq!(differences.len(), 1, "{}: {differences:?}", vector["name"]);
            assert_eq!((&differences[0].part, differences[0].aws.as_deref()), (&Part::Date, Some(date)));
        }
    }
}

#[test]
fn finds_another_scope_and_query() {
    for vector in vectors() {
        let to_sign = text(&vector, "string_to_sign").replace("/us-", "/eu-");
        let differences = found(&vector, text(&vector, "canonical_request"), &to_sign);
        assert_eq!(differences.len(), 1, "{}", vector["name"]);
        assert_eq!(differences[0].part, Part::Scope);
    }
    finds(|_| Part::Query, |_, lines| lines[2] += "more=1");
}

#[test]
fn a_difference_says_line_values_and_meaning() {
    let vector = &vectors()[0];
    let canonical =
        text(vector, "canonical_request").replace("host:bedrock-runtime.us-east-1", "host:bedrock.us-west-2");
    let differences = found(vector, &canonical, text(vector, "string_to_sign"));
    assert_eq!(differences[0].line, Some(4));
    assert_eq!(differences[0].ours.as_deref(), Some("bedrock-runtime.us-east-1.amazonaws.com"));
    assert_eq!(differences[0].aws.as_deref(), Some("bedrock.us-west-2.amazonaws.com"));
    assert!(differences[0].meaning.contains("SNI"));
}

#[test]
fn masks_session_tokens_that_differ() {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector["session_token"].is_string()).unwrap();
    let canonical = text(vector, "canonical_request").replace(text(vector, "session_token"), "another-token");
    let differences = found(vector, &canonical, text(vector, "string_to_sign"));
    let shown = format!("{differences:?}");
    assert!(shown.contains("x-amz-security-token") && shown.contains(MASK), "{shown}");
    assert!(!shown.contains("another-token") && !shown.contains(text(vector, "session_token")), "{shown}");
}

// === requests ===

const CONVERSE: &str =
    "curl http://gw/model/anthropic.claude-opus-5/converse -H 'content-type: application/json' -d {}";

fn explain(arguments: &[&str]) -> Result<Explain, clap::Error> {
    let arguments = std::iter::once("explain").chain(arguments.iter().copied());
    Arguments::try_parse_from(arguments).map(|parsed| parsed.explain)
}

fn report(arguments: &[&str]) -> Report {
    explain(arguments).unwrap().report(&nothing).unwrap()
}

fn error(arguments: &[&str]) -> String {
    let error = explain(arguments).unwrap().run(&nothing).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn a_bad_request_is_one_line_with_its_place() {
    let dir = Dir::new("bad");
    let http = dir.file("http", "POST /model/a/invoke HTTP/1.1\nno header\n\n").display().to_string();
    let record = dir.file("record", "{\"operation\": \"Chat\"}").display().to_string();
    let curl = dir.file("curl", "curl gw \\\n  --proxy p\n").display().to_string();
    for (request, wanted) in [
        ("curl 'http://gw", "REQUEST: column 6: the quote ' is not closed".to_owned()),
        ("curl gw -b a=b", "REQUEST: column 9: -b sends cookies".to_owned()),
        ("curl gw --proxy p", "REQUEST: column 9: the option --proxy is not known".to_owned()),
        ("{\"operation\": }", "REQUEST: not an audit record: expected value at line 1 column 15".to_owned()),
        ("/nowhere/at/all", "REQUEST: not a file that can be read (No such file".to_owned()),
        (&http, format!("{http}: line 2: no ':' in a header")),
        (&record, format!("{record}: key `operation`: 'Chat' is not an operation")),
        (&curl, format!("{curl}: line 2, column 3: the option --proxy is not known")),
    ] {
        let error = error(&[request]);
        assert!(error.starts_with(&wanted), "{error}");
    }
}

#[test]
fn a_bad_option_is_named() {
    let dir = Dir::new("options");
    let text = dir.file("text", "no healthy upstream").display().to_string();
    for (option, value, wanted) in [
        ("--region", "us-west-2", "--region us-west-2: the call does not go there; it goes to us-east-1".to_owned()),
        ("--error-body", "/nowhere", "--error-body /nowhere: cannot read it: No such file".to_owned()),
        ("--error-body", &text, format!("--error-body {text}: neither JSON nor XML with a message")),
        ("--policy", "/nowhere", "--policy /nowhere: No such file".to_owned()),
    ] {
        let error = error(&[CONVERSE, option, value]);
        assert!(error.starts_with(&wanted), "{error}");
    }
    for (option, value) in [("--time", "2026-01-02"), ("--path", "satellite")] {
        assert!(explain(&[CONVERSE, option, value]).unwrap_err().to_string().contains(option));
    }
}

#[test]
fn a_record_gives_route_and_reasons_only() {
    let record = json!({
        "operation": "Converse",
        "model_asked": "anthropic.claude-opus-5",
        "principal": "spiffe://x/ns/restricted/sa/y",
        "route_class": "any",
        "path": "internet",
        "region": "us-east-1",
        "bytes_in": 100,
    });
    let report = report(&[&record.to_string()]);
    assert_eq!(report.routes[0].cluster, "bedrock-runtime.private-only");
    assert!(report.attempts.is_empty());
    let differs = report.record.unwrap().differs;
    assert_eq!(
        differs,
        [
            "class: with this document class private-only takes it",
            "internet in us-east-1: with this document the call does not go there"
        ]
    );
}

#[test]
fn explains_records_of_every_operation() {
    for operation in filter_core::operation::OPERATIONS {
        let record = json!({ "operation": operation.name(), "model_asked": "amazon.titan-embed-text-v2:0" });
        let report = report(&[&record.to_string()]);
        assert_eq!(report.operation.unwrap().name, operation.name());
        let refused = operation.name() == "InvokeModelWithBidirectionalStream";
        assert_eq!(report.routes.is_empty(), refused, "{operation}");
    }
}

#[test]
fn paths_as_of_up_choose_the_first_attempt() {
    let path = |arguments: &[&str]| {
        report(&[&[CONVERSE], arguments].concat()).attempts.first().map(|first| first.path.as_str())
    };
    assert_eq!(path(&[]), Some("dx"));
    assert_eq!(path(&["--path", "vpn"]), Some("vpn"));
    assert_eq!(path(&["--path", "internet", "--path", "vpn=10.0.0.1:443"]), Some("vpn"));
    assert_eq!(path(&["--path", "dx/bedrock=10.0.0.1:443"]), None);
    assert_eq!(path(&["--path", "dx@us-west-2=10.0.0.1:443"]), None);
}

#[test]
fn follows_the_environments_order_of_paths() {
    let order = |paths: &'static str| move |name: &str| (name == "BEDROCK_PATHS").then(|| paths.to_owned());
    let report = explain(&[CONVERSE]).unwrap().report(&order("vpn,dx")).unwrap();
    let tries: Vec<&str> = report.routes[0].tries.iter().map(|one| one.path.as_str()).collect();
    assert_eq!((report.routes[0].cluster.as_str(), tries), ("bedrock-runtime.any", vec!["vpn", "dx"]));
    let restricted = [CONVERSE, "--principal", "spiffe://x/ns/restricted/y"];
    let report = explain(&restricted).unwrap().report(&order("internet")).unwrap();
    assert_eq!(report.refusal.unwrap().status, 503);
}

#[test]
fn a_principal_keeps_its_weighted_path() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain/weighted_classes/policy.json");
    let policy = policy.display().to_string();
    let request =
        ["curl gw/model/claude/converse -d {}", "--policy", &policy, "--principal", "spiffe://example.org/ns/a/sa/b"];
    let report = report(&request);
    assert_eq!((report.routes.len(), report.routes[0].path_weight), (1, None));
    assert!(report.notes.iter().any(|note| note.contains("`weights` (dx 90, vpn 10)")), "{:?}", report.notes);
}

/// The clusters listed for any call include the one that core chooses for this call.
#[test]
fn the_cluster_of_core_is_listed() {
    let mut document: Value = serde_json::from_str(&golden("weighted_classes", "policy.json")).unwrap();
    for class in document["route_classes"].as_array_mut().unwrap() {
        class["region_weights"] = json!({ "us-west-2": 3, "us-east-1": 1 });
    }
    let text = document.to_string();
    let policy = Policy::parse(text.as_bytes(), None).unwrap();
    let converse = "curl gw/model/claude/converse -d {}";
    for (request, principal, count) in [
        (converse, None, 4),
        (converse, Some("spiffe://example.org/ns/restricted/sa/chat"), 2),
        (converse, Some("spiffe://example.org/ns/apps/sa/chat"), 2),
        ("curl gw/model/claude/converse -d {} -H 'x-amzn-bedrock-guardrailidentifier: g'", None, 2),
        ("curl gw/model/claude/converse-stream -d {}", None, 2),
        ("curl gw/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A1%3Aprofile%2Fus.anthropic.claude-x/invoke -d {}", None, 2),
    ] {
        let config = Config::parse(text.as_bytes()).unwrap();
        let run = DryRun::new(&config, &policy, principal.map(str::to_owned), SystemTime::now(), &nothing).unwrap();
        let call = run.decide(&Subject::read(request).unwrap()).outcome.unwrap();
        let clusters: Vec<String> = run.routes(&call).into_iter().map(|route| route.cluster).collect();
        assert!(clusters.contains(&call.cluster), "{request}: {} is not in {clusters:?}", call.cluster);
        assert_eq!(clusters.len(), count, "{request}: {clusters:?}");
    }
}

#[test]
fn reads_a_policy_in_yaml() {
    let dir = Dir::new("yaml");
    let policy = dir.file(
        "policy.yaml",
        "# One class.\nauth: sigv4\nregions: {us-west-2: {}}\nroute_classes:\n- {name: only, paths: [vpn]}\n",
    );
    let report = report(&[CONVERSE, "--policy", &policy.display().to_string()]);
    assert_eq!(report.routes[0].cluster, "bedrock-runtime.only");
    assert_eq!(report.attempts[0].host, "bedrock-runtime.us-west-2.amazonaws.com");
}

#[test]
fn fetched_credentials_need_no_source() {
    let dir = Dir::new("fetched");
    let policy = json!({
        "regions": { "us-east-1": {} },
        "credentials": { "source": "imds", "cluster": "imds" },
        "credential_sets": { "other": { "source": "container", "cluster": "container" } },
        "route_classes": [{ "name": "any", "paths": ["dx"], "credentials": "other" }],
    });
    let policy = dir.file("policy.json", policy.to_string()).display().to_string();
    assert!(report(&[CONVERSE, "--policy", &policy]).attempts[0].signature.is_some());
}

#[test]
fn refuses_a_body_that_is_too_long() {
    let dir = Dir::new("long");
    for auth in ["sigv4", "bearer"] {
        let policy = json!({
            "auth": auth,
            "max_body_bytes": 1,
            "regions": { "us-east-1": {} },
            "route_classes": [{ "name": "any", "paths": ["dx"] }],
        });
        let policy = dir.file("policy.json", policy.to_string()).display().to_string();
        for announced in ["", " -H 'transfer-encoding: chunked'"] {
            let report = report(&[&format!("{CONVERSE}{announced}"), "--policy", &policy]);
            assert_eq!(report.refusal.unwrap().status, 413, "{auth}{announced}");
        }
    }
}

// === the program ===

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

// === secrets ===

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

// === whole outputs ===

fn golden(case: &str, name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain");
    std::fs::read_to_string(dir.join(case).join(name)).unwrap()
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
fn output_of_a_request_that_was_changed() {
    output_is_golden("changed_on_the_way");
}
