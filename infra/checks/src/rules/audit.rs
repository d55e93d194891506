//! The audit table has the keys, index and TTL that the collector uses (`audit::table`).

use std::collections::BTreeMap;

use ::audit::table;
use serde_json::{Value, json};

use super::Report;

pub(super) fn check(report: &mut Report<'_>) {
    if report.resource.kind != "AWS::DynamoDB::Table" {
        return;
    }
    let key = |name: &str, kind: &str| json!({"AttributeName": name, "KeyType": kind});
    let wanted = [
        ("/BillingMode", json!("PAY_PER_REQUEST")),
        ("/KeySchema", json!([key(table::KEY, "HASH")])),
        ("/TimeToLiveSpecification", json!({"AttributeName": table::TTL, "Enabled": true})),
        (
            "/GlobalSecondaryIndexes",
            json!([{
                "IndexName": table::INDEX,
                "KeySchema": [key(table::INDEX_HASH, "HASH"), key(table::INDEX_RANGE, "RANGE")],
                "Projection": {"ProjectionType": "ALL"},
            }]),
        ),
    ];
    for (pointer, wanted) in wanted {
        compare(report, pointer, &wanted);
    }
    let found: BTreeMap<&str, &str> = report
        .resource
        .property("/AttributeDefinitions")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|attribute| Some((attribute["AttributeName"].as_str()?, attribute["AttributeType"].as_str()?)))
        .collect();
    let wanted = BTreeMap::from([(table::KEY, "S"), (table::INDEX_HASH, "S"), (table::INDEX_RANGE, "S")]);
    if found != wanted {
        let problem = format!("{found:?}; the collector uses {wanted:?}");
        report.fault("table", "/Properties/AttributeDefinitions", "AttributeDefinitions", problem);
    }
}

fn compare(report: &mut Report<'_>, pointer: &str, wanted: &Value) {
    let found = report.resource.property(pointer);
    if found != wanted {
        let problem = format!("{found}; the collector uses {wanted}");
        report.fault("table", &format!("/Properties{pointer}"), pointer.trim_start_matches('/'), problem);
    }
}
