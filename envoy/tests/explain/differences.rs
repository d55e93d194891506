//! Planted differences between AWS's texts and the gateway's: each is found, and named by its part.

use bedrock_gateway::explain::aws;
use bedrock_gateway::explain::compare::{Difference, Part, compare};
use bedrock_gateway::explain::mask::MASK;
use serde_json::{Value, json};

use super::vectors::{signed, text, vectors};

/// AWS's answer to a request of which it makes these texts, as JSON and as XML.
fn answers(canonical_request: &str, string_to_sign: &str) -> [String; 2] {
    let message = format!(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for this \
         request should have been\n'{canonical_request}'\n\nThe String-to-Sign should have been\n'{string_to_sign}'\n"
    );
    let escaped = message.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&#39;");
    let xml = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>SignatureDoesNotMatch</Code><Message>{escaped}</Message></Error></ErrorResponse>"
    );
    [json!({ "message": message }).to_string(), xml]
}

/// What `explain` finds between its own texts of a vector and AWS's, which must not depend on the form of the answer.
fn found(vector: &Value, canonical_request: &str, string_to_sign: &str) -> Vec<Difference> {
    let made = signed(vector);
    let [json, xml] = answers(canonical_request, string_to_sign).map(|body| {
        let refused = aws::parse(&body).unwrap();
        compare(&made, refused.canonical_request.as_deref(), refused.string_to_sign.as_deref())
    });
    assert_eq!(json, xml, "{}", vector["name"]);
    json
}

/// Edits one line of AWS's canonical request, and checks that this part alone is found.
fn finds(part: impl Fn(&Value) -> Part, edit: impl Fn(&Value, &mut Vec<String>)) {
    for vector in vectors() {
        let mut lines: Vec<String> = text(&vector, "canonical_request").split('\n').map(str::to_owned).collect();
        edit(&vector, &mut lines);
        let differences = found(&vector, &lines.join("\n"), text(&vector, "string_to_sign"));
        let parts: Vec<Part> = differences.into_iter().map(|difference| difference.part).collect();
        assert_eq!(parts, [part(&vector)], "{}", vector["name"]);
    }
}

fn header_line(lines: &mut [String], name: &str) -> usize {
    lines.iter().position(|line| line.starts_with(&format!("{name}:"))).unwrap()
}

#[test]
fn finds_nothing_where_nothing_differs() {
    for vector in vectors() {
        let differences = found(&vector, text(&vector, "canonical_request"), text(&vector, "string_to_sign"));
        assert_eq!(differences, [], "{}", vector["name"]);
    }
}

#[test]
fn finds_another_host() {
    finds(
        |_| Part::Host,
        |_, lines| {
            let host = header_line(lines, "host");
            lines[host] = "host:proxy.example.com".to_owned();
        },
    );
}

#[test]
fn finds_another_path_encoding() {
    finds(
        |_| Part::PathEncoding,
        |vector, lines| {
            lines[1] = match text(vector, "canonical_uri") {
                "/" => "/%252E".to_owned(),
                uri if uri.contains("%25") => uri.replace("%25", "%"),
                uri => uri.replacen('-', "%252D", 1),
            };
        },
    );
}

#[test]
fn finds_another_path() {
    finds(|_| Part::Path, |_, lines| lines[1] += "/more");
}

#[test]
fn finds_another_payload() {
    finds(
        |_| Part::Payload,
        |_, lines| {
            let last = lines.len() - 1;
            lines[last] = "0".repeat(64);
        },
    );
}

/// Changes a header that is signed by choice; where there is none, adds one.
#[test]
fn finds_a_changed_or_added_header() {
    let chosen = |vector: &Value| {
        let mut names = text(vector, "signed_headers").split(';').map(str::to_owned);
        names.find(|name| !["host", "x-amz-date", "x-amz-security-token"].contains(&name.as_str()))
    };
    finds(
        |vector| Part::Header(chosen(vector).unwrap_or_else(|| "content-type".to_owned())),
        |vector, lines| match chosen(vector) {
            Some(name) => {
                let at = header_line(lines, &name);
                lines[at].push_str(", changed");
            }
            None => {
                lines.insert(3, "content-type:text/plain".to_owned());
                let list = lines.len() - 2;
                lines[list] = format!("content-type;{}", lines[list]);
            }
        },
    );
}

#[test]
fn finds_another_date() {
    for vector in vectors() {
        for (date, day) in [("20260102T030905Z", "20260102"), ("20260103T000000Z", "20260103")] {
            let canonical = text(&vector, "canonical_request").replace(text(&vector, "amz_date"), date);
            let to_sign = text(&vector, "string_to_sign").replace(text(&vector, "amz_date"), date);
            let to_sign = to_sign.replace("\n20260102/", &format!("\n{day}/"));
            let differences = found(&vector, &canonical, &to_sign);
            assert_eq!(differences.len(), 1, "{}: {differences:?}", vector["name"]);
            assert_eq!((&differences[0].part, differences[0].aws.as_deref()), (&Part::Date, Some(date)));
        }
    }
}

#[test]
fn finds_another_scope_and_query() {
    for vector in vectors() {
        let to_sign = text(&vector, "string_to_sign").replace("/us-", "/eu-");
        let differences = found(&vector, text(&vector, "canonical_request"), &to_sign);
        assert_eq!(differences.len(), 1, "{}", vector["name"]);
        assert_eq!(differences[0].part, Part::Scope);
    }
    finds(|_| Part::Query, |_, lines| lines[2] += "more=1");
}

#[test]
fn a_difference_says_line_values_and_meaning() {
    let vector = &vectors()[0];
    let canonical =
        text(vector, "canonical_request").replace("host:bedrock-runtime.us-east-1", "host:bedrock.us-west-2");
    let differences = found(vector, &canonical, text(vector, "string_to_sign"));
    assert_eq!(differences[0].line, Some(4));
    assert_eq!(differences[0].ours.as_deref(), Some("bedrock-runtime.us-east-1.amazonaws.com"));
    assert_eq!(differences[0].aws.as_deref(), Some("bedrock.us-west-2.amazonaws.com"));
    assert!(differences[0].meaning.contains("SNI"));
}

#[test]
fn masks_session_tokens_that_differ() {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector["session_token"].is_string()).unwrap();
    let canonical = text(vector, "canonical_request").replace(text(vector, "session_token"), "another-token");
    let differences = found(vector, &canonical, text(vector, "string_to_sign"));
    let shown = format!("{differences:?}");
    assert!(shown.contains("x-amz-security-token") && shown.contains(MASK), "{shown}");
    assert!(!shown.contains("another-token") && !shown.contains(text(vector, "session_token")), "{shown}");
}
