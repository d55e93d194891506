use super::*;
use crate::testing::headers;
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

const CLAUDE: &str = "anthropic.claude-v2:0";

fn api() -> LambdaApi {
    LambdaApi { stage: "v1".to_owned(), region: "us-gov-west-1".to_owned() }
}

#[test]
fn paths_below_the_stage_are_known() {
    for (method, path, wanted) in [
        ("POST", "/v1/bedrock/invoke-model", Some(Ok(Asked::Invoke))),
        ("POST", "/v1/vpn/bedrock/invoke-model?x=y", Some(Ok(Asked::Invoke))),
        ("GET", "/v1/bedrock/models", Some(Ok(Asked::Models))),
        ("GET", "/v1/vpn/bedrock/models", Some(Ok(Asked::Models))),
        ("GET", "/v1/bedrock/invoke-model", Some(Ok(Asked::Route))),
        ("POST", "/v1/bedrock/models", Some(Err(CallError::Unknown))),
        ("OPTIONS", "/v1/bedrock/models", Some(Err(CallError::Unknown))),
        ("GET", "/v1/", Some(Err(CallError::Unknown))),
        ("GET", "/v1/bedrock/models/", Some(Err(CallError::Unknown))),
        ("GET", "/v1/vpn/vpn/bedrock/models", Some(Err(CallError::Unknown))),
        ("GET", "/v1", None),
        ("GET", "/v12/bedrock/models", None),
        ("GET", "/bedrock/models", None),
        ("GET", "/foundation-models", None),
    ] {
        assert_eq!(api().asked(&headers(&[(":method", method), (":path", path)])), wanted, "{method} {path}");
    }
}

#[test]
fn a_stage_hides_no_operation() {
    let compile = |stage: &str, region: &str| {
        let api = config::LambdaApi { stage: stage.to_owned(), region: region.to_owned() };
        LambdaApi::compile(&api, (Role::Gateway, Auth::Sigv4))
    };
    assert_eq!(compile("v1", "us-gov-west-1"), Ok(api()));
    assert_eq!(compile("gateway", "us-gov-west-1").unwrap_err().key, "lambda_api.stage");
    let own = config::LambdaApi { stage: "v1".to_owned(), region: "us-gov-west-1".to_owned() };
    assert_eq!(LambdaApi::compile(&own, (Role::Combined, Auth::Bearer)).unwrap_err().key, "lambda_api");
    assert!(LambdaApi::compile(&own, (Role::Combined, Auth::Sigv4)).is_ok());
    for (stage, region, key) in [
        ("", "us-gov-west-1", "lambda_api.stage"),
        ("a/b", "us-gov-west-1", "lambda_api.stage"),
        ("v1?", "us-gov-west-1", "lambda_api.stage"),
        ("model", "us-gov-west-1", "lambda_api.stage"),
        ("foundation-models", "us-gov-west-1", "lambda_api.stage"),
        ("v1", "us-east-1", "lambda_api.region"),
        ("v1", "us-gov-\"", "lambda_api.region"),
    ] {
        assert_eq!(compile(stage, region).unwrap_err().key, key, "{stage} {region}");
    }
}

/// Path, content type, accept and body of the request.
fn unwrap(envelope: &str) -> Result<[String; 4], String> {
    let client = headers(&[
        (":method", "POST"),
        (":path", "/v1/bedrock/invoke-model"),
        ("content-type", "text/plain"),
        ("accept", "*/*"),
        ("content-length", "1"),
        ("x-request-id", "r"),
    ]);
    let (request, body) =
        invocation(&client, envelope.as_bytes(), |id| id.replace("team", CLAUDE)).map_err(|e| e.to_string())?;
    let get = |name: &str| request.get_str(name).unwrap().to_owned();
    assert_eq!((get("content-length"), get(":method")), (body.len().to_string(), "POST".to_owned()));
    assert_eq!(get("x-request-id"), "r");
    for name in [":path", "content-type", "accept", "content-length"] {
        assert!(request.get_only(name).is_ok(), "{name}");
    }
    Ok([get(":path"), get("content-type"), get("accept"), String::from_utf8(body).unwrap()])
}

#[test]
fn an_envelope_becomes_a_request() {
    let version = r#""anthropic_version":"bedrock-2023-05-31""#;
    for (body, model, wanted) in [
        (
            r#"{"inputText": "hi", "n": 1.50}"#.to_owned(),
            "amazon.titan-v1",
            r#"{"inputText": "hi", "n": 1.50}"#.to_owned(),
        ),
        (r#""{\"inputText\":\"h\\u00e4\"}""#.to_owned(), "amazon.titan-v1", r#"{"inputText":"h\u00e4"}"#.to_owned()),
        (r#"{"max_tokens":1}"#.to_owned(), CLAUDE, format!(r#"{{{version},"max_tokens":1}}"#)),
        (r#"{"a":2}"#.to_owned(), "team", format!(r#"{{{version},"a":2}}"#)),
        (" { } ".to_owned(), "us.Anthropic.x", format!("{{{version} }}")),
        // Version 1 overrides what the client sent.
        (r#"{"anthropic_version":"x", "a":2}"#.to_owned(), CLAUDE, format!(r#"{{{version}, "a":2}}"#)),
    ] {
        let envelope = format!(r#"{{"modelId":"{model}","extra":1,"extra":2,"body":{body}}}"#);
        let path = Operation::InvokeModel.path(&[model.to_owned()], "");
        assert_eq!(unwrap(&envelope), Ok([path, JSON.to_owned(), JSON.to_owned(), wanted]), "{envelope}");
    }
    let given = r#"{"body":{},"accept":"image/png","contentType":"application/x","modelId":"a/b.c?d#e"}"#;
    let [path, kind, accept, _] = unwrap(given).unwrap();
    assert_eq!(
        (path.as_str(), kind.as_str(), accept.as_str()),
        ("/model/a%2Fb.c%3Fd%23e/invoke", "application/x", "image/png")
    );
    assert_eq!(unwrap(r#"{"modelId":"a.b","body":{},"accept":null,"contentType":null}"#).unwrap()[2], JSON);
}

#[test]
fn refuses_an_envelope_that_is_not_one() {
    for (envelope, problem) in [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        (r#"{"modelId":"a.b","body":{}"#, "not a JSON object"),
        (r#"{"body":{}}"#, "its member 'modelId' is not the id of a model"),
        (r#"{"modelId":"","body":{}}"#, "its member 'modelId' is not the id of a model"),
        (r#"{"modelId":1,"body":{}}"#, "its member 'modelId' is not a string"),
        (r#"{"modelId":"a.b"}"#, "its member 'body' is not an object"),
        (r#"{"modelId":"a.b","modelId":"c.d","body":{}}"#, "the member 'modelId' more than once"),
        (r#"{"modelId":"a.b","model\u0049d":"c.d","body":{}}"#, "the member 'modelId' more than once"),
        (r#"{"modelId":"a.b","body":{},"body":{}}"#, "the member 'body' more than once"),
        (r#"{"modelId":"a.b","body":null}"#, "'body' of the request is not what a model takes"),
        (r#"{"modelId":"a.b","body":[]}"#, "'body' of the request is not what a model takes"),
        (r#"{"modelId":"a.b","body":"not JSON"}"#, "'body' of the request is not what a model takes"),
        (r#"{"modelId":"a.b","body":"{} {}"}"#, "'body' of the request is not what a model takes"),
        (r#"{"modelId":"anthropic.b","body":{"anthropic_version":1,"anthropic_version":2}}"#, "more than once"),
        (r#"{"modelId":"a.b","body":{},"accept":"a\r\nx-header: b"}"#, "its member 'accept' is not a content type"),
        (r#"{"modelId":"a.b","body":{},"contentType":"ä"}"#, "its member 'contentType' is not a content type"),
        (r#"{"modelId":"a.b","body":{},"contentType":{}}"#, "its member 'contentType' is not a string"),
    ] {
        let error = unwrap(envelope).unwrap_err();
        assert!(error.contains(problem), "{envelope}: {error}");
    }
}

#[test]
fn answers_have_the_form_of_version_1() {
    let body = invoked("{\"a\":\"ä\\n\"}".as_bytes(), Some("application/json")).unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer, json!({"body": "{\"a\":\"ä\\n\"}", "contentType": "application/json"}));
    assert_eq!(invoked(b"\xff", None), Err(ObjectProblem::NotAnObject));
    for (body, wanted) in [
        (&br#"{"message":"wrong"}"#[..], "wrong"),
        (br#"{"Message":"wrong"}"#, "wrong"),
        (b"<html>", "Amazon Bedrock answered with status 503."),
        (b"", "Amazon Bedrock answered with status 503."),
    ] {
        assert_eq!(message(body, 503), wanted);
    }
}

#[test]
fn models_have_the_members_of_version_1() {
    let now = UNIX_EPOCH + Duration::from_nanos(1_440_938_160_000_123_999);
    let list = br#"{"modelSummaries":[
        {"modelArn":"arn","modelId":"a.b","modelName":"B","providerName":"A","inputModalities":["TEXT"],"outputModalities":["TEXT"],
         "responseStreamingSupported":true,"inferenceTypesSupported":["ON_DEMAND"],"customizationsSupported":["FINE_TUNING"],"new":1},
        {"modelId":"c.d"}]}"#;
    let body = api().models(list, "us-east-1", "r-1", now).unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let wanted = json!({
        "region": {"region": "us-east-1", "partition": "aws", "description": "US East (N. Virginia) - Commercial AWS"},
        "models": [
            {"modelId": "a.b", "modelName": "B", "providerName": "A", "inputModalities": ["TEXT"], "outputModalities": ["TEXT"],
             "responseStreamingSupported": true, "customizationsSupported": ["FINE_TUNING"], "inferenceTypesSupported": ["ON_DEMAND"]},
            {"modelId": "c.d", "modelName": null, "providerName": null, "inputModalities": [], "outputModalities": [],
             "responseStreamingSupported": false, "customizationsSupported": [], "inferenceTypesSupported": []},
        ],
        "totalModels": 2,
        "timestamp": "2015-08-30T12:36:00.000123Z",
        "source": {"partition": "AWS GovCloud", "region": "us-gov-west-1", "requestId": "r-1"},
    });
    assert_eq!(answer, wanted);
    assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00Z");
    for list in [&b"{}"[..], br#"{"modelSummaries":{}}"#, br#"{"modelSummaries":[1]}"#] {
        let problem = ObjectProblem::Member("modelSummaries", "a list of models");
        assert_eq!(api().models(list, "us-east-1", "r-1", now), Err(problem));
    }
}
