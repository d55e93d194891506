use super::*;
use crate::policy::Policy;
use serde_json::{Value, json};

fn policy(class: &Value, order: Option<&str>) -> Policy {
    let document = json!({
        "role": "gateway",
        "regions": {"us-east-1": {}, "us-west-2": {}},
        "route_classes": [class]
    });
    Policy::parse(document.to_string().as_bytes(), order).unwrap()
}

/// The names of the clusters of the runtime, with their endpoints as `path/region` of one letter each.
fn clusters(class: &Value, order: Option<&str>) -> Vec<(String, String)> {
    let policy = policy(class, order);
    let of_runtime = policy.clusters().filter(|(_, cluster)| cluster.service == Service::BedrockRuntime);
    let short = |(path, region): &(PathName, &RegionName)| format!("{}{}", &path.as_str()[..1], &region.as_str()[3..4]);
    of_runtime
        .map(|(_, cluster)| {
            let endpoints: Vec<String> = cluster.endpoints.iter().map(short).collect();
            (cluster.name.replace("bedrock-runtime.", ""), endpoints.join(" "))
        })
        .collect()
}

#[test]
fn every_first_endpoint_has_a_cluster() {
    let paths = json!(["dx", "vpn", "internet"]);
    for (class, order, wanted) in [
        (json!({"name": "one", "paths": ["dx"], "regions": ["us-east-1"]}), None, vec![("one", "de")]),
        (json!({"name": "any", "paths": paths, "regions": ["us-east-1"]}), None, vec![("any", "de ve ie")]),
        (
            json!({"name": "any", "paths": paths}),
            None,
            vec![
                ("any.us-east-1", "de ve ie dw vw iw"),
                ("any.us-west-2", "dw vw iw de ve ie"),
                ("any.only-us-east-1", "de ve ie"),
                ("any.only-us-west-2", "dw vw iw"),
            ],
        ),
        (
            json!({"name": "any", "paths": paths, "regions": ["us-east-1"], "weights": {"dx": 100, "vpn": 0}}),
            None,
            vec![("any", "de ve ie"), ("any.vpn-dx-internet", "ve de ie")],
        ),
        // The environment's order wins, and adds nothing.
        (
            json!({"name": "any", "paths": paths, "regions": ["us-east-1"]}),
            Some("internet,dx,vpn"),
            vec![("any.internet-dx-vpn", "ie de ve")],
        ),
        (
            json!({"name": "private", "paths": ["dx", "vpn"], "regions": ["us-east-1"]}),
            Some("internet,vpn"),
            vec![("private.vpn", "ve")],
        ),
        (json!({"name": "private", "paths": ["dx", "vpn"]}), Some("internet"), vec![]),
    ] {
        let wanted: Vec<_> =
            wanted.into_iter().map(|(name, endpoints)| (name.to_owned(), endpoints.to_owned())).collect();
        assert_eq!(clusters(&class, order), wanted, "{class} {order:?}");
    }
}

#[test]
fn a_call_goes_to_a_cluster_that_is_listed() {
    let class = json!({"name": "any", "paths": ["dx", "vpn", "internet"], "weights": {"dx": 1, "vpn": 1},
        "region_weights": {"us-east-1": 1, "us-west-2": 3}});
    for order in [None, Some("internet,vpn"), Some("vpn,dx"), Some("internet")] {
        let policy = policy(&class, order);
        let listed: Vec<String> = policy.clusters().map(|(_, cluster)| cluster.name).collect();
        let class = &policy.classes()[0];
        for nth in 0..200 {
            let key = format!("caller-{nth}");
            for home in [
                RegionScope::Anywhere,
                RegionScope::First,
                RegionScope::Region("us-west-2".to_owned()),
                RegionScope::Region("eu-west-1".to_owned()),
            ] {
                let first = class.first_path(&key).unwrap();
                let reach = class.choose_region(&home, || class.regions_for(&key), |_| true).unwrap();
                let name = class.cluster(Service::Bedrock, first, reach);
                assert!(listed.contains(&name), "{name} is not in {listed:?}");
            }
        }
    }
}

/// Callers whose first path is the VPN at a weight, of 20,000.
fn on_vpn(weight: u32) -> Vec<u32> {
    let class = json!({"name": "any", "paths": ["dx", "vpn"], "weights": {"dx": 100 - weight, "vpn": weight}});
    let policy = policy(&class, None);
    let class = &policy.classes()[0];
    (0..20_000).filter(|nth| class.first_path(&format!("spiffe://mesh/{nth}")) == Some(PathName::Vpn)).collect()
}

#[test]
fn callers_share_paths_by_weight_and_stay() {
    let mut before = Vec::new();
    for weight in [0, 10, 50, 90, 100] {
        let now = on_vpn(weight);
        let share = now.len() as f64 / 200.0;
        assert!((share - f64::from(weight)).abs() < 1.0, "{weight}: {share}");
        assert!(before.iter().all(|caller| now.binary_search(caller).is_ok()), "{weight}: a caller went back");
        before = now;
    }
}

#[test]
fn regions_share_calls_by_weight() {
    let [east, west] = ["us-east-1", "us-west-2"].map(|name| name.parse::<RegionName>().unwrap());
    let class = json!({"name": "any", "paths": ["dx"], "region_weights": {"us-west-2": 30, "us-east-1": 70}});
    let policy = policy(&class, None);
    let class = &policy.classes()[0];
    let first_in_east = (0..20_000)
        .filter(|nth| {
            class.choose_region(&RegionScope::Anywhere, || class.regions_for(&format!("{nth}")), |_| true)
                == Some(RegionChoice::From(&east))
        })
        .count();
    assert!((13_800..14_200).contains(&first_in_east), "{first_in_east}");
    let class = json!({"name": "any", "paths": ["dx"], "region_weights": {"us-west-2": 1}});
    let policy = self::policy(&class, None);
    let class = &policy.classes()[0];
    for nth in 0..100 {
        let reach = |admits: fn(&str) -> bool| {
            class.choose_region(&RegionScope::Anywhere, || class.regions_for(&format!("{nth}")), admits)
        };
        assert_eq!(reach(|_| true), Some(RegionChoice::From(&west)));
        assert_eq!(reach(|region| region == "us-east-1"), Some(RegionChoice::From(&east)));
        assert_eq!(reach(|_| false), Some(RegionChoice::From(&west)));
    }
}

#[test]
fn sticky_callers_keep_their_region() {
    let [east, west] = ["us-east-1", "us-west-2"].map(|name| name.parse::<RegionName>().unwrap());
    let on_west = |weight: u32| {
        let class = json!({"name": "any", "paths": ["dx"], "region_sticky": true,
            "region_weights": {"us-east-1": 100 - weight, "us-west-2": weight}});
        let policy = policy(&class, None);
        let class = &policy.classes()[0];
        let of = |caller: &str, call: &str| {
            class.choose_region(&RegionScope::Anywhere, || class.regions_for(class.region_key(caller, call)), |_| true)
        };
        let callers = (0..20_000).map(|nth| format!("spiffe://mesh/{nth}"));
        let on_west: Vec<String> =
            callers.filter(|caller| of(caller, "first") == Some(RegionChoice::From(&west))).collect();
        for caller in on_west.iter().take(50) {
            assert!((0..20).all(|nth| of(caller, &format!("{nth}")) == Some(RegionChoice::From(&west))), "{caller}");
            // A region that throttles is passed over all the same.
            let throttled = class.choose_region(
                &RegionScope::Anywhere,
                || class.regions_for(class.region_key(caller, "0")),
                |region| region != "us-west-2",
            );
            assert_eq!(throttled, Some(RegionChoice::From(&east)));
        }
        on_west
    };
    let mut before = Vec::new();
    for weight in [10, 50, 90] {
        let now = on_west(weight);
        let share = now.len() as f64 / 200.0;
        assert!((share - f64::from(weight)).abs() < 1.0, "{weight}: {share}");
        assert!(before.iter().all(|caller| now.contains(caller)), "{weight}: a caller went back");
        before = now;
    }
}

#[test]
fn other_callers_change_regions_by_call() {
    let class = json!({"name": "any", "paths": ["dx"], "region_weights": {"us-east-1": 1, "us-west-2": 1}});
    let policy = policy(&class, None);
    let class = &policy.classes()[0];
    assert_eq!(class.region_key("spiffe://mesh/a", "call"), "call");
}

#[test]
fn refuses_wrong_names_in_the_environment() {
    assert_eq!(environment_order(None), Ok(None));
    assert_eq!(environment_order(Some("")), Ok(None));
    assert_eq!(environment_order(Some("vpn, dx")), Ok(Some(vec![PathName::Vpn, PathName::Dx])));
    for (text, problem) in [
        ("satellite", "unknown path 'satellite'; known: dx, vpn, internet"),
        ("dx,", "unknown path ''; known: dx, vpn, internet"),
        ("dx,vpn,dx", "path 'dx' is there twice"),
        ("DX", "unknown path 'DX'"),
    ] {
        let error = environment_order(Some(text)).unwrap_err().to_string();
        assert!(error.contains("BEDROCK_PATHS (environment)") && error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn optional_services_have_clusters_where_listed() {
    let clusters = |optional: Value| {
        let document = json!({
            "role": "gateway", "regions": {"us-east-1": {}}, "optional_operations": optional,
            "route_classes": [{"name": "any", "paths": ["dx"]}]
        });
        let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
        policy.clusters().map(|(_, cluster)| cluster.name).collect::<Vec<_>>()
    };
    assert_eq!(clusters(json!(["batch_jobs"])), ["bedrock-runtime.any", "bedrock.any"]);
    assert_eq!(clusters(json!(["agent_runtime"])), ["bedrock-runtime.any", "bedrock.any", "bedrock-agent-runtime.any"]);
}

#[test]
fn the_fastest_region_needs_several() {
    let problem = |class: Value| {
        let document =
            json!({"role": "gateway", "regions": {"us-east-1": {}, "us-west-2": {}}, "route_classes": [class]});
        Policy::parse(document.to_string().as_bytes(), None).map(drop).map_err(|error| error.to_string())
    };
    let class = json!({"name": "any", "paths": ["dx"], "region_order": "fastest"});
    assert_eq!(problem(class.clone()), Ok(()));
    let mut lone = class.clone();
    lone["regions"] = json!(["us-east-1"]);
    assert!(
        problem(lone).unwrap_err().contains("`route_classes[0].region_order`: `fastest` needs at least two regions")
    );
    let mut weighted = class;
    weighted["region_weights"] = json!({"us-east-1": 1});
    assert!(problem(weighted).unwrap_err().contains("leave one of them out"));
}

/// The class that takes a call to a router binds it like the class of each model.
#[test]
fn refuses_a_weaker_class_for_a_router() {
    let class = |change: fn(&mut RouteClass)| {
        let document = json!({
            "role": "gateway", "regions": {"us-east-1": {}, "us-west-2": {}},
            "route_classes": [{"name": "any", "paths": ["dx"]}],
        });
        let config = crate::config::Config::parse(document.to_string().as_bytes()).unwrap();
        let mut class = compile(&config, None).unwrap().remove(0);
        change(&mut class);
        class
    };
    type Change = fn(&mut RouteClass);
    let changes: [(Change, Change, bool); 15] = [
        (|_| {}, |_| {}, true),
        (|_| {}, |other| other.credentials = "other".to_owned(), false),
        (|own| own.credentials = "other".to_owned(), |other| other.credentials = "other".to_owned(), true),
        (|own| own.session = SessionScope::Principal, |_| {}, false),
        (|_| {}, |other| other.session = SessionScope::Principal, false),
        (|_| {}, |other| other.retention = Some(Retention::None), false),
        (|own| own.retention = Some(Retention::None), |_| {}, true),
        (|own| own.retention = Some(Retention::Same), |other| other.retention = Some(Retention::None), false),
        (
            |own| {
                own.retention = Some(Retention::Same);
                own.regions.reverse();
            },
            |other| other.retention = Some(Retention::Same),
            false,
        ),
        (|_| {}, |other| other.limits.requests_per_minute = Some(5), false),
        (|own| own.limits.tokens_per_minute = Some(6), |other| other.limits.tokens_per_minute = Some(5), false),
        (|own| own.limits.concurrent_calls = Some(5), |other| other.limits.concurrent_calls = Some(5), true),
        (|_| {}, |other| other.catalogue_max_age = Some(Duration::from_secs(60)), false),
        (
            |own| own.catalogue_max_age = Some(Duration::from_secs(61)),
            |other| other.catalogue_max_age = Some(Duration::from_secs(60)),
            false,
        ),
        (|own| own.catalogue_max_age = Some(Duration::from_secs(61)), |_| {}, true),
    ];
    for (nth, (own, other, wanted)) in changes.into_iter().enumerate() {
        assert_eq!(class(own).binds_like(&class(other)), wanted, "{nth}");
    }
}
