//! Hosts, ports and subsets that VirtualServices and DestinationRules name.

use serde_json::Value;

use super::super::values::visit_objects;
use super::super::{Fault, did_you_mean, keepalive};
use super::workloads::{Labels, selected, selects_none};
use super::{Object, plain};

/// The hosts that the objects make known: those of ServiceEntries, and the names of Services.
fn hosts(objects: &[Object<'_>]) -> Vec<String> {
    let named = objects.iter().flat_map(|object| match object.kind {
        "ServiceEntry" => texts(object, "/spec/hosts").map(str::to_owned).collect(),
        "Service" => vec![service_host(object)],
        _ => Vec::new(),
    });
    named.collect()
}

fn service_host(service: &Object<'_>) -> String {
    format!("{}.{}.svc.cluster.local", service.name, service.namespace)
}

/// A host as `hosts` has it: a Service may be called by its name alone, in its namespace, and without the end of its host.
fn full_name(name: &str, namespace: &str, objects: &[Object<'_>]) -> String {
    let is_meant = |service: &&Object<'_>| {
        let full = service_host(service);
        let is_short =
            full.strip_prefix(name).is_some_and(|end| [".svc.cluster.local", ".cluster.local"].contains(&end));
        is_short || service.name == name && service.namespace == namespace
    };
    let mut services = objects.iter().filter(|other| other.kind == "Service");
    services.find(is_meant).map_or_else(|| name.to_owned(), service_host)
}

fn host(object: &Object<'_>, key: &str, name: &str, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let known = hosts(objects);
    let full = full_name(name, object.namespace, objects);
    if name.is_empty() || known.is_empty() || known.iter().any(|known| may_be(known, &full)) {
        return;
    }
    let near = did_you_mean(name, known.iter().map(String::as_str));
    found.push(object.fault(key, format!("no Service or ServiceEntry has the host `{name}`{near}")));
}

/// The ports of a host, by its full name.
fn ports_of(name: &str, objects: &[Object<'_>]) -> Vec<String> {
    let ports = objects.iter().flat_map(|object| match object.kind {
        "ServiceEntry" if texts(object, "/spec/hosts").any(|host| may_be(host, name)) => listed_ports(object, "number"),
        "Service" if service_host(object) == name => listed_ports(object, "port"),
        _ => Vec::new(),
    });
    ports.collect()
}

/// The ports that an object lists, by the key of their numbers.
pub(super) fn listed_ports(object: &Object<'_>, key: &str) -> Vec<String> {
    let listed = object.get("/spec/ports").and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(|port| port.get(key)).map(plain).collect()
}

/// The ports of a Gateway's servers.
pub(super) fn server_ports(gateway: &Object<'_>) -> Vec<String> {
    let servers = gateway.get("/spec/servers").and_then(Value::as_array);
    servers.into_iter().flatten().filter_map(|server| server.pointer("/port/number")).map(plain).collect()
}

fn texts<'a>(object: &'a Object<'_>, pointer: &str) -> impl Iterator<Item = &'a str> {
    object.get(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

pub(super) fn virtual_service(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    for (index, name) in texts(object, "/spec/hosts").enumerate() {
        host(object, &format!("spec.hosts[{index}]"), name, objects, found);
    }
    gateways(object, objects, found);
    for protocol in ["http", "tls", "tcp"] {
        let routes = object.get(&format!("/spec/{protocol}")).unwrap_or(&Value::Null);
        conditions(object, &format!("spec.{protocol}"), routes, objects, found);
        visit_objects(&format!("spec.{protocol}"), routes, &mut |key, value| {
            if let Some(destination) = value.get("destination") {
                self::destination(object, &format!("{key}.destination"), destination, objects, found);
            }
        });
    }
}

/// The Gateways that a VirtualService is bound to, and whether they serve one of its hosts.
fn gateways(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let known: Vec<&Object<'_>> = objects.iter().filter(|other| other.kind == "Gateway").collect();
    for (index, name) in texts(object, "/spec/gateways").enumerate().filter(|(_, name)| *name != "mesh") {
        let own = name.rsplit('/').next().unwrap_or(name);
        let key = format!("spec.gateways[{index}]");
        let Some(gateway) = known.iter().find(|gateway| gateway.name == own) else {
            if !known.is_empty() {
                let near = did_you_mean(own, known.iter().map(|gateway| gateway.name));
                found.push(object.fault(&key, format!("Gateway `{name}` is missing{near}")));
            }
            continue;
        };
        let servers = gateway.get("/spec/servers").and_then(Value::as_array).into_iter().flatten();
        let served: Vec<&str> = servers
            .filter_map(|server| server.get("hosts")?.as_array())
            .flatten()
            .filter_map(|host| host.as_str()?.rsplit('/').next())
            .collect();
        if !served.is_empty() && !texts(object, "/spec/hosts").any(|host| served.iter().any(|own| may_be(own, host))) {
            let problem = format!("Gateway `{name}` serves none of the hosts; it serves {}", served.join(", "));
            found.push(object.fault(&key, problem));
        }
    }
}

/// Whether two hosts, of which either may begin with `*`, may be the same.
fn may_be(left: &str, right: &str) -> bool {
    let fits = |wide: &str, host: &str| wide.strip_prefix('*').is_some_and(|end| host.ends_with(end));
    left == right || fits(left, right) || fits(right, left)
}

/// The conditions of routes: Gateways that the object names, and ports that a call can have.
fn conditions(object: &Object<'_>, key: &str, routes: &Value, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let bound: Vec<&str> = texts(object, "/spec/gateways").collect();
    let bound = if bound.is_empty() { vec!["mesh"] } else { bound };
    let mut ports: Vec<String> = texts(object, "/spec/hosts")
        .flat_map(|host| ports_of(&full_name(host, object.namespace, objects), objects))
        .collect();
    ports.extend(objects.iter().filter(|other| other.kind == "Gateway").flat_map(server_ports));
    ports.sort();
    ports.dedup();
    for (index, route) in routes.as_array().into_iter().flatten().enumerate() {
        let matches = route.get("match").and_then(Value::as_array);
        for (nth, condition) in matches.into_iter().flatten().enumerate() {
            let key = format!("{key}[{index}].match[{nth}]");
            let named = condition.get("gateways").and_then(Value::as_array);
            for (at, name) in named.into_iter().flatten().filter_map(Value::as_str).enumerate() {
                if !bound.contains(&name) {
                    let near = did_you_mean(name, bound.iter().copied());
                    let problem = format!("`{name}` is not in `spec.gateways`, so the route takes no call{near}");
                    found.push(object.fault(&format!("{key}.gateways[{at}]"), problem));
                }
            }
            let port = condition.get("port").map(plain);
            if let Some(port) = port.filter(|port| !ports.is_empty() && !ports.contains(port)) {
                let problem = format!(
                    "neither the hosts nor a Gateway have port {port}, so the route takes no call; ports: {}",
                    ports.join(", ")
                );
                found.push(object.fault(&format!("{key}.port"), problem));
            }
        }
    }
}

/// A destination: its host, port and subset.
fn destination(object: &Object<'_>, key: &str, value: &Value, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let name = value.get("host").and_then(Value::as_str).unwrap_or_default();
    host(object, &format!("{key}.host"), name, objects, found);
    let full = full_name(name, object.namespace, objects);
    port(object, &format!("{key}.port.number"), value.pointer("/port/number"), &full, objects, found);
    let rules = || objects.iter().filter(|other| other.kind == "DestinationRule");
    let Some(subset) = value.get("subset").and_then(Value::as_str).filter(|_| rules().next().is_some()) else { return };
    let of_host = rules().filter(|rule| full_name(rule.text("/spec/host"), rule.namespace, objects) == full);
    let lists = of_host.filter_map(|rule| rule.get("/spec/subsets")?.as_array());
    let known: Vec<&str> = lists.flatten().filter_map(|subset| subset.get("name")?.as_str()).collect();
    if !known.contains(&subset) {
        let near = if known.is_empty() { "; it has none".to_owned() } else { did_you_mean(subset, known.into_iter()) };
        let problem = format!("no DestinationRule of host `{name}` has subset `{subset}`{near}");
        found.push(object.fault(&format!("{key}.subset"), problem));
    }
}

fn port(
    object: &Object<'_>,
    key: &str,
    port: Option<&Value>,
    host: &str,
    objects: &[Object<'_>],
    found: &mut Vec<Fault>,
) {
    let ports = ports_of(host, objects);
    let Some(port) = port.map(plain).filter(|port| !ports.is_empty() && !ports.contains(port)) else { return };
    found.push(object.fault(key, format!("host `{host}` has no port {port}; it has {}", ports.join(", "))));
}

/// A DestinationRule: its host, the ports of its settings, and the pods of its subsets.
pub(super) fn destination_rule(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let name = object.text("/spec/host");
    host(object, "spec.host", name, objects, found);
    let full = full_name(name, object.namespace, objects);
    if name.ends_with(".amazonaws.com") {
        let problem = keepalive::destination(object.get("/spec/trafficPolicy/connectionPool"));
        let key = "spec.trafficPolicy.connectionPool.tcp.tcpKeepalive";
        found.extend(problem.map(|problem| object.fault(key, problem)));
    }
    visit_objects("spec", object.get("/spec").unwrap_or(&Value::Null), &mut |key, value| {
        let settings = value.get("portLevelSettings").and_then(Value::as_array);
        for (index, setting) in settings.into_iter().flatten().enumerate() {
            let key = format!("{key}.portLevelSettings[{index}].port.number");
            port(object, &key, setting.pointer("/port/number"), &full, objects, found);
        }
    });
    let service = objects.iter().find(|other| other.kind == "Service" && service_host(other) == full);
    let Some(service) = service else { return };
    let Some(selector) = service.get("/spec/selector").and_then(Value::as_object) else { return };
    let pods: Vec<&Labels> = selected(service.namespace, selector, objects).filter_map(Object::pod_labels).collect();
    let subsets = object.get("/spec/subsets").and_then(Value::as_array);
    for (index, subset) in subsets.into_iter().flatten().enumerate() {
        let wanted = subset.get("labels").and_then(Value::as_object);
        if let Some(problem) = wanted.and_then(|wanted| selects_none(wanted, &pods)) {
            found.push(object.fault(&format!("spec.subsets[{index}].labels"), problem));
        }
    }
}
