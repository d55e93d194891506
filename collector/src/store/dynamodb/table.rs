//! The table itself, for DynamoDB Local. In production CloudFormation makes it (`infra/templates/govcloud/audit.yaml`): a test
//! holds the two against each other.

use std::time::Duration;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification,
};

use audit::table;

use super::{DynamoError, DynamoStore};

/// How often a table is looked at, and how many times, until it is active: a minute in all.
const POLL: (Duration, u32) = (Duration::from_millis(500), 120);

impl DynamoStore {
    /// Checks that the table is there.
    ///
    /// # Errors
    /// [`DynamoError::NoTable`], and what the call gives.
    pub async fn check(&self) -> Result<(), DynamoError> {
        self.describe().await.map(|_| ())
    }

    /// Makes the table where it is missing, turns its TTL on, and waits until it is active.
    ///
    /// # Errors
    /// What the calls give, and [`DynamoError::NotActive`].
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
            // It is on already.
            Err(error) if error.code() == Some("ValidationException") && told(&error, "already enabled") => Ok(()),
            Err(error) => Err(self.failed("UpdateTimeToLive", &error)),
        }
    }

    async fn wait_until_active(&self) -> Result<(), DynamoError> {
        for _ in 0..POLL.1 {
            let table = self.describe().await?;
            let indexes = table.global_secondary_indexes.unwrap_or_default();
            if table.table_status == Some(TableStatus::Active)
                && indexes.iter().all(|index| index.index_status == Some(IndexStatus::Active))
            {
                return Ok(());
            }
            tokio::time::sleep(POLL.0).await;
        }
        Err(DynamoError::NotActive(self.table.clone()))
    }

    async fn describe(&self) -> Result<TableDescription, DynamoError> {
        let output = self.client.describe_table().table_name(&self.table).send().await;
        let output = output.map_err(|error| self.failed("DescribeTable", &error))?;
        output.table.ok_or(DynamoError::Call { call: "DescribeTable", cause: "an empty answer".to_owned() })
    }
}

fn exists(error: &SdkError<CreateTableError>) -> bool {
    error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception)
}

fn told<E: ProvideErrorMetadata>(error: &SdkError<E>, part: &str) -> bool {
    error.message().is_some_and(|message| message.contains(part))
}
