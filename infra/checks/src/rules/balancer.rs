//! Load balancers and the groups behind them: connections outlive Envoy's idle time-out, and a machine that is still installing
//! itself is not replaced.

use serde_json::Value;

use super::{Report, texts};

/// Envoy ends an idle connection of a client after this many seconds (`idle_timeout` in envoy/base.yaml).
pub const ENVOY_IDLE: i64 = 3600;
/// Source: Elastic Load Balancing, "Update the TCP idle timeout for your Network Load Balancer listener",
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html>.
const IDLE: &str = "tcp.idle_timeout.seconds";
const IDLE_RANGE: std::ops::RangeInclusive<i64> = 60..=6000;

pub(super) fn check(report: &mut Report<'_>) {
    match report.resource.kind {
        "AWS::ElasticLoadBalancingV2::Listener" => listener(report),
        "AWS::AutoScaling::AutoScalingGroup" => grace(report),
        _ => {}
    }
}

fn listener(report: &mut Report<'_>) {
    match report.resource.property("/Protocol").as_str() {
        Some("TCP" | "TCP_UDP") => {}
        Some("TLS") => {
            let problem = "ends idle connections after 350 s, which cannot be changed; want TCP";
            return report.fault("idle", "/Properties/Protocol", "Protocol TLS", problem);
        }
        _ => return,
    }
    let attributes = report.resource.property("/ListenerAttributes").as_array();
    let attribute = attributes.into_iter().flatten().find(|attribute| attribute["Key"] == IDLE);
    let value = attribute.and_then(|attribute| number(&attribute["Value"]));
    match value {
        None => report.fault("idle", "/Properties", IDLE, "missing: the default ends idle connections after 350 s"),
        Some(value) if !IDLE_RANGE.contains(&value) || value <= ENVOY_IDLE => {
            let problem = format!("{value}; want more than Envoy's {ENVOY_IDLE}, and at most {}", IDLE_RANGE.end());
            report.fault("idle", "/Properties/ListenerAttributes", IDLE, problem);
        }
        Some(_) => {}
    }
}

/// Source: Amazon EC2 Auto Scaling User Guide, "Set the health check grace period for an Auto Scaling group",
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/health-check-grace-period.html>.
fn grace(report: &mut Report<'_>) {
    if !texts(report.resource.property("/HealthCheckType")).iter().any(|kind| kind.contains("ELB")) {
        return;
    }
    let times = ["/CreationPolicy/ResourceSignal/Timeout", "/UpdatePolicy/AutoScalingRollingUpdate/PauseTime"];
    let promised = times.iter().filter_map(|at| seconds(report.resource.body.pointer(at)?.as_str()?)).max();
    let grace = number(report.resource.property("/HealthCheckGracePeriod")).unwrap_or_default();
    if let Some(promised) = promised.filter(|promised| grace <= *promised) {
        let problem =
            format!("{grace}; a machine has {promised} seconds to install itself, and would be replaced before");
        report.fault("grace", "/Properties/HealthCheckGracePeriod", "HealthCheckGracePeriod", problem);
    }
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// A duration of ISO 8601 without days, `PT1H15M30S`.
fn seconds(text: &str) -> Option<i64> {
    let (mut total, mut number) = (0, 0);
    for letter in text.strip_prefix("PT")?.chars() {
        match letter {
            'H' => total += 3600 * std::mem::take(&mut number),
            'M' => total += 60 * std::mem::take(&mut number),
            'S' => total += std::mem::take(&mut number),
            _ => number = 10 * number + i64::from(letter.to_digit(10)?),
        }
    }
    Some(total)
}
