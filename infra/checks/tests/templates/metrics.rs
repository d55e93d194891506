//! Alarms and dashboards look at metrics that something sends, and what can fail on its own has an alarm.

use std::collections::BTreeSet;

use infra_checks::template::Template;
use infra_checks::templates;
use serde_json::Value;

/// Namespace and metric.
type Metric = (String, String);

const OWN: &str = "BedrockGateway/${Environment}";

/// Metrics of AWS's services, with the page that lists them.
const OF_AWS: &[(&str, &str, &[&str])] = &[
    (
        "AWS/NATGateway",
        "https://docs.aws.amazon.com/vpc/latest/userguide/metrics-dimensions-nat-gateway.html",
        &["ErrorPortAllocation", "PacketsDropCount", "PacketsInFromDestination", "PacketsInFromSource"],
    ),
    (
        "AWS/NetworkELB",
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-cloudwatch-metrics.html",
        &[
            "ActiveFlowCount",
            "HealthyHostCount",
            "NewFlowCount",
            "PortAllocationErrorCount",
            "RejectedFlowCount",
            "SecurityGroupBlockedFlowCount_Inbound_TCP",
            "TCP_Client_Reset_Count",
            "TCP_ELB_Reset_Count",
            "TCP_Target_Reset_Count",
            "UnHealthyHostCount",
        ],
    ),
    (
        "AWS/DynamoDB",
        "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html",
        &["WriteThrottleEvents"],
    ),
];

/// What must have an alarm in version 1.
const WATCHED: &[(&str, &str)] = &[
    ("AWS/NATGateway", "ErrorPortAllocation"),
    ("AWS/NATGateway", "PacketsDropCount"),
    ("AWS/NetworkELB", "PortAllocationErrorCount"),
    ("AWS/NetworkELB", "RejectedFlowCount"),
    ("AWS/NetworkELB", "UnHealthyHostCount"),
    (OWN, "ActiveCalls"),
    (OWN, "AuditGaps"),
    (OWN, "BedrockClockOffsetMs"),
    (OWN, "CallsWithoutRecord"),
    (OWN, "CatalogueAgeSeconds"),
    (OWN, "ClockErrorMs"),
    (OWN, "ClockUnsynchronised"),
    (OWN, "CollectorLagSeconds"),
    (OWN, "CollectorRestarts"),
    (OWN, "CollectorStoreWaitSeconds"),
    (OWN, "CollectorUp"),
    (OWN, "CredentialsSecondsLeft"),
    (OWN, "DiskUsedPercent"),
    (OWN, "EntriesRejected"),
    (OWN, "EnvoyWritesFailed"),
    (OWN, "FeedEntriesDropped"),
    (OWN, "ServicesDown"),
];

fn alarms_template() -> Template {
    Template::all(&templates()).unwrap().into_iter().find(|template| template.file == "govcloud/alarms.yaml").unwrap()
}

/// A string, or the text of a `!Sub`.
fn text(value: &Value) -> String {
    value.as_str().or_else(|| value["Fn::Sub"].as_str()).unwrap().to_owned()
}

fn of_alarms(template: &Template) -> BTreeSet<Metric> {
    let mut found = BTreeSet::new();
    for alarm in template.of_type("AWS::CloudWatch::Alarm") {
        let mut add = |metric: &Value| found.insert((text(&metric["Namespace"]), text(&metric["MetricName"])));
        match alarm.property("/Metrics").as_array() {
            Some(queries) => {
                let expressions: Vec<&str> = queries.iter().filter_map(|query| query["Expression"].as_str()).collect();
                for query in queries.iter().filter(|query| query["MetricStat"].is_object()) {
                    let id = query["Id"].as_str().unwrap();
                    let used = expressions.iter().any(|text| {
                        text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                            .any(|word| word == id)
                    });
                    assert!(used, "{}: no expression has {id}", alarm.id);
                    add(query.pointer("/MetricStat/Metric").unwrap());
                }
                // https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
                let returned = queries.iter().filter(|query| query["ReturnData"] != false).count();
                assert!(returned == 1 && queries.len() <= 20, "{}: one query returns the data", alarm.id);
            }
            None => {
                add(alarm.property(""));
            }
        }
    }
    found
}

/// A dashboard's body is JSON once its names have values; a row begins with namespace and metric.
fn of_dashboards(template: &Template) -> BTreeSet<Metric> {
    let mut found = BTreeSet::new();
    for dashboard in template.of_type("AWS::CloudWatch::Dashboard") {
        let body = dashboard.property("/DashboardBody/Fn::Sub/0").as_str().unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        for widget in body.pointer("/widgets").unwrap().as_array().unwrap() {
            for row in widget.pointer("/properties/metrics").unwrap().as_array().unwrap() {
                found.insert((text(&row[0]), text(&row[1])));
            }
        }
    }
    found
}

#[test]
fn each_metric_is_one_that_is_sent() {
    let template = alarms_template();
    let machine = std::fs::read_to_string(templates().join("../instance/metrics.py")).unwrap();
    let page = std::fs::read_to_string(templates().join("../../docs/metrics.md")).unwrap();
    let filters: BTreeSet<String> = template
        .of_type("AWS::Logs::MetricFilter")
        .map(|filter| text(filter.property("/MetricTransformations/0/MetricName")))
        .collect();
    let seen: BTreeSet<Metric> = of_alarms(&template).union(&of_dashboards(&template)).cloned().collect();
    assert!(seen.len() > 30, "found only {} metrics", seen.len());
    for (namespace, name) in &seen {
        let sent = if namespace == OWN {
            filters.contains(name)
                || (machine.contains(&format!("\"{name}\"")) && page.contains(&format!("\n| `{name}` |")))
        } else {
            OF_AWS.iter().any(|(of, _, names)| of == namespace && names.contains(&name.as_str()))
        };
        assert!(sent, "nothing sends {namespace} {name}");
    }
}

#[test]
fn what_fails_on_its_own_has_an_alarm() {
    let found = of_alarms(&alarms_template());
    for (namespace, name) in WATCHED {
        assert!(found.contains(&((*namespace).to_owned(), (*name).to_owned())), "no alarm of {namespace} {name}");
    }
}

/// No line at all looks like a collector that works, unless the alarm takes missing data for a fault.
#[test]
fn silence_of_the_collector_is_an_alarm() {
    let template = alarms_template();
    let alarm = template.of_type("AWS::CloudWatch::Alarm").find(|alarm| alarm.id == "CollectorDown").unwrap();
    assert_eq!(alarm.property("/TreatMissingData"), "breaching");
}

/// A month's price counts the metrics that alarms look at, and the dashboard (docs/costs.md).
#[test]
fn the_costs_count_version_1s_alarms() {
    let template = alarms_template();
    let (mut metrics, mut nat) = (0, 0);
    for alarm in template.of_type("AWS::CloudWatch::Alarm") {
        let queries = alarm.property("/Metrics").as_array();
        let count = queries.map_or(1, |all| all.iter().filter(|query| query["MetricStat"].is_object()).count());
        metrics += count;
        nat += if alarm.body["Condition"] == "HasNat" { count } else { 0 };
    }
    let filters = template.of_type("AWS::Logs::MetricFilter").count();
    let page = std::fs::read_to_string(templates().join("../../docs/costs.md")).unwrap();
    for row in [
        format!("| alarms: {metrics} metrics, {nat} of them of NAT gateways | {metrics} × `q` |"),
        format!("| metrics: {filters} from logs, 27 of the machines | {} × `u` |", filters + 27),
    ] {
        assert!(page.contains(&row), "docs/costs.md has no row {row:?}");
    }
}
