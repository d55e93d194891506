//! The audit record and its only list of fields.

use serde::{Deserialize, Serialize};

use crate::entry::{EnvoyEntry, ExchangeKey};
use crate::facts::{AttemptFacts, ExchangeFacts};
use crate::field::{Field, FieldType, FieldValue, Source, audit_record};

/// Days after which a record expires.
pub const RETENTION_DAYS: u64 = 30;

// SQLite columns, DynamoDB attributes, the output of `audit-collector query --json` and the table in docs/audit.md
// follow these rows. A new field must be an Option: older records lack it.
audit_record! {
    /// One exchange, as the collector stores it.
    AuditRecord(
        key: ExchangeKey, envoy: EnvoyEntry, exchange: ExchangeFacts, attempt: AttemptFacts, other: Option<String>,
    )

    /// The key. The filter makes one for each exchange and never takes the client's `x-request-id`; Envoy's stream id if
    /// the filter left no facts; made of time and client address if Envoy has none.
    request_id: String = Gateway(key.request_id),
    /// When the request's first byte arrived: RFC 3339, UTC, milliseconds (`2026-01-02T03:04:05.678Z`).
    time: String = Envoy(key.time),
    /// The caller, as the mesh proves it.
    principal: Option<String> = Gateway(exchange.principal),
    /// The client's address, without the port.
    source_address: Option<String> = Envoy(envoy.source_address),
    /// The Bedrock operation (`Converse`).
    operation: Option<String> = Gateway(exchange.operation),
    /// The API that the client called, if not Bedrock's: `lambda` or `gateway` (the configuration's
    /// `lambda_api` and `gateway_api`).
    api: Option<String> = Gateway(exchange.api),
    /// The model id or alias that the client named.
    model_asked: Option<String> = Gateway(exchange.model),
    /// The models that `model_asked` runs, with commas between, if it names a resource (an application inference profile, a prompt
    /// router …) and the gateway found out what it runs.
    resolved_models: Option<String> = Gateway(exchange.resolved_models),
    /// The model id or inference profile of the last attempt.
    model_sent: Option<String> = Signer(attempt.model),
    /// The attempt, from 1, whose model Bedrock refused to run on demand (400). The next attempt went by the inference profile in
    /// `model_sent`; without a next one, the client got the refusal.
    refused_on_demand: Option<u32> = Signer(attempt.refused_on_demand),
    /// The project that the request names, by id or ARN.
    project: Option<String> = Gateway(exchange.project),
    /// The route class that took the call.
    route_class: Option<String> = Gateway(exchange.class),
    /// The rule that decided about the call, by its id; null if no rule did.
    rule: Option<String> = Gateway(exchange.rule),
    /// What the rules decided: `allowed`, `denied`, or `would_deny` (it passed, and rules of `mode: dry_run` would have refused it).
    /// Null if the document has no rules, or the call was refused before.
    rule_decision: Option<String> = Gateway(exchange.rule_decision.map(|decision| decision.name().to_owned())),
    /// The region of the last attempt.
    region: Option<String> = Signer(Some(attempt.region).filter(|region| !region.is_empty())),
    /// The path of the last attempt (`dx`, `vpn`, `internet`); from the gateway for a relayed stream.
    path: Option<String> =
        Envoy(exchange.relayed.as_ref().map_or(envoy.path, |relayed| relayed.path.clone())),
    /// Upstream attempts; 0 if nothing was sent; from the gateway for a relayed stream.
    attempts: u32 = Envoy(exchange.relayed.map_or(envoy.attempts, |relayed| relayed.attempts)),
    /// HTTP status sent to the client; 0 if the client left first.
    status: u16 = Envoy(envoy.status),
    /// The error type (`ThrottlingException`); if the filter saw none, Envoy's response flags, sorted (`UF,URX`).
    error_type: Option<String> = Gateway(exchange.error.or(envoy.response_flags)),
    /// Request body bytes from the client.
    bytes_in: u64 = Envoy(envoy.bytes_in),
    /// Response body bytes to the client.
    bytes_out: u64 = Envoy(envoy.bytes_out),
    /// Input tokens that were not cached, as Bedrock counted them.
    tokens_in: Option<u64> = Gateway(exchange.usage.input),
    /// Output tokens.
    tokens_out: Option<u64> = Gateway(exchange.usage.output),
    /// Input tokens read from the prompt cache.
    tokens_cache_read: Option<u64> = Gateway(exchange.usage.cache_read),
    /// Input tokens written to the prompt cache.
    tokens_cache_write: Option<u64> = Gateway(exchange.usage.cache_write),
    /// Of these, tokens that stay for five minutes.
    tokens_cache_write_5m: Option<u64> = Gateway(exchange.usage.cache_write_5m),
    /// Of these, tokens that stay for an hour.
    tokens_cache_write_1h: Option<u64> = Gateway(exchange.usage.cache_write_1h),
    /// Input tokens as the gateway estimated them from the request's bytes, if the response did not report them.
    tokens_in_estimated: Option<u64> = Gateway(exchange.estimate.and_then(|estimate| estimate.input)),
    /// Output tokens as the gateway estimated them from the response's bytes, if it ended before it reported them.
    tokens_out_estimated: Option<u64> = Gateway(exchange.estimate.and_then(|estimate| estimate.output)),
    /// The service tier that the request asked for (`default`, `priority`, `flex`, `reserved`).
    service_tier_asked: Option<String> = Gateway(exchange.asked.tier),
    /// The service tier that the response names.
    service_tier: Option<String> = Gateway(exchange.served.tier),
    /// The latency mode that the request asked for (`standard`, `optimized`).
    latency_mode_asked: Option<String> = Gateway(exchange.asked.latency),
    /// The latency mode that the response names.
    latency_mode: Option<String> = Gateway(exchange.served.latency),
    /// The model that a prompt router chose.
    model_invoked: Option<String> = Gateway(exchange.invoked),
    /// Text units of a guardrail's content filters.
    guardrail_content_units: Option<u64> = Gateway(exchange.guardrail.content),
    /// Images of a guardrail's content filters.
    guardrail_image_units: Option<u64> = Gateway(exchange.guardrail.image),
    /// Text units of a guardrail's denied topics.
    guardrail_topic_units: Option<u64> = Gateway(exchange.guardrail.topic),
    /// Text units of a guardrail's filters of sensitive information, without the free ones.
    guardrail_sensitive_units: Option<u64> = Gateway(exchange.guardrail.sensitive),
    /// Text units of a guardrail's contextual grounding check.
    guardrail_grounding_units: Option<u64> = Gateway(exchange.guardrail.grounding),
    /// Text units of a guardrail's automated reasoning.
    guardrail_reasoning_units: Option<u64> = Gateway(exchange.guardrail.reasoning),
    /// `complete` if an event stream had the event that ends it, else `incomplete`. Null for other responses.
    stream_end: Option<String> = Gateway(exchange.stream.map(|end| end.name().to_owned())),
    /// Method and path of a request that matches no operation, without its query, at most 128 bytes.
    unknown_path: Option<String> = Gateway(exchange.unknown_path),
    /// First byte of the request to last byte of the response, in milliseconds.
    latency_ms: u64 = Envoy(envoy.duration_ms),
    /// First byte of the request to first byte of the upstream's response, in milliseconds.
    first_byte_ms: Option<u64> = Envoy(envoy.first_byte_ms),
    /// Bedrock's request id.
    upstream_request_id: Option<String> = Gateway(exchange.upstream_id),
    /// The access key id that signed the last attempt: `userIdentity.accessKeyId` in CloudTrail.
    access_key_id: Option<String> = Signer(attempt.access_key_id),
    /// The role session of that key: `userIdentity.arn` in CloudTrail.
    session: Option<String> = Signer(attempt.session),
    /// The claim `jti` of the web identity token that the session was issued for.
    token_id: Option<String> = Signer(attempt.token_id),
    /// The data retention mode that the last attempt's region had for it (`none`, `aws_review`, `provider_data_share`), as the gateway
    /// had last read it; null where the class demands none.
    data_retention: Option<String> = Signer(attempt.retention),
    /// How the route class is audited, if not by the default: `required` or `off`.
    audit: Option<String> = Gateway(exchange.audit.map(|mode| mode.name().to_owned())),
    /// The random id of the worker's VM that handled the call.
    vm: Option<String> = Gateway(exchange.vm.as_ref().map(|vm| vm.id.clone())),
    /// The random id of the Envoy process.
    envoy: Option<String> = Gateway(exchange.vm.as_ref().map(|vm| vm.envoy.clone())),
    /// Calls that the VM had begun when it logged this one.
    vm_begun: Option<u64> = Gateway(exchange.vm.as_ref().map(|vm| vm.begun)),
    /// This call's number among those that the VM logged: a number that no record has is a lost record.
    vm_logged: Option<u64> = Gateway(exchange.vm.as_ref().map(|vm| vm.logged)),
    /// Calls that the VM had in flight when it logged this one.
    vm_in_flight: Option<u64> = Gateway(exchange.vm.as_ref().map(|vm| vm.in_flight)),
    /// What the record describes, if not an exchange that Envoy logged: `connection` (Envoy could read no request on it),
    /// `outcome_unknown` (a call that left, of whose end nothing is known), `unlogged` (its end is known from the gateway
    /// alone), `vm_start`, `vm_end`, `envoy_start`, `envoy_end`, `hole` (records that are missing).
    kind: Option<String> = Collector(key.kind.map(|kind| kind.name().to_owned())),
    /// Records that are missing, of a `hole`, `vm_end` or `envoy_end`.
    lost: Option<u64> = Collector(None),
    /// The upper bound of `lost`, if the number is not known exactly.
    lost_at_most: Option<u64> = Collector(None),
    /// Until when records may be missing, from `time` on.
    until: Option<String> = Collector(None),
    /// Facts of a newer filter that this release has no field for, as JSON (`{"exchange":{"usage":{"reasoning":5}}}`).
    other_facts: Option<String> = Collector(other),
    /// When the record expires: 30 days after `time`, in epoch seconds.
    expires_at: u64 = Collector(key.epoch_seconds + RETENTION_DAYS * 86_400),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        AuditMode, Estimate, GuardrailUnits, Kind, Relayed, RuleDecision, Serving, StreamOutcome, Usage, VmFacts,
    };

    fn key(id: &str) -> ExchangeKey {
        let time = "1970-01-01T00:00:01.000Z".to_owned();
        ExchangeKey { request_id: id.to_owned(), kind: None, time, epoch_seconds: 1 }
    }

    /// The numbers and texts of a JSON document.
    fn leaves(value: &Value) -> Vec<&Value> {
        match value {
            Value::Object(fields) => fields.values().flat_map(leaves).collect(),
            Value::Array(items) => items.iter().flat_map(leaves).collect(),
            leaf => vec![leaf],
        }
    }

    // Every field is given and every value differs: a fact without a row in the record fails.
    #[test]
    fn every_fact_reaches_the_record() {
        let text = |text: &str| Some(text.to_owned());
        let exchange = ExchangeFacts {
            id: "the id".to_owned(),
            principal: text("the principal"),
            operation: text("the operation"),
            api: text("the api"),
            model: text("the model asked"),
            resolved_models: text("the models that it runs"),
            project: text("the project"),
            class: text("the class"),
            rule: text("the rule"),
            rule_decision: Some(RuleDecision::WouldDeny),
            upstream_id: text("the upstream id"),
            error: text("the error"),
            usage: Usage {
                input: Some(101),
                output: Some(102),
                cache_read: Some(103),
                cache_write: Some(104),
                cache_write_5m: Some(111),
                cache_write_1h: Some(112),
            },
            asked: Serving { tier: text("the tier asked"), latency: text("the latency asked") },
            served: Serving { tier: text("the tier"), latency: text("the latency") },
            invoked: text("the model invoked"),
            guardrail: GuardrailUnits {
                content: Some(113),
                image: Some(114),
                topic: Some(115),
                sensitive: Some(116),
                grounding: Some(117),
                reasoning: Some(118),
            },
            stream: Some(StreamOutcome::Incomplete),
            unknown_path: text("the path that is unknown"),
            estimate: Some(Estimate { input: Some(106), output: Some(107) }),
            relayed: Some(Relayed { path: text("the path"), attempts: 105 }),
            audit: Some(AuditMode::Required),
            vm: Some(VmFacts {
                id: "the vm".to_owned(),
                envoy: "the envoy".to_owned(),
                begun: 108,
                logged: 109,
                in_flight: 110,
            }),
        };
        // `tried` and `resigned` are for the next attempt.
        let attempt = AttemptFacts {
            model: text("the model sent"),
            region: "the region".to_owned(),
            access_key_id: text("the access key id"),
            session: text("the session"),
            token_id: text("the token id"),
            retention: text("the retention mode"),
            tried: Vec::new(),
            resigned: None,
            refused_on_demand: Some(119),
        };
        let facts = json!([exchange, attempt]);
        let record = AuditRecord::new(key("the id"), EnvoyEntry::default(), exchange, attempt, None);
        let record = serde_json::to_value(record).unwrap();
        for fact in leaves(&facts) {
            assert!(leaves(&record).contains(&fact), "{fact} is not in {record}");
        }
    }

    #[test]
    fn the_json_has_every_field_in_order() {
        let text = serde_json::to_string(&AuditRecord::default()).unwrap();
        let keys: Vec<_> = AuditRecord::FIELDS
            .iter()
            .map(|field| text.find(&format!("\"{}\":", field.name)).unwrap_or_else(|| panic!("no {}", field.name)))
            .collect();
        assert!(keys.is_sorted(), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap().as_object().unwrap().len(), AuditRecord::FIELDS.len());
    }

    #[test]
    fn kinds_follow_the_types() {
        let field = |name: &str| AuditRecord::FIELDS.iter().find(|field| field.name == name).unwrap();
        assert_eq!((field("time").kind, field("time").optional), (Kind::Text, false));
        assert_eq!((field("status").kind, field("status").optional), (Kind::Integer, false));
        assert_eq!((field("tokens_in").kind, field("tokens_in").optional), (Kind::Integer, true));
    }

    #[test]
    fn values_are_those_of_the_json() {
        let record =
            AuditRecord { principal: Some("p".to_owned()), status: 200, bytes_in: 5, ..AuditRecord::default() };
        let json = serde_json::to_value(&record).unwrap();
        for (field, value) in AuditRecord::FIELDS.iter().zip(record.values()) {
            let wanted = match value {
                FieldValue::Null => Value::Null,
                FieldValue::Text(text) => text.into(),
                FieldValue::Integer(number) => number.into(),
            };
            assert_eq!(json[field.name], wanted, "{}", field.name);
        }
        let other = AuditRecord { principal: None, bytes_in: 6, expires_at: 7, ..record.clone() };
        assert_eq!((record.differing_field(&other), record.differing_field(&record)), (Some("bytes_in"), None));
    }

    #[test]
    fn a_record_is_read_from_its_values() {
        let record = AuditRecord { principal: Some("p".to_owned()), status: 200, ..AuditRecord::default() };
        let values = record.values();
        let mut next = values.iter();
        assert_eq!(AuditRecord::read(|_| *next.next().unwrap()).as_ref(), Ok(&record));
        for (wrong, value) in
            [("status", FieldValue::Null), ("status", FieldValue::Integer(70_000)), ("path", FieldValue::Integer(1))]
        {
            let mut next = values.iter();
            let value = |field: &Field| {
                let given = *next.next().unwrap();
                if field.name == wrong { value } else { given }
            };
            assert_eq!(AuditRecord::read(value), Err(wrong));
        }
    }

    #[test]
    fn a_record_expires_after_30_days() {
        let facts = (ExchangeFacts::default(), AttemptFacts::default());
        let record = AuditRecord::new(key("r"), EnvoyEntry::default(), facts.0, facts.1, None);
        assert_eq!(record.expires_at, 1 + 30 * 86_400);
    }
}
