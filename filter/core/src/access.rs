//! Who may call at all: by which host name, from which web page, and whether without a name of its own.
//!
//! A web page can make its reader's browser call any address that the browser reaches. It cannot change `origin` and
//! `sec-fetch-site`, which the browser sets (<https://fetch.spec.whatwg.org/#forbidden-request-header>), and SDKs send neither. A page
//! whose name is made to resolve to the gateway (DNS rebinding) is of the same origin as its calls, but they carry its name
//! as host.

use crate::config::{Anonymous, Config, ConfigError, GatewayApi, at};
use crate::headers::Headers;
use crate::model::{Pattern, patterns};
use crate::names::Partition;
use crate::route::SERVICES;
use std::net::{IpAddr, Ipv6Addr};

/// The longest name of a caller, in bytes: that of a SPIFFE id
/// (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#23-maximum-spiffe-id-length>).
const MAX_PRINCIPAL: usize = audit::text::MAX_TEXT;
/// Always allowed, as IP addresses and Bedrock's own names are: none is resolved by a name server that a stranger controls.
const LOCALHOST: &str = "localhost";

/// What the operator allows.
#[derive(Debug)]
pub struct Access {
    /// Lower-case names, or `*.` and a name; `None`: any.
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
    anonymous: Anonymous,
}

/// Who may read the gateway's own API: patterns of names, or all callers.
#[derive(Debug)]
pub struct Readers(Option<Vec<Pattern>>);

impl Readers {
    pub(crate) fn compile(config: &GatewayApi) -> Result<Self, ConfigError> {
        let compile = |principals: &Vec<String>| patterns("gateway_api.principals", principals);
        Ok(Self(config.principals.as_ref().map(compile).transpose()?))
    }

    pub(crate) fn admit(&self, principal: Option<&str>) -> bool {
        let Some(patterns) = &self.0 else { return true };
        principal.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }
}

/// Why a caller is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    /// The host is not in `hosts`.
    #[error("the gateway is not called by the host name '{0}'; its operator can add it to `hosts` (`up --host`)")]
    Host(String),
    /// The origin is not in `origins`.
    #[error(
        "web pages of '{0}' may not call the gateway; its operator can add the origin to `origins` (`up --origin`)"
    )]
    Origin(String),
    /// A browser says that another site's page calls.
    #[error("web pages of other sites may not call the gateway")]
    OtherSite,
    /// The caller has no name.
    #[error("the gateway serves only callers with a name (`anonymous: refuse`), and this one has proved none")]
    Anonymous,
    /// The caller's name is too long, or has characters that cannot be seen.
    #[error("the caller's name is longer than {MAX_PRINCIPAL} bytes, or has characters that cannot be seen")]
    Name,
}

impl Access {
    pub(crate) fn compile(config: &Config) -> Result<Self, ConfigError> {
        for (index, host) in config.hosts.iter().flatten().enumerate() {
            if !is_host(host) {
                let problem = format!(
                    "'{host}' is not a host name: want lower-case letters, digits, '-' and '.', without a port, and '*.' at most in front"
                );
                return Err(at(format!("hosts[{index}]"), problem));
            }
        }
        for (index, origin) in config.origins.iter().enumerate() {
            if !is_origin(origin) {
                let problem = format!(
                    "'{origin}' is not an origin: want `https://HOST`, with a port if it is not the scheme's own, and no path"
                );
                return Err(at(format!("origins[{index}]"), problem));
            }
        }
        if config.anonymous == Anonymous::Refuse && config.principal.is_empty() {
            return Err(at(
                "anonymous",
                "`refuse` would refuse every call: without the key `principal` callers have no name",
            ));
        }
        Ok(Self { hosts: config.hosts.clone(), origins: config.origins.clone(), anonymous: config.anonymous })
    }

    /// What happens to a caller without a name.
    pub fn anonymous(&self) -> Anonymous {
        self.anonymous
    }

    /// Refuses a call for what its headers and its caller's name say of the caller.
    ///
    /// # Errors
    /// [`AccessRefusal`] says why.
    pub fn check(&self, headers: &Headers, principal: Option<&str>) -> Result<(), AccessRefusal> {
        self.check_host(headers)?;
        self.check_page(headers)?;
        match principal {
            Some(name) if !is_name(name) => Err(AccessRefusal::Name),
            None if self.anonymous == Anonymous::Refuse => Err(AccessRefusal::Anonymous),
            _ => Ok(()),
        }
    }

    fn check_host(&self, headers: &Headers) -> Result<(), AccessRefusal> {
        let Some(hosts) = &self.hosts else { return Ok(()) };
        let text = headers.get(":authority").map(String::from_utf8_lossy).unwrap_or_default();
        let host = without_port(&text).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let is_below = |name: &str| {
            name.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
        };
        let is_own = host == LOCALHOST || is_address(host) || is_bedrock(host);
        let known = is_own || hosts.iter().any(|name| name == host || is_below(name));
        if known { Ok(()) } else { Err(AccessRefusal::Host(shown(&text))) }
    }

    fn check_page(&self, headers: &Headers) -> Result<(), AccessRefusal> {
        let values =
            |wanted: &'static str| headers.iter().filter(move |(name, _)| *name == wanted).map(|(_, value)| value);
        let is_known = |origin: &[u8]| self.origins.iter().any(|known| known.as_bytes() == origin);
        if let Some(stranger) = values("origin").find(|origin| !is_known(origin)) {
            return Err(AccessRefusal::Origin(shown(&String::from_utf8_lossy(stranger))));
        }
        // Browsers leave `origin` out of a GET that a page only embeds, such as an image.
        let named = values("origin").next().is_some();
        if !named && values("sec-fetch-site").any(|site| site != b"none" && site != b"same-origin") {
            return Err(AccessRefusal::OtherSite);
        }
        Ok(())
    }
}

/// A part of a text that a client chose, for a message.
fn shown(text: &str) -> String {
    let text: String = text.chars().take(100).collect();
    audit::text::visible(&text).into_owned()
}

/// Whether a caller's name is text that people and logs can show.
fn is_name(name: &str) -> bool {
    (1..=MAX_PRINCIPAL).contains(&name.len()) && audit::text::visible(name) == name
}

/// `host:80` → `host`, `[::1]:80` → `[::1]`.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()),
    }
}

/// One of Bedrock's names in any region: clients may be led here without a change of theirs.
fn is_bedrock(host: &str) -> bool {
    host.strip_suffix(".amazonaws.com").and_then(|rest| rest.split_once('.')).is_some_and(|(label, region)| {
        let service = label.strip_suffix("-fips").unwrap_or(label);
        SERVICES.iter().any(|known| known.name() == service) && Partition::of_region(region).is_some()
    })
}

fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            let ends = label.starts_with('-') || label.ends_with('-');
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && !ends && label.bytes().all(plain)
        })
}

/// As browsers write it: scheme and host in lower case, and no slash at the end; `null` is that of a page without one.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "null" };
    let host = without_port(rest);
    !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
        && (is_address(host) || (is_host(host) && !host.starts_with('*')))
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
