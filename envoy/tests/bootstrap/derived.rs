//! Clusters and routes that are rendered from the filter's document.

use std::path::Path;

use bedrock_gateway::base::Base;
use bedrock_gateway::bootstrap::discovery;
use bedrock_gateway::bootstrap::{self, Settings};
use bedrock_gateway::bootstrap_error::BootstrapError;
use bedrock_gateway::document::{Choices, Document, DocumentError, Written};
use filter_core::config::{Auth, Role};
use serde_json::{Value, json};

use super::{base, cluster, clusters, endpoints, settings};

fn choices() -> Choices {
    Choices { auth: Auth::Sigv4, fips: false, regions: Vec::new(), paths: None, audited: false, desk: None }
}

/// A document with these classes and two regions.
fn with_classes(classes: &Value) -> Value {
    json!({ "regions": { "us-east-1": {}, "us-west-2": {} }, "route_classes": classes })
}

fn compile(document: &Value, choices: &Choices) -> Result<Document, DocumentError> {
    Written::in_file(Path::new("policy.json"), &document.to_string(), &base())?.compile(choices)
}

fn render(document: &Value, paths: &[&str]) -> Value {
    render_for(document, paths, &choices())
}

fn render_for(document: &Value, paths: &[&str], choices: &Choices) -> Value {
    try_render(document, paths, choices).unwrap()
}

fn try_render(document: &Value, paths: &[&str], choices: &Choices) -> Result<Value, BootstrapError> {
    let settings = Settings { als: Some(([127, 0, 0, 1], 18090).into()), ..settings(paths) };
    bootstrap::render(&base(), &settings, &compile(document, choices).unwrap())
}

const ALL: [&str; 3] = ["dx=10.0.0.1:1", "vpn=10.0.0.2:2", "internet=10.0.0.3:3"];

fn names(config: &Value) -> Vec<&str> {
    clusters(config).iter().map(|cluster| cluster["name"].as_str().unwrap()).collect()
}

/// The routes of the plain listener.
fn routes(config: &Value) -> &Vec<Value> {
    let manager = &config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][1]["typed_config"];
    manager["route_config"]["virtual_hosts"][0]["routes"].as_array().unwrap()
}

/// Level, name and value of socket options.
fn options(of: &Value) -> Vec<(u64, u64, u64)> {
    let number = |option: &Value, key: &str| option[key].as_u64().unwrap();
    let options = of["socket_options"].as_array().unwrap();
    options.iter().map(|it| (number(it, "level"), number(it, "name"), number(it, "int_value"))).collect()
}

#[test]
fn relay_has_the_same_routes_as_the_listeners() {
    let classes =
        json!([{ "name": "bulk", "paths": ["dx"], "bandwidth_kbps": 100 }, { "name": "any", "paths": ["dx"] }]);
    let mut config = render(&with_classes(&classes), &["dx=a:1"]);
    let text = config["static_resources"]["listeners"][0].to_string();
    assert!(
        text.contains(r#"\"stream_relay\": \"bedrock-streams\""#),
        "stream_relay is added to a document without it: {text}"
    );
    let routes = |config: &Value, listener: &str| -> Value {
        let listeners = config["static_resources"]["listeners"].as_array().unwrap();
        let listener = listeners.iter().find(|known| known["name"] == listener).unwrap();
        let filters = listener["filter_chains"][0]["filters"].as_array().unwrap();
        filters.last().unwrap()["typed_config"]["route_config"].clone()
    };
    assert_eq!(routes(&config, "streams"), routes(&config, "plain"));
    let taken = discovery::take_out(&mut config, Path::new("live"));
    let names: Vec<&str> = taken.iter().map(|filter| filter.name.as_str()).collect();
    assert_eq!(names, ["bedrock.signer", "bedrock.gateway"]);
}

#[test]
fn priorities_are_paths_then_regions() {
    let classes = json!([{
        "name": "any", "paths": ["dx", "vpn"], "weights": { "vpn": 1 }, "regions": ["us-east-1", "us-west-2"],
    }]);
    let config = render(&with_classes(&classes), &["dx=a:1", "dx@us-west-2=b:2", "vpn=c:3"]);
    let suffixes = ["", ".vpn-dx"].iter().flat_map(|order| {
        let regions = ["us-east-1", "us-west-2"].into_iter();
        regions.flat_map(move |region| [format!("{order}.{region}"), format!("{order}.only-{region}")])
    });
    let mut expected: Vec<String> = suffixes
        .flat_map(|suffix| ["bedrock", "bedrock-runtime"].map(|service| format!("{service}.any{suffix}")))
        .chain(["audit-als", "bedrock-streams"].map(str::to_owned))
        .collect();
    expected.sort_unstable();
    let mut made = names(&config);
    made.sort_unstable();
    assert_eq!(made, expected);
    let east = ["dx/us-east-1 a:1", "vpn/us-east-1 c:3", "dx/us-west-2 b:2", "vpn/us-west-2 c:3"];
    assert_eq!(endpoints(&config, "bedrock-runtime.any.us-east-1"), east);
    assert_eq!(endpoints(&config, "bedrock.any.vpn-dx.only-us-west-2"), ["vpn/us-west-2 c:3", "dx/us-west-2 b:2"]);
    let first = &cluster(&config, "bedrock.any.vpn-dx.us-west-2")["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
    assert_eq!(first["endpoint"]["hostname"], "bedrock.us-west-2.amazonaws.com");
    assert_eq!(first["endpoint"]["health_check_config"]["hostname"], "bedrock.us-west-2.amazonaws.com");
    // As many retries as endpoints.
    assert_eq!(routes(&config)[0]["route"]["retry_policy"]["num_retries"], 4);
}

#[test]
fn retries_follow_the_endpoints_within_bounds() {
    let classes = json!([{ "name": "any", "paths": ["dx", "vpn", "internet"], "regions": ["us-east-1", "us-west-2"] }]);
    for (paths, retries) in [(&["dx@us-east-1=a:1"][..], 1), (&["dx=a:1"], 3), (&ALL, 5)] {
        let config = render(&with_classes(&classes), paths);
        assert_eq!(routes(&config)[0]["route"]["retry_policy"]["num_retries"], retries, "{paths:?}");
    }
}

#[test]
fn uses_the_endpoint_host_of_the_path() {
    let host = "vpce-0a1b-c2d3.bedrock-runtime.us-east-1.vpce.amazonaws.com";
    let mut document = with_classes(&json!([{ "name": "any", "paths": ["dx", "vpn"], "regions": ["us-east-1"] }]));
    document["regions"]["us-east-1"]["hosts"] = json!({ "dx": { "bedrock-runtime": host } });
    let config = render(&document, &ALL);
    let hostname = |name, priority: usize| {
        let group = &cluster(&config, name)["load_assignment"]["endpoints"][priority]["lb_endpoints"][0];
        group["endpoint"]["hostname"].as_str().unwrap().to_owned()
    };
    assert_eq!(hostname("bedrock-runtime.any", 0), host);
    assert_eq!(hostname("bedrock-runtime.any", 1), "bedrock-runtime.us-east-1.amazonaws.com");
    assert_eq!(hostname("bedrock.any", 0), "bedrock.us-east-1.amazonaws.com");
}

#[test]
fn bedrock_paths_overrides_the_order() {
    let document = with_classes(&json!([
        { "name": "private", "regions": ["us-east-1"], "streaming": true, "paths": ["dx"] },
        { "name": "any", "regions": ["us-east-1"], "paths": ["dx", "vpn", "internet"], "weights": { "dx": 1, "vpn": 0 } },
    ]));
    let ordered = Choices { paths: Some("internet, vpn".to_owned()), ..choices() };
    let config = render_for(&document, &ALL, &ordered);
    assert_eq!(endpoints(&config, "bedrock.any"), ["internet/us-east-1 10.0.0.3:3", "vpn/us-east-1 10.0.0.2:2"]);
    // The order leaves this class without a path.
    assert!(endpoints(&config, "bedrock.private").is_empty());
    // The rendered document has the same order.
    let text: Value = serde_json::from_str(&compile(&document, &ordered).unwrap().text(Role::Gateway)).unwrap();
    assert_eq!(text["route_classes"][1]["paths"], json!(["internet", "vpn"]));
    assert_eq!(text["route_classes"][1].get("weights"), None);
    for (order, part) in [("dx,satellite", "satellite"), ("dx,dx", "twice"), ("dx,,vpn", "BEDROCK_PATHS")] {
        let wrong = Choices { paths: Some(order.to_owned()), ..choices() };
        let error = compile(&document, &wrong).unwrap_err().to_string();
        assert!(error.contains("BEDROCK_PATHS") && error.contains(part), "{error}");
    }
}

#[test]
fn regions_of_the_command_line_keep_their_order() {
    let document = with_classes(&json!([{ "name": "any", "paths": ["dx"] }]));
    let regions = vec!["us-west-2".parse().unwrap(), "eu-central-1".parse().unwrap()];
    let config = render_for(&document, &["dx=a:1"], &Choices { regions, ..choices() });
    assert_eq!(endpoints(&config, "bedrock.any.us-west-2"), ["dx/us-west-2 a:1", "dx/eu-central-1 a:1"]);
    assert!(!names(&config).iter().any(|name| name.contains("us-east-1")));
}

#[test]
fn failback_sets_the_healthy_threshold() {
    for (seconds, checks) in [(0, 1), (5, 2), (12, 4)] {
        let mut document = with_classes(&json!([{ "name": "any", "paths": ["dx", "vpn"], "regions": ["us-east-1"] }]));
        document["failback_seconds"] = json!(seconds);
        let config = render(&document, &ALL);
        assert_eq!(cluster(&config, "bedrock.any")["health_checks"][0]["healthy_threshold"], checks);
    }
}

#[test]
fn priority_and_bandwidth_get_a_route() {
    let config = render(
        &with_classes(&json!([
            { "name": "urgent", "regions": ["us-east-1"], "streaming": true, "paths": ["dx", "vpn"], "priority": "high" },
            { "name": "bulk", "regions": ["us-east-1"], "body_bytes": { "min": 1 }, "paths": ["vpn"], "bandwidth_kbps": 512 },
            { "name": "any", "regions": ["us-east-1"], "paths": ["dx", "vpn", "internet"] },
        ])),
        &ALL,
    );
    let routes = routes(&config);
    assert_eq!(routes.len(), 3);
    let matched = |route: &Value| route["match"]["headers"][0]["string_match"]["exact"].as_str().map(str::to_owned);
    assert_eq!(routes.iter().map(matched).collect::<Vec<_>>(), [Some("bulk".into()), Some("urgent".into()), None]);
    let limit = &routes[0]["typed_per_filter_config"]["envoy.filters.http.bandwidth_limit"];
    assert_eq!((&limit["limit_kbps"], &limit["enable_mode"]), (&json!(512), &json!("REQUEST_AND_RESPONSE")));
    assert_eq!(routes[0]["route"].get("priority"), None);
    assert_eq!(routes[1]["route"]["priority"], "HIGH");
    assert_eq!(routes[1].get("typed_per_filter_config"), None);
    for route in routes {
        assert_eq!(route["route"]["cluster_header"], "x-bedrock-gateway-cluster");
        assert_eq!(route["route"]["retry_policy"], routes[2]["route"]["retry_policy"]);
        assert_eq!(route["request_body_buffer_limit"], routes[2]["request_body_buffer_limit"]);
    }
}

/// The first hop of a stream has no time-out: the second tries the next endpoint.
#[test]
fn a_class_with_a_time_out_has_its_route() {
    let classes = json!([
        { "name": "chat", "operations": ["ConverseStream"], "paths": ["dx"], "first_byte_timeout_ms": 2500, "priority": "high" },
        { "name": "any", "paths": ["dx"], "first_byte_timeout_ms": 30_000 },
    ]);
    let config = render(&with_classes(&classes), &["dx=a:1"]);
    let routes = routes(&config);
    let of: Vec<(&str, usize, &Value, &Value)> = routes
        .iter()
        .map(|route| {
            let headers = route["match"]["headers"].as_array().map_or(&[][..], Vec::as_slice);
            let class = headers.first().map_or("", |header| header["string_match"]["exact"].as_str().unwrap());
            (class, headers.len(), &route["route"]["retry_policy"]["per_try_timeout"], &route["route"]["priority"])
        })
        .collect();
    let (none, high) = (&Value::Null, &json!("HIGH"));
    let wanted = [
        ("any", 2, &json!("30s"), none),
        ("chat", 2, &json!("2.5s"), high),
        ("chat", 1, none, high),
        ("", 0, none, none),
    ];
    assert_eq!(of, wanted);
    let relay = json!({
        "name": "x-bedrock-gateway-cluster", "string_match": { "exact": "bedrock-streams" }, "invert_match": true,
    });
    assert_eq!(routes[0]["match"]["headers"][1], relay);
}

#[test]
fn refuses_bandwidth_without_its_filter() {
    let document =
        with_classes(&json!([{ "name": "any", "regions": ["us-east-1"], "paths": ["dx"], "bandwidth_kbps": 1 }]));
    let text = include_str!("../../base.yaml").replace("envoy.filters.http.bandwidth_limit", "other");
    let base = Base::parse(&text, Path::new("base.yaml")).unwrap();
    let error = bootstrap::render(&base, &settings(&[]), &compile(&document, &choices()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("bandwidth_limit"), "{error}");
}

#[test]
fn dscp_is_set_for_each_address_family() {
    const USER_TIMEOUT: (u64, u64, u64) = (6, 18, 2200);
    let document = with_classes(&json!([
        { "name": "any", "regions": ["us-east-1"], "paths": ["dx", "vpn"], "dscp": 10 },
    ]));
    let bind = |paths: &[&str]| cluster(&render(&document, paths), "bedrock.any")["upstream_bind_config"].clone();
    let v4 = bind(&["dx=10.0.0.1:1", "vpn=10.0.0.2:2"]);
    assert_eq!(options(&v4), [USER_TIMEOUT, (0, 1, 40)]);
    assert_eq!(v4.get("source_address"), None);
    let v6 = bind(&["dx=[fd00::1]:1", "vpn=[fd00::2]:2"]);
    assert_eq!(options(&v6), [USER_TIMEOUT, (41, 67, 40)]);
    for both in [bind(&["dx=10.0.0.1:1", "vpn=[fd00::2]:2"]), bind(&["dx=10.0.0.1:1", "vpn=a.example:2"])] {
        assert_eq!(both["source_address"]["address"], "0.0.0.0");
        assert_eq!(options(&both), [USER_TIMEOUT, (0, 1, 40)]);
        let extra = &both["extra_source_addresses"][0];
        assert_eq!(extra["address"]["address"], "::");
        assert_eq!(options(&extra["socket_options"]), [USER_TIMEOUT, (41, 67, 40)]);
    }
    // A single endpoint has DSCP, but not the user timeout.
    assert_eq!(options(&bind(&["dx=10.0.0.1:1"])), [(0, 1, 40)]);
}

#[test]
fn refuses_a_wrong_document_with_its_key() {
    let class = |key: &str, value: Value| {
        let mut class = json!({ "name": "any", "regions": ["us-east-1"], "paths": ["dx"] });
        class[key] = value;
        with_classes(&json!([class]))
    };
    for (document, part) in [
        (class("paths", json!(["dx", "satellite"])), "route_classes[0].paths[1]"),
        (class("paths", json!([])), "route_classes[0].paths"),
        (class("colour", json!("red")), "route_classes[0].colour"),
        (json!({ "regions": {}, "route_classes": [] }), "regions"),
    ] {
        let error = compile(&document, &choices()).unwrap_err().to_string();
        assert!(error.starts_with("policy.json:1:") && error.contains(part), "{error}");
    }
    let file = |text| Written::in_file(Path::new("policy.json"), text, &base()).unwrap_err().to_string();
    assert_eq!(file("{"), "policy.json:1:1: the document is not JSON: EOF while parsing an object");
    assert!(file("[]").contains("not a"), "{}", file("[]"));
    let twice = r#"{ "regions": { "us-east-1": {}, "us-east-1": {} }, "route_classes": [] }"#;
    assert!(file(twice).contains("`us-east-1` is there twice"), "{}", file(twice));
}

#[test]
fn moves_filters_into_files() {
    let document = with_classes(&json!([{ "name": "any", "regions": ["us-east-1"], "paths": ["dx", "vpn"] }]));
    let mut config = render(&document, &ALL);
    let filters = discovery::take_out(&mut config, Path::new("/run"));
    let mut names: Vec<&str> = filters.iter().map(|filter| filter.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["bedrock.gateway", "bedrock.signer"]);
    assert!(!config.to_string().contains("route_classes"), "a document stayed in the bootstrap");
    assert!(config.to_string().contains("/run/bedrock.signer/filter.json"));
    let response = filters[0].response(7);
    assert_eq!((&response["version_info"], &response["resources"][0]["name"]), (&json!("7"), &json!(filters[0].name)));
}

#[test]
fn refuses_what_the_base_cannot_serve() {
    let mut document = with_classes(&json!([{ "name": "any", "paths": ["dx"] }]));
    document["max_body_bytes"] = json!(60_000_000);
    let error = try_render(&document, &ALL, &choices()).unwrap_err().to_string();
    assert!(error.contains("`max_body_bytes` is 60000000") && error.contains("up to 33554432"), "{error}");
    document["max_body_bytes"] = json!(1);
    document["stream_relay"] = json!("stream");
    let error = try_render(&document, &ALL, &choices()).unwrap_err().to_string();
    assert!(error.contains("no cluster `stream`, which `stream_relay` names"), "{error}");
    document["stream_relay"] = json!("bedrock-streams");
    document["catalogue"] = json!({ "cluster": "poll" });
    let error = try_render(&document, &ALL, &choices()).unwrap_err().to_string();
    assert!(error.contains("no cluster `poll`, which `catalogue.cluster` names"), "{error}");
}

#[test]
fn polls_have_a_listener_where_there_are_some() {
    let mut document = with_classes(&json!([{ "name": "any", "paths": ["dx"], "priority": "high" }]));
    let without = render(&document, &["dx=a:1"]);
    assert!(!without.to_string().contains("polls"));
    document["catalogue"] = json!({ "refresh_seconds": 60 });
    let with = render(&document, &["dx=a:1"]);
    let listener = |name: &str| {
        let listeners = with["static_resources"]["listeners"].as_array().unwrap();
        listeners.iter().find(|known| known["name"] == name).unwrap()["filter_chains"][0]["filters"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()["typed_config"]
            .clone()
    };
    assert_eq!(listener("polls")["route_config"], listener("streams")["route_config"]);
    assert_eq!(listener("polls")["http_filters"][0], listener("streams")["http_filters"][0]);
    let text = listener("plain").to_string();
    assert!(text.contains(r#"\"cluster\": \"bedrock-polls\""#), "{text}");
    assert!(text.contains(r#"\"stream_relay\": \"bedrock-streams\""#), "{text}");
    assert_eq!(cluster(&with, "bedrock-polls")["load_assignment"]["endpoints"].as_array().unwrap().len(), 1);
}

/// Polls of data retention go the same way, and a class has a cluster for each set of regions that may have its mode.
#[test]
fn data_retention_has_polls_and_clusters() {
    let regions = ["us-east-1", "us-east-2", "us-west-2"];
    let class = json!({ "name": "any", "paths": ["dx", "vpn"], "regions": regions, "retention": "none" });
    let mut document = with_classes(&json!([class]));
    document["regions"] = json!({ "us-east-1": {}, "us-east-2": {}, "us-west-2": {} });
    document["data_retention"] = json!({});
    let with = render(&document, &["dx=a:1", "vpn=b:1"]);
    let text = with.to_string();
    assert!(text.contains(r#"\"data_retention\": {\n    \"cluster\": \"bedrock-polls\""#), "{text}");
    let cluster = cluster(&with, "bedrock-runtime.any.us-west-2.us-east-1");
    assert_eq!(cluster["load_assignment"]["endpoints"].as_array().unwrap().len(), 4);
    assert!(!cluster["load_assignment"].to_string().contains("us-east-2"), "{cluster}");
    let all = with["static_resources"]["clusters"].as_array().unwrap();
    let own = all.iter().filter(|one| one["name"].as_str().unwrap().starts_with("bedrock-runtime.any."));
    assert_eq!(own.count(), 12);
    document["data_retention"] = json!({ "cluster": "poll" });
    let error = try_render(&document, &ALL, &choices()).unwrap_err().to_string();
    assert!(error.contains("no cluster `poll`, which `data_retention.cluster` names"), "{error}");
}

/// A retry may have to leave the region only where a class has several paths and regions.
#[test]
fn endpoints_say_which_regions_they_replace() {
    let classes = json!([{ "name": "any", "paths": ["dx", "vpn"] }]);
    let all = render(&with_classes(&classes), &ALL[..2]);
    let lb = |config: &Value, name: &str| -> Vec<Value> {
        let lb =
            |group: &Value| group["lb_endpoints"][0]["metadata"]["filter_metadata"]["envoy.lb"]["instead_of"].clone();
        let groups = &cluster(config, name)["load_assignment"]["endpoints"];
        groups.as_array().unwrap().iter().map(lb).collect()
    };
    let [east, west] = [json!(["us-east-1"]), json!(["us-west-2"])];
    let wanted = [&west, &west, &east, &east].map(Clone::clone);
    assert_eq!(lb(&all, "bedrock-runtime.any.us-east-1"), wanted);
    let has_filter = |cluster: &Value| cluster.to_string().contains("x-bedrock-gateway-leave");
    let from_east = cluster(&all, "bedrock-runtime.any.us-east-1");
    assert!(has_filter(from_east) && from_east["lb_subset_config"].is_object());
    let only = cluster(&all, "bedrock-runtime.any.only-us-east-1");
    let one_path = render(&with_classes(&classes), &ALL[..1]);
    let one_path = cluster(&one_path, "bedrock-runtime.any.us-east-1");
    for cluster in [only, one_path] {
        assert!(!has_filter(cluster) && cluster.get("lb_subset_config").is_none(), "{}", cluster["name"]);
        assert!(!cluster.to_string().contains("instead_of"), "{}", cluster["name"]);
    }
}
