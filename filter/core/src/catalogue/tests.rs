//! Lists, polls, and what they decide.

mod ages;
mod choices;
mod polling;
mod reading;
mod refusals;

use super::lists::Lists;
use super::offers::Offers;
use super::poll::OPERATIONS;
use super::*;
use crate::policy::Policy;
use crate::polls::Polls;
use crate::shared::tests::Memory;
use serde_json::{Value, json};

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

/// The answer to ListFoundationModels: ids with their inference types.
pub(crate) fn models(models: &[(&str, &[&str])]) -> String {
    let summary = |(id, kinds): &(&str, &[&str])| {
        json!({
            "modelArn": format!("arn:aws:bedrock:us-east-1::foundation-model/{id}"), "modelId": id, "modelName": "A \"name\"",
            "providerName": "P", "inputModalities": ["TEXT"], "outputModalities": ["TEXT"], "responseStreamingSupported": true,
            "customizationsSupported": [], "inferenceTypesSupported": kinds, "modelLifecycle": {"status": "ACTIVE"},
        })
    };
    json!({ "modelSummaries": models.iter().map(summary).collect::<Vec<_>>() }).to_string()
}

/// A page of ListInferenceProfiles.
pub(crate) fn profiles(ids: &[&str], next: Option<&str>) -> String {
    let summary = |id: &&str| {
        let bare = id.split_once('.').map_or(*id, |(_, bare)| bare);
        json!({
            "inferenceProfileName": "N", "createdAt": "2026-01-02T03:04:05Z", "updatedAt": "2026-01-02T03:04:05Z",
            "inferenceProfileArn": format!("arn:aws:bedrock:us-east-1:123456789012:inference-profile/{id}"),
            "models": [{"modelArn": format!("arn:aws:bedrock:us-east-1::foundation-model/{bare}")}],
            "inferenceProfileId": id, "status": "ACTIVE", "type": "SYSTEM_DEFINED",
        })
    };
    let mut page = json!({ "inferenceProfileSummaries": ids.iter().map(summary).collect::<Vec<_>>() });
    if let Some(next) = next {
        page["nextToken"] = json!(next);
    }
    page.to_string()
}

pub(crate) fn offers(listed: &[(&str, &[&str])], ids: &[&str]) -> Offers {
    let mut lists = Lists::of_models(models(listed).as_bytes()).unwrap();
    assert_eq!(lists.add_profiles(profiles(ids, None).as_bytes()), Ok(None));
    lists.offers()
}

/// A document with a class of all regions.
pub(crate) fn policy(regions: &[&str], extra: Value) -> Policy {
    let own: serde_json::Map<String, Value> = regions.iter().map(|region| ((*region).to_owned(), json!({}))).collect();
    let mut document = json!({
        "role": "gateway", "regions": own, "catalogue": {"cluster": "polls", "refresh_seconds": 60},
        "route_classes": [{"name": "any", "paths": ["dx", "vpn"], "regions": regions}],
    });
    document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Policy::parse(document.to_string().as_bytes(), None).unwrap()
}

pub(crate) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// A VM's copy, after polls at `at(0)` that found these.
pub(crate) fn store(known: &[(&str, Offers)]) -> CatalogueStore {
    store_of(known.iter().map(|(name, offers)| (*name, offers, 0)))
}

/// The same, after polls at their own times.
fn store_of<'a>(known: impl Iterator<Item = (&'a str, &'a Offers, u64)>) -> CatalogueStore {
    let (memory, polls, store) = (Memory::default(), Polls::new(1), CatalogueStore::default());
    for (name, offers, seconds) in known {
        let task = task(&region(name), Duration::from_secs(60));
        assert!(polls.due(&task, &memory, at(seconds)));
        polls.publish(&task, offers.as_bytes(), &memory, at(seconds));
        store.follow([region(name)].iter(), &memory);
    }
    store
}

#[test]
fn lists_are_their_operations_own() {
    for operation in OPERATIONS {
        assert!(operation.takes_api_key() && operation.method().as_str() == "GET", "{operation}");
    }
}
