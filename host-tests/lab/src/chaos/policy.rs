//! The policy of a run: the filter's document of `envoy/standalone.yaml` with other classes and regions, and
//! callers that authenticate by tokens.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use bedrock_gateway::base::BASE;
use bedrock_gateway::document::EXAMPLE;

use crate::Error;

/// The key that the load generator's tokens are signed with.
pub(super) const CALLERS_KEY: &str = "the key of callers who exist for the length of a run";
/// The JWT filter's name for a token's claims.
const CLAIMS: &str = "caller";

/// `envoy/example.yaml`, with these keys in place of its own.
pub(super) fn document(keys: Value) -> Result<Value, Error> {
    let failed = |error| Error::Failed(format!("envoy/example.yaml: {error}"));
    let mut document: Map<String, Value> = serde_saphyr::from_str(EXAMPLE).map_err(failed)?;
    if let Value::Object(keys) = keys {
        document.extend(keys);
    }
    Ok(Value::Object(document))
}

/// `envoy/base.yaml`, where every caller has to show a token.
pub(super) fn base_with_tokens() -> Result<Value, Error> {
    let failed = |error| Error::Failed(format!("envoy/base.yaml: {error}"));
    Ok(with_tokens(serde_saphyr::from_str(BASE).map_err(failed)?))
}

/// The key `principal` of a document whose callers have tokens; see [`with_tokens`].
pub(super) fn principal() -> Value {
    json!([{ "from": "jwt", "payload": CLAIMS, "claim": "sub" }])
}

/// The configuration in which every caller must send a token.
fn with_tokens(mut config: Value) -> Value {
    let key = BASE64_URL_SAFE_NO_PAD.encode(CALLERS_KEY);
    let keys = json!({ "keys": [{ "kty": "oct", "alg": "HS256", "k": key }] });
    let filter = json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": { "load": {
                "local_jwks": { "inline_string": keys.to_string() },
                "payload_in_metadata": CLAIMS,
            } },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "load" } }],
        },
    });
    before_gateway(&mut config, &filter);
    config
}

/// Puts a filter before the gateway's in every chain.
fn before_gateway(value: &mut Value, filter: &Value) {
    match value {
        Value::Object(object) => object.values_mut().for_each(|value| before_gateway(value, filter)),
        Value::Array(values) => {
            let name = |value: &Value| value.get("name").and_then(Value::as_str) == Some("bedrock.gateway");
            match values.iter().position(name) {
                Some(at) => values.insert(at, filter.clone()),
                None => values.iter_mut().for_each(|value| before_gateway(value, filter)),
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_classes_are_put_in_place_of_the_files() {
        let classes = json!([{ "name": "one", "paths": ["dx"] }]);
        let document = document(json!({ "route_classes": classes })).unwrap();
        assert_eq!(document["route_classes"], classes);
        assert!(document["inference_profiles"].as_object().is_some_and(|table| table.len() > 10));
    }

    #[test]
    fn both_listeners_check_tokens_first() {
        let text = base_with_tokens().unwrap().to_string();
        assert_eq!(text.matches("envoy.filters.http.jwt_authn\"").count(), 2);
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("JwtAuthentication") < at("bedrock.gateway"));
    }
}
