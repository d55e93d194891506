//! The regions' data retention, which `explain` takes from `--retention`.

use serde_json::json;

use super::{CONVERSE, Dir, explain, report};

const REGIONS: [&str; 3] = ["us-east-1", "us-east-2", "us-west-2"];

fn policy(dir: &Dir, more: &serde_json::Value) -> String {
    let mut class = json!({ "name": "any", "paths": ["dx"], "regions": REGIONS });
    class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let document = json!({
        "auth": "sigv4",
        "regions": { "us-east-1": {}, "us-east-2": {}, "us-west-2": {} },
        "data_retention": {},
        "route_classes": [class],
    });
    dir.file("policy.json", document.to_string()).display().to_string()
}

#[test]
fn each_regions_mode_is_shown() {
    let dir = Dir::new("retention");
    for (more, given, clusters, note) in [
        (
            json!({ "retention": "none" }),
            vec![],
            vec!["bedrock-runtime.any.us-east-1"],
            "class any demands the data retention mode 'none': us-east-1 has 'none', us-east-2 has 'none', us-west-2 has \
             'none'. Regions without --retention are taken to have what is demanded",
        ),
        (
            json!({ "retention": "none" }),
            vec!["us-east-2=aws_review"],
            vec!["bedrock-runtime.any.us-east-1.us-west-2"],
            "us-east-1 has 'none', us-east-2 has 'aws_review' (never called), us-west-2 has 'none'",
        ),
        (
            json!({ "retention": "same" }),
            vec!["us-east-1=aws_review", "us-east-2=inherit", "us-west-2=aws_review"],
            vec!["bedrock-runtime.any.us-east-1.us-west-2"],
            "demands the data retention mode of us-east-1: us-east-1 has 'aws_review', us-east-2: left to the model",
        ),
        (
            json!({ "retention": "none", "region_weights": { "us-east-1": 1, "us-east-2": 1, "us-west-2": 3 } }),
            vec!["us-east-2=aws_review"],
            vec!["bedrock-runtime.any.us-east-1.us-west-2", "bedrock-runtime.any.us-west-2.us-east-1"],
            "us-east-2 has 'aws_review' (never called)",
        ),
        (
            json!({ "retention": "none", "region_order": "fastest" }),
            vec!["us-east-1=default", "us-east-2=aws_review"],
            vec!["bedrock-runtime.any.only-us-west-2"],
            "us-east-1: left to the model, for which `data_retention.models` says nothing (never called)",
        ),
    ] {
        let policy = policy(&dir, &more);
        let options = given.iter().flat_map(|one| ["--retention", one]);
        let arguments: Vec<&str> = [CONVERSE, "--policy", &policy].into_iter().chain(options).collect();
        let report = report(&arguments);
        let found: Vec<&str> = report.routes.iter().map(|route| route.cluster.as_str()).collect();
        assert_eq!(found, clusters, "{more}");
        assert!(report.notes.iter().any(|line| line.contains(note)), "{:?}", report.notes);
    }
}

#[test]
fn refuses_a_call_that_no_region_may_take() {
    let dir = Dir::new("retention-refused");
    let policy = policy(&dir, &json!({ "retention": "aws_review" }));
    let mut arguments = vec![CONVERSE, "--policy", &policy];
    for mode in ["us-east-1=none", "us-east-2=none", "us-west-2=inherit"] {
        arguments.extend(["--retention", mode]);
    }
    let report = report(&arguments);
    let text = report.to_string();
    assert!(report.routes.is_empty() && text.contains("'none' in us-east-2; in us-west-2 left to the model"), "{text}");
    for wrong in ["us-east-1", "us-east-1=", "nowhere=none"] {
        assert!(
            explain(&[CONVERSE, "--retention", wrong]).unwrap_err().to_string().contains("us-east-1=none"),
            "{wrong}"
        );
    }
}
