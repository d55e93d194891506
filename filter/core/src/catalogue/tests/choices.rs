//! What the lists decide about calls.

use super::*;
use crate::envoy_names::{CLUSTER_HEADER, HANDOFF_PROPERTY};
use crate::exchange::Exchange;
use crate::operation::Operation;
use crate::step::{Forward, RequestStep};
use crate::testing::{Client, ID, attempt, forwarded, headers, keys, refused};
use std::borrow::Cow;

const VECTORS: &str = include_str!("../../../../../host-tests/vectors/models.csv");

/// A gateway that knows what regions offer, ten seconds after it was read.
pub(super) fn client(policy: Policy, known: &[(&str, Offers)]) -> Client {
    let mut client = Client::of(policy, Some(keys()));
    client.catalogue = store(known);
    client.now = at(10);
    client
}

/// Sends a call.
pub(super) fn send(client: &mut Client, id: &str, operation: &str) -> RequestStep {
    client.exchange = Exchange::new(ID.to_owned());
    let path = format!("/model/{}/{operation}", id.replace('/', "%2F"));
    let call =
        [(":method", "POST"), (":path", path.as_str()), (":scheme", "http"), ("content-type", "application/json")];
    match client.headers(&headers(&call), false) {
        RequestStep::AwaitBody => client.body(b"{}", true),
        step => step,
    }
}

/// The cluster without its beginning.
pub(super) fn cluster(forward: &Forward) -> &str {
    forward.headers.get_str(CLUSTER_HEADER).unwrap().strip_prefix("bedrock-runtime.any").unwrap()
}

/// What the signer makes of a call in a region.
pub(super) fn signed(client: &Client, forward: &Forward, region: &str) -> RequestStep {
    attempt(&forward.headers, Some(handoff(forward)), Some(region.as_bytes()), client.context())
}

pub(super) fn handoff(forward: &Forward) -> &[u8] {
    let (_, handoff) = forward.states.iter().find(|(name, _)| *name == HANDOFF_PROPERTY).unwrap();
    handoff
}

/// The model id with which a region is called.
pub(super) fn sent(client: &mut Client, id: &str, region: &str) -> String {
    let forward = forwarded(send(client, id, "converse"));
    model_of(&forwarded(signed(client, &forward, region)))
}

/// The model id in the path of a signed call.
pub(super) fn model_of(signed: &Forward) -> String {
    let path = signed.headers.get_str(":path").unwrap();
    crate::encoding::decode(path.split('/').nth(2).unwrap()).unwrap()
}

fn assert_refused(step: RequestStep, words: &[&str]) {
    let (status, error, message) = refused(step);
    assert_eq!((status, error), (404, "ResourceNotFoundException"), "{message}");
    words.iter().for_each(|word| assert!(message.contains(word), "{word}: {message}"));
}

/// Each row of the vectors, in three regions whose lists have it, with and without global profiles.
#[test]
fn every_model_of_the_vectors_is_decided() {
    let mut lines = VECTORS.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name: &str| head.iter().position(|cell| *cell == name).unwrap();
    let (id, seen, bare) = (column("model_id"), column("profile_prefixes_seen"), column("bare_id_listed"));
    let rows: Vec<(&str, Vec<&str>, bool)> = lines
        .map(|cells| {
            (cells[id], cells[seen].split('|').filter(|prefix| !prefix.is_empty()).collect(), cells[bare] == "yes")
        })
        .collect();
    assert_eq!(rows.len(), 211);
    let mut counts = [0; 4];
    for (name, own) in [("us-east-1", "us"), ("us-west-2", "us"), ("eu-west-1", "eu")] {
        let listed: Vec<(&str, &[&str])> = rows
            .iter()
            .filter(|(_, _, bare)| *bare)
            .map(|(id, seen, _)| (*id, if seen.is_empty() { &["ON_DEMAND"][..] } else { &["INFERENCE_PROFILE"][..] }))
            .collect();
        let there = |prefix: &&&str| **prefix == own || **prefix == "global";
        let ids: Vec<String> = rows
            .iter()
            .flat_map(|(id, seen, _)| seen.iter().filter(there).map(move |prefix| format!("{prefix}.{id}")))
            .collect();
        let known = offers(&listed, &ids.iter().map(String::as_str).collect::<Vec<_>>());
        for global in [false, true] {
            let catalogue = json!({"cluster": "polls", "global": global});
            let mut client = client(policy(&[name], json!({ "catalogue": catalogue })), &[(name, known.clone())]);
            for (id, seen, bare) in &rows {
                let wanted = if seen.contains(&own) {
                    counts[0] += 1;
                    format!("{own}.{id}")
                } else if id.contains('@') {
                    // Bedrock's `ModelId` has no such character: it is refused before any list matters.
                    assert_eq!(refused(send(&mut client, id, "converse")).0, 400);
                    continue;
                } else if *bare && seen.is_empty() {
                    counts[1] += 1;
                    (*id).to_owned()
                } else if global && seen.contains(&"global") {
                    counts[2] += 1;
                    format!("global.{id}")
                } else {
                    counts[3] += 1;
                    assert_refused(send(&mut client, id, "converse"), &[&format!("'{id}'"), name]);
                    continue;
                };
                assert_eq!(sent(&mut client, id, name), wanted, "{name} {global}");
            }
        }
    }
    println!("profiles of the geography, bare, global, refused: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn profiles_of_other_geographies_are_not_taken() {
    let ids = ["global.a.b", "xx.a.b", "jp.a.b", "au.a.b", "apac.a.b", "us.a.b", "ca.a.b", "eu.a.b", "in.a.b"];
    let all = offers(&[("a.b", &["INFERENCE_PROFILE"])], &ids);
    let two = offers(&[("a.b", &["INFERENCE_PROFILE"])], &["global.a.b", "xx.a.b", "apac.a.b", "us.a.b"]);
    for (name, of_all, of_two) in [
        ("us-east-2", "us", "us"),
        ("eu-central-1", "eu", ""),
        ("ca-central-1", "ca", ""),
        ("ap-northeast-1", "jp", "apac"),
        ("ap-northeast-3", "jp", "apac"),
        ("ap-northeast-2", "apac", "apac"),
        ("ap-southeast-2", "au", "apac"),
        ("ap-southeast-4", "au", "apac"),
        ("ap-southeast-1", "apac", "apac"),
        ("ap-south-1", "in", "apac"),
        ("sa-east-1", "", ""),
    ] {
        for (offers, geography) in [(&all, of_all), (&two, of_two)] {
            let mut client = client(policy(&[name], json!({})), &[(name, offers.clone())]);
            if geography.is_empty() {
                assert_refused(send(&mut client, "a.b", "converse"), &["'a.b'", name]);
            } else {
                assert_eq!(sent(&mut client, "a.b", name), format!("{geography}.a.b"), "{name}");
            }
        }
    }
    // On-demand throughput comes before any profile.
    let bare = offers(&[("a.b", &["ON_DEMAND"])], &ids);
    let mut client = client(policy(&["us-east-2"], json!({})), &[("us-east-2", bare)]);
    assert_eq!(sent(&mut client, "a.b", "us-east-2"), "a.b");
}

#[test]
fn the_operators_entries_win() {
    let name = "us-east-1";
    let extra = json!({
        "inference_profiles": {"a.mine": "global.a.mine", "a.gone": "us.a.gone"}, "aliases": {"nick": "a.mine"},
        "models": {"deny": ["global.a.denied", "us.a.denied"]},
        "catalogue": {"cluster": "polls", "global": true},
    });
    let known = offers(
        &[("a.mine", &["ON_DEMAND"]), ("a.denied", &[])],
        &["us.a.mine", "us.a.denied", "global.a.denied", "us.a.direct"],
    );
    let mut client = client(policy(&[name], extra), &[(name, known)]);
    for (id, wanted) in [
        ("a.mine", "global.a.mine"),
        ("nick", "global.a.mine"),
        ("us-gov.a.mine", "global.a.mine"),
        ("a.gone", "us.a.gone"),
        // The value of an entry is the operator's too.
        ("us.a.gone", "us.a.gone"),
        ("us.a.mine", "us.a.mine"),
        ("us.a.direct", "us.a.direct"),
    ] {
        assert_eq!(sent(&mut client, id, name), wanted, "{id}");
    }
    // A profile must not lead around the model policy.
    for id in ["a.denied", "us.a.other", "eu.a.mine", "a.other"] {
        assert_refused(send(&mut client, id, "converse"), &[&format!("'{id}'"), "us-east-1"]);
    }
}

#[test]
fn arns_are_untouched() {
    let name = "us-east-1";
    let mut client = client(policy(&[name], json!({})), &[(name, offers(&[("a.b", &[])], &[]))]);
    for id in [
        "arn:aws:bedrock:us-east-1::foundation-model/a.unknown",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.a.unknown",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc",
        "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc",
    ] {
        assert_eq!(sent(&mut client, id, name), id);
    }
    for id in ["my-model", "sa.a.b"] {
        assert_refused(send(&mut client, id, "converse"), &[&format!("'{id}'")]);
    }
    let list = [(":method", "GET"), (":path", "/foundation-models"), (":scheme", "http")];
    client.exchange = Exchange::new(ID.to_owned());
    forwarded(client.headers(&headers(&list), true));
}

#[test]
fn tokens_are_counted_by_the_bare_id() {
    let name = "us-east-1";
    let known = offers(&[("a.b", &["INFERENCE_PROFILE"])], &["us.a.b"]);
    let mut client = client(policy(&[name], json!({})), &[(name, known)]);
    for id in ["a.b", "us.a.b"] {
        let forward = forwarded(send(&mut client, id, "count-tokens"));
        let signed = forwarded(signed(&client, &forward, name));
        assert_eq!(signed.headers.get_str(":path"), Some("/model/a.b/count-tokens"));
    }
    assert_refused(send(&mut client, "a.c", "count-tokens"), &["'a.c'"]);
}

#[test]
fn without_lists_calls_go_as_they_did() {
    for extra in [json!({}), json!({"inference_profiles": {"a.b": "us.a.b"}})] {
        let wanted = if extra.get("inference_profiles").is_some() { "us.a.b" } else { "a.b" };
        let mut client = client(policy(&["us-east-1", "us-west-2"], extra), &[]);
        assert_eq!(sent(&mut client, "a.b", "us-west-2"), wanted);
        assert_eq!(cluster(&forwarded(send(&mut client, "a.b", "converse"))), ".us-east-1");
    }
    // A region that was not polled yet may have the model.
    let mut client =
        client(policy(&["us-east-1", "us-west-2"], json!({})), &[("us-east-1", offers(&[("x.y", &[])], &[]))]);
    assert_eq!(cluster(&forwarded(send(&mut client, "a.b", "converse"))), ".only-us-west-2");
}

#[test]
fn regions_without_the_model_are_left_out() {
    let names = ["us-east-1", "us-east-2", "us-west-2"];
    let on_demand = |ids: &[&str]| {
        let listed: Vec<(&str, &[&str])> = ids.iter().map(|id| (*id, &["ON_DEMAND"][..])).collect();
        offers(&listed, &[])
    };
    let known = [
        ("us-east-1", on_demand(&["a.all", "a.early", "a.first"])),
        ("us-east-2", on_demand(&["a.all", "a.early", "a.two"])),
        ("us-west-2", on_demand(&["a.all", "a.two", "a.last"])),
    ];
    for weights in [json!({}), json!({"region_weights": {"us-east-1": 1}}), json!({"region_order": "fastest"})] {
        let mut class = json!({"name": "any", "paths": ["dx"], "regions": names});
        class.as_object_mut().unwrap().extend(weights.as_object().unwrap().clone());
        let mut client = client(policy(&names, json!({"route_classes": [class]})), &known);
        for (id, wanted) in [
            ("a.all", ".us-east-1"),
            ("a.early", ".us-east-1"),
            // Failover would lead to a region without it first.
            ("a.two", ".only-us-east-2"),
            ("a.first", ".only-us-east-1"),
            ("a.last", ".only-us-west-2"),
        ] {
            assert_eq!(cluster(&forwarded(send(&mut client, id, "converse"))), wanted, "{id}");
        }
        assert_refused(send(&mut client, "a.none", "converse"), &["'a.none'", "us-east-1, us-east-2, us-west-2"]);
        // Failover after a lost connection still may: the SDK's next try goes elsewhere.
        let forward = forwarded(send(&mut client, "a.early", "converse"));
        let (status, error, message) = refused(signed(&client, &forward, "us-west-2"));
        assert_eq!((status, error), (503, "ServiceUnavailableException"));
        assert!(message.contains("region us-west-2") && message.contains("'a.early'"), "{message}");
    }
}

#[test]
fn a_breaker_leads_to_no_region_without_it() {
    let names = ["us-east-1", "us-west-2"];
    let known = [
        ("us-east-1", offers(&[("a.b", &["ON_DEMAND"])], &[])),
        ("us-west-2", offers(&[("a.c", &["ON_DEMAND"])], &[])),
    ];
    let mut client = client(policy(&names, json!({})), &known);
    crate::breaker::Breaker::new(&client.shared, "us-east-1", "a.b", client.now).failed(None);
    assert_eq!(cluster(&forwarded(send(&mut client, "a.b", "converse"))), ".only-us-east-1");
}

#[test]
fn a_refusal_says_what_an_operator_can_do() {
    let name = "us-east-1";
    let known = offers(&[("a.b", &["INFERENCE_PROFILE"])], &["global.a.b"]);
    let mut client = client(policy(&[name], json!({})), &[(name, known)]);
    assert_refused(send(&mut client, "a.b", "converse"), &["'a.b'", "`catalogue.global`"]);
    let message = refused(send(&mut client, "a.c", "converse")).2;
    assert!(!message.contains("global") && !message.contains("old"), "{message}");
    // Polls come each minute: one at least has failed.
    client.now = at(600);
    assert_refused(send(&mut client, "a.c", "converse"), &["'a.c'", "10 min old"]);
}

#[test]
fn a_snapshot_counts_until_the_first_poll() {
    let name = "us-east-1";
    let snapshot = json!({name: {"on_demand": ["a.b"], "profiles": ["us.c.d", "global.c.d", "global.e.f"]}});
    let catalogue =
        |seconds: u32| json!({"catalogue": {"cluster": "polls", "refresh_seconds": seconds, "snapshot": snapshot}});
    for seconds in [0, 60] {
        let mut client = client(policy(&[name], catalogue(seconds)), &[]);
        assert_eq!(sent(&mut client, "a.b", name), "a.b");
        assert_eq!(sent(&mut client, "c.d", name), "us.c.d");
        for id in ["e.f", "g.h"] {
            assert_refused(send(&mut client, id, "converse"), &[&format!("'{id}'"), name]);
        }
    }
    let mut client = client(policy(&[name], catalogue(60)), &[(name, offers(&[("g.h", &["ON_DEMAND"])], &[]))]);
    assert_eq!(sent(&mut client, "g.h", name), "g.h");
    assert_refused(send(&mut client, "a.b", "converse"), &["'a.b'"]);
}

#[test]
fn a_call_without_a_catalogue_copies_nothing() {
    let policy = crate::testing::policy("gateway", "sigv4");
    let context = crate::testing::context(&policy, None);
    let region = policy.region("us-east-1").unwrap();
    let id = choice::sent_id(Operation::Converse, "a.b", region, context);
    assert!(matches!(id, Some(Cow::Borrowed("a.b"))));
}

#[test]
fn residency_confines_every_choice() {
    let name = "ap-northeast-1";
    let all =
        offers(&[("a.b", &["INFERENCE_PROFILE"]), ("a.own", &["ON_DEMAND"])], &["jp.a.b", "apac.a.b", "global.a.b"]);
    for (residency, wanted) in [
        (json!(["jp", "apac", "global"]), "jp"),
        (json!(["apac", "global"]), "apac"),
        (json!(["global"]), "global"),
        (json!(["us"]), ""),
        (json!([]), ""),
    ] {
        let extra = json!({"residency": residency, "catalogue": {"cluster": "polls", "global": true}});
        let mut client = client(policy(&[name], extra), &[(name, all.clone())]);
        if wanted.is_empty() {
            assert_refused(send(&mut client, "a.b", "converse"), &["'a.b'", name]);
        } else {
            assert_eq!(sent(&mut client, "a.b", name), format!("{wanted}.a.b"));
        }
        assert_eq!(sent(&mut client, "a.own", name), "a.own");
        for geography in ["jp", "apac", "global"] {
            let id = format!("{geography}.a.b");
            if residency.as_array().unwrap().iter().any(|listed| listed == geography) {
                assert_eq!(sent(&mut client, &id, name), id);
                continue;
            }
            let (status, error, message) = refused(send(&mut client, &id, "converse"));
            assert_eq!((status, error), (403, "AccessDeniedException"));
            assert!(message.contains(&format!("'{id}' may run in {geography}")), "{message}");
            assert_eq!(message.contains("write 'a.b' instead"), !wanted.is_empty(), "{message}");
        }
    }
}

#[test]
fn refuses_the_operators_profile_by_policy() {
    let arn = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-v2";
    for (rule, allowed) in [
        (json!({"models": {"allow": [arn], "deny": ["global.*"]}}), false),
        (json!({"models": {"allow": [arn]}, "residency": ["us"]}), false),
        (json!({"models": {"allow": [arn, "global.*"]}}), true),
    ] {
        let mut document = json!({
            "role": "gateway", "regions": {"us-east-1": {}}, "route_classes": [{"name": "any", "paths": ["dx"]}],
            "catalogue": {"cluster": "polls"},
            "inference_profiles": {"anthropic.claude-v2": "global.anthropic.claude-v2"},
        });
        document.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let client = client(Policy::parse(document.to_string().as_bytes(), None).unwrap(), &[]);
        let region = client.policy.region("us-east-1").unwrap();
        let profile = choice::by_profile(Operation::Converse, arn, region, client.context());
        assert_eq!(profile.is_some(), allowed, "{document}");
    }
}
