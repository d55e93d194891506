//! Claims of verified tokens that are not text.

use bedrock_double::sources::jwt::{Algorithm, Signer};
use serde_json::{Value, json};

use super::{Case, MODEL, converse, path_of, records, try_all};
use crate::harness::{Harness, Keys, base};

const DENIED: &str = "AccessDeniedException";

/// Envoy's filter that verifies the issuer's tokens where a client sends one.
fn jwt_authn(signer: &Signer) -> String {
    let keys = json!({"keys": [signer.public_key().jwk()]}).to_string();
    let filter = json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"mesh": {"local_jwks": {"inline_string": keys}, "payload_in_metadata": "caller"}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
                {"provider_name": "mesh"}, {"allow_missing": {}},
            ]}}}],
        },
    });
    format!("                http_filters:\n                  - {filter}\n                  - name: bedrock.gateway\n")
}

#[test]
fn a_claim_that_is_not_text_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new(Algorithm::Es256, "mesh").unwrap();
    let gateway = "                http_filters:\n                  - name: bedrock.gateway\n";
    let base = base(dir.path(), gateway, &jwt_authn(&signer));
    let policy = dir.path().join("policy.json");
    let document = json!({
        "regions": {"us-east-1": {}},
        "principal": [{"from": "mtls"}, {"from": "jwt", "payload": "caller", "claim": "client"}],
        "route_classes": [
            {"name": "operators", "principals": ["operator"], "paths": ["internet"]},
            {"name": "any", "paths": ["internet"]}
        ],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let arguments = ["--base", &base, "--policy", policy.to_str().unwrap()];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);

    let call = |claims: &Value| {
        let token = signer.sign(claims).unwrap();
        converse(&path_of(MODEL), &format!("authorization: Bearer {token}\r\n"))
    };
    let of = |name: &str, client: Value, message: &'static str| {
        Case::new(name, call(&json!({"iss": "https://mesh.example", "client": client})), 403, DENIED).says(message)
    };
    // Envoy itself refuses a token whose `sub` or `iss` is not text; any other claim may be anything.
    // As a number, its eight bytes spell the name.
    let spelt = f64::from_le_bytes(*b"operator");
    let cases = [
        Case::new("a text", call(&json!({"client": "operator"})), 200, ""),
        Case::new("no claim", call(&json!({"iss": "https://mesh.example"})), 200, ""),
        Case::new("no token", converse(&path_of(MODEL), ""), 200, ""),
        of("a number", json!(7), "the claim 'client' of the caller's token is a number, not text"),
        of("a number that spells a name", json!(spelt), "is a number, not text"),
        of("true", json!(true), "is true or false, not text"),
        of("null", Value::Null, "is null, not text"),
        of("a list", json!(["operator"]), "is a list, not text"),
        of("an empty list", json!([]), "is a list, not text"),
        of("an object", json!({"operator": "operator"}), "is an object, not text"),
        of("an empty text", json!(""), "is empty, not text"),
    ];
    let answers = try_all(&harness, &cases);
    let records = records(&harness, 2 * cases.len());
    for (nth, answer) in answers.iter().enumerate() {
        let id = answer.header("x-amzn-requestid");
        let own = |facts: &Value| facts["id"] == id || facts["upstream_id"] == id;
        let (facts, _) = records.iter().find(|(facts, _)| own(facts)).unwrap();
        let (principal, class) = if nth == 0 { (json!("operator"), "operators") } else { (Value::Null, "any") };
        assert_eq!(facts["principal"], principal, "{facts}");
        if answer.status == 200 {
            assert_eq!(facts["class"], class, "{facts}");
        }
    }
}
