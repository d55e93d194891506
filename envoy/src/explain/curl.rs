//! A curl command line as a request: what curl would send, headers and method that it adds included.

use super::http::is_header_name;
use super::request::{Request, path_of};
use super::shell::{self, Place, SplitError, Word};

/// Why a command line is not a request.
#[derive(Debug, thiserror::Error)]
pub enum CurlError {
    /// The shell would not take it, or would change it.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// An option that is not known here.
    #[error(
        "{at}: the option {option} is not known; known are {KNOWN}, and options that change nothing in the request"
    )]
    Unknown {
        /// The place.
        at: Place,
        /// The option.
        option: String,
    },
    /// An option that has no effect behind the gateway, or another one than meant.
    #[error("{at}: {option} {why}")]
    Refused {
        /// The place.
        at: Place,
        /// The option.
        option: String,
        /// The cause.
        why: &'static str,
    },
    /// An option at the end.
    #[error("{at}: {option} wants a value")]
    Value {
        /// The place.
        at: Place,
        /// The option.
        option: String,
    },
    /// `-H`.
    #[error("{0}: not a header; want 'NAME: VALUE'")]
    Header(Place),
    /// `-X`.
    #[error("{at}: '{method}' is not a method")]
    Method {
        /// The place.
        at: Place,
        /// The text that was given.
        method: String,
    },
    /// The URL.
    #[error("{at}: '{url}' is not a URL; want http://HOST/PATH")]
    Url {
        /// The place.
        at: Place,
        /// The text that was given.
        url: String,
    },
    /// More than one URL.
    #[error("{0}: a second URL; explain one request at a time")]
    SecondUrl(Place),
    /// No URL.
    #[error("the curl command has no URL")]
    NoUrl,
    /// `-d @FILE`.
    #[error("{at}: cannot read {file}: {error}")]
    File {
        /// The place.
        at: Place,
        /// The file.
        file: String,
        /// The cause.
        error: std::io::Error,
    },
}

const KNOWN: &str = "-X, -H, -d, --data-raw, --data-binary, --json, --url";

/// What an option does to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Method,
    Header,
    Data,
    Raw,
    Binary,
    Json,
    Url,
    /// Changes nothing in the request, and has a value.
    Ignored,
    /// Changes nothing in the request.
    Flag,
}

const OPTIONS: &[(&[&str], Effect)] = &[
    (&["-X", "--request"], Effect::Method),
    (&["-H", "--header"], Effect::Header),
    (&["-d", "--data", "--data-ascii"], Effect::Data),
    (&["--data-raw"], Effect::Raw),
    (&["--data-binary"], Effect::Binary),
    (&["--json"], Effect::Json),
    (&["--url"], Effect::Url),
    (&["-o", "--output", "-m", "--max-time", "--connect-timeout", "--cacert", "-w", "--write-out"], Effect::Ignored),
    (&["-s", "--silent", "-S", "--show-error", "-i", "--include", "-v", "--verbose", "-k", "--insecure"], Effect::Flag),
    (&["-N", "--no-buffer", "-f", "--fail", "--fail-with-body", "--http1.1", "--http2"], Effect::Flag),
    (&["--http2-prior-knowledge", "--compressed", "-g", "--globoff"], Effect::Flag),
];

const REFUSED: &[(&[&str], &str)] = &[
    (&["-b", "--cookie"], "sends cookies, which the gateway does not pass on; leave it out"),
    (&["-u", "--user", "--aws-sigv4"], "authenticates to AWS, which is the gateway's work; leave it out"),
    (&["-F", "--form"], "sends a form, which Bedrock does not take; give the JSON body with -d"),
    (&["-T", "--upload-file"], "sends PUT, which no operation of Bedrock has; give the body with --data-binary @FILE"),
    (&["-G", "--get"], "moves the body into the query; write the query into the URL"),
    (&["-I", "--head"], "sends HEAD, which no operation of Bedrock has"),
];

/// The options and URLs that were read so far.
#[derive(Debug, Default)]
struct CommandLine {
    method: Option<String>,
    url: Option<(Place, String)>,
    headers: Vec<(String, Vec<u8>)>,
    /// Headers of curl's own that are left out (`-H 'accept:'`).
    removed: Vec<String>,
    body: Option<Vec<u8>>,
    json: bool,
}

/// Parses a command line.
///
/// # Errors
/// [`CurlError`] names the option and its place.
pub(super) fn parse(text: &str) -> Result<Request, CurlError> {
    let mut words = shell::split(text)?.into_iter().skip(1);
    let mut line = CommandLine::default();
    while let Some(word) = words.next() {
        if !word.text.starts_with('-') || word.text == "-" {
            line.url(word.at, &word.text)?;
            continue;
        }
        for (option, attached) in options(&word)? {
            let name = option.1;
            let value = match (option.0, attached) {
                (Effect::Flag, _) => continue,
                (_, Some(value)) => Word { text: value, at: word.at },
                (_, None) => words.next().ok_or(CurlError::Value { at: word.at, option: name })?,
            };
            line.take(option.0, value)?;
        }
    }
    line.request()
}

type Known = (Effect, String);

/// The options in a word, each with the value that is attached to it: `--url=X`, `-XPOST`, `-sSd`.
fn options(word: &Word) -> Result<Vec<(Known, Option<String>)>, CurlError> {
    if word.text.starts_with("--") {
        // curl itself takes no `--option=value`; other programs' users write it.
        let (name, value) =
            word.text.split_once('=').map_or((word.text.as_str(), None), |(n, v)| (n, Some(v.to_owned())));
        return Ok(vec![((find(word.at, name)?, name.to_owned()), value)]);
    }
    let mut found = Vec::new();
    let mut letters = word.text.chars().skip(1);
    while let Some(letter) = letters.next() {
        let name = format!("-{letter}");
        let option = find(word.at, &name)?;
        if option == Effect::Flag {
            found.push(((option, name), None));
            continue;
        }
        let value: String = letters.collect();
        found.push(((option, name), Some(value).filter(|value| !value.is_empty())));
        break;
    }
    Ok(found)
}

fn find(at: Place, name: &str) -> Result<Effect, CurlError> {
    if let Some((_, why)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
        return Err(CurlError::Refused { at, option: name.to_owned(), why });
    }
    let found = OPTIONS.iter().find(|(names, _)| names.contains(&name)).map(|(_, option)| *option);
    found.ok_or_else(|| CurlError::Unknown { at, option: name.to_owned() })
}

impl CommandLine {
    fn take(&mut self, option: Effect, Word { text, at }: Word) -> Result<(), CurlError> {
        match option {
            Effect::Method => {
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                    return Err(CurlError::Method { at, method: text });
                }
                self.method = Some(text);
            }
            Effect::Header => self.header(at, &text)?,
            Effect::Data => self.data(file_or_text(at, text, true)?, b"&"),
            Effect::Raw => self.data(text.into_bytes(), b"&"),
            Effect::Binary => self.data(file_or_text(at, text, false)?, b"&"),
            Effect::Json => {
                self.json = true;
                self.data(file_or_text(at, text, false)?, b"");
            }
            Effect::Url => self.url(at, &text)?,
            Effect::Ignored | Effect::Flag => {}
        }
        Ok(())
    }

    fn url(&mut self, at: Place, url: &str) -> Result<(), CurlError> {
        if self.url.is_some() {
            return Err(CurlError::SecondUrl(at));
        }
        // curl takes a host without a scheme.
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let plain =
            !url.starts_with('/') && !url.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control());
        let path = path_of(&whole).filter(|_| plain && !url.is_empty());
        self.url = Some((at, path.ok_or_else(|| CurlError::Url { at, url: url.to_owned() })?));
        Ok(())
    }

    /// `NAME: VALUE`; `NAME:` leaves out what curl would send, `NAME;` sends it empty.
    fn header(&mut self, at: Place, text: &str) -> Result<(), CurlError> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.trim()).filter(|value| !value.is_empty())),
            None => (text.strip_suffix(';').ok_or(CurlError::Header(at))?, Some("")),
        };
        if !is_header_name(name) {
            return Err(CurlError::Header(at));
        }
        let name = name.to_ascii_lowercase();
        match value {
            Some(value) => self.headers.push((name, value.as_bytes().to_vec())),
            None => self.removed.push(name),
        }
        Ok(())
    }

    fn data(&mut self, data: Vec<u8>, between: &[u8]) {
        match &mut self.body {
            Some(body) => {
                body.extend_from_slice(between);
                body.extend(data);
            }
            None => self.body = Some(data),
        }
    }

    fn request(self) -> Result<Request, CurlError> {
        let (_, path) = self.url.ok_or(CurlError::NoUrl)?;
        let method = self.method.unwrap_or_else(|| if self.body.is_some() { "POST" } else { "GET" }.to_owned());
        let mut headers = self.headers;
        let mut add = |name: &str, value: &str| {
            if !self.removed.iter().any(|known| known == name) && !headers.iter().any(|(known, _)| known == name) {
                headers.push((name.to_owned(), value.as_bytes().to_vec()));
            }
        };
        if self.json {
            add("content-type", "application/json");
            add("accept", "application/json");
        }
        add("accept", "*/*");
        if let Some(body) = &self.body {
            add("content-type", "application/x-www-form-urlencoded");
            add_length(&mut headers, body.len());
        }
        Ok(Request { method, path, headers, body: self.body.unwrap_or_default() })
    }
}

/// Announces the length of a body that is not chunked.
fn add_length(headers: &mut Vec<(String, Vec<u8>)>, length: usize) {
    let announced = |(name, _): &(String, Vec<u8>)| name == "content-length" || name == "transfer-encoding";
    if !headers.iter().any(announced) {
        headers.push(("content-length".to_owned(), length.to_string().into_bytes()));
    }
}

/// `@FILE`; `-d` takes line breaks out of a file, `--data-binary` does not.
fn file_or_text(at: Place, text: String, without_breaks: bool) -> Result<Vec<u8>, CurlError> {
    let Some(file) = text.strip_prefix('@') else { return Ok(text.into_bytes()) };
    let file = file.to_owned();
    let mut body = std::fs::read(&file).map_err(|error| CurlError::File { at, file, error })?;
    if without_breaks {
        body.retain(|byte| !b"\r\n\0".contains(byte));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: Option<&[u8]>) -> Option<&str> {
        value.map(|value| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn reads_a_command_as_curl_does() {
        let request = parse(
            "curl -sS -X POST 'http://gw:10000/model/a%3A0/converse?x=1#y' -H 'Content-Type: application/json' \\\n  \
             -d '{\"a\": \"it'\\''s\"}'",
        )
        .unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/model/a%3A0/converse?x=1"));
        assert_eq!(text(request.header("content-type")), Some("application/json"));
        assert_eq!(text(request.header("accept")), Some("*/*"));
        assert_eq!(text(request.header("content-length")), Some("13"));
        assert_eq!(request.body, br#"{"a": "it's"}"#);
    }

    #[test]
    fn chooses_method_and_headers_as_curl_does() {
        for (command, method, content_type) in [
            ("curl gw/foundation-models", "GET", None),
            ("curl gw -d a -d b", "POST", Some("application/x-www-form-urlencoded")),
            ("curl gw --json {}", "POST", Some("application/json")),
            ("curl --url http://gw -XPUT --data-raw @a", "PUT", Some("application/x-www-form-urlencoded")),
            ("curl gw -d a -H content-type:", "POST", None),
            ("curl gw -d a -H 'content-type;'", "POST", Some("")),
            ("curl -sSd a gw", "POST", Some("application/x-www-form-urlencoded")),
        ] {
            let request = parse(command).unwrap();
            assert_eq!(
                (request.method.as_str(), text(request.header("content-type"))),
                (method, content_type),
                "{command}"
            );
        }
        assert_eq!(parse("curl gw -d a -d b").unwrap().body, b"a&b");
        assert_eq!(parse("curl gw --data-raw @a").unwrap().body, b"@a");
        assert_eq!(text(parse("curl gw --json {}").unwrap().header("accept")), Some("application/json"));
    }

    #[test]
    fn reads_a_body_from_a_file() {
        let file = std::env::temp_dir().join(format!("bedrock-gateway-curl-{}", std::process::id()));
        std::fs::write(&file, "{\r\n}\n").unwrap();
        let body = |option: &str| parse(&format!("curl gw {option} @{}", file.display())).unwrap().body;
        assert_eq!(body("-d"), b"{}");
        assert_eq!(body("--data-binary"), b"{\r\n}\n");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn names_option_and_place_of_a_fault() {
        for (command, wanted) in [
            ("curl", "the curl command has no URL"),
            ("curl gw gw", "column 9: a second URL"),
            ("curl 'http://gw/a b'", "column 6: 'http://gw/a b' is not a URL"),
            ("curl /model", "column 6: '/model' is not a URL"),
            ("curl gw -b a=b", "column 9: -b sends cookies"),
            ("curl gw --cookie a=b", "column 9: --cookie sends cookies"),
            ("curl gw -u a:b", "column 9: -u authenticates to AWS"),
            ("curl gw --proxy p", "column 9: the option --proxy is not known; known are -X, -H, -d"),
            ("curl gw -sZ", "column 9: the option -Z is not known"),
            ("curl gw -H", "column 9: -H wants a value"),
            ("curl gw -H nothing", "column 12: not a header; want 'NAME: VALUE'"),
            ("curl gw -X 'P OST'", "column 12: 'P OST' is not a method"),
            ("curl gw -d @/nowhere/at/all", "column 12: cannot read /nowhere/at/all: No such file"),
        ] {
            let error = parse(command).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{command}: {error}");
        }
    }
}
