//! Connections of HTTP/1.1 to a gateway.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

/// The addresses that [`source`] gives. The gateway closes connections of a client that has 500 on a worker (`bedrock.connections` in
/// `envoy/base.yaml`).
const SOURCES: u32 = 8;

/// The address of a connection, so that many connections come from several clients: 127.0.0.2 to 127.0.0.9 in turn.
#[must_use]
pub fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + number % SOURCES)
}

/// Connects from one of this machine's addresses.
///
/// # Errors
///
/// If it cannot connect.
pub async fn connect(source: Ipv4Addr, gateway: SocketAddr) -> io::Result<SendRequest<Full<Bytes>>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let stream = socket.connect(gateway).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}
