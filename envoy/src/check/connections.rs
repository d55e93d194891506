//! The filter `bedrock.connections`: a client must not take all connections that a process accepts.

use serde_json::Value;

use super::{At, Fault, values};

const FILTER: &str = "bedrock.connections";

/// A listener that takes calls of clients.
pub(super) fn listener(at: &At<'_>, bootstrap: &Value, key: &str, listener: &Value, found: &mut Vec<Fault>) {
    if listener.get("internal_listener").is_some() {
        return;
    }
    let chains = listener.get("filter_chains").and_then(Value::as_array);
    for (number, chain) in chains.into_iter().flatten().enumerate() {
        let filters = chain.get("filters").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let name = |filter: &Value| filter.get("name").and_then(Value::as_str) == Some(FILTER);
        let chain = format!("{key}.filter_chains[{number}].filters");
        let Some(index) = filters.iter().position(name) else {
            let problem = format!("no filter {FILTER}: one client can take all connections; envoy/base.yaml has it");
            found.push(at.fault(&chain, problem));
            continue;
        };
        let value = filters.get(index).and_then(|filter| filter.pointer("/typed_config/config/configuration/value"));
        let document = value.and_then(Value::as_str).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let wanted =
            document.as_ref().and_then(|text| text.pointer("/connections/per_client")).and_then(values::number);
        if let (Some(wanted), Some(all)) = (wanted, limit(bootstrap))
            && wanted >= all
        {
            let problem = format!(
                "per_client is {wanted}, and Envoy accepts {all} connections (max_active_downstream_connections): one client \
                 can take all; want less, counted over all workers"
            );
            found.push(at.fault(&format!("{chain}[{index}].typed_config.config.configuration.value"), problem));
        }
    }
}

/// The connections that the process accepts; nothing without a limit.
fn limit(bootstrap: &Value) -> Option<u64> {
    let monitors = bootstrap.pointer("/overload_manager/resource_monitors").and_then(Value::as_array);
    let key = "/typed_config/max_active_downstream_connections";
    monitors.into_iter().flatten().find_map(|monitor| monitor.pointer(key).and_then(values::number))
}
