//! VPN and Direct Connect: BGP, no keys in templates, current ciphers, and alarms.
//! Source: AWS Site-to-Site VPN User Guide, "Tunnel options"; AWS Direct Connect User Guide, "Monitor with Amazon CloudWatch".

use serde_json::Value;

use super::{Report, given, is_true, texts};

/// The values that a tunnel's properties may have.
const TUNNEL: [(&str, &[&str]); 7] = [
    ("IKEVersions", &["ikev2"]),
    ("Phase1EncryptionAlgorithms", &["AES256-GCM-16"]),
    ("Phase2EncryptionAlgorithms", &["AES256-GCM-16"]),
    ("Phase1IntegrityAlgorithms", &["SHA2-384", "SHA2-512"]),
    ("Phase2IntegrityAlgorithms", &["SHA2-384", "SHA2-512"]),
    ("Phase1DHGroupNumbers", &["19", "20", "21"]),
    ("Phase2DHGroupNumbers", &["19", "20", "21"]),
];

/// Resource types that need an alarm in their template: type, namespace and metric. The alarm's dimensions refer to the
/// resource.
const WATCHED: [(&str, &str, &str); 4] = [
    ("AWS::EC2::VPNConnection", "AWS/VPN", "TunnelState"),
    ("AWS::DirectConnect::PrivateVirtualInterface", "AWS/DX", "VirtualInterfaceBgpStatus"),
    ("AWS::DirectConnect::PrivateVirtualInterface", "AWS/DX", "VirtualInterfaceBgpPrefixesAccepted"),
    ("AWS::DirectConnect::Connection", "AWS/DX", "ConnectionState"),
];

pub(super) fn check(report: &mut Report<'_>) {
    let resource = report.resource;
    match resource.kind {
        "AWS::EC2::CustomerGateway" if !given(resource.property("/BgpAsn")) => {
            report.fault("bgp", "/Properties", "BgpAsn", "no AS number; the default belongs to somebody else");
        }
        "AWS::EC2::VPNConnection" => connection(report),
        "AWS::DirectConnect::PrivateVirtualInterface" => peers(report),
        "AWS::DirectConnect::DirectConnectGatewayAssociation"
            if !given(resource.property("/AllowedPrefixesToDirectConnectGateway")) =>
        {
            let subject = "AllowedPrefixesToDirectConnectGateway";
            report.fault("bgp", "/Properties", subject, "missing: it limits the announced ranges");
        }
        "AWS::EC2::VPNGatewayRoutePropagation" => propagation(report),
        "AWS::CloudWatch::Alarm" if resource.property("/AlarmActions").as_array().is_none_or(Vec::is_empty) => {
            report.fault("alarm", "/Properties", "AlarmActions", "no action: the alarm notifies nobody");
        }
        _ => {}
    }
    for (_, namespace, metric) in WATCHED.iter().filter(|(kind, ..)| *kind == resource.kind) {
        let watched = report.template.of_type("AWS::CloudWatch::Alarm").any(|alarm| {
            let metrics = alarm.property("/Metrics").as_array();
            let metrics = metrics.into_iter().flatten().filter_map(|metric| metric.pointer("/MetricStat/Metric"));
            std::iter::once(alarm.property("")).chain(metrics).any(|watched| {
                let text = |key| watched.get(key).and_then(Value::as_str);
                text("Namespace") == Some(namespace)
                    && text("MetricName") == Some(metric)
                    && watched.get("Dimensions").is_some_and(|dimensions| refers(dimensions, resource.id))
            })
        });
        if !watched {
            report.fault("alarm", "", format!("{namespace} {metric}"), "no alarm of the template watches this metric");
        }
    }
}

/// Routes propagate from a gateway that is attached, and that is associated with its Direct Connect gateway: otherwise the
/// propagation fails, or has no routes.
/// Source: AWS Direct Connect User Guide, "Virtual private gateway associations",
/// <https://docs.aws.amazon.com/directconnect/latest/UserGuide/virtualgateways.html>.
fn propagation(report: &mut Report<'_>) {
    let (template, resource) = (report.template, report.resource);
    let Some(gateway) = resource.property("/VpnGatewayId").get("Ref").and_then(Value::as_str) else { return };
    let awaited = resource.body.get("DependsOn").map(texts).unwrap_or_default();
    for (kind, property) in [
        ("AWS::EC2::VPCGatewayAttachment", "/VpnGatewayId"),
        ("AWS::DirectConnect::DirectConnectGatewayAssociation", "/AssociatedGatewayId"),
    ] {
        for needed in template.of_type(kind).filter(|needed| refers(needed.property(property), gateway)) {
            if !awaited.contains(&needed.id) {
                let problem = "does not wait for it; name it in DependsOn";
                report.fault("propagation", "/DependsOn", needed.id, problem);
            }
        }
    }
}

/// Whether a value refers to a resource.
fn refers(value: &Value, id: &str) -> bool {
    match value {
        Value::Object(object) => {
            object.get("Ref").and_then(Value::as_str) == Some(id) || object.values().any(|value| refers(value, id))
        }
        Value::Array(items) => items.iter().any(|item| refers(item, id)),
        _ => false,
    }
}

fn connection(report: &mut Report<'_>) {
    if is_true(report.resource.property("/StaticRoutesOnly")) {
        let problem = "without BGP a failed tunnel keeps its routes";
        report.fault("bgp", "/Properties/StaticRoutesOnly", "StaticRoutesOnly", problem);
    }
    let tunnels = report.resource.property("/VpnTunnelOptionsSpecifications").as_array();
    if tunnels.map_or(0, Vec::len) != 2 {
        let subject = "VpnTunnelOptionsSpecifications";
        report.fault("ipsec", "/Properties", subject, "want options for both tunnels; AWS's defaults allow SHA-1");
    }
    for (index, tunnel) in tunnels.into_iter().flatten().enumerate() {
        let place = format!("/Properties/VpnTunnelOptionsSpecifications/{index}");
        if tunnel.get("PreSharedKey").is_some() {
            let problem = "a key in a template; without the property AWS creates one";
            report.fault("clear", &format!("{place}/PreSharedKey"), "PreSharedKey", problem);
        }
        for (name, wanted) in TUNNEL {
            let values = tunnel.get(name).and_then(Value::as_array);
            let values: Vec<String> =
                values.into_iter().flatten().filter_map(|value| plain(value.get("Value")?)).collect();
            if values.is_empty() || !values.iter().all(|value| wanted.contains(&value.as_str())) {
                report.fault(
                    "ipsec",
                    &format!("{place}/{name}"),
                    name,
                    format!("{values:?}; want values of {wanted:?} only"),
                );
            }
        }
    }
}

fn plain(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}

fn peers(report: &mut Report<'_>) {
    let peers = report.resource.property("/BgpPeers").as_array();
    for (index, peer) in peers.into_iter().flatten().enumerate() {
        let place = format!("/Properties/BgpPeers/{index}");
        let key = peer.get("AuthKey").unwrap_or(&Value::Null);
        if !given(key) {
            report.fault("bgp", &place, "AuthKey", "no key: anybody on the VLAN may take the BGP session over");
        } else if !texts(key).iter().any(|text| text.starts_with("{{resolve:secretsmanager:")) {
            let problem = "a key in clear text; read it from a secret with {{resolve:secretsmanager:…}}";
            report.fault("clear", &format!("{place}/AuthKey"), "AuthKey", problem);
        }
    }
}
