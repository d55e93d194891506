use super::*;

fn recognise(method: &str, path: &str) -> Result<(&'static str, Vec<String>, String), CallError> {
    Call::recognise(method, path).map(|call| (call.operation.name(), call.labels, call.query))
}

#[test]
fn every_operation_is_recognised_by_its_path() {
    let model = "anthropic.claude-3-5-sonnet-20241022-v2:0";
    let arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-5-sonnet-20241022-v2:0";
    for &operation in OPERATIONS {
        for label in [model, arn] {
            let count = operation.row().template.matches('{').count();
            let labels = vec![label.to_owned(); count];
            let path = operation.path(&labels, "");
            assert!(!path.contains([':', '{']), "{path}");
            let call = Call::recognise(operation.method().as_str(), &path).unwrap();
            assert_eq!((call.operation, call.labels), (operation, labels));
        }
    }
}

#[test]
fn client_spellings_of_one_model_give_one_path() {
    let wanted = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.anthropic.claude-v2%3A0/converse";
    for spelling in [
        wanted,
        // Anthropic's Python SDK leaves the colons and encodes the slash.
        "/model/arn:aws:bedrock:us-east-1:123456789012:inference-profile%2Fus.anthropic.claude-v2:0/converse",
        "/model/arn%3aaws%3abedrock%3aus-east-1%3a123456789012%3ainference-profile%2fus.anthropic.claude-v2%3a0/converse",
    ] {
        let call = Call::recognise("POST", spelling).unwrap();
        assert_eq!(call.operation.path(&call.labels, &call.query), wanted);
    }
}

#[test]
fn queries_cross_in_canonical_form() {
    let call = Call::recognise("GET", "/foundation-models?byProvider=Anthropic&byInferenceType=ON_DEMAND").unwrap();
    assert_eq!(
        call.operation.path(&call.labels, &call.query),
        "/foundation-models?byInferenceType=ON_DEMAND&byProvider=Anthropic"
    );
}

#[test]
fn each_operation_has_its_own_parameters() {
    let problem = |method: &str, path: &str| match Call::recognise(method, path) {
        Ok(call) => call.query,
        Err(error) => error.to_string(),
    };
    for (method, path, wanted) in [
        ("GET", "/async-invoke?statusEquals=Completed&nextToken=a", "nextToken=a&statusEquals=Completed"),
        ("GET", "/custom-models?isOwned=true", "isOwned=true"),
        ("GET", "/guardrails/abc?guardrailVersion=DRAFT", "guardrailVersion=DRAFT"),
        (
            "GET",
            "/guardrails?guardrailVersion=DRAFT",
            "The query has the parameter 'guardrailVersion', which the operation does not have.",
        ),
        (
            "GET",
            "/imported-models?isOwned=true",
            "The query has the parameter 'isOwned', which the operation does not have.",
        ),
        (
            "GET",
            "/foundation-models?nextToken=a",
            "The query has the parameter 'nextToken', which the operation does not have.",
        ),
        (
            "POST",
            "/model/a.b/converse?nextToken=a",
            "The query has the parameter 'nextToken', which the operation does not have.",
        ),
        (
            "POST",
            "/model/a.b/converse?X-Amz-Security-Token=a",
            "The query has the parameter 'X-Amz-Security-Token' of a presigned URL. The gateway does not accept presigned URLs: it signs with its own credentials.",
        ),
    ] {
        assert_eq!(problem(method, path), wanted, "{path}");
    }
    // No operation that has a body has a query.
    assert!(
        OPERATIONS.iter().all(|operation| operation.method() == Method::Get || operation.row().parameters.is_empty())
    );
}

#[test]
fn refuses_unknown_operations() {
    for (method, path) in [
        ("GET", "/"),
        ("GET", ""),
        ("OPTIONS", "*"),
        ("POST", "/model/x"),
        ("POST", "/model//converse"),
        ("POST", "/model/x/converse/"),
        ("POST", "//model/x/converse"),
        ("POST", "/model/a/b/converse"),
        ("GET", "/model/x/converse"),
        ("PUT", "/model/x/converse"),
        ("post", "/model/x/converse"),
        ("POST", "/Model/x/converse"),
        ("POST", "/foundation-models"),
        ("POST", "/model/x/%63onverse"),
        ("POST", "/openai/v1/chat/completions"),
        ("DELETE", "/custom-models/x"),
    ] {
        assert_eq!(recognise(method, path), Err(CallError::Unknown), "{method} {path}");
    }
}

#[test]
fn refuses_labels_that_may_change_the_path() {
    let label = |problem| Err(CallError::Label { label: "modelId", problem });
    for (path, wanted) in [
        ("/model/%zz/converse", label(LabelProblem::Encoding(DecodeError::Escape))),
        ("/model/%ff/converse", label(LabelProblem::Encoding(DecodeError::Utf8))),
        ("/model/../converse", label(LabelProblem::Segment)),
        ("/model/%2e%2e/converse", label(LabelProblem::Segment)),
        ("/model/a%2F..%2Fb/converse", label(LabelProblem::Segment)),
        ("/model/a%2F%2Fb/converse", label(LabelProblem::Segment)),
        ("/model/a%253A0/converse", label(LabelProblem::Character)),
        ("/model/a%20b/converse", label(LabelProblem::Character)),
        ("/model/a%0d%0ab/converse", label(LabelProblem::Character)),
        ("/model/a;b/converse", label(LabelProblem::Character)),
    ] {
        assert_eq!(recognise("POST", path), wanted, "{path}");
    }
    let long = format!("/model/{}/converse", "a".repeat(MAX_LABEL + 1));
    assert_eq!(recognise("POST", &long), label(LabelProblem::TooLong));
}
