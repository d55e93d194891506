//! What is refused of the document.

use super::*;

fn error(retention: &str, regions: &[&str], extra: Value) -> (String, String) {
    let error = Policy::parse(document(retention, regions, extra).to_string().as_bytes(), None).unwrap_err();
    (error.key.clone(), error.to_string())
}

#[test]
fn refuses_what_cannot_be_demanded() {
    let one = &["us-east-1"][..];
    let five = &["us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1"][..];
    let own = |value: Value| json!({ "data_retention": value });
    let with = |key: &str, value: Value| {
        let mut object = json!({"cluster": "polls"});
        object[key] = value;
        own(object)
    };
    for (retention, regions, extra, key, problem) in [
        ("same", five, json!({}), "route_classes[0].retention", "has 4 regions at most, not 5"),
        ("non", one, json!({}), "route_classes[0].retention", "did you mean `none`?"),
        ("default", one, json!({}), "route_classes[0].retention", "known: same, none, aws_review, provider_data_share"),
        ("none", one, own(json!({})), "data_retention.cluster", "a cluster of its own"),
        ("none", one, own(json!({"cluster": "bedrock.any"})), "data_retention.cluster", "none of Bedrock's"),
        ("none", one, with("refresh_seconds", json!(4)), "data_retention.refresh_seconds", "from 5 to 3600, not 4"),
        ("none", one, with("max_age_seconds", json!(119)), "data_retention.max_age_seconds", "from 120, twice"),
        (
            "none",
            one,
            with("models", json!([{"models": [], "mode": "none"}])),
            "data_retention.models[0].models",
            "name",
        ),
        (
            "none",
            one,
            with("models", json!([{"models": ["a b"], "mode": "none"}])),
            "data_retention.models[0].models[0]",
            "not a pattern",
        ),
        (
            "none",
            one,
            with("models", json!([{"models": ["*"], "mode": "inherit"}])),
            "data_retention.models[0].mode",
            "known: none, aws_review, provider_data_share",
        ),
        (
            "none",
            one,
            with("projects", json!({"us-west-2": ["proj_a"]})),
            "data_retention.projects.us-west-2",
            "unknown region",
        ),
        (
            "none",
            one,
            with("projects", json!({"us-east-1": ["default"]})),
            "data_retention.projects.us-east-1[0]",
            "always read",
        ),
        (
            "none",
            one,
            with("projects", json!({"us-east-1": ["arn:aws:bedrock:us-east-1:111122223333:project/a"]})),
            "data_retention.projects.us-east-1[0]",
            "is not a project's id",
        ),
        (
            "none",
            one,
            with("projects", json!({"us-east-1": ["proj_a", "proj_a"]})),
            "data_retention.projects.us-east-1[1]",
            "is there twice",
        ),
        ("none", one, json!({"role": "combined"}), "data_retention", "has no signer"),
    ] {
        let (found, said) = error(retention, regions, extra.clone());
        assert!(found == key && said.contains(problem), "{extra}: {found}: {said}");
    }
    let mut without = document("none", one, json!({}));
    without.as_object_mut().unwrap().remove("data_retention");
    let refused = Policy::parse(without.to_string().as_bytes(), None).unwrap_err();
    assert_eq!(refused.key, "route_classes[0].retention");
    assert!(refused.problem.contains("needs the key `data_retention`"), "{refused}");
    let mut nobody = document("none", one, json!({}));
    nobody["route_classes"][0].as_object_mut().unwrap().remove("retention");
    let refused = Policy::parse(nobody.to_string().as_bytes(), None).unwrap_err();
    assert!(refused.key == "data_retention" && refused.problem.contains("no route class has"), "{refused}");
}

/// Only clusters of bedrock-runtime are for sets of regions.
#[test]
fn calls_of_other_services_stay_in_a_region() {
    use crate::operation::{Call, OPERATIONS, RegionScope, Service};
    let mut checked = 0;
    for operation in OPERATIONS.iter().copied().filter(|one| guard::carries_data(*one)) {
        let call = Call { operation, labels: vec!["a.b".to_owned(); 4], query: String::new() };
        let roams = call.region_scope() == RegionScope::Anywhere;
        assert!(!roams || operation.service() == Service::BedrockRuntime, "{operation}");
        checked += 1;
    }
    assert!(checked > 10);
}

/// A cluster for each set of two or more regions and each that is first, besides the lone ones; and none where nothing is demanded.
#[test]
fn each_set_of_regions_has_its_clusters() {
    let all = ["us-east-1", "us-east-2", "us-west-1", "us-west-2"];
    for (regions, wanted) in [(1, 1), (2, 4), (3, 12), (4, 32)] {
        let names = |document: Value| {
            let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
            let clusters: Vec<(String, usize)> = policy
                .clusters()
                .filter(|(_, cluster)| cluster.service == crate::operation::Service::BedrockRuntime)
                .map(|(_, cluster)| (cluster.name, cluster.endpoints.len()))
                .collect();
            clusters
        };
        let mut free = document("none", &all[..regions], json!({}));
        let with = names(free.clone());
        assert_eq!(with.len(), wanted, "{with:?}");
        let distinct: std::collections::BTreeSet<&String> = with.iter().map(|(name, _)| name).collect();
        assert_eq!(distinct.len(), wanted);
        free.as_object_mut().unwrap().remove("data_retention");
        free["route_classes"][0].as_object_mut().unwrap().remove("retention");
        let most = if regions == 1 { 1 } else { 2 * regions };
        assert_eq!(names(free).len(), most);
    }
    let policy = policy("same", &all[..3], json!({}));
    let cluster = policy.clusters().map(|(_, cluster)| cluster).find(|one| one.name.ends_with(".us-west-1.us-east-1"));
    let regions: Vec<(&str, &str)> =
        cluster.as_ref().unwrap().endpoints.iter().map(|(path, region)| (path.as_str(), region.as_str())).collect();
    assert_eq!(regions, [("dx", "us-west-1"), ("vpn", "us-west-1"), ("dx", "us-east-1"), ("vpn", "us-east-1")]);
}
