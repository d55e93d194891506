//! The tables against the service models of the pinned botocore, and against copies with planted differences.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use api_drift::model::Models;
use api_drift::tables::{Kind, Tables};
use filter_core::operation::Service;
use filter_core::route::SERVICES;
use serde_json::{Value, json};

/// botocore's directory `data`, of the Python that the SDK tests use.
fn data() -> PathBuf {
    let python = std::env::var_os("GATEWAY_PYTHON");
    assert!(python.is_some(), "GATEWAY_PYTHON is not set; see docs/development.md");
    let print = "import botocore, pathlib; print(pathlib.Path(botocore.__file__).parent / 'data')";
    let output = Command::new(python.unwrap()).args(["-c", print]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// The pinned models, which are read once.
fn pinned() -> Change {
    static MODELS: OnceLock<Models> = OnceLock::new();
    Change(MODELS.get_or_init(|| Models::read(&data()).unwrap()).clone())
}

/// The drift of the models after a change, as lines.
fn drift(change: impl FnOnce(&mut Change)) -> Vec<String> {
    let mut models = pinned();
    change(&mut models);
    let drift = api_drift::drift(&models.0, &api_drift::tables().unwrap());
    drift.iter().map(|drift| drift.to_string().split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Models to change.
struct Change(Models);

impl Change {
    /// Merges a value into the service's model at a pointer; `null` removes what it replaces.
    fn set(&mut self, service: Service, pointer: &str, value: Value) {
        let model = self.0.json_mut(service).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = model.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(key).map(drop)
        } else {
            parent.insert(key.to_owned(), value).map(drop)
        };
    }
}

#[test]
fn pinned_models_have_no_drift() {
    assert_eq!(drift(|_| {}), [""; 0]);
}

/// A member whose form is an ARN or an address of S3 names something, unless it is one of these.
#[test]
fn every_member_that_takes_an_arn_names_a_thing() {
    // IAM's roles are in no region.
    const EXCEPT: [&str; 1] = ["bedrock CreateModelInvocationJobRequest.roleArn"];
    let (mut models, mut checked) = (pinned(), 0);
    for ((kind, key), row) in api_drift::tables().unwrap().iter() {
        let (service, member) = key.split_once(' ').unwrap();
        let (structure, name) = member.split_once('.').unwrap_or_default();
        if *kind != Kind::Member || EXCEPT.contains(&key.as_str()) {
            continue;
        }
        let service = SERVICES.into_iter().find(|known| known.name() == service).unwrap();
        let shapes = &models.0.json_mut(service).unwrap()["shapes"];
        let mut shape = &shapes[shapes[structure]["members"][name]["shape"].as_str().unwrap()];
        while let Some(item) = shape["member"]["shape"].as_str() {
            shape = &shapes[item];
        }
        let pattern = shape["pattern"].as_str().unwrap_or_default();
        if pattern.contains("arn:") || pattern.contains("s3://") {
            assert!(!row.value.is_empty(), "{key} takes {pattern}");
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn finds_a_planted_header() {
    let found = drift(|models| {
        let header = json!({"shape": "String", "location": "header", "locationName": "X-Amzn-Bedrock-Planted"});
        models.set(Service::BedrockRuntime, "/shapes/InvokeModelRequest/members/planted", header);
    });
    assert_eq!(
        found,
        ["new member bedrock-runtime InvokeModelRequest.planted", "new header bedrock-runtime x-amzn-bedrock-planted",]
    );
}

#[test]
fn finds_a_planted_operation() {
    let http = json!({"name": "GetPlanted", "http": {"method": "GET", "requestUri": "/planted/{id}"}});
    for service in SERVICES {
        let found = drift(|models| models.set(service, "/operations/GetPlanted", http.clone()));
        assert_eq!(found, [format!("new operation {} GetPlanted: GET /planted/{{id}}", service.name())]);
    }
}

#[test]
fn finds_a_planted_usage_member() {
    let tokens = json!({"shape": "TokenUsageInputTokensInteger"});
    let found = drift(|models| models.set(Service::BedrockRuntime, "/shapes/TokenUsage/members/plantedTokens", tokens));
    assert_eq!(found, ["new output bedrock-runtime TokenUsage.plantedTokens"]);
    // A structure of counts that no table knows.
    let found = drift(|models| {
        let shape = json!({"type": "structure", "members": {"units": {"shape": "GuardrailChecksTextUnits"}}});
        models.set(Service::BedrockAgentRuntime, "/shapes/PlantedUsage", shape);
        let usage = json!({"shape": "PlantedUsage"});
        models.set(Service::BedrockAgentRuntime, "/shapes/RetrieveAndGenerateResponse/members/usage", usage);
    });
    assert_eq!(
        found,
        [
            "new output bedrock-agent-runtime PlantedUsage.units",
            "new output bedrock-agent-runtime RetrieveAndGenerateResponse.usage",
        ]
    );
}

#[test]
fn finds_planted_members_of_each_other_kind() {
    let text = || json!({"shape": "String"});
    let placed = |location: &str, name: &str| json!({"shape": "String", "location": location, "locationName": name});
    for (service, pointer, value, wanted) in [
        (
            Service::Bedrock,
            "/shapes/ListCustomModelsRequest/members/planted",
            placed("querystring", "planted"),
            &["new member bedrock ListCustomModelsRequest.planted", "new query bedrock ListCustomModels.planted"][..],
        ),
        // Deep in a body, in a list of a union.
        (
            Service::BedrockRuntime,
            "/shapes/ToolResultContentBlock/members/planted",
            text(),
            &["new member bedrock-runtime ToolResultContentBlock.planted"],
        ),
        // A known structure in a new place: its path is not in the inventory.
        (
            Service::BedrockRuntime,
            "/shapes/StartAsyncInvokeRequest/members/planted",
            json!({"shape": "GuardrailConfiguration"}),
            &[
                "new member bedrock-runtime StartAsyncInvokeRequest.planted",
                "new pin bedrock-runtime StartAsyncInvoke body planted.guardrailIdentifier: guardrail",
            ],
        ),
        (
            Service::BedrockRuntime,
            "/shapes/InvokeModelResponse/members/planted",
            placed("header", "X-Amzn-Bedrock-Planted"),
            &["new response-header bedrock-runtime x-amzn-bedrock-planted"],
        ),
        (
            Service::BedrockRuntime,
            "/shapes/ConverseStreamOutput/members/planted",
            json!({"shape": "MessageStopEvent"}),
            &["new event bedrock-runtime ConverseStreamOutput.planted"],
        ),
        (
            Service::BedrockRuntime,
            "/shapes/ConverseStreamMetadataEvent/members/planted",
            text(),
            &["new output bedrock-runtime ConverseStreamMetadataEvent.planted"],
        ),
        (
            Service::BedrockAgentRuntime,
            "/shapes/PlantedException",
            json!({"type": "structure", "members": {}, "error": {"httpStatusCode": 418}, "exception": true}),
            &["new exception bedrock-agent-runtime PlantedException: 418"],
        ),
    ] {
        assert_eq!(drift(|models| models.set(service, pointer, value)), wanted, "{pointer}");
    }
}

#[test]
fn finds_what_has_gone_or_changed() {
    for (pointer, value, wanted) in [
        (
            "/operations/ApplyGuardrail/http/requestUri",
            json!("/guardrails/apply"),
            &["changed operation bedrock-runtime ApplyGuardrail: POST /guardrails/apply; \
              the tables have: POST /guardrail/{guardrailIdentifier}/version/{guardrailVersion}/apply"][..],
        ),
        (
            "/shapes/ThrottlingException/error/httpStatusCode",
            json!(503),
            &["changed exception bedrock-runtime ThrottlingException: 503; the tables have: 429"],
        ),
        (
            "/shapes/GuardrailConfiguration/members/guardrailIdentifier",
            Value::Null,
            &[
                "gone member bedrock-runtime GuardrailConfiguration.guardrailIdentifier",
                "gone pin bedrock-runtime Converse body guardrailConfig.guardrailIdentifier",
            ],
        ),
        (
            "/shapes/TokenUsage/members/totalTokens",
            Value::Null,
            &["gone output bedrock-runtime TokenUsage.totalTokens"],
        ),
        (
            "/operations/InvokeGuardrailChecks/http/method",
            json!("PUT"),
            &["changed operation bedrock-runtime InvokeGuardrailChecks: PUT /guardrail-checks/invoke; \
              the tables have: POST /guardrail-checks/invoke"],
        ),
    ] {
        assert_eq!(drift(|models| models.set(Service::BedrockRuntime, pointer, value)), wanted, "{pointer}");
    }
    // An operation goes with all that only it has.
    let found = drift(|models| models.set(Service::Bedrock, "/operations/ListGuardrails", Value::Null));
    assert!(found.contains(&"gone operation bedrock ListGuardrails".to_owned()), "{found:?}");
    assert!(found.contains(&"gone pin bedrock ListGuardrails query guardrailIdentifier".to_owned()), "{found:?}");
}

#[test]
fn finds_rows_of_what_the_code_carries() {
    let stale = "[operation bedrock-runtime refused] not yet\nConverse\n[header bedrock-runtime dropped] not yet\n\
                 x-amzn-bedrock-trace\n[query bedrock refused] not yet\nListCustomModels.isOwned\n";
    let files = [&api_drift::FILES[..], &[("stale.txt", stale)]].concat();
    let drift = api_drift::drift(&pinned().0, &Tables::parse(&files).unwrap());
    let names: Vec<_> = drift.iter().map(|drift| drift.key.1.as_str()).collect();
    let wanted =
        ["bedrock-runtime Converse", "bedrock-runtime x-amzn-bedrock-trace", "bedrock ListCustomModels.isOwned"];
    assert_eq!(names, wanted);
    assert!(drift.iter().all(|drift| drift.to_string().ends_with("remove the row")), "{drift:?}");
}

/// A copy of the models below `directory`, uncompressed, after a change.
fn write(directory: &Path, change: impl FnOnce(&mut Change)) {
    let mut models = pinned();
    change(&mut models);
    for service in SERVICES {
        let version = directory.join(service.name()).join("2023-01-01");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("service-2.json"), models.0.json_mut(service).unwrap().to_string()).unwrap();
    }
}

#[test]
fn the_exit_code_tells_drift_from_failure() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api-drift-codes");
    let run = |arguments: &[&Path]| {
        let output = Command::new(env!("CARGO_BIN_EXE_api-drift")).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    assert_eq!(run(&[&data()]), (0, String::new()));
    let _ = std::fs::remove_dir_all(&directory);
    write(&directory, |_| {});
    assert_eq!(run(&[&directory]), (0, String::new()));
    write(&directory, |models| models.set(Service::BedrockRuntime, "/operations/Converse", Value::Null));
    let (code, text) = run(&[&directory]);
    assert!(code == 1 && text.contains("gone     operation bedrock-runtime Converse\n"), "{code} {text}");
    // What cannot be read is not the same as nothing new.
    for (pointer, wanted) in [("/operations", "no operations or shapes"), ("/metadata/protocol", "want rest-json")] {
        write(&directory, |models| models.set(Service::BedrockAgentRuntime, pointer, Value::Null));
        let (code, text) = run(&[&directory]);
        assert!(code == 2 && text.contains(wanted) && text.contains("bedrock-agent-runtime"), "{code} {text}");
    }
    std::fs::write(directory.join("bedrock/2023-01-01/service-2.json"), "{").unwrap();
    assert_eq!(run(&[&directory]).0, 2);
    std::fs::remove_dir_all(directory.join("bedrock/2023-01-01")).unwrap();
    assert!(run(&[&directory]).1.contains("has no service-2.json"));
    assert_eq!((run(&[]).0, run(&[&directory, &directory]).0), (2, 2));
    std::fs::remove_dir_all(&directory).unwrap();
}
