//! `check` names each planted mistake by file and key, says how to put it right, and finds no fault with the shipped files.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use bedrock_gateway::check::{self, Options};
use bedrock_gateway::platform::Platform;
use serde_json::Value;

#[path = "check/bootstrap.rs"]
mod bootstrap;
#[path = "check/every_mistake.rs"]
mod every_mistake;
#[path = "check/mesh.rs"]
mod mesh;
#[path = "check/messages.rs"]
mod messages;
#[path = "check/rules.rs"]
mod rules;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(repository().join(file)).unwrap()
}

/// A directory that is removed with the test.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Each fault as `check` prints it, without the directory.
fn faults(files: &[PathBuf], change: impl FnOnce(&mut Options)) -> Vec<String> {
    let mut options = Options { files: files.to_vec(), placeholders: true, ..Options::default() };
    options.platform = Some(Platform::AmazonLinux);
    change(&mut options);
    let found = check::findings(&options).unwrap();
    let name = |file: &str| Path::new(file).file_name().unwrap().to_string_lossy().into_owned();
    let line = |fault: check::Fault| {
        let note = if fault.is_note { "note: " } else { "" };
        format!("{note}{}", check::Fault { file: name(&fault.file), ..fault })
    };
    found.into_iter().map(line).collect()
}

/// The text with one part replaced; the part must be there.
fn planted(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the text");
    text.replacen(from, to, 1)
}

/// What is there, what is planted, and how the fault's line begins and what else it says.
type Mistake = (&'static str, &'static str, &'static str, &'static str);

const POLICY: &str = r#"{
  "regions": { "us-east-1": {}, "us-west-2": {} },
  "models": { "allow": ["*"] },
  "aliases": { "sonnet": "anthropic.claude-sonnet-5" },
  "principal": [{ "from": "mtls" }],
  "route_classes": [
    { "name": "bulk", "operations": ["StartAsyncInvoke"], "paths": ["internet"], "dscp": 10 },
    { "name": "any", "paths": ["dx", "vpn"], "weights": { "dx": 1 }, "regions": ["us-east-1"] }
  ],
  "credentials": {
    "source": "federation",
    "using": { "source": "imds", "cluster": "imds" },
    "govcloud": { "cluster": "sts-govcloud", "region": "us-gov-west-1" },
    "commercial": { "cluster": "sts-commercial", "region": "us-east-1" },
    "role_arn": "arn:aws:iam::111122223333:role/gateway",
    "audience": "bedrock-gateway"
  },
  "max_body_bytes": 26214400
}
"#;

const DOCUMENT: [Mistake; 30] = [
    (r#""models": {"#, r#""models" {"#, "rules.json:3:12: ", "`:`"),
    (r#""aliases""#, r#""alias""#, "rules.json:4:3: alias: ", "did you mean `aliases`?"),
    (r#""principal""#, r#""models""#, "rules.json:5:3: models: ", "is there twice"),
    (r#""dscp": 10"#, r#""dscp": 64"#, "rules.json:7:82: route_classes[0].dscp: ", "from 0 to 63"),
    (r#""dscp": 10"#, r#""dscp": "af11""#, "rules.json:7:82: route_classes[0].dscp: ", "from 0 to 63"),
    (r#"["internet"]"#, r#"["internett"]"#, "rules.json:7:", "did you mean `internet`?"),
    (r#"["dx", "vpn"]"#, "[]", "rules.json:8:22: route_classes[1].paths: ", ""),
    (r#"["dx", "vpn"]"#, r#"["dx", "dx"]"#, "rules.json:8:", "dx"),
    (r#"{ "dx": 1 }"#, r#"{ "dx": 0 }"#, "rules.json:8:46: route_classes[1].weights: ", "every weight is zero"),
    (r#"{ "dx": 1 }"#, r#"{ "internet": 1 }"#, "rules.json:8:", "internet"),
    (r#""regions": ["us-east-1"]"#, r#""regions": ["us-east-2"]"#, "rules.json:8:", "us-east-2"),
    (r#""us-west-2": {}"#, r#""us-gov-west-1": {}"#, "rules.json:2:", "Commercial partition"),
    (r#""us-west-2": {}"#, r#""us_west_2": {}"#, "rules.json:2:", "such as us-east-1"),
    (r#""us-west-2": {}"#, r#""us-weast-2": {}"#, "rules.json:2:33: regions.us-weast-2: ", "did you mean `us-west-2`?"),
    (
        r#"sts-govcloud", "region": "us-gov-west-1""#,
        r#"sts-govcloud", "region": "us-gov-weast-1""#,
        "rules.json:13:46: credentials.govcloud.region: ",
        "did you mean `us-gov-west-1`?",
    ),
    (
        r#"sts-commercial", "region": "us-east-1""#,
        r#"sts-commercial", "region": "us-eest-1""#,
        "rules.json:14:50: credentials.commercial.region: ",
        "did you mean `us-east-1`?",
    ),
    (r#""StartAsyncInvoke""#, r#""StartAsyncInvok""#, "rules.json:7:", "did you mean `StartAsyncInvoke`?"),
    (r#""name": "any""#, r#""name": "bulk""#, "rules.json:8:", "bulk"),
    (r#""name": "any""#, r#""name": "Any Class""#, "rules.json:8:7: route_classes[1].name: ", "lower-case"),
    (
        "arn:aws:iam::111122223333:role/gateway",
        "arn:aws-us-gov:iam::1:role/x",
        "rules.json:15:5: credentials.role_arn: ",
        "arn:aws:iam::ACCOUNT:role/NAME",
    ),
    (
        r#""audience": "#,
        r#""duration_seconds": 60, "audience": "#,
        "rules.json:16:5: credentials.duration_seconds: ",
        "900",
    ),
    ("26214400", r#""25 MB""#, "rules.json:18:3: max_body_bytes: ", "whole number"),
    (r#""operations": ["StartAsyncInvoke"], "#, "", "rules.json:8:5: route_classes[1]: ", "bulk"),
    (r#""max_body_bytes""#, r#""role": "server", "max_body_bytes""#, "rules.json:18:3: role: ", "gateway"),
    (
        "\"models\": { \"allow\": [\"*\"] },\n  \"aliases\": { \"sonnet\": \"anthropic.claude-sonnet-5\" },",
        r#""models": { "allow": ["meta.*"], "deny": ["*"] },"#,
        "rules.json:3:36: models.deny: ",
        "no model is left",
    ),
    (
        "\"principal\": [{ \"from\": \"mtls\" }],\n  \"route_classes\": [",
        r#""route_classes": [{ "name": "x", "principals": ["spiffe://*"], "paths": ["dx"] },"#,
        "rules.json:5:36: route_classes[0].principals: ",
        "callers have no name",
    ),
    (r#""source": "imds""#, r#""source": "imsd""#, "rules.json:12:", "did you mean `imds`?"),
    (
        r#""operations": ["StartAsyncInvoke"]"#,
        r#""principals": ["*"], "paths": ["dx"] }, { "name": "chat", "principals": ["spiffe://a/*"], "operations": ["Converse"]"#,
        "rules.json:7:",
        "class 'chat' is never reached: 'bulk' before it takes",
    ),
    (
        r#""max_body_bytes""#,
        r#""credential_sets": { "spare": { "source": "imds", "cluster": "imds" } }, "max_body_bytes""#,
        "rules.json:18:24: credential_sets.spare: ",
        "no route class uses it",
    ),
    (
        "\"allow\": [\"*\"] },\n  \"aliases\": { \"sonnet\": \"anthropic.claude-sonnet-5\" },\n  \"principal\": [{ \"from\": \"mtls\" }],\n  \"route_classes\": [",
        "\"allow\": [\"anthropic.*\"] },\n  \"route_classes\": [\n    { \"name\": \"chat\", \"models\": [\"anthropc.*\", \"anthropic.*\"], \"paths\": [\"dx\"] },",
        "rules.json:5:34: route_classes[0].models[0]: ",
        "did you mean `anthropic.*`?",
    ),
];

#[test]
fn mistakes_of_a_document_are_named() {
    let dir = Dir::new();
    let good = dir.file("rules.json", POLICY);
    assert_eq!(faults(&[good], |_| {}), Vec::<String>::new());
    for (from, to, start, says) in DOCUMENT {
        let file = dir.file("rules.json", &planted(POLICY, from, to));
        let found = faults(&[file], |_| {});
        // A class that a caller leaves by proving no name is a note.
        let said = found.iter().find(|said| !said.starts_with("note: "));
        let said = said.unwrap_or_else(|| panic!("{to}: nothing was found"));
        assert!(said.starts_with(start) && said.contains(says), "{to}: {said}");
        // In the operator's words.
        for word in ["expected u", "struct ", "variant", "i64", "f64", "enum "] {
            assert!(!said.contains(word), "{to}: {said}");
        }
    }
}

/// The filter takes a region that is newer than this program; the operator says that it is meant.
#[test]
fn a_new_region_is_confirmed_by_an_option() {
    let dir = Dir::new();
    let file = dir.file("rules.json", &planted(POLICY, r#""us-west-2": {}"#, r#""us-east-9": {}"#));
    let found = faults(std::slice::from_ref(&file), |_| {});
    let [fault] = found.as_slice() else { panic!("{found:?}") };
    assert!(fault.contains("if AWS has it, pass --known-region us-east-9"), "{fault}");
    assert_eq!(faults(&[file], |options| options.known_regions = vec!["us-east-9".to_owned()]), Vec::<String>::new());
}

#[test]
fn mistakes_in_yaml_have_its_positions() {
    let dir = Dir::new();
    let example = shipped("envoy/example.yaml");
    for (from, to, says) in [
        ("    paths: [dx, vpn]\n", "    paths: [dx, vpm]\n", "route_classes[0].paths[1]: unknown"),
        ("fips: false", "fips: maybe", "fips: want true or false"),
        ("fips: false", "fips: [", "not YAML"),
        ("fips: false", "auth: bearer", "auth"),
    ] {
        let text = planted(&example, from, to);
        let line = text.lines().position(|line| to.trim() == line.trim()).unwrap() + 1;
        let found = faults(&[dir.file("rules.yaml", &text)], |_| {});
        let said = found.first().unwrap_or_else(|| panic!("{to}: nothing was found"));
        assert!(said.starts_with("rules.yaml:") && said.contains(says), "{to}: {said}");
        if says.contains('[') || says.contains("fips") {
            assert!(said.starts_with(&format!("rules.yaml:{line}:")), "{to}: {said}");
        }
    }
}

#[test]
fn paths_without_addresses_are_named() {
    let dir = Dir::new();
    let file = dir.file("rules.json", POLICY);
    let paths = |specs: &[&str]| specs.iter().map(|spec| spec.parse().unwrap()).collect();
    let found = faults(std::slice::from_ref(&file), |options| options.paths = paths(&["dx=10.0.0.1:443"]));
    assert_eq!(
        found,
        [
            "rules.json:7:59: route_classes[0].paths: no --path is given for internet: every call of class 'bulk' would get 503"
        ]
    );
    let found = faults(&[file], |options| options.paths = paths(&["dx=10.0.0.1:443", "internet", "vpn=10.0.0.2:1"]));
    assert_eq!(found, Vec::<String>::new());
}

/// `fips: true` would otherwise be ignored, or every call would fail its handshake.
#[test]
fn fips_that_a_path_cannot_have_is_named() {
    let dir = Dir::new();
    let document = |regions: &str| {
        format!(
            r#"{{ "fips": true, "regions": {regions}, "route_classes": [{{ "name": "any", "paths": ["vpn"], "regions": ["us-east-1"] }}] }}"#
        )
    };
    let endpoint =
        |service: &str| format!("vpn/bedrock-runtime=vpce-0a1b-c2d3.{service}.us-east-1.vpce.amazonaws.com:443");
    let found = |regions: &str, path: &str| {
        let file = dir.file("rules.json", &document(regions));
        faults(&[file], |options| options.paths = vec![path.parse().unwrap()])
    };
    let fips = endpoint("bedrock-runtime-fips");
    assert_eq!(found(r#"{ "us-east-1": {} }"#, &fips), Vec::<String>::new());
    let own =
        r#"{ "us-east-1": { "hosts": { "vpn": { "bedrock-runtime": "bedrock-runtime.us-east-1.amazonaws.com" } } } }"#;
    for (regions, path, says) in [
        (
            r#"{ "us-east-1": {} }"#,
            endpoint("bedrock-runtime"),
            "want an endpoint of com.amazonaws.REGION.bedrock-runtime-fips",
        ),
        (
            r#"{ "us-east-1": {}, "eu-central-1": {} }"#,
            fips.clone(),
            "regions.eu-central-1: `fips` is true, and AWS lists no FIPS",
        ),
        (
            own,
            endpoint("bedrock-runtime"),
            "regions.us-east-1.hosts.vpn.bedrock-runtime: `fips` is true, and bedrock-runtime.us",
        ),
    ] {
        let found = found(regions, &path);
        assert!(
            found.iter().any(|said| said.starts_with("rules.json:1:") && said.contains(says)),
            "{says}: {found:#?}"
        );
    }
}

#[test]
fn placeholders_are_faults_outside_templates() {
    let plugin = repository().join("envoy/istio/sidecar/plugin.yaml");
    let policy = repository().join("infra/environments/example/policy-2.json");
    let found = faults(&[plugin, policy], |options| options.placeholders = false);
    for says in [
        "plugin.yaml:",
        "the digest of zeros is a placeholder",
        "policy-2.json:15:18: @{commercial/identity.RoleArn} is a placeholder",
    ] {
        assert!(found.iter().any(|said| said.contains(says)), "{says}: {found:#?}");
    }
}

#[test]
fn shipped_files_have_no_fault() {
    let mut files = vec![repository().join("envoy/example.yaml"), repository().join("envoy/standalone.yaml")];
    files.extend(check::files_below(&repository().join("envoy/istio")).unwrap());
    let environments = check::files_below(&repository().join("infra/environments")).unwrap();
    assert!(environments.len() > 2, "{environments:?}");
    files.extend(environments);
    // Of a sidecar's two files, one is applied.
    for other in ["sidecar/plugin.yaml", "sidecar/envoyfilter.yaml"] {
        let applied: Vec<PathBuf> = files.iter().filter(|file| !file.ends_with(other)).cloned().collect();
        assert_eq!(applied.len(), files.len() - 1);
        let found = faults(&applied, |_| {});
        // Its callers' names come from the mesh. The class that confines some of them lets nobody pass to the next.
        let known = |note: &String| {
            note.starts_with("note: standalone.yaml:")
                || (note.starts_with("note: ") && note.contains("'private-only'"))
        };
        assert!(found.len() > 1 && found.iter().all(known), "{found:#?}");
    }
}

#[test]
fn a_missing_file_is_one_line() {
    let error = check::run(&Options { files: vec!["/nowhere.yaml".into()], ..Options::default() }).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("cannot read /nowhere.yaml: ") && !said.contains('\n'), "{said}");
}

#[test]
fn what_is_not_an_object_is_named() {
    let dir = Dir::new();
    for (text, says) in [
        ("spec: [", "not YAML"),
        ("apiVersion: v1\n", "want `apiVersion` and `kind`"),
        ("- a\n- b\n", "want an object"),
    ] {
        let found = faults(&[dir.file("x.yaml", text)], |_| {});
        assert!(found.iter().any(|said| said.starts_with("x.yaml") && said.contains(says)), "{text}: {found:#?}");
    }
}

/// The example is what `example` prints: a whole document for two classes, with callers by certificate.
#[test]
fn the_example_is_whole() {
    let example: Value = serde_saphyr::from_str(&shipped("envoy/example.yaml")).unwrap();
    assert_eq!(example["principal"][0]["from"], "mtls");
    assert_eq!(example["route_classes"].as_array().unwrap().len(), 2);
}
