//! Reads the body of AWS's 403, JSON or XML.

use filter_core::credentials::errors;
use filter_core::credentials::responses::xml_text;
use filter_core::headers::Headers;
use serde_json::Value;

const CANONICAL: &str = "The Canonical String for this request should have been\n'";
const DENIED: &str = "the signature was right, and IAM refuses the call: look at the role's policy and at SCPs";
const EXPIRED: &str = "the session token has expired: look at the source of the credentials (docs/credentials.md)";
const UNKNOWN_KEY: &str =
    "AWS does not know the access key or its token: a key of another partition, or a token of another key";
const TO_SIGN: &str = "The String-to-Sign should have been\n'";

/// A refusal of AWS's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The error's code, if the body has it.
    pub code: Option<String>,
    /// The message.
    pub message: String,
    /// The canonical request, as AWS computed it from the request that arrived.
    pub canonical_request: Option<String>,
    /// The string to sign, as AWS computed it.
    pub string_to_sign: Option<String>,
}

/// Reads a body. `None` if it is neither JSON nor XML with a message.
pub fn parse(body: &str) -> Option<Refused> {
    let body = body.trim();
    let code = errors::code(&Headers::default(), body.as_bytes());
    let json: Option<Value> = serde_json::from_str(body).ok();
    let xml = |name: &'static str| xml_text(body.as_bytes(), name).ok().map(|text| text.replace("\r\n", "\n"));
    let message = match &json {
        Some(json) => ["message", "Message"].iter().find_map(|key| json.get(key)?.as_str()).map(str::to_owned),
        None => xml("Message"),
    }?;
    let message = message.replace("\r\n", "\n");
    let quoted = |start: &str, end: Option<&str>| {
        let (_, rest) = message.split_once(start)?;
        let rest = end.and_then(|end| rest.split_once(end)).map_or(rest, |(before, _)| before);
        Some(rest.trim_end().strip_suffix('\'')?.to_owned())
    };
    // S3 has elements of its own, outside the message.
    let element = |name| xml(name).filter(|_| json.is_none());
    Some(Refused {
        code,
        canonical_request: quoted(CANONICAL, Some(TO_SIGN)).or_else(|| element("CanonicalRequest")),
        string_to_sign: quoted(TO_SIGN, None).or_else(|| element("StringToSign")),
        message,
    })
}

impl Refused {
    /// The time of the request, as AWS read it (`20260102T030405Z`).
    pub fn time(&self) -> Option<&str> {
        self.string_to_sign.as_deref()?.lines().nth(1)
    }

    /// What the error usually means, where it is not about a difference in what is signed.
    pub fn meaning(&self) -> &'static str {
        let says = |text: &str| self.message.contains(text);
        match self.code.as_deref().unwrap_or_default() {
            "ExpiredTokenException" | "ExpiredToken" => EXPIRED,
            "UnrecognizedClientException" | "InvalidClientTokenId" => UNKNOWN_KEY,
            "AccessDeniedException" | "AccessDenied" => DENIED,
            _ if says("Signature expired") || says("Signature not yet current") || says("RequestTimeTooSkewed") => {
                "the machine's clock is off by more than five minutes: look at its NTP or chrony"
            }
            // The name of the error is in a header, so a body alone may lack it.
            _ if says("is not authorized to perform") => DENIED,
            _ if says("security token included in the request is expired") => EXPIRED,
            _ if says("security token included in the request is invalid") => UNKNOWN_KEY,
            _ if says("Credential should be scoped") => {
                "the region or service of the signature is not the endpoint's: look at `regions` and `regions.R.hosts`"
            }
            _ => "the body has no canonical request, so there is nothing to compare",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "The request signature we calculated does not match the signature you provided. Check your \
        AWS Secret Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical \
        String for this request should have been\n'GET\n/\n\nhost:it's\n\nhost\nab'\n\nThe String-to-Sign should have \
        been\n'AWS4-HMAC-SHA256\n20260102T030405Z\nscope\ncd'\n";

    fn check(refused: &Refused) {
        assert_eq!(refused.canonical_request.as_deref(), Some("GET\n/\n\nhost:it's\n\nhost\nab"));
        assert_eq!(refused.string_to_sign.as_deref(), Some("AWS4-HMAC-SHA256\n20260102T030405Z\nscope\ncd"));
        assert_eq!(refused.time(), Some("20260102T030405Z"));
    }

    #[test]
    fn reads_json_and_xml() {
        check(&parse(&serde_json::json!({ "message": MESSAGE }).to_string()).unwrap());
        check(
            &parse(&serde_json::json!({ "Message": MESSAGE, "__type": "x#InvalidSignatureException" }).to_string())
                .unwrap(),
        );
        let escaped = MESSAGE.replace('\'', "&#39;").replace('\n', "&#10;");
        let xml = format!(
            "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code>\
             <Message>{escaped}</Message></Error></ErrorResponse>"
        );
        let refused = parse(&xml).unwrap();
        assert_eq!(refused.code.as_deref(), Some("SignatureDoesNotMatch"));
        check(&refused);
    }

    #[test]
    fn reads_elements_outside_the_message() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
            <Message>It does not match.</Message>\
            <StringToSign>AWS4-HMAC-SHA256\n20260102T030405Z\nscope\ncd</StringToSign>\
            <CanonicalRequest>GET\n/\n\nhost:it&apos;s\n\nhost\nab</CanonicalRequest></Error>";
        check(&parse(xml).unwrap());
    }

    #[test]
    fn reads_what_is_not_about_a_difference() {
        let refused = parse(r#"{"message": "Signature expired: 20260102T030405Z is now earlier than …"}"#).unwrap();
        assert_eq!(refused.canonical_request, None);
        assert!(refused.meaning().contains("clock"));
        let denied =
            "User: arn:aws:sts::111122223333:assumed-role/gateway/x is not authorized to perform: bedrock:InvokeModel";
        let refused = parse(&serde_json::json!({ "message": denied }).to_string()).unwrap();
        assert!(refused.meaning().contains("IAM refuses the call"));
        assert_eq!(parse("no healthy upstream"), None);
        assert_eq!(parse("{}"), None);
    }
}
