//! Rules for the filter in the clusters that credentials are fetched from. Without it calls are made, and Envoy logs their headers.

use serde_json::Value;

use super::values::visit_objects;
use super::{At, Fault};
use crate::bootstrap::source_filter;

/// A source's cluster has the filter with its name. `name` has the source's key with it.
pub(super) fn cluster(at: &At<'_>, key: &str, cluster: &Value, (name, source): (&str, &str), found: &mut Vec<Fault>) {
    let key = format!("{key}.typed_extension_protocol_options");
    match source_filter::named(cluster) {
        Some(named) if named == name => {}
        Some(named) => {
            let problem = format!("the Wasm filter has `source_cluster` {named}; want {name}, the cluster's name");
            found.push(at.fault(&key, problem));
        }
        None => {
            let problem = format!(
                "no Wasm filter has `source_cluster` {name}: at debug Envoy would log the tokens and signatures of \
                 `{source}`"
            );
            found.push(at.fault(&key, problem));
        }
    }
}

/// The filters share data with the gateway's VM, and have one of their own.
pub(super) fn machines(at: &At<'_>, bootstrap: &Value, gateways: &Value, found: &mut Vec<Fault>) {
    let key = |name: &str, vm: &Value| vm.get(name).cloned().unwrap_or_default();
    visit_objects("", bootstrap, &mut |place, value| {
        let (Some(_), Some(vm)) = (source_filter::document(value), value.get("vm_config")) else { return };
        if key("vm_id", vm) != key("vm_id", gateways) {
            let problem =
                "differs from the gateway's, which shares the calls' headers under its `vm_id`: want the same";
            found.push(at.fault(&format!("{place}.vm_config.vm_id"), problem));
        } else if key("configuration", vm) == key("configuration", gateways) {
            let problem = "is the gateway's: both would run in one VM, which Envoy cannot enter twice; want another";
            found.push(at.fault(&format!("{place}.vm_config.configuration"), problem));
        }
    });
}
