//! Settings, polls and what follows for calls.

mod calls;
mod document;
mod polling;

use super::setting::Settings;
use super::*;
use crate::policy::Policy;
use crate::polls::Polls;
use crate::shared::tests::Memory;
use RetentionMode::{AwsReview, None as Zero, ProviderDataShare};
use serde_json::{Value, json};

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

pub(super) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

pub(super) fn place(name: &str) -> Place {
    Place::new("default", &region(name), (&Credentials::default(), &[]))
}

pub(super) fn settings(account: &str, projects: &[(&str, &str)]) -> Settings {
    let projects = projects.iter().map(|(id, mode)| ((*id).to_owned(), (*mode).to_owned())).collect();
    Settings { account: account.to_owned(), projects }
}

/// A document with a class of these regions, which demands `retention`.
pub(super) fn document(retention: &str, regions: &[&str], extra: Value) -> Value {
    let own: serde_json::Map<String, Value> = regions.iter().map(|region| ((*region).to_owned(), json!({}))).collect();
    let mut document = json!({
        "role": "gateway", "regions": own, "data_retention": {"cluster": "polls"},
        "route_classes": [{"name": "any", "paths": ["dx", "vpn"], "regions": regions, "retention": retention}],
    });
    document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    document
}

pub(super) fn policy(retention: &str, regions: &[&str], extra: Value) -> Policy {
    Policy::parse(document(retention, regions, extra).to_string().as_bytes(), None).unwrap()
}

/// What a worker has read for a document at a time, in a store of its own.
pub(super) fn store(policy: &Policy, known: &[(&str, Settings)], read_at: SystemTime) -> RetentionStore {
    let (memory, store) = (Memory::default(), RetentionStore::default());
    let rules = policy.retention.as_ref().unwrap();
    for (name, settings) in known {
        read(rules.place("default", &region(name)).unwrap(), settings, &memory, read_at);
    }
    store.follow(rules.places(), &memory);
    store
}

/// A poll of a place.
fn read(place: &Place, settings: &Settings, memory: &Memory, read_at: SystemTime) {
    let (polls, task) = (Polls::new(1), place.task(Duration::from_secs(60)));
    assert!(polls.due(&task, memory, read_at));
    polls.publish(&task, &settings.write(), memory, read_at);
}

/// Every pair of modes, known or not, with and without a statement about the model. The table is written out, as AWS's page
/// says it: the project's, else the account's, else the model's own.
#[test]
fn every_pair_of_modes_is_resolved() {
    let modes = ["default", "none", "aws_review", "provider_data_share", "inherit", "brand_new"];
    let fixed = |text: &str| RetentionMode::ALL.into_iter().find(|mode| mode.as_str() == text);
    for model in [None, Some(Zero), Some(AwsReview), Some(ProviderDataShare)] {
        for account in modes {
            for project in modes {
                let found = settings(account, &[("default", project)]).mode("default", model);
                let of_model = model.ok_or(Unresolved::Model);
                let wanted = match (project, account) {
                    ("none" | "aws_review" | "provider_data_share", _) => Ok(fixed(project).unwrap()),
                    ("inherit", "none" | "aws_review" | "provider_data_share") => Ok(fixed(account).unwrap()),
                    ("default", _) | ("inherit", "default" | "inherit") => of_model,
                    ("brand_new", _) | ("inherit", "brand_new") => Err(Unresolved::Other("brand_new".to_owned())),
                    other => panic!("{other:?}"),
                };
                assert_eq!(found, wanted, "{project} of {account}, {model:?}");
            }
        }
    }
    let missing = settings("none", &[]).mode("default", Some(Zero));
    assert_eq!(missing, Err(Unresolved::NoProject("default".to_owned())));
}

#[test]
fn refuses_settings_that_are_too_old() {
    let east = place("us-east-1");
    let policy = policy("none", &["us-east-1"], json!({}));
    let store = store(&policy, &[("us-east-1", settings("none", &[("default", "inherit")]))], at(100));
    let mode = |seconds| store.mode(&east, "default", None, (Duration::from_secs(300), at(seconds)));
    for seconds in [100, 399, 400] {
        assert_eq!(mode(seconds), Ok(Zero), "{seconds}");
    }
    assert_eq!(mode(401), Err(Unresolved::Stale(301)));
    // A clock that was set back says nothing of an age.
    assert_eq!((mode(99), mode(98)), (Ok(Zero), Err(Unresolved::Unread)));
    let unread = store.mode(&place("us-west-2"), "default", None, (Duration::from_secs(300), at(100)));
    assert_eq!(unread, Err(Unresolved::Unread));
}

/// The look of any worker may be the first to see that the clock was set back, or the worker that polls.
#[test]
fn refuses_settings_of_a_time_that_comes_again() {
    for polls_first in [false, true] {
        let (memory, store, polls, east) =
            (Memory::default(), RetentionStore::default(), Polls::new(1), place("us-east-1"));
        let task = east.task(Duration::from_secs(60));
        let publish = |seconds| read(&east, &settings("none", &[("default", "inherit")]), &memory, at(seconds));
        let look = |seconds| store.look([&east].into_iter(), Duration::from_secs(300), &memory, at(seconds));
        let mode = |seconds| store.mode(&east, "default", None, (Duration::from_secs(300), at(seconds)));
        publish(5000);
        store.follow([&east].into_iter(), &memory);
        assert_eq!(mode(5000), Ok(Zero));
        if polls_first {
            assert!(polls.due(&task, &memory, at(1000)));
            polls.failed(&task, &memory, at(1001));
        } else {
            look(1000);
        }
        for seconds in [1000, 4999, 5000, 5001] {
            look(seconds);
            assert_eq!(mode(seconds), Err(Unresolved::Unread), "{seconds}");
        }
        publish(5002);
        look(5003);
        assert_eq!(mode(5003), Ok(Zero));
    }
}

#[test]
fn metrics_say_mode_and_age() {
    for (account, project, label) in [
        ("none", "inherit", "none"),
        ("none", "provider_data_share", "provider_data_share"),
        ("inherit", "inherit", "default"),
        ("inherit", "default", "default"),
        ("brand_new", "inherit", "unresolved"),
    ] {
        let (memory, place) = (Memory::default(), place("us-east-1"));
        read(&place, &settings(account, &[("default", project)]), &memory, at(0));
        let store = RetentionStore::default();
        store.follow([&place].into_iter(), &memory);
        let look = |seconds| {
            let samples = store.look([&place].into_iter(), Duration::from_secs(300), &memory, at(seconds));
            let current: Vec<String> = samples
                .iter()
                .filter(|sample| sample.name.starts_with("bedrock_retention_mode;") && sample.value == 1)
                .map(|sample| sample.name.clone())
                .collect();
            (current, samples.iter().find(|sample| sample.name.contains("_age_seconds;")).unwrap().value)
        };
        let series = |label: &str| format!("bedrock_retention_mode;source=default;region=us-east-1;type={label}");
        assert_eq!(look(7), (vec![series(label)], 7));
        assert_eq!(look(301), (vec![series("unresolved")], 301));
    }
}

/// A document that is replaced keeps its name for the source, and both are followed while calls of the old one last.
#[test]
fn refuses_what_another_document_has_read() {
    let source = |role: &str| json!({"source": "imds", "cluster": "imds", "role": role});
    let own = |role: &str, projects: Value| {
        let rules = json!({"cluster": "polls", "projects": projects});
        policy("none", &["us-east-1"], json!({"credentials": source(role), "data_retention": rules}))
    };
    let listed = || json!({"us-east-1": ["proj_a"]});
    let old = own("one", json!({}));
    for (new, differs) in [(own("one", json!({})), false), (own("two", json!({})), true), (own("one", listed()), true)]
    {
        let (memory, store, east) = (Memory::default(), RetentionStore::default(), region("us-east-1"));
        let (before, after) = (old.retention.as_ref().unwrap(), new.retention.as_ref().unwrap());
        let mode = |rules: &rules::RetentionRules, project: &str| {
            store.mode(rules.place("default", &east).unwrap(), project, None, (rules.max_age, at(0)))
        };
        read(before.place("default", &east).unwrap(), &settings("none", &[("default", "inherit")]), &memory, at(0));
        store.follow(before.places(), &memory);
        store.follow(after.places(), &memory);
        assert_eq!((mode(before, "default"), mode(after, "default").is_ok()), (Ok(Zero), !differs));
        if !differs {
            continue;
        }
        assert_eq!((mode(after, "default"), mode(after, "proj_a")), (Err(Unresolved::Unread), Err(Unresolved::Unread)));
        read(
            after.place("default", &east).unwrap(),
            &settings("aws_review", &[("default", "inherit")]),
            &memory,
            at(0),
        );
        // The old document sees the change first.
        store.follow(before.places(), &memory);
        store.follow(after.places(), &memory);
        assert_eq!((mode(before, "default"), mode(after, "default")), (Ok(Zero), Ok(AwsReview)));
        assert_eq!(mode(after, "proj_a"), Err(Unresolved::NoProject("proj_a".to_owned())));
        // Nor do the metrics show what the document does not have.
        let samples = store.look(after.places(), Duration::from_secs(300), &memory, at(0));
        assert_eq!(samples.iter().filter(|sample| sample.name.contains("_age_seconds;")).count(), 1);
    }
}
