//! Keepalive: load balancers, NAT gateways and firewalls forget a connection without packets, and a call is silent while a
//! model works.

use serde_json::Value;

use super::values::number;
use super::{At, Fault};

/// Half of 350 s, after which AWS's network load balancers and NAT gateways forget a silent connection, by default
/// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html>,
/// <https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html>).
const LONGEST: u64 = 175;

const LOST: &str = "load balancers and NAT gateways forget a call that is silent for 350 s";

// SO_KEEPALIVE and TCP_KEEPIDLE on Linux, as (level, name).
const SO_KEEPALIVE: (u64, u64) = (1, 9);
const TCP_KEEPIDLE: (u64, u64) = (6, 4);

/// A listener that takes calls. An internal one has no sockets.
pub(super) fn listener(at: &At<'_>, key: &str, listener: &Value, found: &mut Vec<Fault>) {
    if listener.get("internal_listener").is_some() {
        return;
    }
    let option = |(level, name): (u64, u64)| {
        let options = listener.get("socket_options").and_then(Value::as_array).into_iter().flatten();
        let is_meant = |option: &&Value| {
            option.get("level").and_then(number) == Some(level) && option.get("name").and_then(number) == Some(name)
        };
        options.filter(is_meant).find_map(|option| option.get("int_value").and_then(number))
    };
    if option(SO_KEEPALIVE).is_some_and(|value| value != 0) && option(TCP_KEEPIDLE).is_some_and(is_short) {
        return;
    }
    keepalive(at, &format!("{key}.tcp_keepalive"), listener.get("tcp_keepalive"), found);
}

/// A cluster of Bedrock.
pub(super) fn cluster(at: &At<'_>, key: &str, cluster: &Value, found: &mut Vec<Fault>) {
    let own = cluster.pointer("/upstream_connection_options/tcp_keepalive");
    keepalive(at, &format!("{key}.upstream_connection_options.tcp_keepalive"), own, found);
}

/// Envoy's default for a time is the kernel's, 2 hours on Linux (`TcpKeepalive` of Envoy's config/core/v3/address.proto).
fn keepalive(at: &At<'_>, key: &str, own: Option<&Value>, found: &mut Vec<Fault>) {
    let Some(own) = own else {
        found.push(at.fault(key, format!("is missing: {LOST}; want {{ keepalive_time: 60, keepalive_interval: 15 }}")));
        return;
    };
    for name in ["keepalive_time", "keepalive_interval"] {
        let seconds = own.get(name).and_then(number);
        if !seconds.is_some_and(is_short) {
            let said =
                seconds.map_or_else(|| "not the kernel's default".to_owned(), |seconds| format!("not {seconds}"));
            found.push(at.fault(&format!("{key}.{name}"), format!("want {LONGEST} s or less, {said}: {LOST}")));
        }
    }
}

/// Istio's `tcpKeepalive`, whose times are durations.
pub(super) fn destination(pool: Option<&Value>) -> Option<String> {
    let time = |name: &str| {
        let text = pool?.pointer(&format!("/tcp/tcpKeepalive/{name}"))?.as_str()?;
        text.strip_suffix('s')?.parse::<u64>().ok()
    };
    let is_kept = ["time", "interval"].into_iter().all(|name| time(name).is_some_and(is_short));
    (!is_kept).then(|| format!("want {{ time: 60s, interval: 15s }}, {LONGEST}s at most: {LOST}"))
}

fn is_short(seconds: u64) -> bool {
    (1..=LONGEST).contains(&seconds)
}
