//! What the operator's entries make of headers and bodies.

use super::*;
use crate::policy::Policy;
use crate::request_body::RequestBody;
use crate::step::{RequestEvent, RequestStep};
use crate::testing::{Client, ID, converse, forwarded, headers, invoke, keys, refused};
use serde_json::{Value, json};

fn document(entries: &Value) -> Value {
    json!({
        "role": "gateway",
        "regions": {"us-east-1": {}},
        "principal": [{"from": "mtls"}],
        "request_metadata": entries,
        "route_classes": [{"name": "any", "paths": ["dx"]}]
    })
}

fn policy(entries: &Value) -> Policy {
    Policy::parse(document(entries).to_string().as_bytes(), None).unwrap()
}

fn problem(document: &Value) -> String {
    Policy::parse(document.to_string().as_bytes(), None).unwrap_err().to_string()
}

const VALUES: Values<'_> = Values { principal: Some("spiffe://td/a"), class: "any", request_id: ID };

fn entries() -> Value {
    json!({"caller": "{principal}", "class": "{class}", "site": "east 1"})
}

/// The body as it goes on, which must be the same in any chunks.
fn edited(entries: &Value, body: &str) -> Result<String, MetadataProblem> {
    let policy = policy(entries);
    let mut places = Vec::new();
    for size in 1..=body.len() {
        let mut read = RequestBody::of(Operation::Converse).unwrap();
        body.as_bytes().chunks(size).for_each(|chunk| read.feed(chunk));
        places.push(read.places());
    }
    places.dedup();
    let [places] = places[..] else { panic!("{places:?}") };
    let mut body = body.as_bytes().to_vec();
    policy.request_metadata.write_body(places, VALUES, &mut body)?;
    Ok(String::from_utf8(body).unwrap())
}

#[test]
fn a_body_gets_the_entries_in_front() {
    const SET: &str = r#""requestMetadata":{"caller":"spiffe://td/a","class":"any","site":"east 1"}"#;
    for (body, wanted) in [
        (r#"{"messages":[{"requestMetadata":1}]}"#, format!(r#"{{{SET},"messages":[{{"requestMetadata":1}}]}}"#)),
        (" \n{ } ", format!(" \n{{{SET} }} ")),
        ("\t{\"a\":\"{\"}", format!("\t{{{SET},\"a\":\"{{\"}}")),
    ] {
        assert_eq!(edited(&entries(), body).unwrap(), wanted);
    }
    for body in ["[]", "\"{\"", "null", "1 "] {
        assert_eq!(edited(&entries(), body), Err(MetadataProblem::Body), "{body}");
    }
}

#[test]
fn a_clients_own_entries_stay() {
    for (own, wanted) in [
        (r#"{"team":"a\u0062", "x": "" }"#, json!({"team": "ab", "x": ""})),
        ("null", json!({})),
        ("{}", json!({})),
        (r#"{"a":"1","a":"2"}"#, json!({"a": "2"})),
    ] {
        for body in [
            format!(r#"{{"messages":[],"requestMetadata": {own} , "system":[]}}"#),
            format!(r#"{{"request\u004detadata":{own}}}"#),
        ] {
            let mut all = wanted.clone();
            for (key, value) in [("caller", "spiffe://td/a"), ("class", "any"), ("site", "east 1")] {
                all[key] = json!(value);
            }
            let edited: Value = serde_json::from_str(&edited(&entries(), &body).unwrap()).unwrap();
            assert_eq!(edited["requestMetadata"], all, "{body}");
        }
    }
}

#[test]
fn nobody_gives_a_key_of_the_gateways() {
    for (own, key) in [
        (r#"{"caller":"root"}"#, "caller"),
        (r#"{"a":"b","Caller":"root"}"#, "caller"),
        (r#"{" site\t":"x"}"#, "site"),
        (r#"{"c\u0061ller":"root","caller":"root"}"#, "caller"),
    ] {
        let reserved = MetadataProblem::Reserved { place: MEMBER, key: key.to_owned() };
        assert_eq!(edited(&entries(), &format!(r#"{{"requestMetadata":{own}}}"#)), Err(reserved));
        let mut headers = headers(&[(HEADER, own)]);
        let metadata = &policy(&entries()).request_metadata;
        for operation in [Operation::InvokeModel, Operation::Converse, Operation::CountTokens] {
            let reserved = MetadataProblem::Reserved { place: HEADER, key: key.to_owned() };
            assert_eq!(metadata.write_header(operation, VALUES, &mut headers), Err(reserved), "{operation}");
        }
    }
}

#[test]
fn what_is_no_map_of_texts_is_refused() {
    for own in ["1", "\"x\"", "[]", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{"b":"c"}}"#, "true"] {
        let body = format!(r#"{{"requestMetadata":{own},"messages":[]}}"#);
        assert_eq!(edited(&entries(), &body), Err(MetadataProblem::Shape(MEMBER)), "{own}");
        let mut headers = headers(&[(HEADER, own)]);
        let written = policy(&entries()).request_metadata.write_header(Operation::InvokeModel, VALUES, &mut headers);
        assert_eq!(written, Err(MetadataProblem::Shape(HEADER)), "{own}");
    }
}

#[test]
fn a_header_gets_the_entries() {
    let metadata = policy(&entries()).request_metadata;
    for (own, wanted) in [
        (None, r#"{"caller":"spiffe://td/a","class":"any","site":"east 1"}"#),
        (Some(""), r#"{"caller":"spiffe://td/a","class":"any","site":"east 1"}"#),
        (Some(r#"{"team": "b"}"#), r#"{"caller":"spiffe://td/a","class":"any","site":"east 1","team":"b"}"#),
    ] {
        let given: Vec<_> = own.map(|own| (HEADER, own)).into_iter().collect();
        let mut headers = headers(&given);
        metadata.write_header(Operation::InvokeModelWithResponseStream, VALUES, &mut headers).unwrap();
        assert_eq!(headers.get_only(HEADER).unwrap(), Some(wanted.as_bytes()));
    }
    let mut none = Headers::default();
    metadata.write_header(Operation::Converse, VALUES, &mut none).unwrap();
    assert_eq!(none, Headers::default());
}

#[test]
fn bedrocks_limits_hold_with_the_entries() {
    let own = |count: usize, value: &str| -> BTreeMap<String, String> {
        (0..count).map(|number| (format!("k{number}"), value.to_owned())).collect()
    };
    let body = |count| json!({"requestMetadata": own(count, "v")}).to_string();
    assert!(edited(&entries(), &body(13)).is_ok());
    assert_eq!(edited(&entries(), &body(14)), Err(MetadataProblem::Count { place: MEMBER, given: 14, added: 3 }));
    let long = json!(own(13, &"v".repeat(700))).to_string();
    let mut headers = headers(&[(HEADER, &long)]);
    let metadata = policy(&entries()).request_metadata;
    assert_eq!(metadata.write_header(Operation::InvokeModel, VALUES, &mut headers), Err(MetadataProblem::Length));
}

#[test]
fn a_caller_without_a_name_has_no_entry() {
    let metadata = policy(&json!({"caller": "{principal}"})).request_metadata;
    let values = Values { principal: None, ..VALUES };
    let mut body = br#"{"messages":[]}"#.to_vec();
    metadata.write_body(Places { top: Some(0), ..Places::default() }, values, &mut body).unwrap();
    assert_eq!(body, br#"{"messages":[]}"#);
    let mut headers = Headers::default();
    metadata.write_header(Operation::InvokeModel, values, &mut headers).unwrap();
    assert_eq!(headers, Headers::default());
    // Its key is the gateway's all the same.
    let mut own = headers_with(r#"{"caller":"root"}"#);
    assert!(metadata.write_header(Operation::InvokeModel, values, &mut own).is_err());
}

fn headers_with(own: &str) -> Headers {
    headers(&[(HEADER, own)])
}

#[test]
fn names_fit_bedrocks_alphabet() {
    for (name, wanted) in [
        ("spiffe://td/ns/a", "spiffe://td/ns/a"),
        ("auth0|5f", "auth0=7C5f"),
        ("a=b", "a=3Db"),
        ("é", "=C3=A9"),
        ("a\"b\\", "a=22b=5C"),
    ] {
        assert_eq!(in_alphabet(name), wanted);
    }
    let long = |end: &str| in_alphabet(&format!("{}{end}", "a|".repeat(200)));
    for text in [long("x"), long("y"), in_alphabet(&"é".repeat(43)), in_alphabet(&"a".repeat(257))] {
        assert!(is_text(&text) && text.contains("=#"), "{text}");
    }
    assert_ne!(long("x"), long("y"));
    assert_eq!(in_alphabet(&"a".repeat(256)), "a".repeat(256));
}

#[test]
fn a_wrong_entry_is_named() {
    let many: BTreeMap<String, &str> = (0..17).map(|number| (format!("k{number}"), "v")).collect();
    for (entries, wanted) in [
        (
            json!({"caller": "{prinicpal}"}),
            "`request_metadata.caller`: \"{prinicpal}\" is neither {principal}, {class}",
        ),
        (json!({"caller": "a{class}"}), "`request_metadata.caller`: "),
        (json!({"caller": ""}), "`request_metadata.caller`: "),
        (json!({"": "a"}), "is not a key that Bedrock takes"),
        (json!({"a|b": "a"}), "`request_metadata.a|b`: is not a key"),
        (json!({"a": "x", "A": "y"}), "`request_metadata.a`: differs from 'A' in capitals only"),
        (json!(many), "`request_metadata`: Bedrock takes 16 entries, not 17"),
        (json!({"a": 1}), "request_metadata.a"),
    ] {
        let error = problem(&document(&entries));
        assert!(error.contains(wanted), "{error}");
    }
    let mut streams = document(&entries());
    streams["role"] = json!("combined");
    streams["auth"] = json!("bearer");
    let error = problem(&streams);
    assert!(error.contains("`request_metadata`: role `combined` with `auth: bearer`"), "{error}");
}

#[test]
fn the_edited_body_is_what_is_signed() {
    let mut client = Client::of(policy(&json!({"id": "{request_id}"})), Some(keys()));
    assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
    assert_eq!(client.body(br#"{"messages""#, false), RequestStep::AwaitBody);
    assert_eq!(client.body(b":[]}", true), RequestStep::EditBody);
    let mut body = br#"{"messages":[]}"#.to_vec();
    let forward = forwarded(client.request(RequestEvent::WholeBody { body: &mut body }));
    let wanted = format!(r#"{{"requestMetadata":{{"id":"{ID}"}},"messages":[]}}"#);
    assert_eq!(String::from_utf8(body).unwrap(), wanted);
    let handoff: Value = serde_json::from_slice(&forward.states[0].1).unwrap();
    assert_eq!(handoff["body_sha256"], hex(&Sha256::digest(&wanted)));
    assert_eq!(handoff["content_length"], wanted.len());
}

#[test]
fn other_bodies_are_not_asked_for() {
    let mut client = Client::of(policy(&json!({"id": "{request_id}"})), Some(keys()));
    client.headers(&invoke(&[]), false);
    let forward = forwarded(client.body(b"{}", true));
    assert_eq!(forward.headers.get_str(HEADER), Some(format!(r#"{{"id":"{ID}"}}"#).as_str()));
    let mut client = Client::of(policy(&json!({"id": "{request_id}"})), Some(keys()));
    client.headers(&converse(&[]), false);
    assert_eq!(refused(client.body(b"", true)).0, 400);
    let mut client = Client::of(policy(&json!({})), Some(keys()));
    client.headers(&converse(&[]), false);
    forwarded(client.body(b"{}", true));
}

#[test]
fn a_forged_entry_gets_a_named_error() {
    let mut client = Client::of(policy(&json!({"id": "{request_id}"})), Some(keys()));
    client.headers(&converse(&[]), false);
    client.body(br#"{"requestMetadata":{"id":"mine"}}"#, true);
    let mut body = br#"{"requestMetadata":{"id":"mine"}}"#.to_vec();
    let (status, error, message) = refused(client.request(RequestEvent::WholeBody { body: &mut body }));
    assert_eq!((status, error), (400, "ValidationException"));
    assert!(message.contains("'id' in 'requestMetadata'"), "{message}");
    let mut client = Client::of(policy(&json!({"id": "{request_id}"})), Some(keys()));
    client.headers(&converse(&[]), false);
    let twice = br#"{"requestMetadata":{"a":"b"},"requestMetadata":{"id":"mine"}}"#;
    assert_eq!(refused(client.body(twice, true)).0, 400);
    let mut client = Client::of(policy(&json!({"id": "{request_id}"})), Some(keys()));
    let (status, _, message) = refused(client.headers(&invoke(&[(HEADER, r#"{"id":"mine"}"#)]), false));
    assert_eq!(status, 400);
    assert!(message.contains(HEADER), "{message}");
}

/// `C1 A1` is an `a` to a lenient reader of UTF-8, such as Jackson, whose last member of a name wins.
#[test]
fn mistakable_keys_are_refused() {
    let mut body = br#"{"messages":[],"requestMetadat##":{"id":"mine"}}"#.to_vec();
    let at = body.iter().position(|byte| *byte == b'#').unwrap();
    for overlong in [&b"\xc1\xa1"[..], b"\xe0\x81\xa1", b"\xf0\x80\x81\xa1", b"\xff", b"a\x80"] {
        body.splice(at..at + 2, overlong.iter().copied());
        let mut client = Client::of(policy(&json!({"id": "{request_id}"})), Some(keys()));
        client.headers(&converse(&[]), false);
        let (status, _, message) = refused(client.body(&body, true));
        assert!(status == 400 && message.contains("not JSON"), "{message}");
        body.splice(at..at + overlong.len(), *b"##");
    }
    for member in
        ["RequestMetadata", "requestmetadata", " requestMetadata", "requestMetadata\\u0000", "requestMetadata\\n"]
    {
        let body = format!(r#"{{"messages":[],"{member}":{{"id":"mine"}}}}"#);
        assert_eq!(edited(&entries(), &body), Err(MetadataProblem::Alike), "{member}");
    }
}

#[test]
fn little_of_a_clients_own_entries_is_read() {
    let key = " ".repeat(MAX_OWN);
    for own in [format!(r#"{{"{key}caller":"x"}}"#), format!(r#"{{"a":"{key}"}}"#), format!(r#"{{{key}"a":"b"}}"#)] {
        let policy = policy(&entries());
        let mut body = format!(r#"{{"requestMetadata":{own}}}"#).into_bytes();
        let places = Places { top: Some(0), own: Some(19), alike: false };
        let written = policy.request_metadata.write_body(places, VALUES, &mut body);
        assert_eq!(written, Err(MetadataProblem::Shape(MEMBER)));
    }
}
