//! Regions by principal (`region_sticky`): boto3 with certificates of the mesh, two paths to two regions.

use std::collections::{BTreeMap, BTreeSet};

use bedrock_double::PathFault::{self, Refuse, Throttle};
use serde_json::json;

use crate::clients::{assert_all_answered, python_with};
use crate::harness::{Harness, eventually};
use crate::istio::pod::Mesh;

const PLACES: [&str; 4] = ["dx@us-east-1", "vpn@us-east-1", "dx@us-west-2", "vpn@us-west-2"];
const PRINCIPALS: usize = 8;

/// The places that answered the calls of each certificate.
fn places(harness: &Harness, certificates: &[String], count: usize) -> Vec<BTreeSet<String>> {
    harness.doubles.iter().for_each(bedrock_double::Running::clear);
    let arguments = [&[count.to_string()], certificates].concat();
    let calls = python_with("principals", &harness.gateway.https, &harness.gateway.ca, &arguments);
    assert_all_answered(&calls);
    assert_eq!(calls.len(), count * certificates.len());
    let received = harness.received();
    let by_id: BTreeMap<&str, &str> =
        received.iter().map(|request| (request.request_id.as_str(), request.path_name.as_str())).collect();
    let mut places = vec![BTreeSet::new(); certificates.len()];
    for call in &calls {
        let caller: usize = call["call"].as_str().unwrap().parse().unwrap();
        places[caller].insert(by_id[call["request_id"].as_str().unwrap()].to_owned());
    }
    harness.assert_no_violation();
    places
}

/// The one place of each principal, by path and region.
fn lone(places: &[BTreeSet<String>]) -> Vec<(&str, &str)> {
    let one = |places: &BTreeSet<String>| assert_eq!(places.len(), 1, "calls of one principal went to {places:?}");
    places.iter().for_each(one);
    places.iter().flatten().map(|place| place.split_once('@').unwrap()).collect()
}

#[test]
fn a_principal_keeps_its_region() {
    let mesh = Mesh::new();
    let certificates: Vec<String> = (0..PRINCIPALS)
        .map(|number| mesh.identity(&format!("team-{number}")))
        .map(|identity| format!("{},{}", identity.certificate, identity.key))
        .collect();
    let ca = mesh.dir.path().join("ca.pem").display().to_string();
    let weights = json!({ "us-east-1": 50, "us-west-2": 50 });
    let class = json!({ "paths": ["dx", "vpn"], "region_weights": weights, "region_sticky": true });
    let mut harness = Harness::one_class(&PLACES, class, &["--client-ca", &ca]);

    let first = places(&harness, &certificates, 8);
    let first = lone(&first);
    assert!(first.iter().all(|(path, _)| *path == "dx"), "{first:?}");
    let of = |region: &str| first.iter().filter(|(_, own)| *own == region).count();
    assert!(of("us-east-1") > 0 && of("us-west-2") > 0, "{first:?}");
    let on = |path| first.iter().map(|(_, region)| (path, *region)).collect::<Vec<_>>();

    // Calls without a principal are spread, one by one.
    let nobody = places(&harness, &["none".to_owned()], 40);
    assert_eq!(nobody, [BTreeSet::from(["dx@us-east-1", "dx@us-west-2"].map(str::to_owned))]);

    // Another path, and the same region.
    for dx in [0, 2] {
        harness.doubles[dx].set_fault(Refuse);
    }
    assert_eq!(lone(&places(&harness, &certificates, 4)), on("vpn"));
    for dx in [0, 2] {
        harness.doubles[dx].set_fault(PathFault::None);
    }

    // Another Envoy.
    harness.restart();
    assert_eq!(lone(&places(&harness, &certificates, 4)), on("dx"));

    // A region that throttles is left, and taken again.
    for east in [0, 1] {
        harness.doubles[east].set_fault(Throttle(429, "claude".to_owned()));
    }
    assert_eq!(lone(&places(&harness, &certificates, 2)), vec![("dx", "us-west-2"); PRINCIPALS]);
    for east in [0, 1] {
        harness.doubles[east].set_fault(PathFault::None);
    }
    eventually("each principal's own region", || {
        let places = places(&harness, &certificates, 1);
        (lone(&places) == on("dx")).then_some(())
    });
}
