//! A raw HTTP/1.1 request in a file: request line, headers, blank line, body; lines end in CRLF or LF.

use super::request::{Request, path_of};

/// Why a text is not a request, by line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The first line.
    #[error("line 1: not a request line; want METHOD PATH HTTP/1.1")]
    RequestLine,
    /// The request target.
    #[error("line 1: the target '{0}' has no path; want /PATH or http://HOST/PATH")]
    Target(String),
    /// A header line.
    #[error("line {line}: {problem}")]
    Header {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The body and its announced length differ.
    #[error("the body has {found} bytes, and the content-length on line {line} says {said}")]
    Length {
        /// The line of the header, from 1.
        line: usize,
        /// The announced length.
        said: u64,
        /// The length of the body in the file.
        found: u64,
    },
}

/// Parses a request.
///
/// # Errors
/// [`HttpError`] names the line.
pub(super) fn parse(text: &[u8]) -> Result<Request, HttpError> {
    let (first, mut rest) = line(text);
    let first = std::str::from_utf8(first).map_err(|_| HttpError::RequestLine)?;
    let mut parts = first.split(' ');
    let (method, target) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None)
            if !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic()) =>
        {
            (method, target)
        }
        _ => return Err(HttpError::RequestLine),
    };
    let path = path_of(target).ok_or_else(|| HttpError::Target(target.to_owned()))?;
    let mut request = Request { method: method.to_owned(), path, ..Request::default() };
    let mut length = None;
    for number in 2.. {
        let (header, after) = line(rest);
        rest = after;
        if header.is_empty() {
            break;
        }
        let (name, value) = parse_header(header).map_err(|problem| HttpError::Header { line: number, problem })?;
        if name == "content-length" {
            let said = std::str::from_utf8(&value).ok().and_then(|value| value.parse::<u64>().ok());
            length = said.map(|said| (number, said));
        }
        request.headers.push((name, value));
    }
    request.body = rest.to_vec();
    if let Some((line, said)) = length {
        // An editor ends a file with a line break that is not part of the body.
        let cut = usize::try_from(said).ok().and_then(|said| rest.split_at_checked(said));
        match cut {
            Some((body, end)) if end.iter().all(|byte| b"\r\n".contains(byte)) => request.body = body.to_vec(),
            _ => return Err(HttpError::Length { line, said, found: rest.len() as u64 }),
        }
    } else if !request.has("transfer-encoding") && !rest.is_empty() {
        request.headers.push(("content-length".to_owned(), rest.len().to_string().into_bytes()));
    }
    Ok(request)
}

/// The first line without its end, and the rest.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = text.splitn(2, |byte| *byte == b'\n');
    let first = parts.next().unwrap_or_default();
    (first.strip_suffix(b"\r").unwrap_or(first), parts.next().unwrap_or_default())
}

fn parse_header(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err("a header cannot be continued on the next line");
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or("no ':' in a header; want NAME: VALUE")?;
    let (name, value) = line.split_at(colon);
    let name = std::str::from_utf8(name).ok().filter(|name| is_header_name(name));
    let name = name.ok_or("not a header's name before ':'")?;
    Ok((name.to_ascii_lowercase(), value.get(1..).unwrap_or_default().trim_ascii().to_vec()))
}

/// Whether a text is a token of RFC 9110, as headers' names are.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_crlf_and_lf() {
        for text in [
            "POST /model/m/invoke?x=1 HTTP/1.1\r\nHost: gw\r\nContent-Type:  application/json \r\n\
             Content-Length: 2\r\n\r\n{}",
            "POST http://gw:10000/model/m/invoke?x=1 HTTP/1.1\nHost: gw\nContent-Type: application/json\n\
             Content-Length: 2\n\n{}\n",
        ] {
            let request = parse(text.as_bytes()).unwrap();
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/model/m/invoke?x=1"));
            assert_eq!(request.header("content-type"), Some(&b"application/json"[..]));
            assert_eq!(request.body, b"{}");
        }
    }

    #[test]
    fn announces_a_body_that_is_not_chunked() {
        let request = parse(b"POST / HTTP/1.1\n\nabc").unwrap();
        assert_eq!(request.header("content-length"), Some(&b"3"[..]));
        let request = parse(b"POST / HTTP/1.1\nTransfer-Encoding: chunked\n\nabc").unwrap();
        assert_eq!(request.header("content-length"), None);
        assert_eq!(parse(b"GET / HTTP/1.1\n").unwrap().header("content-length"), None);
    }

    #[test]
    fn names_the_line_of_a_fault() {
        for (text, wanted) in [
            ("", "line 1: not a request line"),
            ("POST /\n", "line 1: not a request line"),
            ("POST / HTTP/2\n", "line 1: not a request line"),
            ("POST model HTTP/1.1\n", "line 1: the target 'model' has no path"),
            ("POST / HTTP/1.1\nhost gw\n", "line 2: no ':' in a header"),
            ("POST / HTTP/1.1\nhost: gw\n more\n", "line 3: a header cannot be continued"),
            ("POST / HTTP/1.1\nho st: gw\n", "line 2: not a header's name"),
            (
                "POST / HTTP/1.1\ncontent-length: 9\n\n{}",
                "the body has 2 bytes, and the content-length on line 2 says 9",
            ),
            (
                "POST / HTTP/1.1\ncontent-length: 1\n\n{}",
                "the body has 2 bytes, and the content-length on line 2 says 1",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
    }
}
