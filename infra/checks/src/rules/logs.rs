//! ARNs of log groups. A log group's attribute `Arn` ends in `:*`. That covers the streams, but it is not the group itself.
//! Sources: AWS Service Authorization Reference, "Amazon CloudWatch Logs",
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatchlogs.html>; Amazon CloudWatch Logs
//! User Guide, "CloudWatch Logs resources and operations" (policies name a group with `:*`),
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html>. A group is named both ways,
//! since the two differ.

use serde_json::Value;

use super::{Report, texts};

/// Actions on a stream: `…:log-group:NAME:log-stream:STREAM`.
const STREAM: [&str; 4] = ["logs:CreateLogStream", "logs:DeleteLogStream", "logs:GetLogEvents", "logs:PutLogEvents"];
/// Actions without a resource type.
const NONE: [&str; 1] = ["logs:DescribeLogGroups"];

pub(super) fn check(report: &mut Report<'_>) {
    visit(report, report.resource.property(""), "/Properties");
}

fn visit(report: &mut Report<'_>, value: &Value, place: &str) {
    match value {
        Value::Object(object) => {
            let attribute = object.get("Fn::GetAtt").and_then(Value::as_array).map(Vec::as_slice);
            if let Some([Value::String(id), Value::String(name)]) = attribute
                && name == "Arn"
                && report.template.of_type("AWS::Logs::LogGroup").any(|group| group.id == id)
            {
                let problem = "it ends in :*; write the ARN, as …:log-group:${GROUP} or with :log-stream:*";
                report.fault("logs", place, format!("{id}.Arn"), problem);
            }
            if object.get("Effect").and_then(Value::as_str) == Some("Allow") {
                statement(report, value, place);
            }
            for (key, inner) in object {
                visit(report, inner, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit(report, item, &format!("{place}/{index}"));
            }
        }
        _ => {}
    }
}

fn statement(report: &mut Report<'_>, statement: &Value, place: &str) {
    let resources = statement.get("Resource").map(texts).unwrap_or_default();
    let streams = resources.iter().any(|resource| resource.ends_with('*'));
    let groups = resources.iter().any(|resource| !resource.ends_with(":*") && !resource.contains(":log-stream:"));
    for action in statement.get("Action").map(texts).unwrap_or_default() {
        let problem = match action {
            action if !action.starts_with("logs:") => continue,
            action if NONE.contains(&action) => {
                (!resources.contains(&"*")).then_some("it has no resource type; want *")
            }
            action if STREAM.contains(&action) => (!streams).then_some("want the group's streams, …:log-stream:*"),
            _ => (!groups || !streams).then_some("want the group twice, with and without :*"),
        };
        if let Some(problem) = problem {
            report.fault("logs", place, action, problem);
        }
    }
}
