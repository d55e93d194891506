//! Creates the table of `infra/templates/govcloud/audit.yaml` from its properties, as CloudFormation does.

use audit_collector::store::dynamodb::DynamoStore;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TimeToLiveSpecification,
};
use infra_checks::template::Template;
use serde_json::Value;

fn properties() -> Value {
    let templates = Template::all(&infra_checks::templates()).unwrap();
    let audit = templates.iter().find(|template| template.file == "govcloud/audit.yaml").unwrap();
    let tables: Vec<_> = audit.of_type("AWS::DynamoDB::Table").collect();
    assert_eq!(tables.len(), 1);
    tables[0].property("").clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn keys(schema: &Value) -> Vec<KeySchemaElement> {
    let element = |key: &Value| {
        let kind = KeyType::from(text(key, "KeyType"));
        KeySchemaElement::builder().attribute_name(text(key, "AttributeName")).key_type(kind).build().unwrap()
    };
    schema.as_array().unwrap().iter().map(element).collect()
}

/// Creates the table under that name and enables its TTL.
pub(crate) async fn create(client: &Client, name: &str) {
    let table = properties();
    let attributes = table["AttributeDefinitions"].as_array().unwrap().iter().map(|attribute| {
        let kind = ScalarAttributeType::from(text(attribute, "AttributeType"));
        let name = text(attribute, "AttributeName");
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    });
    let indexes = table["GlobalSecondaryIndexes"].as_array().unwrap().iter().map(|index| {
        let projection = ProjectionType::from(text(&index["Projection"], "ProjectionType"));
        GlobalSecondaryIndex::builder()
            .index_name(text(index, "IndexName"))
            .set_key_schema(Some(keys(&index["KeySchema"])))
            .projection(Projection::builder().projection_type(projection).build())
            .build()
            .unwrap()
    });
    client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::from(text(&table, "BillingMode")))
        .set_attribute_definitions(Some(attributes.collect()))
        .set_key_schema(Some(keys(&table["KeySchema"])))
        .set_global_secondary_indexes(Some(indexes.collect()))
        .send()
        .await
        .unwrap();
    let ttl = &table["TimeToLiveSpecification"];
    let ttl = TimeToLiveSpecification::builder()
        .attribute_name(text(ttl, "AttributeName"))
        .enabled(ttl["Enabled"].as_bool().unwrap())
        .build()
        .unwrap();
    client.update_time_to_live().table_name(name).time_to_live_specification(ttl).send().await.unwrap();
}

/// DynamoDB's description of a table, without names, times and counts.
pub(crate) async fn shape(store: &DynamoStore, name: &str) -> String {
    let table = store.client().describe_table().table_name(name).send().await.unwrap().table.unwrap();
    let ttl = store.client().describe_time_to_live().table_name(name).send().await.unwrap();
    let mut attributes = table.attribute_definitions.unwrap();
    attributes.sort_by(|left, right| left.attribute_name.cmp(&right.attribute_name));
    let indexes: Vec<_> = table
        .global_secondary_indexes
        .unwrap()
        .into_iter()
        .map(|index| (index.index_name, index.key_schema, index.projection))
        .collect();
    let billing = table.billing_mode_summary.and_then(|summary| summary.billing_mode);
    let ttl = ttl.time_to_live_description.unwrap();
    format!("{attributes:#?}\n{:#?}\n{indexes:#?}\n{billing:?}\n{ttl:?}", table.key_schema)
}
