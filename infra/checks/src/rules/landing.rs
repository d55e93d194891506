//! What a landing zone asks: a permissions boundary for each identity, return routes through a transit gateway, and names that
//! Route 53 takes in GovCloud.

use filter_core::names::Partition;
use serde_json::{Value, json};

use super::{Report, given};

pub(super) fn check(report: &mut Report<'_>) {
    match report.resource.kind {
        "AWS::IAM::Role" | "AWS::IAM::User" => boundary(report),
        "AWS::EC2::Route" if given(report.resource.property("/TransitGatewayId")) => route(report),
        "AWS::EC2::TransitGatewayAttachment" => every_table(report),
        "AWS::Route53::RecordSet"
            if report.template.partition == Partition::GovCloud && given(report.resource.property("/AliasTarget")) =>
        {
            let problem = "GovCloud takes an alias to a record of the same zone only; want a CNAME";
            report.fault("name", "/Properties/AliasTarget", "AliasTarget", problem);
        }
        _ => {}
    }
}

/// A policy of the organisation may refuse to create an identity without a boundary.
/// Source: IAM User Guide, "Permissions boundaries for IAM entities",
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html>.
fn boundary(report: &mut Report<'_>) {
    let wanted = json!({ "Fn::If": ["HasBoundary", { "Ref": "PermissionsBoundaryArn" }, { "Ref": "AWS::NoValue" }] });
    if report.resource.property("/PermissionsBoundary") != &wanted {
        let problem = "want the parameter PermissionsBoundaryArn, and no boundary where it is empty";
        report.fault("boundary", "/Properties", "PermissionsBoundary", problem);
    }
}

/// Source: CloudFormation User Guide, "AWS::EC2::Route",
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-ec2-route.html>: the route depends on the attachment.
fn route(report: &mut Report<'_>) {
    let template = report.template;
    let waits = match report.resource.body.get("DependsOn") {
        Some(Value::String(id)) => vec![id.as_str()],
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for attachment in template.of_type("AWS::EC2::TransitGatewayAttachment") {
        if !waits.contains(&attachment.id) {
            report.fault("transit", "", attachment.id, "want DependsOn: the route needs the attachment");
        }
    }
}

/// Each private route table has a way back to the clients, by range and by prefix list.
fn every_table(report: &mut Report<'_>) {
    let table = |route: &super::Resource<'_>| route.property("/RouteTableId/Ref").as_str().map(str::to_owned);
    let template = report.template;
    let tables: Vec<&str> =
        template.of_type("AWS::EC2::RouteTable").map(|table| table.id).filter(|id| id.starts_with("Private")).collect();
    for destination in ["/DestinationCidrBlock", "/DestinationPrefixListId"] {
        let found: Vec<String> = template
            .of_type("AWS::EC2::Route")
            .filter(|route| given(route.property("/TransitGatewayId")) && given(route.property(destination)))
            .filter_map(|route| table(&route))
            .collect();
        for id in tables.iter().filter(|id| !found.iter().any(|found| found == *id)) {
            let problem =
                format!("no route with {} through the transit gateway: answers would not return", &destination[1..]);
            report.fault("transit", "", *id, problem);
        }
    }
}
