//! Listening addresses, free ports, and HTTP requests to Envoy's admin page.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Errors of listening addresses.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The address is in use, not local, or not permitted.
    #[error("{option} {address}: {source}")]
    Listen {
        /// The command line option.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The system has no free port.
    #[error("no free port on 127.0.0.1: {0}")]
    NoPort(std::io::Error),
}

/// Fails if a port is in use. Envoy would share it with the other process (`SO_REUSEPORT`).
pub fn check_free(option: &'static str, address: SocketAddr) -> Result<(), AddressError> {
    TcpListener::bind(address).map(drop).map_err(|source| AddressError::Listen { option, address, source })
}

/// A free port of the loopback interface.
pub fn free_port() -> Result<u16, AddressError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(AddressError::NoPort)?;
    Ok(listener.local_addr().map_err(AddressError::NoPort)?.port())
}

/// The address to connect to for a listening address: `127.0.0.1` for `0.0.0.0`.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listening.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), listening.port())
        }
        _ => listening,
    }
}

/// Sends a request without a body. Returns status (0 if it cannot be read) and body.
pub fn request(address: SocketAddr, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { decode_chunked(body) } else { body.to_owned() }))
}

/// Decodes a chunked body, up to the first incomplete chunk.
fn decode_chunked(mut body: &str) -> String {
    let mut content = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Some(chunk) =
            usize::from_str_radix(size, 16).ok().filter(|size| *size > 0).and_then(|size| rest.get(..size))
        else {
            break;
        };
        content.push_str(chunk);
        body = rest.get(chunk.len() + 2..).unwrap_or_default();
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_chunks() {
        assert_eq!(decode_chunked("5\r\nLIVE\n\r\n2\r\nok\r\n0\r\n\r\n"), "LIVE\nok");
        assert_eq!(decode_chunked("ff\r\ncut"), "");
    }

    #[test]
    fn a_busy_address_is_refused_by_its_option() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = check_free("--listen", taken.local_addr().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("--listen 127.0.0.1:"), "{error}");
        assert!(check_free("--listen", SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()))).is_ok());
    }
}
