//! Renders Bedrock's clusters from `envoy/cluster.yaml` and the filter's document.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use filter_core::envoy_names::{LEAVE_HEADER, LEAVE_KEY};
use filter_core::names::{PathName, RegionName};
use filter_core::route::{Cluster, RouteClass};
use serde_json::{Map, Value, json};

use super::{Settings, endpoint, file, named};
use crate::bootstrap_error::BootstrapError;
use crate::document::Document;
use crate::fips;
use crate::objects::for_each_object;
use crate::paths::{self, PathSpec};

/// Seconds between two health checks, if the file does not set `interval`.
const DEFAULT_INTERVAL: f64 = 5.0;

/// Envoy's namespace of metadata by which endpoints are chosen.
const LB: &str = "envoy.lb";

/// Adds the document's clusters, as copies of `pattern`. Returns the number of endpoints of the largest.
pub(super) fn add(
    resources: &mut Value,
    pattern: &Map<String, Value>,
    settings: &Settings,
    document: &Document,
) -> Result<usize, BootstrapError> {
    let clusters = named(resources, "clusters")?;
    let name = |cluster: &Value| cluster.get("name").and_then(Value::as_str).map(str::to_owned);
    let mut largest = 0;
    let mut made = Vec::new();
    for (class, cluster) in document.policy().clusters() {
        let endpoints = endpoints(&cluster, settings, document);
        largest = largest.max(endpoints.len());
        for EndpointAddress { path, host, address, .. } in &endpoints {
            if let Some(problem) = fips::mismatch(host, address) {
                return Err(BootstrapError::Fips { path: path.to_string(), problem });
            }
        }
        let class_and_name = (class, cluster.name.as_str());
        made.push(Value::Object(render_cluster(pattern.clone(), class_and_name, &endpoints, settings, document)));
    }
    // Sorted by name, so that the order of classes, which only the filter uses, does not change the output.
    made.sort_by_key(name);
    clusters.splice(0..0, made);
    Ok(largest)
}

/// An endpoint, and the address that Envoy connects to.
struct EndpointAddress<'a> {
    path: PathName,
    region: &'a RegionName,
    host: String,
    address: String,
    port: u16,
}

/// The class's endpoints whose path is given on the command line, in the class's order.
fn endpoints<'a>(cluster: &Cluster<'a>, settings: &Settings, document: &Document) -> Vec<EndpointAddress<'a>> {
    let given = if settings.paths.is_empty() { &[PathSpec::PUBLIC][..] } else { &settings.paths };
    let endpoint_address = |(path, region): &(PathName, &'a RegionName)| {
        let (path, region) = (*path, *region);
        let host = document.policy().region(region.as_str())?.host(path, cluster.service);
        let spec =
            paths::find(given, path, cluster.service.name(), region.as_str()).filter(|_| document.takes(path))?;
        let own = || (host.clone(), 443);
        let (address, port) = spec.address.as_ref().map_or_else(own, |address| (address.host.clone(), address.port));
        Some(EndpointAddress { path, region, host, address, port })
    };
    cluster.endpoints.iter().filter_map(endpoint_address).collect()
}

/// A class without an endpoint gets an empty cluster: Envoy answers 503 and does not send its calls over another path.
fn render_cluster(
    mut pattern: Map<String, Value>,
    (class, name): (&RouteClass, &str),
    endpoints: &[EndpointAddress<'_>],
    settings: &Settings,
    document: &Document,
) -> Map<String, Value> {
    pattern.insert("name".into(), json!(name));
    let leaves = needs_to_leave(endpoints.iter().map(|endpoint_address| endpoint_address.region.as_str()));
    let assignment = pattern.entry("load_assignment").or_insert_with(|| json!({}));
    if let Some(assignment) = assignment.as_object_mut() {
        assignment.insert("cluster_name".into(), json!(name));
        let priorities = endpoints.iter().enumerate().map(|(priority, endpoint_address)| {
            let others = if leaves { other_regions(endpoint_address.region, endpoints) } else { Vec::new() };
            endpoint_group(priority, endpoint_address, &others)
        });
        assignment.insert("endpoints".into(), priorities.collect());
    }
    if !leaves {
        stay_in_order(&mut pattern);
    }
    if endpoints.len() < 2 {
        for_one_endpoint(&mut pattern);
    }
    set_failback(&mut pattern, document.policy().failback.as_secs_f64());
    if let Some(dscp) = class.dscp() {
        let addresses: Vec<&str> = endpoints.iter().map(|endpoint_address| endpoint_address.address.as_str()).collect();
        set_dscp(&mut pattern, dscp, &addresses);
    }
    trust(&mut pattern, &settings.upstream_ca);
    pattern
}

/// The only endpoint of its priority, with metadata for the signer and the audit record, and the regions that it may be tried
/// instead of.
fn endpoint_group(priority: usize, endpoint_address: &EndpointAddress<'_>, others: &[&str]) -> Value {
    let EndpointAddress { path, region, host, address, port } = endpoint_address;
    let mut metadata = json!({ "bedrock": { "path": path.as_str(), "region": region.as_str() } });
    if let (false, Some(metadata)) = (others.is_empty(), metadata.as_object_mut()) {
        metadata.insert(LB.into(), json!({ LEAVE_KEY: others }));
    }
    json!({
        "priority": priority,
        "lb_endpoints": [{
            "endpoint": endpoint::verified(host, address, *port),
            "metadata": { "filter_metadata": metadata },
        }],
    })
}

/// Whether the next endpoint in order may be in the region of the one before, while another region is left: of endpoints in
/// these regions.
pub(crate) fn needs_to_leave<'a>(regions: impl Iterator<Item = &'a str>) -> bool {
    let all: Vec<&str> = regions.collect();
    let distinct: BTreeSet<&&str> = all.iter().collect();
    distinct.len() > 1 && all.len() > distinct.len()
}

/// The regions of the cluster other than this one.
fn other_regions<'a>(own: &RegionName, endpoints: &'a [EndpointAddress<'_>]) -> Vec<&'a str> {
    let all: BTreeSet<&str> = endpoints.iter().map(|endpoint_address| endpoint_address.region.as_str()).collect();
    all.into_iter().filter(|region| *region != own.as_str()).collect()
}

/// For a cluster in which the next endpoint is the right one after any failure.
fn stay_in_order(cluster: &mut Map<String, Value>) {
    cluster.remove("lb_subset_config");
    cluster.values_mut().for_each(|value| {
        for_each_object(value, &mut |object| {
            if let Some(filters) = object.get_mut("http_filters").and_then(Value::as_array_mut) {
                filters.retain(|filter| !filter.to_string().contains(LEAVE_HEADER));
            }
        });
    });
}

/// For a cluster with at most one endpoint. A failed check could only refuse calls that would succeed, and fast failure
/// detection does not help, because calls in flight cannot be retried elsewhere. Keepalive stays, as slow as that of the
/// listeners: NAT gateways forget a connection that is silent for 350 s.
pub(super) fn for_one_endpoint(cluster: &mut Map<String, Value>) {
    for key in ["health_checks", "outlier_detection", "upstream_bind_config"] {
        cluster.remove(key);
    }
    let keepalive = json!({ "keepalive_time": 60, "keepalive_interval": 15, "keepalive_probes": 4 });
    cluster.insert("upstream_connection_options".into(), json!({ "tcp_keepalive": keepalive }));
    cluster.values_mut().for_each(|value| {
        for_each_object(value, &mut |object| {
            if object.contains_key("connection_keepalive") {
                object.insert("connection_keepalive".into(), json!({ "interval": "60s", "timeout": "60s" }));
            }
        });
    });
}

/// Verifies a cluster's peers against these CAs.
pub(super) fn trust(cluster: &mut Map<String, Value>, ca: &Path) {
    cluster.values_mut().for_each(|value| {
        for_each_object(value, &mut |object| {
            if object.contains_key("trusted_ca") {
                object.insert("trusted_ca".into(), file(ca));
            }
        });
    });
}

/// Sets how many checks must pass so that they span `seconds`: they are `interval` apart.
fn set_failback(cluster: &mut Map<String, Value>, seconds: f64) {
    let checks = cluster.get_mut("health_checks").and_then(Value::as_array_mut);
    for check in checks.into_iter().flatten().filter_map(Value::as_object_mut) {
        let interval =
            check.get("interval").and_then(Value::as_str).and_then(|text| text.strip_suffix('s')?.parse().ok());
        let between = (seconds / interval.unwrap_or(DEFAULT_INTERVAL)).ceil();
        // One check each second for a day fits in u32.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number, not negative")]
        check.insert("healthy_threshold".into(), json!(1 + between as u32));
    }
}

/// Sets the DSCP of a cluster's sockets: the upper six bits of IPv4's type of service and IPv6's traffic class. A
/// socket accepts only the option of its own family, so a cluster that may use both families has a source address for
/// each.
fn set_dscp(cluster: &mut Map<String, Value>, dscp: u8, addresses: &[&str]) {
    let bind = cluster.entry("upstream_bind_config").or_insert_with(|| json!({}));
    let Some(bind) = bind.as_object_mut() else { return };
    let others = bind.get("socket_options").and_then(Value::as_array).cloned().unwrap_or_default();
    let with = |level: u8, name: u8| {
        let value = u32::from(dscp) << 2;
        let option = json!({ "description": "DSCP", "level": level, "name": name, "int_value": value, "state": "STATE_PREBIND" });
        Value::Array([&others[..], &[option]].concat())
    };
    let (v4, v6) = (with(0, 1), with(41, 67));
    if !addresses.is_empty() && addresses.iter().all(|address| address.parse::<Ipv6Addr>().is_ok()) {
        bind.insert("socket_options".into(), v6);
        return;
    }
    bind.insert("socket_options".into(), v4);
    if !addresses.iter().all(|address| address.parse::<Ipv4Addr>().is_ok()) {
        let any = |address: &str| endpoint::socket_address(address, 0);
        bind.insert("source_address".into(), any("0.0.0.0"));
        let extra = json!({ "address": any("::"), "socket_options": { "socket_options": v6 } });
        bind.insert("extra_source_addresses".into(), json!([extra]));
    }
}
