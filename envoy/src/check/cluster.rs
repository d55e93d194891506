//! Rules for Bedrock's clusters in a bootstrap.

use filter_core::config::Role;
use filter_core::names::PathName;
use filter_core::policy::Policy;
use filter_core::route::SERVICES;
use serde_json::Value;

use crate::fips;

use super::values::{endpoints, number};
use super::{At, Fault, did_you_mean, health, keepalive, leave};

const AGGREGATE: &str = "envoy.clusters.aggregate";

/// Envoy's, where a cluster has none.
const DEFAULT_BUFFER: u64 = 1 << 20;

/// Room for the longest body, so that it can be sent again.
fn buffers(at: &At<'_>, key: &str, cluster: &Value, policy: &Policy, found: &mut Vec<Fault>) {
    let limit = cluster.get("per_connection_buffer_limit_bytes").and_then(number);
    let longest = policy.max_body_bytes;
    if limit.unwrap_or(DEFAULT_BUFFER) < longest {
        let said = if limit.is_some() { "is" } else { "is missing, and Envoy's default of 1 MiB is" };
        let problem = format!("{said} less than `max_body_bytes` ({longest}): longer bodies would not be tried again");
        found.push(at.fault(&format!("{key}.per_connection_buffer_limit_bytes"), problem));
    }
}

/// A cluster of Bedrock: signed for, over verified TLS, to labelled endpoints.
pub(super) fn upstream(
    at: &At<'_>,
    key: &str,
    cluster: &Value,
    wanted: &[String],
    policy: &Policy,
    found: &mut Vec<Fault>,
) {
    let role = policy.role;
    let name = cluster.get("name").and_then(Value::as_str).and_then(|name| name.split('.').next());
    let service = SERVICES.into_iter().find(|known| Some(known.name()) == name);
    if cluster.pointer("/cluster_type/name").and_then(Value::as_str) == Some(AGGREGATE) {
        let problem = "Envoy ignores the filters of an aggregate's clusters: calls would leave unsigned; want one cluster with priorities";
        found.push(at.fault(&format!("{key}.cluster_type"), problem));
    }
    let text = cluster.to_string();
    if role == Role::Gateway && !text.contains(r#"\"role\": \"signer\""#) && !text.contains(r#"\"role\":\"signer\""#) {
        let key = format!("{key}.typed_extension_protocol_options");
        found.push(at.fault(&key, "no Wasm filter has the role signer: calls would leave unsigned"));
    }
    let tls = cluster.pointer("/transport_socket/typed_config");
    if tls.is_none() {
        found.push(at.fault(key, "`transport_socket` is missing: calls would leave without TLS"));
    }
    if let Some(tls) = tls {
        let key = format!("{key}.transport_socket.typed_config");
        if tls.pointer("/common_tls_context/validation_context/trusted_ca").is_none() {
            let problem = "`validation_context.trusted_ca` is missing: Envoy would trust any certificate";
            found.push(at.fault(&format!("{key}.common_tls_context"), problem));
        }
        if tls.get("auto_sni_san_validation") != Some(&Value::Bool(true)) {
            found.push(at.fault(
                &format!("{key}.auto_sni_san_validation"),
                "want true: the certificate's name has to be the host's",
            ));
        }
        let oldest = tls.pointer("/common_tls_context/tls_params/tls_minimum_protocol_version").and_then(Value::as_str);
        if let Some(oldest) = oldest.filter(|oldest| ["TLSv1_0", "TLSv1_1"].contains(oldest)) {
            let key = format!("{key}.common_tls_context.tls_params.tls_minimum_protocol_version");
            found.push(at.fault(&key, format!("{oldest} is not safe; want TLSv1_2 or TLSv1_3")));
        }
        if tls.get("auto_host_sni") != Some(&Value::Bool(true)) {
            found.push(at.fault(&format!("{key}.auto_host_sni"), "want true: the endpoint's host name is the SNI"));
        }
    }
    buffers(at, key, cluster, policy, found);
    keepalive::cluster(at, key, cluster, found);
    if endpoints(cluster) > 1 {
        health::check(at, key, cluster, policy, found);
    }
    leave::cluster(at, key, cluster, found);
    let groups = cluster.pointer("/load_assignment/endpoints").and_then(Value::as_array);
    for (number, group) in groups.into_iter().flatten().enumerate() {
        let endpoints = group.get("lb_endpoints").and_then(Value::as_array);
        for (nth, endpoint) in endpoints.into_iter().flatten().enumerate() {
            let key = format!("{key}.load_assignment.endpoints[{number}].lb_endpoints[{nth}]");
            let label = |name: &str| {
                endpoint.pointer(&format!("/metadata/filter_metadata/bedrock/{name}")).and_then(Value::as_str)
            };
            let (Some(path), Some(region)) = (label("path"), label("region")) else {
                found.push(at.fault(
                    &key,
                    "no metadata `bedrock` with `path` and `region`: the signer would refuse every attempt",
                ));
                continue;
            };
            let place = format!("{path}/{region}");
            if !wanted.contains(&place) {
                let problem = format!(
                    "the class does not take {place}: the signer would refuse the attempt{}",
                    did_you_mean(&place, wanted.iter().map(String::as_str))
                );
                found.push(at.fault(&format!("{key}.metadata"), problem));
            }
            let Some(host) = endpoint.pointer("/endpoint/hostname").and_then(Value::as_str) else {
                found.push(at.fault(&format!("{key}.endpoint"), "`hostname` is missing: there would be no SNI"));
                continue;
            };
            let address = endpoint.pointer("/endpoint/address/socket_address/address").and_then(Value::as_str);
            if let Some(problem) = address.and_then(|address| fips::mismatch(host, address)) {
                found.push(at.fault(&format!("{key}.endpoint.address"), problem));
            }
            // The signer signs for the service's host in the region of the endpoint's label.
            let signed = path.parse::<PathName>().ok().zip(policy.region(region)).zip(service);
            let signed = signed.map(|((path, region), service)| region.host(path, service));
            if let Some(signed) = signed.filter(|signed| role == Role::Gateway && signed != host) {
                let problem = format!("want {signed}, for which calls are signed, not {host}");
                found.push(at.fault(&format!("{key}.endpoint.hostname"), problem));
            }
        }
    }
}
