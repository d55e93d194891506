//! Finds records: by key, or through the index by time. What can be said in a filter expression is; DynamoDB reads, and
//! bills, the other records too
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.FilterExpression.html>).

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use audit::{AuditRecord, FieldValue, table as names};
use aws_sdk_dynamodb::types::AttributeValue;
use time::macros::date;
use time::{Date, OffsetDateTime};
use tokio::task::JoinSet;

use super::DynamoStore;
use super::error::DynamoError;
use super::item::{self, FUTURE, Item, SHARDS};
use crate::query::condition::{Condition, Test};
use crate::query::{Cursor, Found, Progress, Query};

/// Items of a page, of which each shard has one in memory.
const PAGE: usize = 250;
/// The same where a filter leaves few of them.
const FILTERED_PAGE: usize = 1_000;
/// No call is older: Bedrock's first day of general availability.
const FIRST_DAY: Date = date!(2023 - 09 - 28);

/// A shard of the index that is read page by page, newest first.
struct Shard {
    key: String,
    page: VecDeque<AuditRecord>,
    /// Where the next page begins.
    from: Option<Item>,
    ended: bool,
    /// Items that DynamoDB looked at since this was last asked.
    searched: u64,
}

/// A page of a shard.
struct Page {
    items: Vec<Item>,
    next: Option<Item>,
    searched: u64,
}

impl DynamoStore {
    /// Hands matching records that have not expired to `each`, newest first, until it returns false.
    pub async fn scan(
        &self,
        query: &Query,
        now: OffsetDateTime,
        mut each: impl FnMut(AuditRecord) -> bool,
        progress: &mut Progress,
    ) -> Result<Found, DynamoError> {
        let mut found = Found::default();
        if let Some(id) = &query.request_id {
            if let Some(record) = self.by_id(id, query, now).await? {
                found.next(query.limit, record, &mut each);
            }
            return Ok(found);
        }
        // Records from the future are in shards of their own, whatever their day is.
        let mut future = self.open(query, now, FUTURE).await?;
        for day in Days::of(query, now) {
            let mut shards = self.open(query, now, &day.to_string()).await?;
            while let Some(newest) = self.newest(&mut shards, query, now).await? {
                let newer = self.newest(&mut future, query, now).await?;
                let (from, at) = match newer {
                    Some(newer) if future.head(newer) < shards.head(newest) => (&mut future, newer),
                    _ => (&mut shards, newest),
                };
                let Some(record) = from.take(at) else { break };
                if !found.next(query.limit, record, &mut each) {
                    return Ok(found);
                }
                progress.searched(shards.searched() + future.searched(), Some(&day.to_string()));
            }
            progress.searched(shards.searched(), Some(&day.to_string()));
        }
        while let Some(at) = self.newest(&mut future, query, now).await? {
            let Some(record) = future.take(at) else { break };
            if !found.next(query.limit, record, &mut each) {
                break;
            }
        }
        Ok(found)
    }

    /// The records that [`Self::scan`] finds.
    pub async fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, DynamoError> {
        let mut records = Vec::new();
        let each = |record| {
            records.push(record);
            true
        };
        self.scan(query, now, each, &mut Progress::new(false)).await?;
        Ok(records)
    }

    /// Hands the values of those fields of each matching record to `each`, in any order, until it returns false.
    pub async fn visit(
        &self,
        query: &Query,
        fields: &[&'static str],
        now: OffsetDateTime,
        mut each: impl FnMut(&[FieldValue<'_>]) -> bool,
        progress: &mut Progress,
    ) -> Result<(), DynamoError> {
        let conditions = query.conditions();
        let days = Days::of(query, now).map(|day| day.to_string());
        for day in std::iter::once(FUTURE.to_owned()).chain(days) {
            let mut reads = JoinSet::new();
            let spawn = |reads: &mut JoinSet<_>, key: String, from: Option<Item>| {
                let (store, query, fields) = (self.clone(), query.clone(), fields.to_vec());
                reads.spawn(async move {
                    let page = store.page(&key, from, &query, Some(&fields), now).await;
                    page.map(|page| (key, page))
                });
            };
            for shard in 0..SHARDS {
                spawn(&mut reads, format!("{day}#{shard:02}"), None);
            }
            while let Some(read) = reads.join_next().await {
                let (key, page) = read.map_err(stopped)??;
                progress.searched(page.searched, Some(&day));
                if page.next.is_some() {
                    spawn(&mut reads, key, page.next);
                }
                for item in &page.items {
                    let values: Vec<_> = fields.iter().map(|name| item::value(item, name)).collect();
                    let matches = conditions.iter().all(|condition| condition.holds(|name| item::value(item, name)));
                    if matches && !each(&values) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn by_id(&self, id: &str, query: &Query, now: OffsetDateTime) -> Result<Option<AuditRecord>, DynamoError> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let output = get.key(names::KEY, AttributeValue::S(id.to_owned())).send().await;
        let output = output.map_err(|error| self.failed("GetItem", &error))?;
        let found = output.item.map(|item| self.record(&item)).transpose()?;
        Ok(found.filter(|record| expires_after(record, now) && query.matches(record)))
    }

    /// Reads the first page of each shard of a day, concurrently.
    async fn open(&self, query: &Query, now: OffsetDateTime, day: &str) -> Result<Vec<Shard>, DynamoError> {
        let mut reads = JoinSet::new();
        for shard in 0..SHARDS {
            let key = format!("{day}#{shard:02}");
            let mut shard = Shard { key, page: VecDeque::new(), from: None, ended: false, searched: 0 };
            let (store, query) = (self.clone(), query.clone());
            reads.spawn(async move { store.fill(&mut shard, &query, now).await.map(|()| shard) });
        }
        let mut shards = Vec::new();
        while let Some(read) = reads.join_next().await {
            shards.push(read.map_err(stopped)??);
        }
        Ok(shards)
    }

    /// Finds the shard with the newest record.
    async fn newest(
        &self,
        shards: &mut [Shard],
        query: &Query,
        now: OffsetDateTime,
    ) -> Result<Option<usize>, DynamoError> {
        for shard in shards.iter_mut() {
            self.fill(shard, query, now).await?;
        }
        let heads = shards.iter().enumerate().filter_map(|(at, shard)| Some((at, shard.page.front()?)));
        Ok(heads.min_by(|(_, a), (_, b)| newest_first(a, b)).map(|(at, _)| at))
    }

    /// Reads pages until one has a matching record.
    async fn fill(&self, shard: &mut Shard, query: &Query, now: OffsetDateTime) -> Result<(), DynamoError> {
        while shard.page.is_empty() && !shard.ended {
            let page = self.page(&shard.key, shard.from.take(), query, None, now).await?;
            for item in page.items {
                let record = self.record(&item)?;
                if query.matches(&record) {
                    shard.page.push_back(record);
                }
            }
            shard.searched += page.searched;
            shard.from = page.next;
            shard.ended = shard.from.is_none();
        }
        Ok(())
    }

    /// Reads a page of a shard. `only` leaves out the other attributes.
    async fn page(
        &self,
        shard: &str,
        from: Option<Item>,
        query: &Query,
        only: Option<&[&'static str]>,
        now: OffsetDateTime,
    ) -> Result<Page, DynamoError> {
        // `0` sorts before every time, `~` after. Later bounds are compared here: they exclude their own time, or a part of it.
        let since = query.since.clone().unwrap_or_else(|| "0".to_owned());
        let bounds = [query.until.clone(), query.after.as_ref().map(|after| after.time.clone())];
        let until = bounds.into_iter().flatten().min().unwrap_or_else(|| "~".to_owned());
        if since > until {
            return Ok(Page { items: Vec::new(), next: None, searched: 0 });
        }
        let conditions = query.conditions();
        let mut filter = Filter::new(now);
        filter.value(":shard", AttributeValue::S(shard.to_owned()));
        filter.value(":since", AttributeValue::S(since));
        filter.value(":until", AttributeValue::S(until.clone()));
        filter.names.extend([names::INDEX_HASH, names::INDEX_RANGE].map(|name| (format!("#{name}"), name.to_owned())));
        conditions.iter().for_each(|condition| filter.require(condition));
        let limit = match (only, conditions.is_empty()) {
            (Some(_), _) => FILTERED_PAGE / 2,
            (None, true) => query.limit.saturating_add(1).min(PAGE),
            (None, false) => FILTERED_PAGE,
        };
        let projection = only.map(|only| {
            // What is compared here is needed, too.
            let compared = conditions.iter().flat_map(|condition| condition.fields);
            let mut wanted: Vec<_> = only.iter().chain(compared).chain(&["time"]).copied().collect();
            wanted.sort_unstable();
            wanted.dedup();
            filter.names.extend(wanted.iter().map(|name| (format!("#{name}"), (*name).to_owned())));
            wanted.iter().map(|name| format!("#{name}")).collect::<Vec<_>>().join(", ")
        });
        let output = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(names::INDEX)
            .key_condition_expression(format!(
                "#{} = :shard AND #{} BETWEEN :since AND :until",
                names::INDEX_HASH,
                names::INDEX_RANGE
            ))
            .filter_expression(filter.expression)
            .set_projection_expression(projection)
            .set_expression_attribute_names(Some(filter.names))
            .set_expression_attribute_values(Some(filter.values))
            .scan_index_forward(false)
            .limit(i32::try_from(limit).unwrap_or(1))
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(|error| self.failed("Query", &error))?;
        let mut items = output.items.unwrap_or_default();
        if query.until.as_ref() == Some(&until) {
            items.retain(|item| item::value(item, names::INDEX_RANGE) != FieldValue::Text(&until));
        }
        let searched = u64::from(output.scanned_count.unsigned_abs());
        Ok(Page { items, next: output.last_evaluated_key.filter(|key| !key.is_empty()), searched })
    }

    pub(super) fn record(&self, item: &Item) -> Result<AuditRecord, DynamoError> {
        item::to_record(item).map_err(|field| DynamoError::Item { table: self.table.clone(), field })
    }
}

/// Some shards.
trait Shards {
    fn head(&self, at: usize) -> Option<Cursor>;
    fn take(&mut self, at: usize) -> Option<AuditRecord>;
    /// Items that were searched since this was last asked.
    fn searched(&mut self) -> u64;
}

impl Shards for Vec<Shard> {
    fn head(&self, at: usize) -> Option<Cursor> {
        self.get(at)?.page.front().map(Cursor::of)
    }

    fn take(&mut self, at: usize) -> Option<AuditRecord> {
        self.get_mut(at)?.page.pop_front()
    }

    fn searched(&mut self) -> u64 {
        self.iter_mut().map(|shard| std::mem::take(&mut shard.searched)).sum()
    }
}

/// A filter expression with its names and values.
struct Filter {
    expression: String,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Filter {
    /// DynamoDB deletes an item within a few days of its expiry, so expired ones may still be there.
    fn new(now: OffsetDateTime) -> Self {
        let mut new =
            Self { expression: format!("#{0} > :now", names::TTL), names: HashMap::new(), values: HashMap::new() };
        new.names.insert(format!("#{}", names::TTL), names::TTL.to_owned());
        new.value(":now", AttributeValue::N(now.unix_timestamp().to_string()));
        new
    }

    fn value(&mut self, name: &str, value: AttributeValue) {
        self.values.insert(name.to_owned(), value);
    }

    fn require(&mut self, condition: &Condition<'_>) {
        let place = self.values.len();
        let (first, second) = (format!(":v{place}"), format!(":v{}", place + 1));
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let form: &dyn Fn(&str) -> String = match condition.test {
            Test::Is(wanted) => {
                self.value(&first, text(wanted));
                &|name| format!("{name} = {first}")
            }
            Test::Contains(part) => {
                self.value(&first, text(part));
                &|name| format!("contains({name}, {first})")
            }
            Test::Between(from, to) => {
                self.value(&first, AttributeValue::N(from.to_string()));
                self.value(&second, AttributeValue::N(to.to_string()));
                &|name| format!("{name} BETWEEN {first} AND {second}")
            }
            Test::Absent => &|name| format!("attribute_not_exists({name})"),
            Test::AbsentOr(others) => {
                let places: Vec<_> = (place..).take(others.len()).map(|place| format!(":v{place}")).collect();
                others.iter().zip(&places).for_each(|(other, place)| self.value(place, text(other)));
                &move |name| format!("attribute_not_exists({name}) OR {name} IN ({})", places.join(", "))
            }
            // DynamoDB has no function that ignores case.
            Test::IsInAnyCase(_) => return,
        };
        let any: Vec<_> = condition.fields.iter().map(|field| form(&format!("#{field}"))).collect();
        self.expression += &format!(" AND ({})", any.join(" OR "));
        self.names.extend(condition.fields.iter().map(|field| (format!("#{field}"), (*field).to_owned())));
    }
}

/// The days of a query's records, newest first.
struct Days {
    next: Option<Date>,
    oldest: Date,
}

impl Days {
    /// Imported records may be older than the days that others are kept: a query that gives its time finds them.
    fn of(query: &Query, now: OffsetDateTime) -> Self {
        let retention = i64::try_from(audit::RETENTION_DAYS).unwrap_or(i64::MAX);
        let oldest = match &query.since {
            Some(since) => day_of(since).unwrap_or(FIRST_DAY),
            None => (now - time::Duration::days(retention)).date(),
        };
        // Envoy's clock may be ahead of this one. Older releases put records of any day into its shards.
        let newest = (now + time::Duration::days(1)).date();
        let until = query.until.as_deref().and_then(day_of);
        let after = query.after.as_ref().and_then(|after| day_of(&after.time));
        let newest = match (until.or(after), after) {
            (Some(until), Some(after)) => until.min(after),
            (Some(until), None) => until,
            (None, _) => newest,
        };
        Self { next: Some(newest), oldest: oldest.max(FIRST_DAY) }
    }
}

impl Iterator for Days {
    type Item = Date;

    fn next(&mut self) -> Option<Date> {
        let day = self.next.filter(|day| *day >= self.oldest)?;
        self.next = day.previous_day();
        Some(day)
    }
}

fn stopped(error: tokio::task::JoinError) -> DynamoError {
    DynamoError::Call { call: "Query", cause: error.to_string() }
}

fn newest_first(a: &AuditRecord, b: &AuditRecord) -> Ordering {
    b.time.cmp(&a.time).then_with(|| a.request_id.cmp(&b.request_id))
}

/// The day of a timestamp.
fn day_of(timestamp: &str) -> Option<Date> {
    let day = timestamp.get(..10)?;
    Date::parse(day, time::macros::format_description!("[year]-[month]-[day]")).ok()
}

fn expires_after(record: &AuditRecord, now: OffsetDateTime) -> bool {
    i64::try_from(record.expires_at).unwrap_or(i64::MAX) > now.unix_timestamp()
}
