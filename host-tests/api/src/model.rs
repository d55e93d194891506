//! AWS's service models, as botocore has them: `SERVICE/DATE/service-2.json`, compressed or not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use filter_core::inventory::Place;
use filter_core::operation::Service;
use filter_core::route::SERVICES;
use serde_json::{Map, Value};

/// The models of all services, by their names.
#[derive(Debug, Clone)]
pub struct Models(BTreeMap<&'static str, ServiceModel>);

/// The model of one service.
#[derive(Debug, Clone)]
pub struct ServiceModel(Value);

/// A member of a structure.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its name in the structure.
    pub name: &'a str,
    /// The shape of its value.
    pub shape: &'a str,
    /// Where it is in a request or response.
    pub place: Place,
    /// Its name there.
    pub wire: &'a str,
}

/// A member at the end of a path through structures, lists and maps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// `STRUCTURE.MEMBER`
    pub member: String,
    /// `path`, `query`, `header` or `body`.
    pub place: &'static str,
    /// The name there; headers in lower case.
    pub path: String,
}

/// The models cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or directory.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No version of a service.
    #[error("{} has no service-2.json", .0.display())]
    Absent(PathBuf),
    /// The file is not a service model.
    #[error("{}: {problem}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

// === impl Models ===

impl Models {
    /// Reads the models below botocore's directory `data`.
    ///
    /// # Errors
    /// [`ModelError`] names the file.
    pub fn read(data: &Path) -> Result<Self, ModelError> {
        let read = |service: Service| Ok((service.name(), ServiceModel::read(&data.join(service.name()))?));
        SERVICES.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The services, by their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &ServiceModel)> {
        self.0.iter().map(|(name, service)| (*name, service))
    }

    /// The model of a service, to change it in a test.
    pub fn json_mut(&mut self, service: Service) -> Option<&mut Value> {
        self.0.get_mut(service.name()).map(|model| &mut model.0)
    }
}

// === impl ServiceModel ===

impl ServiceModel {
    /// Reads the newest version in a service's directory.
    fn read(directory: &Path) -> Result<Self, ModelError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| ModelError::Read { path, source }
        };
        let entries = std::fs::read_dir(directory).map_err(failed(directory))?;
        let mut versions = Vec::new();
        for entry in entries {
            versions.push(entry.map_err(failed(directory))?.path());
        }
        versions.sort();
        let files = versions.iter().rev().flat_map(|version| {
            ["service-2.json", "service-2.json.gz"]
                .map(|name| version.join(name))
                .into_iter()
                .filter(|file| file.exists())
        });
        let path = files.into_iter().next().ok_or_else(|| ModelError::Absent(directory.to_path_buf()))?;
        let bytes = std::fs::read(&path).map_err(failed(&path))?;
        let mut text = Vec::new();
        if path.extension().is_some_and(|kind| kind == "gz") {
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut text).map_err(failed(&path))?;
        } else {
            text = bytes;
        }
        Self::parse(&text).map_err(|problem| ModelError::Form { path, problem })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let service = Self(value);
        // A model of another protocol or form has other places for its members: nothing could be compared.
        match service.0.pointer("/metadata/protocol").and_then(Value::as_str) {
            Some("rest-json") if service.shapes().is_some() && service.operations().next().is_some() => Ok(service),
            Some("rest-json") => Err("no operations or shapes".to_owned()),
            other => Err(format!("protocol {other:?}, want rest-json")),
        }
    }

    fn shapes(&self) -> Option<&Map<String, Value>> {
        self.0.get("shapes")?.as_object()
    }

    fn shape(&self, name: &str) -> Option<&Value> {
        self.shapes()?.get(name)
    }

    /// The names of its operations.
    pub fn operations(&self) -> impl Iterator<Item = &str> {
        self.0.get("operations").and_then(Value::as_object).into_iter().flat_map(Map::keys).map(String::as_str)
    }

    fn operation(&self, name: &str) -> Option<&Value> {
        self.0.get("operations")?.get(name)
    }

    /// An operation's request line, and whether AWS marks it as read-only.
    pub fn request_line(&self, operation: &str) -> String {
        let operation = self.operation(operation);
        let text = |pointer| operation.and_then(|value| value.pointer(pointer)?.as_str()).unwrap_or("?");
        let read_only = operation.and_then(|value| value.get("readonly")?.as_bool()).unwrap_or(false);
        line(text("/http/method"), text("/http/requestUri"), read_only)
    }

    /// The shape of an operation's request (`input`) or response (`output`).
    pub fn message(&self, operation: &str, side: &str) -> Option<&str> {
        self.operation(operation)?.get(side)?.get("shape")?.as_str()
    }

    /// The members of a structure; a shape of another type has none.
    pub fn members<'a>(&'a self, shape: &str) -> impl Iterator<Item = Member<'a>> {
        let members = self.shape(shape).and_then(|shape| shape.get("members")?.as_object());
        members.into_iter().flatten().filter_map(|(name, member)| {
            let wire = member.get("locationName").and_then(Value::as_str).unwrap_or(name);
            let place = match member.get("location").and_then(Value::as_str) {
                Some("uri") => Place::Path,
                Some("querystring") => Place::Query,
                Some("header" | "headers") => Place::Header,
                _ => Place::Body,
            };
            Some(Member { name, shape: member.get("shape")?.as_str()?, place, wire })
        })
    }

    /// The items of a list or the values of a map, and how a path writes them.
    fn items(&self, shape: &str) -> Option<(&str, &'static str)> {
        let shape = self.shape(shape)?;
        let of = |key: &str| shape.get(key)?.get("shape")?.as_str();
        match shape.get("type")?.as_str()? {
            "list" => Some((of("member")?, "[]")),
            "map" => Some((of("value")?, "{}")),
            _ => None,
        }
    }

    /// Whether the structure is the union of an event stream's events.
    pub fn is_event_stream(&self, shape: &str) -> bool {
        self.shape(shape).and_then(|shape| shape.get("eventstream")?.as_bool()).unwrap_or(false)
    }

    /// The exceptions, with their HTTP status.
    pub fn exceptions(&self) -> impl Iterator<Item = (&str, String)> {
        self.shapes().into_iter().flatten().filter(|(_, shape)| shape.get("exception").is_some()).map(
            |(name, shape)| {
                let status = shape.pointer("/error/httpStatusCode").map_or_else(|| "none".to_owned(), Value::to_string);
                (name.as_str(), status)
            },
        )
    }

    fn is_exception(&self, shape: &str) -> bool {
        self.shape(shape).is_some_and(|shape| shape.get("exception").is_some())
    }

    /// The structures below a shape, itself included, without exceptions.
    pub fn structures<'a>(&'a self, shape: &'a str) -> BTreeSet<&'a str> {
        let (mut found, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![shape]);
        while let Some(shape) = open.pop() {
            if !seen.insert(shape) || self.is_exception(shape) {
                continue;
            }
            if self.members(shape).next().is_some() {
                found.insert(shape);
            }
            open.extend(self.members(shape).map(|member| member.shape));
            open.extend(self.items(shape).map(|(item, _)| item));
        }
        found
    }

    /// All members of an operation's request that have no members of their own.
    pub fn leaves(&self, operation: &str) -> BTreeSet<Leaf> {
        let mut found = BTreeSet::new();
        let Some(input) = self.message(operation, "input") else { return found };
        for member in self.members(input) {
            let (place, path) = match member.place {
                Place::Path => ("path", member.wire.to_owned()),
                Place::Query => ("query", member.wire.to_owned()),
                Place::Header => ("header", member.wire.to_ascii_lowercase()),
                Place::Body => ("body", member.wire.to_owned()),
            };
            let leaf = Leaf { member: format!("{input}.{}", member.name), place, path };
            self.follow(leaf, member.shape, &mut vec![input], &mut found);
        }
        found
    }

    /// Follows `leaf`, whose value has the shape. A structure inside itself ends the path: its members were seen above.
    fn follow<'a>(&'a self, leaf: Leaf, shape: &'a str, above: &mut Vec<&'a str>, found: &mut BTreeSet<Leaf>) {
        if above.contains(&shape) {
            return;
        }
        above.push(shape);
        if let Some((item, mark)) = self.items(shape) {
            self.follow(Leaf { path: leaf.path + mark, ..leaf }, item, above, found);
        } else if self.members(shape).next().is_some() {
            for member in self.members(shape) {
                let path = format!("{}.{}", leaf.path, member.wire);
                let next = Leaf { member: format!("{shape}.{}", member.name), place: leaf.place, path };
                self.follow(next, member.shape, above, found);
            }
        } else {
            found.insert(leaf);
        }
        above.pop();
    }
}

/// `GET /guardrails read-only`
pub fn line(method: &str, path: &str, read_only: bool) -> String {
    format!("{method} {path}{}", if read_only { " read-only" } else { "" })
}
