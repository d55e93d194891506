//! What each kind runs, and by which calls that is found out.

use super::answer::{AnswerError, Named, read};
use super::kind::{Steps, Unresolvable};
use super::lookup::{Lookup, serves, want_of};
use super::table::{Answer, Outcome, Problem, Want, key_of};
use crate::operation::Operation;
use crate::policy::Policy;
use crate::route::Subject;
use serde_json::{Value, json};

const NOVA: &str = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0";
const CLAUDE: &str = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-5";
const HUB: &str =
    "arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model/meta-textgeneration-llama-3-8b/2.0.1";

fn own(resource: &str) -> String {
    format!("arn:aws:bedrock:us-east-1:123456789012:{resource}")
}

pub(super) fn policy(refresh: u32) -> Policy {
    let document = json!({
        "role": "gateway", "regions": {"us-east-1": {}, "us-west-2": {}},
        "resolve": {"refresh_seconds": refresh, "cluster": "polls"},
        "route_classes": [
            {"name": "any", "models": ["anthropic.*"], "paths": ["dx", "vpn"]},
            {"name": "lists", "operations": ["GetPromptRouter"], "paths": ["vpn"]},
        ],
    });
    Policy::parse(document.to_string().as_bytes(), None).unwrap()
}

pub(super) fn want(id: &str) -> Want {
    Want {
        id: id.to_owned(),
        region: "us-east-1".parse().unwrap(),
        source: "default".to_owned(),
        others: Vec::new(),
        digest: [0; 8],
    }
}

// === kinds ===

#[test]
fn each_kind_has_its_operation() {
    let endpoint = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/market";
    for (id, wanted) in [
        (own("application-inference-profile/a1b2c3d4e5f6"), Ok(Operation::GetInferenceProfile)),
        (own("inference-profile/sa.anthropic.claude-opus-5"), Ok(Operation::GetInferenceProfile)),
        (own("default-prompt-router/anthropic.claude:1"), Ok(Operation::GetPromptRouter)),
        (own("prompt-router/a1b2c3d4e5f6"), Ok(Operation::GetPromptRouter)),
        (own("provisioned-model/a1b2c3d4e5f6"), Ok(Operation::GetProvisionedModelThroughput)),
        (own("custom-model/amazon.nova-lite-v1:0/a1b2c3d4e5f6"), Ok(Operation::GetCustomModel)),
        (own("custom-model-deployment/a1b2c3d4e5f6"), Ok(Operation::GetCustomModelDeployment)),
        (endpoint.to_owned(), Ok(Operation::GetMarketplaceModelEndpoint)),
        ("a1b2_c3".to_owned(), Ok(Operation::GetProvisionedModelThroughput)),
        (own("imported-model/a1b2c3d4e5f6"), Err(Unresolvable::Imported)),
        (own("prompt/ABCDEFGHIJ:1"), Err(Unresolvable::Prompt)),
        (own("flow/ABCDEFGHIJ"), Err(Unresolvable::Unknown)),
        (own("provisioned-model/"), Err(Unresolvable::Unknown)),
        ("arn:aws:bedrock:us-east-1::application-inference-profile/a".to_owned(), Err(Unresolvable::Unknown)),
        ("arn:aws:bedrock::123456789012:provisioned-model/a".to_owned(), Err(Unresolvable::Unknown)),
        ("arn:aws-cn:bedrock:cn-north-1:123456789012:provisioned-model/a".to_owned(), Err(Unresolvable::Unknown)),
        ("arn:aws:sagemaker:us-east-1:123456789012:model/a".to_owned(), Err(Unresolvable::Unknown)),
        ("amazon.nova-lite-v1:0/a1b2c3d4e5f6".to_owned(), Err(Unresolvable::Unknown)),
        (String::new(), Err(Unresolvable::Unknown)),
    ] {
        let steps = Steps::of(&id).map(|steps| steps.operations().to_vec());
        assert_eq!(steps, wanted.map(|operation| vec![operation]), "{id}");
    }
    let both = vec![Operation::GetInferenceProfile, Operation::GetProvisionedModelThroughput];
    assert_eq!(Steps::of("a1b2c3d4e5f6").map(|steps| steps.operations().to_vec()), Ok(both));
}

// === answers ===

fn found(models: &[&str], resources: &[&str]) -> Result<Named, AnswerError> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Ok(Named { models: texts(models).into_iter().collect(), resources: texts(resources) })
}

fn models(arns: &[&str]) -> Value {
    arns.iter().map(|arn| json!({"modelArn": arn})).collect()
}

#[test]
fn answers_name_all_that_may_run() {
    let in_region = |region: &str| format!("arn:aws:bedrock:{region}::foundation-model/anthropic.claude-opus-5");
    let profile = |regions: &[&str]| {
        let arns: Vec<String> = regions.iter().map(|region| in_region(region)).collect();
        json!({ "models": models(&arns.iter().map(String::as_str).collect::<Vec<_>>()), "type": "APPLICATION" })
    };
    let (custom, application) =
        (own("custom-model/amazon.nova-lite-v1:0/a1b2c3d4e5f6"), own("application-inference-profile/x"));
    let system = own("inference-profile/us.meta.llama4");
    let newer = own("custom-model/anthropic.claude/b1b2c3d4e5f6");
    let opus = "anthropic.claude-opus-5";
    for (operation, answer, wanted) in [
        (Operation::GetInferenceProfile, profile(&["us-east-1"]), found(&[opus], &[])),
        (
            Operation::GetInferenceProfile,
            profile(&["us-east-1", "us-west-2"]),
            found(&["us.anthropic.claude-opus-5"], &[]),
        ),
        (
            Operation::GetInferenceProfile,
            profile(&["eu-west-1", "eu-north-1"]),
            found(&["eu.anthropic.claude-opus-5"], &[]),
        ),
        (
            Operation::GetInferenceProfile,
            profile(&["ap-northeast-1", "ap-northeast-3"]),
            found(&["jp.anthropic.claude-opus-5"], &[]),
        ),
        (
            Operation::GetInferenceProfile,
            profile(&["ap-northeast-1", "ap-south-1", "ap-southeast-1"]),
            found(&["apac.anthropic.claude-opus-5"], &[]),
        ),
        (Operation::GetInferenceProfile, profile(&["us-east-1", ""]), found(&["global.anthropic.claude-opus-5"], &[])),
        (
            Operation::GetInferenceProfile,
            profile(&["us-east-1", "ca-central-1"]),
            found(&["ca.anthropic.claude-opus-5", "global.anthropic.claude-opus-5", "us.anthropic.claude-opus-5"], &[]),
        ),
        (Operation::GetInferenceProfile, json!({"models": []}), Err(AnswerError::Nothing("model"))),
        (Operation::GetInferenceProfile, json!({}), Err(AnswerError::Nothing("model"))),
        (
            Operation::GetPromptRouter,
            json!({"models": models(&[CLAUDE, &system]), "fallbackModel": {"modelArn": NOVA}}),
            found(&["amazon.nova-lite-v1:0", opus, "us.meta.llama4"], &[]),
        ),
        (
            Operation::GetPromptRouter,
            json!({"models": models(&[CLAUDE]), "fallbackModel": {"modelArn": application}}),
            found(&[opus], &[&application]),
        ),
        (Operation::GetPromptRouter, json!({"models": models(&[CLAUDE])}), Err(AnswerError::Nothing("fallback model"))),
        (
            Operation::GetProvisionedModelThroughput,
            json!({"modelArn": custom, "desiredModelArn": NOVA, "foundationModelArn": NOVA}),
            found(&["amazon.nova-lite-v1:0"], &[]),
        ),
        // An update to another model is under way.
        (
            Operation::GetProvisionedModelThroughput,
            json!({"modelArn": NOVA, "desiredModelArn": CLAUDE, "foundationModelArn": NOVA}),
            found(&["amazon.nova-lite-v1:0", opus], &[]),
        ),
        (
            Operation::GetProvisionedModelThroughput,
            json!({"modelArn": NOVA}),
            Err(AnswerError::Nothing("foundation model")),
        ),
        (Operation::GetCustomModel, json!({"modelArn": custom, "baseModelArn": CLAUDE}), found(&[opus], &[])),
        (Operation::GetCustomModel, json!({"modelArn": custom}), Err(AnswerError::Nothing("base model"))),
        (Operation::GetCustomModelDeployment, json!({"modelArn": custom}), found(&[], &[&custom])),
        (
            Operation::GetCustomModelDeployment,
            json!({"modelArn": custom, "updateDetails": {"modelArn": newer, "updateStatus": "Updating"}}),
            found(&[], &[&custom, &newer]),
        ),
        (
            Operation::GetCustomModelDeployment,
            json!({"modelArn": custom, "updateDetails": {"modelArn": newer, "updateStatus": "UpdateCompleted"}}),
            found(&[], &[&custom, &newer]),
        ),
        (
            Operation::GetCustomModelDeployment,
            json!({"modelArn": custom, "updateDetails": {"modelArn": newer, "updateStatus": "UpdateFailed"}}),
            found(&[], &[&custom]),
        ),
        (
            Operation::GetMarketplaceModelEndpoint,
            json!({"marketplaceModelEndpoint": {"modelSourceIdentifier": HUB}}),
            found(&[HUB], &[]),
        ),
        (
            Operation::GetMarketplaceModelEndpoint,
            json!({"marketplaceModelEndpoint": {"modelSourceIdentifier": "anthropic.claude-opus-5"}}),
            Err(AnswerError::NotAModel(opus.to_owned())),
        ),
        (Operation::GetCustomModel, json!({"baseModelArn": "x"}), Err(AnswerError::NotAModel("x".to_owned()))),
        (
            Operation::GetInferenceProfile,
            json!({"models": models(&[&"x".repeat(300)])}),
            Err(AnswerError::NotAModel("x".repeat(256))),
        ),
    ] {
        assert_eq!(read(operation, answer.to_string().as_bytes()), wanted, "{operation} {answer}");
    }
    let many: Vec<String> =
        (0..17).map(|nth| format!("arn:aws:bedrock:us-east-1::foundation-model/a.m{nth}")).collect();
    let many = json!({"models": models(&many.iter().map(String::as_str).collect::<Vec<_>>())}).to_string();
    assert_eq!(read(Operation::GetInferenceProfile, many.as_bytes()), Err(AnswerError::TooMany));
    assert!(matches!(read(Operation::GetInferenceProfile, b"<html>"), Err(AnswerError::Form { .. })));
    assert!(matches!(read(Operation::GetInferenceProfile, &vec![b' '; 300 << 10]), Err(AnswerError::TooLong(_))));
}

// === lookups ===

/// Runs a lookup against answers by operation: status and body.
fn look_up(id: &str, answer: impl Fn(&str) -> Option<(u16, Value)>) -> (Outcome, Vec<String>) {
    let policy = policy(60);
    let mut lookup = Lookup::new(want(id));
    let mut paths = Vec::new();
    for _ in 0..20 {
        let call = lookup.call("the-id", &policy).unwrap();
        assert_eq!(call.call.cluster, "polls");
        let path = call.call.headers.get_str(":path").unwrap().to_owned();
        let answered = answer(&path);
        paths.push(path);
        let body = answered.as_ref().map(|(status, body)| (*status, body.to_string()));
        if let Some(outcome) = lookup.answered(body.as_ref().map(|(status, body)| (*status, Ok(body.as_bytes())))) {
            return (outcome, paths);
        }
    }
    panic!("it does not end: {paths:?}");
}

fn runs(models: &[&str]) -> Outcome {
    Outcome(Ok(Answer::Runs(models.iter().map(|model| (*model).to_owned()).collect())))
}

#[test]
fn a_deployment_takes_a_second_step() {
    let custom = own("custom-model/amazon.nova-lite-v1:0/a1b2c3d4e5f6");
    let (outcome, paths) = look_up(&own("custom-model-deployment/a1b2c3d4e5f6"), |path| {
        let deployment = path.starts_with("/model-customization/custom-model-deployments/");
        Some((200, if deployment { json!({"modelArn": custom}) } else { json!({"baseModelArn": NOVA}) }))
    });
    assert_eq!(outcome, runs(&["amazon.nova-lite-v1:0"]));
    assert_eq!(paths.len(), 2);
    assert_eq!(
        paths[1],
        "/custom-models/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Acustom-model%2Famazon.nova-lite-v1%3A0%2Fa1b2c3d4e5f6"
    );
}

#[test]
fn an_update_counts_by_both_its_models() {
    let custom = |base: &str| own(&format!("custom-model/{base}/a1b2c3d4e5f6"));
    for (status, wanted) in [
        ("Updating", &["amazon.nova-lite-v1:0", "anthropic.claude-opus-5"][..]),
        ("UpdateCompleted", &["amazon.nova-lite-v1:0", "anthropic.claude-opus-5"]),
        ("UpdateFailed", &["amazon.nova-lite-v1:0"]),
    ] {
        let (outcome, _) = look_up(&own("custom-model-deployment/a1b2c3d4e5f6"), |path| {
            let update = json!({"modelArn": custom("claude"), "updateStatus": status});
            let deployment = json!({"modelArn": custom("nova"), "updateDetails": update});
            let is_deployment = path.starts_with("/model-customization/custom-model-deployments/");
            let base = if path.contains("claude") { CLAUDE } else { NOVA };
            Some((200, if is_deployment { deployment } else { json!({"baseModelArn": base}) }))
        });
        assert_eq!(outcome, runs(wanted), "{status}");
    }
}

#[test]
fn a_malformed_answer_is_not_repeated() {
    let answer = json!({"models": "arn:aws:bedrock:secret"});
    let (outcome, _) = look_up(&own("application-inference-profile/x"), |_| Some((200, answer.clone())));
    assert!(outcome.is_failure() && !outcome.to_string().contains("secret"), "{outcome}");
}

#[test]
fn a_router_leads_through_profiles() {
    let application = own("application-inference-profile/x");
    let (outcome, paths) = look_up(&own("default-prompt-router/a:1"), |path| {
        let router = json!({"models": models(&[CLAUDE, &application]), "fallbackModel": {"modelArn": application}});
        Some((200, if path.starts_with("/prompt-routers/") { router } else { json!({"models": models(&[NOVA])}) }))
    });
    assert_eq!(outcome, runs(&["amazon.nova-lite-v1:0", "anthropic.claude-opus-5"]));
    assert_eq!(paths.len(), 2, "{paths:?}");
    // A circle ends.
    let router = own("default-prompt-router/a:1");
    let (outcome, _) =
        look_up(&router, |_| Some((200, json!({"models": models(&[&router]), "fallbackModel": {"modelArn": CLAUDE}}))));
    assert_eq!(outcome, runs(&["anthropic.claude-opus-5"]));
}

#[test]
fn a_name_is_asked_about_as_both_kinds() {
    let profile = json!({"models": models(&[CLAUDE])});
    let provisioned = json!({"modelArn": NOVA, "foundationModelArn": NOVA});
    let ask = |profile: (u16, Value), provisioned: (u16, Value)| {
        let answer = |path: &str| {
            Some(if path.starts_with("/inference-profiles/") { profile.clone() } else { provisioned.clone() })
        };
        look_up("a1b2c3d4e5f6", answer).0
    };
    assert_eq!(ask((200, profile.clone()), (404, json!({}))), runs(&["anthropic.claude-opus-5"]));
    assert_eq!(ask((404, json!({})), (200, provisioned.clone())), runs(&["amazon.nova-lite-v1:0"]));
    // Whichever Bedrock takes, it is judged.
    let both = runs(&["amazon.nova-lite-v1:0", "anthropic.claude-opus-5"]);
    assert_eq!(ask((200, profile.clone()), (200, provisioned)), both);
    let problem = Problem::new(404, "GetInferenceProfile answered 400, GetProvisionedModelThroughput answered 404");
    assert_eq!(ask((400, json!({})), (404, json!({}))), Outcome(Ok(Answer::Refused(problem))));
    assert_eq!(ask((200, profile), (500, json!({}))).name(), "failed");
}

#[test]
fn refuses_what_bedrock_does_not_tell() {
    let id = own("application-inference-profile/x");
    let elsewhere = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/y";
    let router = own("default-prompt-router/a:1");
    for (id, answer, wanted) in [
        (&id, Some((404, json!({}))), "refused"),
        (&id, Some((403, json!({}))), "refused"),
        (&id, Some((400, json!({}))), "refused"),
        (&id, Some((200, json!({"models": []}))), "refused"),
        (&id, Some((200, json!({"models": models(&[&own("imported-model/a1b2c3d4e5f6")])}))), "refused"),
        (&id, Some((200, json!({"models": models(&[elsewhere])}))), "refused"),
        (&router, Some((200, json!({"models": models(&[CLAUDE])}))), "refused"),
        (&id, Some((429, json!({}))), "failed"),
        (&id, Some((500, json!({}))), "failed"),
        (&id, Some((200, json!("x"))), "failed"),
        (&id, None, "failed"),
    ] {
        let (outcome, _) = look_up(id, |_| answer.clone());
        assert_eq!(outcome.name(), wanted, "{answer:?} {outcome}");
    }
    let (outcome, _) = look_up(&id, |_| Some((403, json!({}))));
    assert!(outcome.to_string().contains("bedrock:GetInferenceProfile"), "{outcome}");
    // A circle without a model.
    let (outcome, _) = look_up(&id, |_| Some((200, json!({"models": models(&[&id])}))));
    assert_eq!(outcome.name(), "refused", "{outcome}");
    // Each answer leads to another resource.
    let nth = std::cell::Cell::new(0);
    let (outcome, paths) = look_up(&id, |_| {
        nth.set(nth.get() + 1);
        let next = own(&format!("application-inference-profile/{}", nth.get()));
        let more = own(&format!("application-inference-profile/{}x", nth.get()));
        Some((200, json!({"models": models(&[&next, &more, CLAUDE])})))
    });
    assert!(outcome.name() == "refused" && paths.len() <= 8, "{outcome} {}", paths.len());
}

#[test]
fn a_lookup_takes_the_class_of_its_operation() {
    let policy = policy(60);
    let cluster = |id: &str| Lookup::new(want(id)).call("the-id", &policy).map(|call| call.relayed.cluster);
    assert_eq!(cluster(&own("default-prompt-router/a:1")).as_deref(), Some("bedrock.lists.only-us-east-1"));
    // No class takes the others of a caller without a name: the first one's paths are taken.
    assert_eq!(cluster(&own("provisioned-model/a")).as_deref(), Some("bedrock.any.only-us-east-1"));
    let foreign = Want { source: "other".to_owned(), ..want(&own("provisioned-model/a")) };
    assert!(Lookup::new(foreign).call("the-id", &policy).is_none());
}

/// How a caller's call to a resource is looked up with these classes: by which credentials and region.
fn asked_with(classes: &Value, caller: &str, id: &str) -> Result<Option<(String, String)>, String> {
    let policy = policy_of(classes, &json!({"source": "environment"}));
    Ok(wanted(&policy, caller, id)?.map(|want| (want.sources().collect::<Vec<_>>().join(","), want.region.to_string())))
}

/// A policy with the sources `a`, `b`, and `c`, which is another one.
fn policy_of(classes: &Value, c: &Value) -> Policy {
    let document = json!({
        "role": "gateway", "regions": {"us-east-1": {}, "us-west-2": {}}, "principal": [{"from": "mtls"}],
        "credential_sets": {"a": {"source": "environment"}, "b": {"source": "environment"}, "c": c},
        "resolve": {"cluster": "polls"}, "route_classes": classes,
    });
    Policy::parse(document.to_string().as_bytes(), None).unwrap()
}

fn wanted(policy: &Policy, caller: &str, id: &str) -> Result<Option<Want>, String> {
    let subject =
        Subject { operation: Operation::Converse, model: Some(id), principal: Some(caller), body_bytes: Some(2) };
    want_of(policy, subject, id)
}

#[test]
fn a_class_that_names_a_resource_looks_it_up() {
    let arn = own("provisioned-model/a");
    for id in ["a1b2c3d4e5f6", &arn] {
        // Rules depend on the model, and the class does not.
        let classes = json!([
            {"name": "claude", "models": ["anthropic.*"], "regions": ["us-west-2", "us-east-1"], "credentials": "a", "paths": ["dx"]},
            {"name": "own", "models": [id], "regions": ["us-east-1"], "credentials": "b", "paths": ["dx"]},
        ]);
        assert_eq!(asked_with(&classes, "app", id), Ok(Some(("b".to_owned(), "us-east-1".to_owned()))), "{id}");
    }
}

#[test]
fn refuses_a_region_of_others_classes() {
    let arn = own("provisioned-model/a");
    let classes = json!([
        {"name": "app", "principals": ["app"], "models": ["anthropic.*"], "regions": ["us-west-2"], "credentials": "a", "paths": ["dx"]},
        {"name": "audit", "principals": ["audit"], "regions": ["us-east-1"], "credentials": "b", "paths": ["dx"]},
    ]);
    let problem = "no route class of the caller has its region us-east-1".to_owned();
    assert_eq!(asked_with(&classes, "app", &arn), Err(problem));
    assert_eq!(asked_with(&classes, "audit", &arn), Ok(Some(("b".to_owned(), "us-east-1".to_owned()))));
    assert_eq!(asked_with(&classes, "nobody", &arn), Ok(None));
}

/// Classes of three accounts, of which the caller may use two.
fn accounts() -> Value {
    json!([
        {"name": "claude", "models": ["anthropic.*"], "credentials": "a", "paths": ["dx"]},
        {"name": "others", "principals": ["other"], "credentials": "b", "paths": ["dx"]},
        {"name": "rest", "credentials": "c", "paths": ["dx"]},
    ])
}

#[test]
fn an_arn_is_asked_of_each_account() {
    let arn = own("application-inference-profile/x");
    assert_eq!(asked_with(&accounts(), "app", &arn), Ok(Some(("a,c".to_owned(), "us-east-1".to_owned()))));
    assert_eq!(asked_with(&accounts(), "app", "a1b2c3d4e5f6"), Ok(Some(("a".to_owned(), "us-east-1".to_owned()))));
    let policy = policy_of(&accounts(), &json!({"source": "environment"}));
    let found = json!({"models": models(&[CLAUDE])});
    let claude = runs(&["anthropic.claude-opus-5"]);
    for (first, second, wanted) in [
        ((200, found.clone()), None, claude.clone()),
        ((403, json!({})), Some((200, found.clone())), claude.clone()),
        ((404, json!({})), Some((200, found.clone())), claude.clone()),
        ((400, json!({})), Some((200, found.clone())), claude.clone()),
        ((500, json!({})), Some((200, found.clone())), claude),
        (
            (404, json!({})),
            Some((404, json!({}))),
            Outcome(Ok(Answer::Refused(Problem::new(
                404,
                "GetInferenceProfile answered 404; with other credentials: GetInferenceProfile answered 404",
            )))),
        ),
        // Its account has said nothing.
        (
            (429, json!({})),
            Some((404, json!({}))),
            Outcome(Err(Problem::new(
                503,
                "GetInferenceProfile answered 429; with other credentials: GetInferenceProfile answered 404",
            ))),
        ),
    ] {
        let mut lookup = Lookup::new(wanted_of(&policy, &arn));
        let class = |lookup: &Lookup| lookup.call("the-id", &policy).unwrap().relayed.class;
        assert_eq!(class(&lookup), "claude");
        let (status, body) = (first.0, first.1.to_string());
        let mut outcome = lookup.answered(Some((status, Ok(body.as_bytes()))));
        if let Some((status, body)) = second {
            assert_eq!((outcome, class(&lookup).as_str()), (None, "rest"));
            outcome = lookup.answered(Some((status, Ok(body.to_string().as_bytes()))));
        }
        assert_eq!(outcome, Some(wanted));
    }
}

fn wanted_of(policy: &Policy, id: &str) -> Want {
    wanted(policy, "app", id).unwrap().unwrap()
}

#[test]
fn a_new_account_has_its_own_answers() {
    let [old, new] = [json!({"source": "environment"}), json!({"source": "imds", "cluster": "imds"})]
        .map(|c| policy_of(&accounts(), &c));
    for id in [&own("application-inference-profile/x"), "a1b2c3d4e5f6"] {
        let [before, after] = [&old, &new].map(|policy| wanted_of(policy, id));
        let arn = id.starts_with("arn:");
        // Only an ARN is asked about with the source that has changed.
        assert_eq!(key_of(&before) != key_of(&after), arn, "{id}");
        for (policy, want, wanted) in
            [(&old, &before, true), (&new, &after, true), (&old, &after, !arn), (&new, &before, !arn)]
        {
            assert_eq!(serves(policy, want), wanted, "{id}");
        }
    }
}
