//! Compares AWS's canonical request and string to sign with the gateway's, part by part.

use filter_core::encoding::{decode, path_segments};
use serde::Serialize;

use super::mask;
use super::signature::Signature;

/// A part of the signed text that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The part.
    pub part: Part,
    /// The line in AWS's text, from 1; absent if AWS's text lacks the part.
    pub line: Option<usize>,
    /// The gateway's text; absent if it has no such part.
    pub ours: Option<String>,
    /// AWS's text; absent if it has no such part.
    pub aws: Option<String>,
    /// What the difference usually means.
    pub meaning: &'static str,
}

/// The parts of the signed text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The method.
    Method,
    /// The same path, encoded another way.
    PathEncoding,
    /// Another path.
    Path,
    /// The query.
    Query,
    /// The `host` header.
    Host,
    /// The time: `x-amz-date` and the string to sign's second line.
    Date,
    /// Another signed header, by name.
    Header(String),
    /// The list of signed headers.
    SignedHeaders,
    /// The hash of the body.
    Payload,
    /// The algorithm, the string to sign's first line.
    Algorithm,
    /// The credential scope, the string to sign's third line: day, region, service.
    Scope,
}

impl Part {
    /// The part in words.
    pub fn name(&self) -> String {
        match self {
            Self::Method => "method".to_owned(),
            Self::PathEncoding => "path encoding".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Query => "query".to_owned(),
            Self::Host => "header host".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Header(name) => format!("header {name}"),
            Self::SignedHeaders => "list of signed headers".to_owned(),
            Self::Payload => "payload hash".to_owned(),
            Self::Algorithm => "algorithm".to_owned(),
            Self::Scope => "credential scope".to_owned(),
        }
    }

    fn meaning(&self) -> &'static str {
        match self {
            Self::Method => "something between the gateway and AWS changed the method",
            Self::PathEncoding => {
                "the path was encoded or decoded on the way. The canonical path is the wire path encoded once more \
                 (%3A becomes %253A). Look for path normalisation in Envoy (`normalize_path`, \
                 `path_with_escaped_slashes_action`) and in proxies behind it"
            }
            Self::Path => {
                "the path that arrived is not the one that was signed: look for rewrites behind the gateway, or it is \
                 another request"
            }
            Self::Query => "the query was changed on the way, or it is another request",
            Self::Host => {
                "the Host that arrived is not the one that was signed: the path leads to another endpoint. Look at \
                 `regions.R.hosts` for this path, its address and SNI, and at proxies that rewrite Host"
            }
            Self::Date => {
                "the request was signed for another time: the clock is off, or an old signature was sent. Compare with \
                 the --time of the same attempt"
            }
            Self::Header(name) if name == "x-amz-security-token" => {
                "the keys are not the same: temporary keys have a session token, AWS_SESSION_TOKEN in the environment"
            }
            Self::Header(_) => {
                "the header was added, removed or changed after the signature: look at filters behind the signer and \
                 at proxies"
            }
            Self::SignedHeaders => "the request was signed with other headers: another client or version signed it",
            Self::Payload => {
                "the body was changed after it was hashed, or the request given here has another body. Look at body \
                 filters, compression and transcoding; with `request_metadata` the id in it differs from call to call"
            }
            Self::Algorithm => "another algorithm: something other than the gateway signed the request",
            Self::Scope => {
                "day, region or service differ: the endpoint is in another region than its label says, or the clock is \
                 off by a day"
            }
        }
    }
}

/// A canonical request in its parts, with the numbers of their lines.
#[derive(Debug, Default)]
struct Canonical<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    /// Line, name, value.
    headers: Vec<(usize, &'a str, &'a str)>,
    signed_headers: (usize, &'a str),
    payload: (usize, &'a str),
}

impl<'a> Canonical<'a> {
    fn parse(text: &'a str) -> Self {
        let mut lines = (1..).zip(text.lines());
        let mut next = || lines.next().unwrap_or_default();
        let mut canonical = Self { method: next().1, path: next().1, query: next().1, ..Self::default() };
        loop {
            let (number, line) = next();
            // An empty line ends the headers.
            let Some((name, value)) = line.split_once(':') else { break };
            canonical.headers.push((number, name, value));
        }
        (canonical.signed_headers, canonical.payload) = (next(), next());
        canonical
    }

    fn header(&self, name: &str) -> Option<(usize, &'a str)> {
        self.headers.iter().find(|(_, known, _)| *known == name).map(|(line, _, value)| (*line, *value))
    }
}

/// The differences, in the order of the texts. If there are none and AWS still refuses the signature, the secret access
/// key differs.
pub fn compare(ours: &Signature, canonical_request: Option<&str>, string_to_sign: Option<&str>) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differs = |part: Part, line: usize, ours: Option<&str>, aws: Option<&str>| {
        if ours != aws {
            let line = aws.map(|_| line);
            let shown = |text: Option<&str>| match &part {
                Part::Header(name) => text.map(|text| mask::header(name, text)),
                _ => text.map(str::to_owned),
            };
            found.push(Difference { meaning: part.meaning(), line, ours: shown(ours), aws: shown(aws), part });
        }
    };
    if let Some(text) = canonical_request {
        let (own, aws) = (Canonical::parse(&ours.canonical_request), Canonical::parse(text));
        differs(Part::Method, 1, Some(own.method), Some(aws.method));
        let same = plain(own.path) == plain(aws.path);
        differs(if same { Part::PathEncoding } else { Part::Path }, 2, Some(own.path), Some(aws.path));
        differs(Part::Query, 3, Some(own.query), Some(aws.query));
        let mut names: Vec<&str> = own.headers.iter().chain(&aws.headers).map(|(_, name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let mut added_or_removed = false;
        for name in names {
            let (own, aws) = (own.header(name), aws.header(name));
            added_or_removed |= own.is_some() != aws.is_some();
            let part = match name {
                "host" => Part::Host,
                "x-amz-date" => Part::Date,
                name => Part::Header(name.to_owned()),
            };
            differs(part, aws.map_or(0, |(line, _)| line), own.map(|(_, value)| value), aws.map(|(_, value)| value));
        }
        // The list follows from the headers.
        if !added_or_removed {
            let (line, list) = aws.signed_headers;
            differs(Part::SignedHeaders, line, Some(own.signed_headers.1), Some(list));
        }
        differs(Part::Payload, aws.payload.0, Some(own.payload.1), Some(aws.payload.1));
    }
    if let Some(text) = string_to_sign {
        let line = |text: &str, number: usize| text.lines().nth(number).unwrap_or_default().to_owned();
        let pair = |number: usize| (line(&ours.string_to_sign, number), line(text, number));
        let (own, aws) = pair(0);
        differs(Part::Algorithm, 1, Some(&own), Some(&aws));
        let (own_date, aws_date) = pair(1);
        let (own_scope, aws_scope) = pair(2);
        let known = canonical_request.is_some_and(|text| {
            Canonical::parse(text).header("x-amz-date")
                != Canonical::parse(&ours.canonical_request).header("x-amz-date")
        });
        if !known {
            differs(Part::Date, 2, Some(&own_date), Some(&aws_date));
        }
        // The day in the scope follows from the date.
        let rest = |scope: &str| scope.split_once('/').map(|(_, rest)| rest.to_owned());
        if own_date == aws_date || rest(&own_scope) != rest(&aws_scope) {
            differs(Part::Scope, 3, Some(&own_scope), Some(&aws_scope));
        }
    }
    found
}

/// A path without any encoding, and without empty and dot segments.
fn plain(path: &str) -> String {
    let mut text = path.to_owned();
    while let Ok(decoded) = decode(&text) {
        if decoded == text {
            break;
        }
        text = decoded;
    }
    path_segments(&text).join("/")
}
