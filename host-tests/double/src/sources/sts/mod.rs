//! STS of both partitions, in its query protocol: which endpoint a request is for, its parameters, and the form of answers.
//!
//! Sources: STS API Reference, "Common Errors" (https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html); the
//! endpoints are those of botocore (`endpoints.json`, `endpoint-rule-set-1.json`).

mod assume;
mod form;
mod token;

use hyper::http::request::Parts;

use super::Shared;
use super::answer::{Answer, Refused, header, text, with_headers};
use form::Form;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// An endpoint of STS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint<'a> {
    /// `sts.amazonaws.com`.
    Global,
    Regional {
        partition: &'static str,
        region: &'a str,
    },
}

pub(super) fn answer(parts: &Parts, body: &[u8], shared: &Shared) -> Answer {
    let id = shared.request_id();
    let answered = action(parts, body, shared);
    let answer = match answered {
        Ok((action, result)) => {
            shared.served(action);
            match result {
                Reply::Result(result) => text(
                    200,
                    format!(
                        "<{action}Response xmlns=\"{NAMESPACE}\">\n  <{action}Result>{result}</{action}Result>\n  \
                         <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata>\n</{action}Response>\n"
                    ),
                ),
                Reply::Whole(xml) => text(200, xml),
            }
        }
        Err((action, refused)) => {
            shared.complain(format!("{action}: {refused}"));
            refusal(&refused, &id)
        }
    };
    with_headers(answer, &[("x-amzn-requestid", &id), ("content-type", "text/xml")])
}

/// The answer of a service that is busy or broken: codes of botocore's retry rules (`_retry.json`) and "Common Errors".
pub(super) fn fault(throttled: bool, shared: &Shared) -> Answer {
    let id = shared.request_id();
    let refused = if throttled {
        Refused::new(400, "Throttling", "Rate exceeded")
    } else {
        Refused::new(503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server.")
    };
    with_headers(refusal(&refused, &id), &[("x-amzn-requestid", &id), ("content-type", "text/xml")])
}

fn refusal(refused: &Refused, id: &str) -> Answer {
    let sender = if refused.status < 500 { "Sender" } else { "Receiver" };
    text(
        refused.status,
        format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\">\n  <Error>\n    <Type>{sender}</Type>\n    <Code>{}</Code>\n    \
             <Message>{}</Message>\n  </Error>\n  <RequestId>{id}</RequestId>\n</ErrorResponse>\n",
            refused.code,
            escape(&refused.message)
        ),
    )
}

/// What an action answers with.
enum Reply {
    /// The content of its result element.
    Result(String),
    /// All of the XML, from another STS.
    Whole(String),
}

fn action(parts: &Parts, body: &[u8], shared: &Shared) -> Result<(&'static str, Reply), (String, Refused)> {
    let of = |action: &str| {
        let action = action.to_owned();
        move |refused: Refused| (action, refused)
    };
    let host = header(parts, "host");
    let Some(endpoint) = endpoint(host) else {
        return Err((host.to_owned(), Refused::new(404, "InvalidAction", "the host is not an endpoint of STS")));
    };
    let mut form = Form::parse(parts, body).map_err(of("STS"))?;
    let name = form.take("Action").unwrap_or_default();
    let version = form.take("Version").unwrap_or_default();
    if version != "2011-06-15" {
        return Err((name.clone(), invalid_action(&name, &version)));
    }
    match name.as_str() {
        "GetWebIdentityToken" => {
            let xml = token::get(parts, body, endpoint, form, shared).map_err(of(&name))?;
            Ok(("GetWebIdentityToken", Reply::Result(xml)))
        }
        "AssumeRoleWithWebIdentity" => {
            let reply = assume::with_web_identity(parts, body, endpoint, form, shared).map_err(of(&name))?;
            Ok(("AssumeRoleWithWebIdentity", reply))
        }
        _ => Err((name.clone(), invalid_action(&name, &version))),
    }
}

/// InvalidAction, 400 ("Common Errors"); the words are this double's.
fn invalid_action(action: &str, version: &str) -> Refused {
    Refused::new(400, "InvalidAction", format!("no action {action} in version {version}"))
}

/// The double's own configuration is wrong: a policy that it cannot evaluate.
fn internal(error: String) -> Refused {
    Refused::new(500, "InternalFailure", error)
}

/// STS in GovCloud has no host with `-fips`: its regional hosts are FIPS endpoints themselves.
fn endpoint(host: &str) -> Option<Endpoint<'_>> {
    if host == "sts.amazonaws.com" {
        return Some(Endpoint::Global);
    }
    let rest = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".api.aws"))?;
    let (service, region) = rest.split_once('.')?;
    let partition = match (service, region) {
        ("sts", "us-gov-west-1" | "us-gov-east-1") => "aws-us-gov",
        ("sts-fips", "us-east-1" | "us-east-2" | "us-west-1" | "us-west-2") => "aws",
        ("sts", region) if is_commercial(region) => "aws",
        _ => return None,
    };
    Some(Endpoint::Regional { partition, region })
}

/// Whether a region has the form of those in the partition `aws` (`partitions.json` of botocore).
pub(super) fn is_commercial(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    let [area, direction, number] = parts[..] else { return false };
    let known = ["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"].contains(&area);
    let lower = !direction.is_empty() && direction.bytes().all(|byte| byte.is_ascii_lowercase());
    known && lower && number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_botocore() {
        let regional = |partition, region| Some(Endpoint::Regional { partition, region });
        for (host, expected) in [
            ("sts.amazonaws.com", Some(Endpoint::Global)),
            ("sts.us-gov-west-1.amazonaws.com", regional("aws-us-gov", "us-gov-west-1")),
            ("sts.us-gov-east-1.api.aws", regional("aws-us-gov", "us-gov-east-1")),
            ("sts-fips.us-gov-west-1.amazonaws.com", None),
            ("sts-fips.us-east-1.amazonaws.com", regional("aws", "us-east-1")),
            ("sts.eu-central-1.api.aws", regional("aws", "eu-central-1")),
            ("sts.cn-north-1.amazonaws.com", None),
            ("sts.us-east-1.amazonaws.com:443", None),
            ("sts.us-east-1.example.com", None),
        ] {
            assert_eq!(endpoint(host), expected, "{host}");
        }
    }
}
