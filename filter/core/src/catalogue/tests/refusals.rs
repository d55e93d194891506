//! What Bedrock's refusals of on-demand throughput teach, and who may be sent by a profile then.

use super::choices::{client, handoff, model_of, send, sent};
use super::*;
use crate::attempt::{Attempt, AttemptInput};
use crate::headers::Headers;
use crate::step::Forward;
use crate::testing::{Client, forwarded, headers, refused};
use audit::AttemptFacts;

const EAST: &str = "us-east-1";
const ARN: &str = "arn:aws:bedrock:us-east-1::foundation-model/a.b";

/// A gateway whose regions list on-demand throughput of `a.b`, and profiles.
fn gateway(regions: &[&str], extra: Value) -> Client {
    let known: Vec<_> = regions.iter().map(|name| (*name, listed(&["us.a.b", "global.a.b"]))).collect();
    client(policy(regions, extra), &known)
}

fn listed(profiles: &[&str]) -> Offers {
    offers(&[("a.b", &["ON_DEMAND"])], profiles)
}

fn words(id: &str, mark: &str) -> String {
    let message = format!(
        "Invocation of model ID {id} with on-demand throughput isn{mark}t supported. Retry your request with the ID or ARN of an \
         inference profile that contains this model."
    );
    json!({ "message": message }).to_string()
}

fn refusal() -> Headers {
    headers(&[(":status", "400"), ("x-amzn-errortype", "ValidationException:http://x"), ("content-length", "160")])
}

/// An attempt of a call, and the request that it sends.
fn attempt(client: &Client, forward: &Forward, region: &str, previous: Option<&[u8]>) -> (Attempt, Forward) {
    let input =
        AttemptInput { handoff: Some(handoff(forward)), previous, path: Some(b"dx"), region: Some(region.as_bytes()) };
    let mut attempt = Attempt::default();
    let signed = forwarded(attempt.request(&forward.headers, input, client.context()));
    (attempt, signed)
}

/// Whether the refusal of a call's first attempt would be read.
fn reads(client: &mut Client, id: &str) -> bool {
    let forward = forwarded(send(client, id, "converse"));
    let (attempt, _) = attempt(client, &forward, EAST, None);
    attempt.reads_refusal(&refusal(), client.context())
}

/// Bedrock refuses a call in the first region.
fn teach(client: &mut Client, id: &str) {
    let forward = forwarded(send(client, id, "converse"));
    let (attempt, _) = attempt(client, &forward, EAST, None);
    assert!(attempt.refusal(words(id, "\u{2019}").as_bytes(), client.context()).retry);
}

#[test]
fn a_refusal_is_retried_once_by_the_profile() {
    for operation in ["converse", "converse-stream", "invoke", "invoke-with-response-stream"] {
        for mark in ["\u{2019}", "'"] {
            let mut client = gateway(&[EAST, "us-west-2"], json!({}));
            let forward = forwarded(send(&mut client, "a.b", operation));
            let (mut first, signed) = attempt(&client, &forward, EAST, None);
            assert_eq!(model_of(&signed), "a.b");
            let decision = first.response(&refusal(), client.context());
            assert!(!decision.retry && first.reads_refusal(&refusal(), client.context()));
            let decision = first.refusal(words("a.b", mark).as_bytes(), client.context());
            assert!(decision.retry && decision.leave.is_none());
            let learnt = decision.learnt.unwrap();
            assert!(learnt.contains("us-east-1 does not run 'a.b'") && learnt.contains("'us.a.b'"), "{learnt}");
            let facts: AttemptFacts = serde_json::from_slice(&decision.state.clone().unwrap()).unwrap();
            assert_eq!((facts.refused_on_demand, facts.tried.len()), (Some(1), 1));

            // The next path, or another region, of which nothing was learnt yet.
            for region in [EAST, "us-west-2"] {
                let (second, signed) = attempt(&client, &forward, region, decision.state.as_deref());
                assert_eq!(model_of(&signed), "us.a.b", "{region}");
                let facts: AttemptFacts = serde_json::from_slice(&signed.states[0].1).unwrap();
                assert_eq!((facts.refused_on_demand, facts.tried.len()), (Some(1), 2));
                assert!(!second.reads_refusal(&refusal(), client.context()), "once");
            }
            assert_eq!(sent(&mut client, "a.b", EAST), "us.a.b", "the next call at once");
            assert_eq!(sent(&mut client, "a.b", "us-west-2"), "a.b");
        }
    }
}

#[test]
fn other_workers_know_it_at_their_next_tick() {
    let mut client = gateway(&[EAST], json!({}));
    teach(&mut client, "a.b");
    let own = std::mem::replace(&mut client.catalogue, store(&[(EAST, listed(&["us.a.b", "global.a.b"]))]));
    assert_eq!(sent(&mut client, "a.b", EAST), "a.b");
    client.catalogue.follow([region(EAST)].iter(), &client.shared);
    assert_eq!(sent(&mut client, "a.b", EAST), "us.a.b");
    // A poll that finds the same changes nothing; one that finds more is believed.
    client.catalogue = store(&[(EAST, listed(&["us.a.b"]))]);
    client.catalogue.follow([region(EAST)].iter(), &client.shared);
    assert_eq!(sent(&mut client, "a.b", EAST), "a.b");
    client.catalogue = own;
    assert_eq!(sent(&mut client, "a.b", EAST), "us.a.b");
}

#[test]
fn other_answers_teach_nothing() {
    let mut client = gateway(&[EAST], json!({}));
    let forward = forwarded(send(&mut client, "a.b", "converse"));
    let (attempt, _) = attempt(&client, &forward, EAST, None);
    let echo = json!({ "message": format!("Malformed input: {}", words("a.b", "'")) }).to_string();
    for body in [
        words("a.bc", "'"),
        words("us.a.b", "'"),
        echo,
        json!({"message": "The provided model identifier is invalid."}).to_string(),
        json!({"message": 7}).to_string(),
        "<html>".to_owned(),
        String::new(),
    ] {
        assert_eq!(attempt.refusal(body.as_bytes(), client.context()), Default::default(), "{body}");
    }
    for (name, value) in [
        (":status", "403"),
        (":status", "404"),
        ("x-amzn-errortype", "AccessDeniedException"),
        ("content-length", "4097"),
        ("content-length", "x"),
        ("content-encoding", "gzip"),
    ] {
        let mut other = refusal();
        other.set(name, value);
        assert!(!attempt.reads_refusal(&other, client.context()), "{name}: {value}");
    }
    assert_eq!(sent(&mut client, "a.b", EAST), "a.b");
}

#[test]
fn a_refusal_passes_if_no_profile_may_be_sent() {
    let rules = json!([{"id": "no-us", "effect": "deny", "models": ["us.*"]}]);
    for (extra, profiles, wanted) in [
        (json!({}), &["us.a.b"][..], true),
        (json!({}), &[], false),
        // Of another geography, or global.
        (json!({}), &["eu.a.b", "global.a.b"], false),
        (json!({"catalogue": {"cluster": "polls", "global": true}}), &["global.a.b"], true),
        (json!({"models": {"deny": ["us.*"]}}), &["us.a.b"], false),
        (json!({"residency": []}), &["us.a.b"], false),
        (json!({"residency": ["us"]}), &["us.a.b"], true),
        (json!({"rules": rules}), &["us.a.b"], false),
        (json!({"rules": [{"id": "no", "effect": "deny", "models": ["global.*"]}]}), &["us.a.b"], true),
        (json!({"rules": [{"id": "no", "effect": "deny", "mode": "dry_run", "models": ["us.*"]}]}), &["us.a.b"], true),
    ] {
        let mut client = client(policy(&[EAST], extra.clone()), &[(EAST, listed(profiles))]);
        assert_eq!(reads(&mut client, "a.b"), wanted, "{extra} {profiles:?}");
    }
    let mut known = gateway(&[EAST], json!({}));
    assert!(!reads(&mut known, "us.a.b"), "a profile is not run on demand");
    let forward = forwarded(send(&mut known, "a.b", "count-tokens"));
    assert!(!attempt(&known, &forward, EAST, None).0.reads_refusal(&refusal(), known.context()));
    // Without a catalogue nothing is read.
    let plain = crate::testing::policy("gateway", "sigv4");
    let mut plain = Client::of(plain, Some(crate::testing::keys()));
    assert!(!reads(&mut plain, "a.b"));
}

#[test]
fn a_model_arn_goes_by_the_profile_too() {
    for entry in [json!({}), json!({"inference_profiles": {"a.b": "global.a.b"}})] {
        let wanted = if entry.get("inference_profiles").is_some() { "global.a.b" } else { "us.a.b" };
        let mut client = gateway(&[EAST], entry);
        assert_eq!(sent(&mut client, ARN, EAST), ARN);
        teach(&mut client, ARN);
        assert_eq!(sent(&mut client, ARN, EAST), wanted);
        let other = "arn:aws:bedrock:us-east-1::foundation-model/a.c";
        assert_eq!(sent(&mut client, other, EAST), other);
    }
}

#[test]
fn refuses_a_learnt_profile_that_a_rule_denies() {
    let rules = json!([{"id": "no-us", "effect": "deny", "models": ["us.*"]}]);
    let mut denied = gateway(&[EAST], json!({ "rules": rules }));
    assert_eq!(sent(&mut denied, "a.b", EAST), "a.b");
    // Another class, or a caller that no rule denies, teaches it.
    let mut other = gateway(&[EAST], json!({}));
    teach(&mut other, "a.b");
    std::mem::swap(&mut denied.shared, &mut other.shared);
    denied.catalogue.follow([region(EAST)].iter(), &denied.shared);
    let (status, _, message) = refused(send(&mut denied, "a.b", "converse"));
    assert!(status == 403 && message.contains("'no-us'"), "{message}");
}

/// A poll between the decision and the attempt.
#[test]
fn refuses_a_profile_that_no_rule_judged() {
    let rules = json!([{"id": "no-global", "effect": "deny", "models": ["global.*"]}]);
    let extra = json!({"rules": rules, "catalogue": {"cluster": "polls", "global": true}});
    let mut client = client(policy(&[EAST], extra), &[(EAST, listed(&[]))]);
    for (profiles, wanted) in [(&["us.a.b"][..], "'us.a.b'"), (&["global.a.b"], "'global.a.b'")] {
        client.catalogue = store(&[(EAST, listed(&[]))]);
        let forward = forwarded(send(&mut client, "a.b", "converse"));
        client.catalogue = store(&[(EAST, offers(&[("a.b", &["INFERENCE_PROFILE"])], profiles))]);
        let input = AttemptInput {
            handoff: Some(handoff(&forward)),
            previous: None,
            path: Some(b"dx"),
            region: Some(EAST.as_bytes()),
        };
        let step = Attempt::default().request(&forward.headers, input, client.context());
        let (status, error, message) = refused(step);
        assert_eq!((status, error), (503, "ServiceUnavailableException"));
        assert!(message.contains("'a.b'") && message.contains(wanted), "{message}");
    }
    // The next call is judged by it.
    assert_eq!(refused(send(&mut client, "a.b", "converse")).0, 403);
}
