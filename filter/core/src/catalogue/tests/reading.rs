//! How lists are read.

use super::*;
use crate::catalogue::lists::{ListError, MAX_BODY};
use std::collections::BTreeMap;
use std::time::Instant;

/// What was read, as id, whether on-demand, geographies.
fn read(offers: &Offers, id: &str) -> Option<(bool, String)> {
    let offer = offers.find(id)?;
    Some((offer.on_demand(), offer.geographies().collect::<Vec<_>>().join(",")))
}

#[test]
fn a_region_offers_what_it_lists() {
    let offers = offers(
        &[("a.on-demand", &["ON_DEMAND", "PROVISIONED"]), ("a.listed", &["INFERENCE_PROFILE"]), ("a.none", &[])],
        &["us.a.listed", "global.a.listed", "us.b.profile-v1:0", "xx.a.on-demand", "us.a.listed"],
    );
    let wanted = |on_demand, geographies: &str| Some((on_demand, geographies.to_owned()));
    for (id, found) in [
        ("a.on-demand", wanted(true, "xx")),
        ("a.listed", wanted(false, "global,us")),
        ("a.none", wanted(false, "")),
        ("b.profile-v1:0", wanted(false, "us")),
        ("a.liste", None),
        ("a.listedd", None),
        ("us.a.listed", None),
        ("", None),
        ("z.z", None),
    ] {
        assert_eq!(read(&offers, id), found, "{id}");
    }
    assert_eq!(offers.len(), 4);
}

#[test]
fn other_profiles_and_ids_are_passed_over() {
    let mut lists =
        Lists::of_models(models(&[("a.b", &[]), ("a b", &[]), ("a/b.c", &[]), ("", &[])]).as_bytes()).unwrap();
    let mut page: Value = serde_json::from_str(&profiles(&["us.a.b", "eu.a.b", "apac.a.b"], None)).unwrap();
    page["inferenceProfileSummaries"][0]["type"] = json!("APPLICATION");
    page["inferenceProfileSummaries"][1]["status"] = json!("SOMETHING");
    lists.add_profiles(page.to_string().as_bytes()).unwrap();
    let long = format!("us.a.{}", "b".repeat(200));
    lists
        .add_profiles(profiles(&["abcdef", "us.abcdef", "US.a.b", ".a.b", "us.a/b", long.as_str()], None).as_bytes())
        .unwrap();
    let offers = lists.offers();
    assert_eq!((offers.len(), read(&offers, "a.b")), (1, Some((false, "apac".to_owned()))));
}

#[test]
fn refuses_answers_that_are_not_lists() {
    let many = |count: usize| {
        let ids: Vec<String> = (0..count).map(|nth| format!("a.b{nth}")).collect();
        let entries: Vec<(&str, &[&str])> = ids.iter().map(|id| (id.as_str(), &["ON_DEMAND"][..])).collect();
        models(&entries)
    };
    let good = models(&[("a.b", &["ON_DEMAND"])]);
    for body in ["", "null", "{}", "[]", "<html>", r#"{"modelSummaries":null}"#, r#"{"modelSummaries":[{}]}"#] {
        assert!(matches!(Lists::of_models(body.as_bytes()), Err(ListError::Form(_))), "{body}");
    }
    for end in 0..good.len() {
        assert!(matches!(Lists::of_models(&good.as_bytes()[..end]), Err(ListError::Form(_))), "{end}");
    }
    assert_eq!(Lists::of_models(br#"{"modelSummaries":[]}"#).unwrap_err(), ListError::Empty);
    let long = good + &" ".repeat(MAX_BODY);
    assert_eq!(Lists::of_models(long.as_bytes()).unwrap_err(), ListError::TooLong(long.len()));
    assert_eq!(Lists::of_models(many(4000).as_bytes()).unwrap().offers().len(), 4000);
    let error = Lists::of_models(many(4001).as_bytes()).unwrap_err().to_string();
    assert!(error.contains("a list of at most 4000"), "{error}");

    let mut lists = Lists::of_models(many(1).as_bytes()).unwrap();
    for body in ["", "{}", r#"{"inferenceProfileSummaries":[{"inferenceProfileId":1}]}"#] {
        assert!(matches!(lists.add_profiles(body.as_bytes()), Err(ListError::Form(_))), "{body}");
    }
    for token in [String::new(), "x".repeat(2049)] {
        let page = profiles(&[], Some(&token));
        assert_eq!(lists.add_profiles(page.as_bytes()), Err(ListError::Token));
    }
}

/// serde_json's tree is the oracle, over lists with members that are missing, unknown or of other forms.
#[test]
fn reads_what_is_there() {
    let mut seed = 7_u64;
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let (mut summaries, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..=draw(20) {
            let id = ["a.b", "a.b-v1:0", "a.b1.2", "\u{e9}.b", "a b.c", "c.d\"", "x", "us.a.b"][draw(8) as usize];
            let id = format!("{id}{}", draw(4));
            let kinds: Vec<&str> =
                (0..draw(3)).map(|_| ["ON_DEMAND", "PROVISIONED", "x\u{0}"][draw(3) as usize]).collect();
            let mut summary = json!({"modelId": id, "new": [1, {"a": null}]});
            if draw(4) > 0 {
                summary["inferenceTypesSupported"] = json!(kinds);
            }
            ids.push(id);
            summaries.push(summary);
        }
        let tree = json!({ "modelSummaries": summaries, "more": {} });
        let mut oracle: BTreeMap<&str, bool> = BTreeMap::new();
        for summary in tree["modelSummaries"].as_array().unwrap() {
            let id = summary["modelId"].as_str().unwrap();
            let kinds = summary["inferenceTypesSupported"].as_array();
            let on_demand = kinds.into_iter().flatten().any(|kind| kind == "ON_DEMAND");
            if id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)) {
                *oracle.entry(id).or_default() |= on_demand;
            }
        }
        let Ok(lists) = Lists::of_models(tree.to_string().as_bytes()) else {
            assert!(oracle.is_empty());
            continue;
        };
        let offers = lists.offers();
        assert_eq!(offers.len(), oracle.len());
        for id in &ids {
            let found = offers.find(id).map(offers::Offer::on_demand);
            assert_eq!(found, oracle.get(id.as_str()).copied(), "{id} in {tree}");
        }
    }
}

/// What an operator with many models pays: printed, with bounds that no machine misses.
#[test]
fn two_thousand_models_are_small() {
    let ids: Vec<String> =
        (0..2000).map(|nth| format!("provider{}.some-model-{nth}-20261127-v1:0", nth % 20)).collect();
    let entries: Vec<(&str, &[&str])> =
        ids.iter().map(|id| (id.as_str(), &["ON_DEMAND", "INFERENCE_PROFILE"][..])).collect();
    let named: Vec<String> = ids.iter().flat_map(|id| ["us", "global"].map(|area| format!("{area}.{id}"))).collect();
    let pages: Vec<String> =
        named.chunks(1000).map(|page| profiles(&page.iter().map(String::as_str).collect::<Vec<_>>(), None)).collect();
    let body = models(&entries);
    let start = Instant::now();
    let mut lists = Lists::of_models(body.as_bytes()).unwrap();
    pages.iter().for_each(|page| assert_eq!(lists.add_profiles(page.as_bytes()), Ok(None)));
    let offers = lists.offers();
    let read = start.elapsed();
    let start = Instant::now();
    let again = Offers::read(offers.as_bytes().to_vec()).unwrap();
    let reload = start.elapsed();
    let start = Instant::now();
    ids.iter().for_each(|id| assert_eq!(read_geographies(&again, id), 2));
    let find = start.elapsed() / 2000;
    println!("models of {} bytes and {} pages read in {read:?}", body.len(), pages.len());
    println!("kept in {} bytes, read again in {reload:?}, a look-up in {find:?}", again.as_bytes().len());
    assert!(again.as_bytes().len() < 200_000);
}

fn read_geographies(offers: &Offers, id: &str) -> usize {
    offers.find(id).map_or(0, |offer| offer.geographies().count())
}
