//! Whether callers can have the names that route classes ask for.

use filter_core::config::{Config, Principal};
use serde_json::Value;

use super::{At, Fault};

/// Listeners with TLS that ask for no client certificate, where a class asks for a name that only certificates give. A note:
/// the mesh, or a listener of another port, may be where callers with names come in.
pub(super) fn certificates(at: &At<'_>, bootstrap: &Value, config: &Config, found: &mut Vec<Fault>) {
    let names: Vec<&str> = config
        .route_classes
        .iter()
        .filter(|class| class.principals.is_some())
        .map(|class| class.name.as_str())
        .collect();
    if names.is_empty() || config.principal != [Principal::Mtls {}] {
        return;
    }
    let listeners = bootstrap.pointer("/static_resources/listeners").and_then(Value::as_array);
    for (index, listener) in listeners.into_iter().flatten().enumerate() {
        let key = format!("static_resources.listeners[{index}]");
        let chains = listener.get("filter_chains").and_then(Value::as_array).into_iter().flatten().enumerate();
        let chains = chains.map(|(nth, chain)| (format!("{key}.filter_chains[{nth}]"), chain));
        let default = listener.get("default_filter_chain").map(|chain| (format!("{key}.default_filter_chain"), chain));
        for (key, chain) in chains.chain(default) {
            let tls = chain.pointer("/transport_socket/typed_config/common_tls_context");
            let Some(tls) = tls.filter(|_| chain.to_string().contains("cluster_header")) else { continue };
            let asks = tls.pointer("/validation_context/trusted_ca").is_some()
                || tls.get("combined_validation_context").is_some()
                || tls.get("validation_context_sds_secret_config").is_some();
            if !asks {
                let problem = format!(
                    "no `validation_context.trusted_ca`: callers show no certificate here and have no name, so class {} \
                     takes none of their calls",
                    names.join(", ")
                );
                let key = format!("{key}.transport_socket.typed_config.common_tls_context");
                found.push(at.fault(&key, problem).note());
            }
        }
    }
}
