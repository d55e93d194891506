//! A request as the gateway's client sends it, whatever it was written as.

/// A request as the gateway's client sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query as on the wire.
    pub path: String,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// Whether there is a header of this name.
    pub fn has(&self, name: &str) -> bool {
        self.header(name).is_some()
    }
}

/// Path and query of a URL or of a request target, without a fragment.
pub(super) fn path_of(target: &str) -> Option<String> {
    let after_host = |rest: &str| match rest.find(['/', '?', '#']) {
        Some(start) => rest.get(start..).map(str::to_owned),
        None => Some("/".to_owned()),
    };
    let path = match target.split_once("://") {
        Some((_, rest)) => after_host(rest)?,
        None => target.strip_prefix('/').map(|rest| format!("/{rest}"))?,
    };
    let path = path.split('#').next().unwrap_or_default();
    Some(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}
