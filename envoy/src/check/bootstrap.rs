//! Rules for a bootstrap of Envoy. Envoy starts without them; the filter's promises do not hold then.

use std::net::IpAddr;

use filter_core::config::{
    Auth, CertificateSource, Config, ConfigError, Connections, Credentials, RelayPlace, Role, SourceCluster,
};
use filter_core::policy::Policy;
use serde_json::Value;

use super::routes::Clusters;
use super::values::visit_objects;
use super::{
    At, Fault, File, Options, ca, callers, cluster, connections, did_you_mean, hashing, keepalive, mistakes, regions,
    routes, source_filters,
};
use crate::base::role_of;
use crate::bootstrap::is_relay;
use crate::document::Document;
use crate::objects;
use crate::source_clusters::{self, SourcesCluster};

const HTTP_WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const NETWORK_WASM: &str = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// A Wasm filter of the gateway.
struct Plugin<'a> {
    /// The key of its `config`.
    key: String,
    config: &'a Value,
    text: &'a str,
    role: Role,
}

/// `document`: the one that the bootstrap has to serve, instead of its own.
pub(super) fn check(
    file: &File,
    bootstrap: &Value,
    document: Option<&Document>,
    options: &Options,
    found: &mut Vec<Fault>,
) {
    let at = At { file, document: 0, object: "" };
    let mut plugins = Vec::new();
    admin(&at, bootstrap, found);
    ca::check(&at, "", bootstrap, options.platform, found);
    visit_objects("", bootstrap, &mut |key, value| {
        wasm(&at, key, value, &mut plugins, found);
        manager(&at, key, value, found);
    });
    let Some(main) = plugins.iter().find(|plugin| plugin.role != Role::Signer) else {
        found.push(
            at.fault("static_resources", "no Wasm filter has the role gateway or combined: no call would be signed"),
        );
        return;
    };
    for plugin in &plugins {
        let errors = mistakes::parse(plugin.text).err().unwrap_or_default();
        found.extend(errors.iter().map(|error| inside(&at, plugin, error)));
    }
    let regions = serde_json::from_str(main.text).map(|text| regions::findings(&text, &options.known_regions));
    found.extend(regions.unwrap_or_default().iter().map(|finding| inside(&at, main, finding)));
    same(&at, main, &plugins, found);
    source_filters::machines(&at, bootstrap, main.config.get("vm_config").unwrap_or(&Value::Null), found);
    listeners(&at, bootstrap, &plugins, found);
    if let Some(document) = document {
        serves(&at, bootstrap, document.policy(), document.config(), &plugins, found);
        return;
    }
    let text = main.text.as_bytes();
    if let (Ok(policy), Ok(config)) = (Policy::parse(text, None), Config::parse(text)) {
        found.extend(policy.findings().into_iter().map(|finding| inside(&at, main, &finding)));
        serves(&at, bootstrap, &policy, &config, &plugins, found);
    }
}

/// A fault in a filter's document.
fn inside(at: &At<'_>, plugin: &Plugin<'_>, error: &ConfigError) -> Fault {
    at.fault(&format!("{}.configuration.value", plugin.key), format!("{}: {}", error.key, error.detail()))
}

/// A Wasm filter: it must refuse when it fails, and see bodies.
fn wasm<'a>(at: &At<'_>, key: &str, value: &'a Value, plugins: &mut Vec<Plugin<'a>>, found: &mut Vec<Fault>) {
    let kind = value.get("@type").and_then(Value::as_str);
    if kind != Some(HTTP_WASM) && kind != Some(NETWORK_WASM) {
        return;
    }
    let key = format!("{key}.config");
    let Some(config) = value.get("config") else { return };
    open(at, &key, config, found);
    secrets(at, &key, config, found);
    let text = config.pointer("/configuration/value").and_then(Value::as_str).unwrap_or_default();
    if RelayPlace::parse(text.as_bytes()).is_some() {
        return;
    }
    if let Some(Err(error)) = Connections::parse(text.as_bytes()) {
        found.push(at.fault(&format!("{key}.configuration.value"), format!("{}: {}", error.key, error.detail())));
        return;
    }
    if Connections::parse(text.as_bytes()).is_some() {
        return;
    }
    if let Some(document) = SourceCluster::parse(text.as_bytes()) {
        let value = format!("{key}.configuration.value");
        found.extend(document.err().map(|error| at.fault(&value, format!("{}: {}", error.key, error.detail()))));
        return;
    }
    let Some(role) = role_of(text) else {
        let value = format!("{key}.configuration.value");
        found.push(at.fault(&value, "not a document with a `role`: gateway, signer or combined"));
        return;
    };
    let signs = serde_json::from_str::<Value>(text)
        .is_ok_and(|document| document.get("auth").is_none_or(|auth| auth != "bearer"));
    if signs && config.get("allow_on_headers_stop_iteration") != Some(&Value::Bool(true)) {
        let key = format!("{key}.allow_on_headers_stop_iteration");
        found.push(at.fault(&key, "want true: otherwise calls with a body hang"));
    }
    plugins.push(Plugin { key, config, text, role });
}

/// Whether a failed filter lets calls pass.
fn open(at: &At<'_>, key: &str, config: &Value, found: &mut Vec<Fault>) {
    let policy = config.get("failure_policy").and_then(Value::as_str).unwrap_or("FAIL_CLOSED");
    if !["FAIL_CLOSED", "FAIL_RELOAD"].contains(&policy) {
        let problem = format!("{policy} lets calls past a failed filter; want FAIL_RELOAD or FAIL_CLOSED");
        found.push(at.fault(&format!("{key}.failure_policy"), problem));
    }
    if config.get("fail_open") == Some(&Value::Bool(true)) {
        found.push(at.fault(
            &format!("{key}.fail_open"),
            "true lets calls past a failed filter; want failure_policy: FAIL_RELOAD",
        ));
    }
}

/// Secrets among the variables that the configuration itself gives the VM. A name that ends with `_FILE` has a path.
fn secrets(at: &At<'_>, key: &str, config: &Value, found: &mut Vec<Fault>) {
    let values = config.pointer("/vm_config/environment_variables/key_values").and_then(Value::as_object);
    for (name, value) in values.into_iter().flatten() {
        let named = ["SECRET", "TOKEN", "PRIVATE_KEY"].iter().any(|part| name.contains(part));
        let is_key = value.as_str().is_some_and(|value| value.contains("PRIVATE KEY-----"));
        if (named && !name.ends_with("_FILE")) || is_key {
            let key = format!("{key}.vm_config.environment_variables.key_values.{name}");
            found.push(at.fault(&key, "a secret in the configuration is shown by /config_dump; want host_env_keys"));
        }
    }
}

/// A connection manager must not change paths: a model id may hold `%2F`, and the signature covers the path.
fn manager(at: &At<'_>, key: &str, value: &Value, found: &mut Vec<Fault>) {
    if value.get("http_filters").is_none() || !value.to_string().contains("cluster_header") {
        return;
    }
    for option in ["normalize_path", "merge_slashes"] {
        if value.get(option) == Some(&Value::Bool(true)) {
            found.push(at.fault(
                &format!("{key}.{option}"),
                "want false: a model id may hold %2F, and the signature covers the path",
            ));
        }
    }
    let escapes = value.get("path_with_escaped_slashes_action").and_then(Value::as_str).unwrap_or("KEEP_UNCHANGED");
    if !["KEEP_UNCHANGED", "IMPLEMENTATION_SPECIFIC_DEFAULT"].contains(&escapes) {
        let key = format!("{key}.path_with_escaped_slashes_action");
        found.push(at.fault(&key, format!("{escapes} changes a model id that holds %2F; want KEEP_UNCHANGED")));
    }
    if value.get("preserve_external_request_id") == Some(&Value::Bool(true)) {
        let key = format!("{key}.preserve_external_request_id");
        found.push(at.fault(&key, "want false: callers could choose the id of their audit record"));
    }
    if value.get("use_remote_address") == Some(&Value::Bool(false)) {
        let key = format!("{key}.use_remote_address");
        found.push(at.fault(&key, "want true: callers could choose the address in their audit record"));
    }
    filters(at, key, value, found);
}

/// The router ends the chain.
fn filters(at: &At<'_>, key: &str, manager: &Value, found: &mut Vec<Fault>) {
    let filters = manager.get("http_filters").and_then(Value::as_array);
    let last = filters.and_then(|filters| filters.last()?.pointer("/typed_config/@type"));
    if last.is_none_or(|kind| kind != ROUTER) {
        let problem = "the router is not the last filter: Envoy would not send calls";
        found.push(at.fault(&format!("{key}.http_filters"), problem));
    }
}

/// Each listener that takes calls has the gateway's filter once. The relay's, which a network filter guards, has passed one.
fn listeners(at: &At<'_>, bootstrap: &Value, plugins: &[Plugin<'_>], found: &mut Vec<Fault>) {
    let listeners = bootstrap.pointer("/static_resources/listeners").and_then(Value::as_array);
    for (index, listener) in listeners.into_iter().flatten().enumerate() {
        let text = listener.to_string();
        if !text.contains("cluster_header") || objects::plugins(listener).into_iter().any(is_relay) {
            continue;
        }
        let key = format!("static_resources.listeners[{index}]");
        keepalive::listener(at, &key, listener, found);
        connections::listener(at, bootstrap, &key, listener, found);
        let inside = |plugin: &&Plugin<'_>| plugin.role != Role::Signer && plugin.key.starts_with(&format!("{key}."));
        let count = plugins.iter().filter(inside).count();
        if count != 1 {
            let problem = format!("the filter of role gateway is there {count} times; want it once");
            found.push(at.fault(&key, problem));
        }
    }
}

/// Envoy's admin page can end Envoy and shows its configuration: this machine only.
fn admin(at: &At<'_>, bootstrap: &Value, found: &mut Vec<Fault>) {
    let address = bootstrap.pointer("/admin/address/socket_address/address").and_then(Value::as_str);
    let is_open = |address: &str| address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback());
    if let Some(address) = address.filter(|address| is_open(address)) {
        let problem = format!("{address} lets other machines end Envoy and read its configuration; want 127.0.0.1");
        found.push(at.fault("admin.address.socket_address.address", problem));
    }
}

/// Both roles read one document, in one VM.
fn same(at: &At<'_>, main: &Plugin<'_>, plugins: &[Plugin<'_>], found: &mut Vec<Fault>) {
    let without_role = |text: &str| {
        let mut document: Value = serde_json::from_str(text).unwrap_or_default();
        document.as_object_mut().map(|keys| keys.remove("role"));
        document
    };
    let wanted = without_role(main.text);
    for plugin in plugins {
        let own = without_role(plugin.text);
        if own != wanted {
            let differ = |key: &&String| own.get(key.as_str()) != wanted.get(key.as_str());
            let keys = [&own, &wanted].into_iter().filter_map(Value::as_object).flat_map(|keys| keys.keys());
            let first = keys.clone().find(|key| differ(key)).cloned().unwrap_or_default();
            let problem = format!("`{first}` differs from the gateway's document: both roles must have the same");
            found.push(at.fault(&format!("{}.configuration.value", plugin.key), problem));
        }
        if plugin.config.get("vm_config") != main.config.get("vm_config") {
            let problem = "differs from the gateway's: the roles share data in one VM, so want the same `vm_config`";
            found.push(at.fault(&format!("{}.vm_config", plugin.key), problem));
        }
    }
}

/// What the policy needs of the bootstrap.
fn serves(
    at: &At<'_>,
    bootstrap: &Value,
    policy: &Policy,
    config: &Config,
    plugins: &[Plugin<'_>],
    found: &mut Vec<Fault>,
) {
    let clusters: Clusters<'_> = bootstrap
        .pointer("/static_resources/clusters")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, cluster)| Some((cluster.get("name")?.as_str()?, (index, cluster))))
        .collect();
    let known = || clusters.keys().copied();
    let missing = |key: &str, name: &str, what: &str, found: &mut Vec<Fault>| {
        if !clusters.contains_key(name) {
            let problem = format!("cluster `{name}` is missing, which {what}{}", did_you_mean(name, known()));
            found.push(at.fault(key, problem));
        }
    };
    let all = "static_resources.clusters";
    for (class, cluster) in policy.clusters() {
        missing(all, &cluster.name, &format!("class '{}' sends calls to", class.name()), found);
        if let Some((index, found_cluster)) = clusters.get(cluster.name.as_str()) {
            let wanted: Vec<String> =
                cluster.endpoints.iter().map(|(path, region)| format!("{path}/{region}")).collect();
            let key = format!("{all}[{index}]");
            cluster::upstream(at, &key, found_cluster, &wanted, policy, found);
        }
    }
    if let Some(relay) = &config.stream_relay {
        missing(all, relay, "`stream_relay` names", found);
    }
    hashing::filters(at, bootstrap, config, found);
    for (key, polls) in config.poll_clusters() {
        missing(all, polls, &format!("`{key}` names"), found);
    }
    if let Some(audit) = &config.audit {
        missing(all, &audit.cluster, "`audit.cluster` names", found);
    }
    let sources = std::iter::once(("credentials".to_owned(), &config.credentials));
    let sets = config.credential_sets.iter().map(|(name, source)| (format!("credential_sets.{name}"), source));
    for (key, source) in sources.chain(sets) {
        for SourcesCluster { name, is_token } in source_clusters::of(source) {
            missing(all, name, &format!("`{key}` names"), found);
            if let (Some((index, cluster)), false) = (clusters.get(name), is_token) {
                source_filters::cluster(at, &format!("{all}[{index}]"), cluster, (name, &key), found);
            }
        }
        plugins.iter().for_each(|plugin| variables(at, variables_of(source, policy.auth), plugin, found));
    }
    routes::check(at, bootstrap, policy, &clusters, found);
    callers::certificates(at, bootstrap, config, found);
    logs(at, bootstrap, found);
}

/// The variables that a source reads in any case.
fn variables_of(source: &Credentials, auth: Auth) -> &'static [&'static str] {
    match source {
        Credentials::Environment {} if auth == Auth::Bearer => &["AWS_BEARER_TOKEN_BEDROCK"],
        Credentials::Environment {} => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
        Credentials::RolesAnywhere { certificate: CertificateSource::Environment {}, .. } => {
            &["BEDROCK_GATEWAY_CERTIFICATE", "BEDROCK_GATEWAY_PRIVATE_KEY"]
        }
        _ => &[],
    }
}

/// The variables that the VM is given.
fn variables(at: &At<'_>, wanted: &[&str], plugin: &Plugin<'_>, found: &mut Vec<Fault>) {
    let keys = plugin.config.pointer("/vm_config/environment_variables/host_env_keys").and_then(Value::as_array);
    let given: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
    let values = plugin.config.pointer("/vm_config/environment_variables/key_values").and_then(Value::as_object);
    let key = format!("{}.vm_config.environment_variables.host_env_keys", plugin.key);
    for name in wanted {
        if !given.contains(name) && values.is_none_or(|values| !values.contains_key(*name)) {
            found.push(at.fault(&key, format!("{name} is missing: the filter would have no credentials")));
        }
    }
}

/// The access log: what the collector makes records of.
fn logs(at: &At<'_>, bootstrap: &Value, found: &mut Vec<Fault>) {
    visit_objects("", bootstrap, &mut |key, value| {
        let calls = value.get("route_config").is_some_and(|routes| routes.to_string().contains("cluster_header"));
        // The relay's exchanges are in the log of the listener that sends them.
        if !calls || value.to_string().contains(r#"\"relay\""#) {
            return;
        }
        let loggers = value.get("access_log").and_then(Value::as_array);
        if loggers.is_none_or(Vec::is_empty) {
            found.push(at.fault(key, "`access_log` is missing: calls would leave no audit record"));
        }
        for (number, logger) in loggers.into_iter().flatten().enumerate() {
            let text = logger.to_string();
            for state in ["wasm.bedrock.exchange", "wasm.bedrock.attempt"] {
                if !text.contains(&format!("{state}:")) && !text.contains(&format!("\"{state}\"")) {
                    let problem = format!("filter state {state} is missing: calls would leave no audit record");
                    found.push(at.fault(&format!("{key}.access_log[{number}]"), problem));
                }
            }
        }
    });
}
