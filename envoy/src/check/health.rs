//! Rules for the health checks of a cluster with several endpoints: they decide which path new calls take.

use filter_core::policy::Policy;
use serde_json::Value;

use super::values::number;
use super::{At, Fault};

/// What Bedrock answers to a check, which has no credentials: 403 or 404.
const ANSWERS: [u64; 2] = [403, 404];

pub(super) fn check(at: &At<'_>, key: &str, cluster: &Value, policy: &Policy, found: &mut Vec<Fault>) {
    let checks = cluster.get("health_checks").and_then(Value::as_array);
    if checks.is_none_or(Vec::is_empty) {
        let problem = "is missing: new calls would go to a path that is down";
        found.push(at.fault(&format!("{key}.health_checks"), problem));
    }
    for (index, check) in checks.into_iter().flatten().enumerate() {
        let key = format!("{key}.health_checks[{index}]");
        statuses(at, &key, check, found);
        failback(at, &key, check, policy, found);
    }
    // Envoy's default is 50 percent.
    if cluster.pointer("/common_lb_config/healthy_panic_threshold").and_then(percent) != Some(0.0) {
        let problem = "want { value: 0 }: with every path down, Envoy would send calls to paths that are down";
        found.push(at.fault(&format!("{key}.common_lb_config.healthy_panic_threshold"), problem));
    }
}

/// Envoy takes 200 only, where no statuses are named.
fn statuses(at: &At<'_>, key: &str, check: &Value, found: &mut Vec<Fault>) {
    let Some(http) = check.get("http_health_check") else { return };
    let ranges = http.get("expected_statuses").and_then(Value::as_array);
    let is_expected = |status: &u64| {
        ranges.into_iter().flatten().any(|range| {
            let bound = |name| range.get(name).and_then(number).unwrap_or_default();
            bound("start") <= *status && *status < bound("end")
        })
    };
    if !ANSWERS.iter().all(is_expected) {
        let problem = "want [{ start: 200, end: 600 }]: Bedrock answers a check with 403 or 404, and its path would count as down";
        found.push(at.fault(&format!("{key}.http_health_check.expected_statuses"), problem));
    }
}

/// The checks that have to pass span `failback_seconds`.
fn failback(at: &At<'_>, key: &str, check: &Value, policy: &Policy, found: &mut Vec<Fault>) {
    let seconds = policy.failback.as_secs_f64();
    let interval = check.get("interval").and_then(Value::as_str);
    let Some(interval) = interval.and_then(|text| text.strip_suffix('s')?.parse::<f64>().ok()) else { return };
    let Some(threshold) = check.get("healthy_threshold").and_then(number) else { return };
    #[expect(clippy::cast_precision_loss, reason = "a number of checks")]
    let spans = interval * threshold.saturating_sub(1) as f64;
    if interval > 0.0 && spans < seconds {
        let wanted = 1.0 + (seconds / interval).ceil();
        let problem = format!(
            "want {wanted}, not {threshold}: `failback_seconds` is {seconds}, and checks are {interval} s apart"
        );
        found.push(at.fault(&format!("{key}.healthy_threshold"), problem));
    }
}

/// `{}` is 0: Protobuf leaves out zeros.
fn percent(value: &Value) -> Option<f64> {
    value.as_object().map(|percent| percent.get("value").and_then(Value::as_f64).unwrap_or_default())
}
