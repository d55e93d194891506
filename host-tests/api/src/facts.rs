//! What the models say and what the gateway knows, as facts that can be compared.

use std::collections::BTreeMap;
use std::fmt;

use filter_core::bedrock_headers::CROSSING;
use filter_core::inventory::{Entry, INVENTORY, Place};
use filter_core::operation::{Method, OPERATIONS, Service};

use crate::model::{Models, ServiceModel, line};
use crate::tables::{Key, Kind, Tables};

/// A key, and its value; empty if the name is all.
pub type Facts = BTreeMap<Key, String>;

/// Structures of responses whose names have one of these are read in full.
const COUNTS: [&str; 5] = ["Usage", "Metrics", "CacheDetail", "TokenCount", "ServiceTier"];

/// The value of what a table says is not carried, and the code carries.
const TWICE: &str = "both the code and a row that says it does not cross; remove the row";

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// What differs.
    pub key: Key,
    /// How.
    pub change: Change,
}

/// How a fact differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The models have it, and no table does.
    New(String),
    /// A table has it, and no model does.
    Gone,
    /// The value in the models, and that in the tables.
    Other(String, String),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (self.key.0.name(), &self.key.1);
        match &self.change {
            Change::New(value) if value.is_empty() => write!(f, "new      {kind} {name}"),
            Change::New(value) => write!(f, "new      {kind} {name}: {value}"),
            Change::Gone => write!(f, "gone     {kind} {name}"),
            Change::Other(model, table) => write!(f, "changed  {kind} {name}: {model}; the tables have: {table}"),
        }
    }
}

/// Compares the models' facts with the gateway's.
pub fn compare(models: &Facts, gateway: &Facts) -> Vec<Drift> {
    let mut found = Vec::new();
    for (key, value) in models {
        let change = match gateway.get(key) {
            None => Change::New(value.clone()),
            Some(known) if known != value => Change::Other(value.clone(), known.clone()),
            Some(_) => continue,
        };
        found.push(Drift { key: key.clone(), change });
    }
    let gone = gateway.keys().filter(|key| !models.contains_key(*key));
    found.extend(gone.map(|key| Drift { key: key.clone(), change: Change::Gone }));
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

/// The entries of a service.
fn entries(service: &str) -> impl Iterator<Item = &'static Entry> {
    INVENTORY.iter().filter(move |entry| entry.operation.service().name() == service)
}

// === the gateway's side ===

/// What the gateway knows: its code and its tables.
pub fn of_gateway(tables: &Tables) -> Facts {
    let mut facts: Facts = tables.iter().filter(|((kind, _), _)| *kind != Kind::Member).map(row).collect();
    // What a member names is compared as a pin, by its paths.
    let members = tables.iter().filter(|((kind, _), _)| *kind == Kind::Member);
    facts.extend(members.map(|(key, _)| (key.clone(), String::new())));
    let mut add = |kind, name: String, value: String| {
        let twice = facts.contains_key(&(kind, name.clone()));
        facts.insert((kind, name), if twice { TWICE.to_owned() } else { value });
    };
    for entry in INVENTORY {
        let (operation, service) = (entry.operation, entry.operation.service().name());
        let value = line(operation.method().as_str(), operation.template(), entry.read_only);
        add(Kind::Operation, format!("{service} {operation}"), value);
        for member in entry.members {
            let name = format!("{service} {operation} {} {}", place(member.place), member.name);
            add(Kind::Pin, name, member.names.as_str().to_owned());
        }
    }
    for operation in OPERATIONS {
        for parameter in operation.parameters() {
            add(Kind::Query, format!("{} {operation}.{parameter}", operation.service().name()), String::new());
        }
    }
    // Only the runtime has headers of its own.
    for name in CROSSING {
        add(Kind::Header, format!("{} {name}", Service::BedrockRuntime.name()), String::new());
    }
    facts
}

fn row((key, row): (&Key, &crate::tables::Row)) -> (Key, String) {
    (key.clone(), row.value.clone())
}

const fn place(place: Place) -> &'static str {
    match place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
        Place::Body => "body",
    }
}

// === the models' side ===

/// What the models say of what the gateway's tables are about.
pub fn of_models(models: &Models, tables: &Tables) -> Facts {
    let mut facts = Facts::new();
    for (name, service) in models.iter() {
        let mut add = |kind, what: String, value: String| facts.insert((kind, format!("{name} {what}")), value);
        for operation in service.operations() {
            let listed = entries(name).any(|entry| entry.operation.name() == operation);
            let line = service.request_line(operation);
            // Of an operation that the gateway refuses, the name is enough.
            let refused = tables.get(Kind::Operation, name, operation).is_some();
            add(Kind::Operation, operation.to_owned(), if listed || !refused { line } else { String::new() });
        }
        for (exception, status) in service.exceptions() {
            add(Kind::Exception, exception.to_owned(), status);
        }
        for entry in entries(name) {
            request(service, entry, name, tables, &mut add);
            response(service, entry, name, tables, &mut add);
        }
    }
    facts
}

fn request<T>(
    service: &ServiceModel,
    entry: &Entry,
    name: &str,
    tables: &Tables,
    add: &mut impl FnMut(Kind, String, String) -> T,
) {
    let Some(input) = service.message(entry.operation.name(), "input") else { return };
    for shape in service.structures(input) {
        for member in service.members(shape) {
            add(Kind::Member, format!("{shape}.{}", member.name), String::new());
        }
    }
    for member in service.members(input) {
        match member.place {
            Place::Header => {
                add(Kind::Header, member.wire.to_ascii_lowercase(), String::new());
            }
            Place::Query => {
                add(Kind::Query, format!("{}.{}", entry.operation, member.wire), String::new());
            }
            Place::Path | Place::Body => {}
        }
    }
    for leaf in service.leaves(entry.operation.name()) {
        let Some(row) = tables.get(Kind::Member, name, &leaf.member) else { continue };
        if !row.value.is_empty() {
            add(Kind::Pin, format!("{} {} {}", entry.operation, leaf.place, leaf.path), row.value.clone());
        }
    }
}

/// Responses of calls; those of Get and List pass unread.
fn response<T>(
    service: &ServiceModel,
    entry: &Entry,
    name: &str,
    tables: &Tables,
    add: &mut impl FnMut(Kind, String, String) -> T,
) {
    let Some(output) = service.message(entry.operation.name(), "output") else { return };
    for member in service.members(output).filter(|member| member.place == Place::Header) {
        add(Kind::Response, member.wire.to_ascii_lowercase(), String::new());
    }
    if entry.operation.service() == Service::Bedrock || entry.operation.method() != Method::Post {
        return;
    }
    let listed = |shape: &str| {
        service
            .members(shape)
            .any(|member| tables.get(Kind::Output, name, &format!("{shape}.{}", member.name)).is_some())
    };
    let shapes = service.structures(output);
    let events: Vec<&str> = shapes.iter().copied().filter(|shape| service.is_event_stream(shape)).collect();
    for shape in &events {
        for event in service.members(shape) {
            add(Kind::Event, format!("{shape}.{}", event.name), String::new());
        }
    }
    for shape in shapes.iter().copied().filter(|shape| !events.contains(shape)) {
        let is_event = || events.iter().any(|stream| service.members(stream).any(|event| event.shape == shape));
        let counts = || COUNTS.iter().any(|word| shape.contains(word));
        if shape == output || counts() || listed(shape) || is_event() {
            for member in service.members(shape).filter(|member| member.place != Place::Header) {
                add(Kind::Output, format!("{shape}.{}", member.name), String::new());
            }
        }
    }
}
