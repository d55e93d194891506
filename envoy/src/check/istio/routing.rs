//! Hosts and ports that VirtualServices and DestinationRules name.

use serde_json::Value;

use super::super::bootstrap::visit_objects;
use super::super::{Fault, did_you_mean};
use super::{Object, plain};

/// The hosts that the objects make known: those of ServiceEntries, and the names of Services.
fn hosts(objects: &[Object<'_>]) -> Vec<String> {
    let mut known = Vec::new();
    for object in objects {
        match object.kind {
            "ServiceEntry" => known.extend(
                object
                    .get("/spec/hosts")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned),
            ),
            "Service" => known.push(format!("{}.{}.svc.cluster.local", object.name, object.namespace)),
            _ => {}
        }
    }
    known
}

pub(super) fn host(object: &Object<'_>, key: &str, name: &str, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let known = hosts(objects);
    let short = |known: &String| known.split('.').next() == Some(name);
    if name.is_empty()
        || name.starts_with('*')
        || known.is_empty()
        || known.iter().any(|known| known == name || short(known))
    {
        return;
    }
    let near = did_you_mean(name, known.iter().map(String::as_str));
    found.push(object.fault(key, format!("no Service or ServiceEntry has the host `{name}`{near}")));
}

/// The ports of a host.
fn ports_of(name: &str, objects: &[Object<'_>]) -> Vec<String> {
    let mut ports = Vec::new();
    for object in objects {
        let (is_it, key) = match object.kind {
            "ServiceEntry" => {
                let hosts = object.get("/spec/hosts").and_then(Value::as_array);
                (hosts.into_iter().flatten().any(|host| host == name), "number")
            }
            "Service" => (format!("{}.{}.svc.cluster.local", object.name, object.namespace) == name, "port"),
            _ => continue,
        };
        if is_it {
            let listed = object.get("/spec/ports").and_then(Value::as_array);
            ports.extend(listed.into_iter().flatten().filter_map(|port| port.get(key)).map(plain));
        }
    }
    ports
}

pub(super) fn virtual_service(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let listed =
        |pointer: &str| object.get(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for (index, name) in listed("/spec/hosts").enumerate() {
        host(object, &format!("spec.hosts[{index}]"), name, objects, found);
    }
    let gateways: Vec<&str> = objects.iter().filter(|other| other.kind == "Gateway").map(|other| other.name).collect();
    for (index, name) in listed("/spec/gateways").enumerate() {
        let own = name.rsplit('/').next().unwrap_or(name);
        if name != "mesh" && !gateways.is_empty() && !gateways.contains(&own) {
            let near = did_you_mean(own, gateways.iter().copied());
            found.push(object.fault(&format!("spec.gateways[{index}]"), format!("Gateway `{name}` is missing{near}")));
        }
    }
    visit_objects("spec.http", object.get("/spec/http").unwrap_or(&Value::Null), &mut |key, value| {
        let Some(destination) = value.get("destination") else { return };
        let name = destination.get("host").and_then(Value::as_str).unwrap_or_default();
        host(object, &format!("{key}.destination.host"), name, objects, found);
        let ports = ports_of(name, objects);
        let Some(port) = destination.pointer("/port/number").map(plain) else { return };
        if !ports.is_empty() && !ports.contains(&port) {
            let problem = format!("host `{name}` has no port {port}; it has {}", ports.join(", "));
            found.push(object.fault(&format!("{key}.destination.port.number"), problem));
        }
    });
}
