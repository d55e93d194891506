//! Names that the module and Envoy's configuration share: headers, filter state and properties.

/// The header that names the cluster; Envoy's route reads it (`cluster_header`). Clients cannot set it.
pub const CLUSTER_HEADER: &str = "x-bedrock-gateway-cluster";
/// The header that names the route class; Envoy's routes read it. Clients cannot set it.
pub const CLASS_HEADER: &str = "x-bedrock-gateway-class";
/// The header that carries the exchange's id to the relay. Clients cannot set it.
pub const RELAY_HEADER: &str = "x-bedrock-gateway-relay";
/// The header that asks Envoy's filter `bedrock.hash` for the body's SHA-256. Clients cannot set it, and the signer drops it.
pub const HASH_HEADER: &str = "x-bedrock-gateway-hash";
/// The header in which that filter leaves it, in hexadecimal.
pub const BODY_SHA256_HEADER: &str = "x-amz-content-sha256";
/// The header that names the hidden headers of a call for credentials. The filter in the source's cluster removes it.
pub const CALL_HEADER: &str = "x-bedrock-gateway-call";
/// The response header by which the signer asks Envoy for another attempt (`retriable_headers`). Clients do not see it.
pub const RETRY_HEADER: &str = "x-bedrock-gateway-retry";

/// The response header by which the signer names the region that the next attempt must leave. A filter of the cluster turns it
/// into the metadata [`LEAVE_KEY`], by which Envoy chooses endpoints; neither Envoy's router nor clients see it.
pub const LEAVE_HEADER: &str = "x-bedrock-gateway-leave";
/// The key in the metadata `envoy.lb` of a call, with the region to leave, and of an endpoint, with the regions that it may be
/// tried instead of.
pub const LEAVE_KEY: &str = "instead_of";

/// Filter state that carries the handoff to the signer (`wasm.bedrock.handoff` for Envoy).
pub const HANDOFF_PROPERTY: &str = "bedrock.handoff";
/// Filter state that carries the route class's name, for Envoy's own replies to a class without a reachable path.
pub const CLASS_PROPERTY: &str = "bedrock.class";
/// Filter state that carries [`audit::ExchangeFacts`].
pub const EXCHANGE_PROPERTY: &str = "bedrock.exchange";
/// Filter state that carries [`audit::AttemptFacts`].
pub const ATTEMPT_PROPERTY: &str = "bedrock.attempt";

/// The property with the path label of the endpoint that an attempt goes to.
pub const ENDPOINT_PATH: &[&str] = &["xds", "upstream_host_metadata", "filter_metadata", "bedrock", "path"];
/// The property with the region label of that endpoint.
pub const ENDPOINT_REGION: &[&str] = &["xds", "upstream_host_metadata", "filter_metadata", "bedrock", "region"];
/// The property with the number of attempts, a little-endian u64.
pub const ATTEMPTS: &[&str] = &["upstream", "request_attempt_count"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_where_the_collector_looks() {
        assert_eq!(format!("wasm.{EXCHANGE_PROPERTY}"), audit::EXCHANGE_STATE);
        assert_eq!(format!("wasm.{ATTEMPT_PROPERTY}"), audit::ATTEMPT_STATE);
    }
}
