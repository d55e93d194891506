//! Where calls go, by the regions' data retention.

use super::*;
use crate::attempt::{Attempt, AttemptInput};
use crate::envoy_names::{CLUSTER_HEADER, HANDOFF_PROPERTY};
use crate::exchange::Exchange;
use crate::headers::Headers;
use crate::retention::poll::class_of;
use crate::step::{Context, Forward, RequestStep};
use crate::testing::{Client, ID, attempt, forwarded, headers, keys, refused, worker};

const REGIONS: [&str; 3] = ["us-east-1", "us-east-2", "us-west-2"];
const MODEL: &str = "a.b";

fn set(mode: &str) -> Settings {
    settings(mode, &[("default", "inherit")])
}

/// A gateway that has read the regions' account modes; an empty one was never read.
fn client(policy: Policy, modes: &[&str]) -> Client {
    let mut client = Client::of(policy, Some(keys()));
    know(&mut client, modes);
    client.now = at(10);
    client
}

fn know(client: &mut Client, modes: &[&str]) {
    let known: Vec<(&str, Settings)> = REGIONS
        .into_iter()
        .zip(modes)
        .filter(|(_, mode)| !mode.is_empty())
        .map(|(name, mode)| (name, set(mode)))
        .collect();
    client.catalogue.retention = store(&client.policy, &known, at(0));
}

fn call(client: &mut Client, extra: &[(&str, &str)], body: &str) -> RequestStep {
    client.exchange = Exchange::new(ID.to_owned());
    let path = format!("/model/{MODEL}/converse");
    let mut call =
        vec![(":method", "POST"), (":path", path.as_str()), (":scheme", "http"), ("content-type", "application/json")];
    call.extend_from_slice(extra);
    match client.headers(&headers(&call), false) {
        RequestStep::AwaitBody => client.body(body.as_bytes(), true),
        step => step,
    }
}

fn send(client: &mut Client) -> RequestStep {
    call(client, &[], "{}")
}

/// The cluster without its beginning.
fn cluster(step: RequestStep) -> String {
    let forward = forwarded(step);
    forward.headers.get_str(CLUSTER_HEADER).unwrap().strip_prefix("bedrock-runtime.any").unwrap().to_owned()
}

fn context(client: &Client) -> Context<'_> {
    Context {
        policy: &client.policy,
        credentials: &client.credentials,
        catalogue: &client.catalogue,
        shared: &client.shared,
        worker: worker(),
        now: client.now,
    }
}

fn handoff(forward: &Forward) -> &[u8] {
    &forward.states.iter().find(|(name, _)| *name == HANDOFF_PROPERTY).unwrap().1
}

/// Whether the signer sends a call to a region.
fn sends(client: &Client, forward: &Forward, region: &str) -> bool {
    let step = attempt(&forward.headers, Some(handoff(forward)), Some(region.as_bytes()), context(client));
    matches!(step, RequestStep::Forward(_))
}

#[test]
fn regions_of_another_mode_are_left_out() {
    let statement = json!({"data_retention": {"cluster": "polls", "models": [{"models": ["a.*"], "mode": "none"}]}});
    for (retention, modes, extra, wanted) in [
        ("none", ["none", "none", "none"], json!({}), ".us-east-1"),
        ("none", ["none", "provider_data_share", "none"], json!({}), ".us-east-1.us-west-2"),
        ("none", ["provider_data_share", "none", "none"], json!({}), ".us-east-2.us-west-2"),
        ("none", ["aws_review", "default", "none"], json!({}), ".only-us-west-2"),
        ("none", ["none", "", "brand_new"], json!({}), ".only-us-east-1"),
        ("provider_data_share", ["none", "provider_data_share", "inherit"], json!({}), ".only-us-east-2"),
        ("same", ["none", "none", "none"], json!({}), ".us-east-1"),
        ("same", ["aws_review", "none", "aws_review"], json!({}), ".us-east-1.us-west-2"),
        ("same", ["aws_review", "none", "none"], json!({}), ".only-us-east-1"),
        // Two that leave it to the model prove nothing.
        ("same", ["default", "default", "inherit"], json!({}), ".only-us-east-1"),
        ("same", ["inherit", "inherit", "inherit"], json!({}), ".only-us-east-1"),
        ("same", ["", "none", "none"], json!({}), ".only-us-east-1"),
        ("same", ["brand_new", "brand_new", "brand_new"], json!({}), ".only-us-east-1"),
        ("same", ["inherit", "default", "none"], statement.clone(), ".us-east-1"),
        ("same", ["inherit", "provider_data_share", "default"], statement.clone(), ".us-east-1.us-west-2"),
        ("none", ["inherit", "provider_data_share", ""], statement.clone(), ".only-us-east-1"),
    ] {
        let mut client = client(policy(retention, &REGIONS, extra), &modes);
        assert_eq!(cluster(send(&mut client)), wanted, "{retention} {modes:?}");
        let forward = forwarded(send(&mut client));
        for region in REGIONS {
            // A second line of defence: whatever endpoint Envoy chooses.
            assert_eq!(sends(&client, &forward, region), wanted.contains(region) || wanted == ".us-east-1", "{region}");
        }
    }
}

#[test]
fn refuses_a_call_without_a_region() {
    for (retention, modes, status, words) in [
        (
            "none",
            ["provider_data_share", "aws_review", "brand_new"],
            403,
            "'provider_data_share' in us-east-1; 'aws_review' in us-east-2; in us-west-2 set to 'brand_new'",
        ),
        ("none", ["inherit", "default", "aws_review"], 403, "in us-east-1 left to the model"),
        ("none", ["", "aws_review", "aws_review"], 503, "in us-east-1 not read yet"),
        ("aws_review", ["none", "none", "none"], 403, "demands the data retention mode 'aws_review'"),
    ] {
        let mut client = client(policy(retention, &REGIONS, json!({})), &modes);
        let (found, _, message) = refused(send(&mut client));
        assert!(found == status && message.contains(words) && message.contains("'any'"), "{found} {message}");
    }
    // What was read counts for five polls.
    let mut client = client(policy("none", &REGIONS, json!({})), &["none"; 3]);
    client.now = at(300);
    assert_eq!(cluster(send(&mut client)), ".us-east-1");
    client.now = at(301);
    let (status, _, message) = refused(send(&mut client));
    assert!(status == 503 && message.contains("in us-west-2 last read 301 s ago"), "{message}");
    // Calls that carry no data are not concerned.
    client.exchange = Exchange::new(ID.to_owned());
    let list = [(":method", "GET"), (":path", "/foundation-models"), (":scheme", "http")];
    forwarded(client.headers(&headers(&list), true));
}

#[test]
fn every_order_of_regions_is_judged() {
    let weights = json!({"us-east-2": 1, "us-west-2": 1});
    for (more, modes, wanted) in [
        (json!({"region_weights": weights}), ["none", "aws_review", "none"], ".us-west-2.us-east-1"),
        (
            json!({"region_weights": weights, "region_sticky": true}),
            ["none", "aws_review", "none"],
            ".us-west-2.us-east-1",
        ),
        (json!({"region_order": "fastest"}), ["none", "aws_review", "none"], ".us-east-1.us-west-2"),
        (json!({"region_order": "fastest"}), ["aws_review", "aws_review", "none"], ".only-us-west-2"),
    ] {
        let mut document = document("none", &REGIONS, json!({}));
        document["route_classes"][0].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
        let mut client = client(policy, &modes);
        for _ in 0..20 {
            assert_eq!(cluster(send(&mut client)), wanted, "{more}");
        }
    }
}

/// A region that throttles is passed over, but never for one of another mode.
#[test]
fn a_throttling_region_is_left_for_its_like() {
    for (modes, throttled, wanted) in [
        (["none", "aws_review", "none"], &["us-east-1"][..], ".us-west-2.us-east-1"),
        (["none", "aws_review", "none"], &["us-east-1", "us-west-2"], ".us-east-1.us-west-2"),
        (["none", "aws_review", "aws_review"], &["us-east-1"], ".only-us-east-1"),
    ] {
        let mut client = client(policy("none", &REGIONS, json!({})), &modes);
        for region in throttled {
            crate::breaker::Breaker::new(&client.shared, region, MODEL, client.now).failed(None);
        }
        assert_eq!(cluster(send(&mut client)), wanted, "{modes:?} {throttled:?}");
    }
}

#[test]
fn refuses_a_region_that_changed_on_the_way() {
    let first = |client: &Client, forward: &Forward, region: &str| {
        let path = Some(&b"dx"[..]);
        let input =
            AttemptInput { handoff: Some(handoff(forward)), previous: None, path, region: Some(region.as_bytes()) };
        let mut attempt = Attempt::default();
        forwarded(attempt.request(&forward.headers, input, context(client)));
        attempt
    };
    let throttles: Headers = headers(&[(":status", "429")]);
    for (retention, before, after, goes) in [
        ("none", ["none", "none", "aws_review"], ["none", "aws_review", "none"], false),
        ("none", ["none", "none", "aws_review"], ["none", "", "none"], false),
        ("none", ["none", "none", "aws_review"], ["none", "none", "none"], true),
        // What the call left with counts, not what its first region has become.
        ("same", ["none", "none", "none"], ["aws_review", "aws_review", "aws_review"], false),
        ("same", ["none", "none", "none"], ["aws_review", "none", "aws_review"], true),
    ] {
        let mut client = client(policy(retention, &REGIONS, json!({})), &before);
        let forward = forwarded(send(&mut client));
        let mut attempt = first(&client, &forward, "us-east-1");
        know(&mut client, &after);
        assert_eq!(sends(&client, &forward, "us-east-2"), goes, "{retention} {before:?} {after:?}");
        assert_eq!(attempt.response(&throttles, context(&client)).retry, goes, "{retention} {before:?} {after:?}");
        // The third was not among them, unless it was.
        assert_eq!(sends(&client, &forward, "us-west-2"), retention == "same" && after[2] == before[2]);
    }
}

#[test]
fn refuses_a_handoff_without_retention() {
    let client = client(policy("none", &REGIONS, json!({})), &["none"; 3]);
    let handoff = json!({"class": "any", "operation": "Converse", "labels": ["a.b"], "body_sha256": "00"}).to_string();
    let step = attempt(&headers(&[]), Some(handoff.as_bytes()), Some(b"us-east-1"), context(&client));
    assert!(refused(step).2.contains("no data retention in the handoff"));
}

/// A call that names a project is tied to its region, and needs the mode of the project too.
#[test]
fn refuses_projects_of_another_mode() {
    let projects =
        json!({"data_retention": {"cluster": "polls", "projects": {"us-east-1": ["proj_a"], "us-east-2": ["proj_a"]}}});
    let arn = |region: &str| format!("arn:aws:bedrock:{region}:111122223333:project/proj_a");
    let known = |default: &str, own: Option<&str>| {
        let mut all = vec![("default", default)];
        all.extend(own.map(|mode| ("proj_a", mode)));
        settings("none", &all)
    };
    for (retention, name, default, own, wanted) in [
        ("none", "proj_a".to_owned(), "inherit", Some("none"), Ok(".only-us-east-1")),
        ("none", "proj_a".to_owned(), "inherit", Some("inherit"), Ok(".only-us-east-1")),
        ("none", "proj_a".to_owned(), "inherit", Some("aws_review"), Err("differ on which counts")),
        ("none", "proj_a".to_owned(), "aws_review", Some("none"), Err("'aws_review' in the default project")),
        ("none", "proj_a".to_owned(), "inherit", None, Err("project 'proj_a', which was not found there")),
        ("none", "proj_a".to_owned(), "inherit", Some("new_mode"), Err("set to 'new_mode'")),
        (
            "none",
            "proj_b".to_owned(),
            "inherit",
            Some("none"),
            Err("project 'proj_b', which `data_retention.projects`"),
        ),
        (
            "same",
            "proj_b".to_owned(),
            "inherit",
            Some("none"),
            Err("project 'proj_b', which `data_retention.projects`"),
        ),
        ("same", "proj_a".to_owned(), "inherit", Some("aws_review"), Err("differ on which counts")),
        ("same", "proj_a".to_owned(), "inherit", Some("none"), Ok(".only-us-east-1")),
        ("none", "default".to_owned(), "inherit", None, Ok(".us-east-1")),
        ("none", arn("us-east-2"), "inherit", Some("none"), Ok(".only-us-east-2")),
        ("none", arn("us-east-2"), "inherit", Some("aws_review"), Err("in us-east-2")),
        ("none", arn("us-west-2"), "inherit", Some("none"), Err("in us-west-2 that of project 'proj_a'")),
    ] {
        for in_header in [true, false] {
            let mut client = client(policy(retention, &REGIONS, projects.clone()), &[]);
            let known: Vec<(&str, Settings)> =
                REGIONS.into_iter().map(|region| (region, known(default, own))).collect();
            client.catalogue.retention = store(&client.policy, &known, at(0));
            let step = if in_header {
                call(&mut client, &[("x-amzn-bedrock-projectidentifier", &name)], "{}")
            } else {
                call(&mut client, &[], &json!({ "projectIdentifier": name }).to_string())
            };
            match wanted {
                Ok(wanted) => assert_eq!(cluster(step), wanted, "{retention} {name}"),
                Err(words) => {
                    let (_, _, message) = refused(step);
                    assert!(message.contains(words), "{words}: {message}");
                }
            }
        }
    }
}

/// An API key needs no signature, but a body that may name a project is read all the same.
#[test]
fn refuses_a_project_with_an_api_key_too() {
    let mut client = client(policy("none", &["us-east-1"], json!({"auth": "bearer"})), &["none"]);
    client.credentials = crate::credentials::store::CredentialStore::fixed(Some(
        crate::credentials::Credentials::ApiKey(crate::credentials::Secret::new("ABSKexample")),
    ));
    assert_eq!(cluster(send(&mut client)), "");
    let (status, _, message) = refused(call(&mut client, &[], r#"{"projectIdentifier":"proj_a"}"#));
    assert!(status == 403 && message.contains("proj_a"), "{message}");
}

#[test]
fn the_record_has_the_mode_of_the_attempt() {
    let mut client = client(policy("same", &REGIONS, json!({})), &["none", "none", "none"]);
    let forward = forwarded(send(&mut client));
    let step = attempt(&forward.headers, Some(handoff(&forward)), Some(b"us-east-2"), context(&client));
    let facts: audit::AttemptFacts = serde_json::from_slice(&forwarded(step).states[0].1).unwrap();
    assert_eq!(facts.retention.as_deref(), Some("none"));
}

/// A statement for `*` says nothing of a model that another statement may be about.
#[test]
fn refuses_a_statement_for_unknown_models() {
    const PROFILE: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";
    let own = |models: Value| json!({"data_retention": {"cluster": "polls", "models": models}});
    let amazon = json!({"models": ["amazon.*"], "mode": "provider_data_share"});
    let all = json!({"models": ["*"], "mode": "none"});
    let named = json!({"models": [PROFILE], "mode": "aws_review"});
    for (statements, id, wanted) in [
        (json!([amazon, all]), Some("amazon.nova-lite-v1:0"), Some(ProviderDataShare)),
        (json!([amazon, all]), Some("us.anthropic.claude-v2"), Some(RetentionMode::None)),
        (json!([amazon, all]), Some(PROFILE), None),
        (json!([amazon, all]), Some("xx.amazon.nova-lite-v1:0"), None),
        (json!([amazon, all]), None, None),
        (json!([amazon, named, all]), Some(PROFILE), Some(AwsReview)),
        (json!([all, amazon]), None, Some(RetentionMode::None)),
        (json!([all]), Some(PROFILE), Some(RetentionMode::None)),
        (json!([amazon]), None, None),
    ] {
        let policy = policy("none", &REGIONS, own(statements.clone()));
        assert_eq!(policy.retention.unwrap().of_model(id), wanted, "{statements} {id:?}");
    }
}

#[test]
fn a_model_that_no_region_has_is_not_found() {
    let snapshot = json!({"cluster": "polls", "refresh_seconds": 0, "snapshot": {
        "us-east-1": {"on_demand": ["c.d"]}, "us-east-2": {"on_demand": ["c.d"]}, "us-west-2": {"on_demand": ["c.d"]},
    }});
    let policy = policy("none", &REGIONS, json!({"catalogue": snapshot}));
    let (status, _, message) = refused(send(&mut client(policy, &["aws_review", "none", "none"])));
    assert!(status == 404 && message.contains("'a.b'"), "{status} {message}");
}

#[test]
fn a_class_without_a_path_polls_nothing() {
    let classes = json!({"route_classes": [
        {"name": "first", "principals": ["x"], "paths": ["internet"], "regions": REGIONS, "retention": "none"},
        {"name": "any", "paths": ["dx"], "regions": REGIONS, "retention": "none"},
    ]});
    let document = document("none", &REGIONS, classes);
    let policy = Policy::parse(document.to_string().as_bytes(), Some("dx")).unwrap();
    let place = policy.retention.as_ref().unwrap().places().next().unwrap().clone();
    assert_eq!(class_of(&policy, &place).unwrap().name(), "any");
}
