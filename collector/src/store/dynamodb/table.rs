//! Creates the table, for DynamoDB Local. In production CloudFormation creates it
//! (`infra/templates/govcloud/audit.yaml`); a test compares the two.

use std::time::Duration;

use audit::table;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification,
};

use super::DynamoStore;
use super::error::DynamoError;

/// With [`POLLS`] a minute in all.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
const POLLS: u32 = 120;

impl DynamoStore {
    /// Fails with [`DynamoError::NoTable`] if the table does not exist.
    pub async fn check(&self) -> Result<(), DynamoError> {
        self.describe().await.map(|_| ())
    }

    /// Creates the table if it does not exist, waits until it is active and enables its TTL.
    pub async fn create_table(&self) -> Result<(), DynamoError> {
        let call = |call, error: BuildError| DynamoError::Call { call, cause: error.to_string() };
        let attribute = |name: &str| {
            let kind = ScalarAttributeType::S;
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()
        };
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let built = || {
            let index = GlobalSecondaryIndex::builder()
                .index_name(table::INDEX)
                .key_schema(key(table::INDEX_HASH, KeyType::Hash)?)
                .key_schema(key(table::INDEX_RANGE, KeyType::Range)?)
                .projection(Projection::builder().projection_type(ProjectionType::All).build())
                .build()?;
            Ok(self
                .client
                .create_table()
                .table_name(&self.table)
                .billing_mode(BillingMode::PayPerRequest)
                .attribute_definitions(attribute(table::KEY)?)
                .attribute_definitions(attribute(table::INDEX_HASH)?)
                .attribute_definitions(attribute(table::INDEX_RANGE)?)
                .key_schema(key(table::KEY, KeyType::Hash)?)
                .global_secondary_indexes(index))
        };
        match built().map_err(|error| call("CreateTable", error))?.send().await {
            Ok(_) => {}
            Err(error) if exists(&error) => {}
            Err(error) => return Err(self.failed("CreateTable", &error)),
        }
        self.wait_until_active().await?;
        let ttl = TimeToLiveSpecification::builder().attribute_name(table::TTL).enabled(true).build();
        let ttl = ttl.map_err(|error| call("UpdateTimeToLive", error))?;
        match self.client.update_time_to_live().table_name(&self.table).time_to_live_specification(ttl).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ValidationException") && says(&error, "already enabled") => Ok(()),
            Err(error) => Err(self.failed("UpdateTimeToLive", &error)),
        }
    }

    async fn wait_until_active(&self) -> Result<(), DynamoError> {
        for _ in 0..POLLS {
            let table = self.describe().await?;
            let indexes = table.global_secondary_indexes.unwrap_or_default();
            if table.table_status == Some(TableStatus::Active)
                && indexes.iter().all(|index| index.index_status == Some(IndexStatus::Active))
            {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Err(DynamoError::NotActive(self.table.clone()))
    }

    async fn describe(&self) -> Result<TableDescription, DynamoError> {
        let output = self.client.describe_table().table_name(&self.table).send().await;
        let output = output.map_err(|error| self.failed("DescribeTable", &error))?;
        output.table.ok_or(DynamoError::Call { call: "DescribeTable", cause: "the response has no table".to_owned() })
    }
}

fn exists(error: &SdkError<CreateTableError>) -> bool {
    error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception)
}

fn says<E: ProvideErrorMetadata>(error: &SdkError<E>, part: &str) -> bool {
    error.message().is_some_and(|message| message.contains(part))
}
