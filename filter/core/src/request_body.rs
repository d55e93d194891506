//! What the gateway has to know of a request's body, read as it arrives, in constant memory.

use crate::inventory::{Entry, Member, Names, Place};
use crate::operation::Operation;
use crate::request_metadata::{MEMBER, Places, is_alike};
use crate::scanner::{Path, Problem, Scanner, Sink};
use crate::usage::serving::Served;
use audit::Serving;

/// Longest value of a member in bytes (botocore: `modelId` max 2048).
const MAX_VALUE: usize = 2048;

/// A member of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The member.
    pub member: &'static Member,
    /// What the client wrote.
    pub text: String,
}

/// Why a body does not cross.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// It is not JSON.
    #[error("The request body is not JSON: {0}.")]
    Json(#[from] Problem),
    /// A member twice: which one counts is not defined (RFC 8259, section 4).
    #[error("The request body has the member '{0}' more than once.")]
    Repeated(String),
    /// A value that cannot be an id.
    #[error("Value at '{0}' failed to satisfy constraint: want at most {MAX_VALUE} bytes of visible ASCII.")]
    Value(String),
}

/// The members of an operation's body that decide something: those that name a model, or a resource of the account. Of lists none
/// does, and of buckets, keys and networks it is not known.
pub fn members(operation: Operation) -> impl Iterator<Item = &'static Member> {
    let all = Entry::of(operation).into_iter().flat_map(|entry| entry.members);
    let decides = |names: Names| !matches!(names, Names::Bucket | Names::Key | Names::Network | Names::Page);
    all.filter(move |member| member.place == Place::Body && decides(member.names) && !member.name.contains("[]"))
}

/// Whether an operation names a model in its body.
pub(crate) fn has_model(operation: Operation) -> bool {
    members(operation).any(|member| member.names == Names::Model)
}

/// Reads a body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    scanner: Scanner,
    found: Found,
    is_empty: bool,
}

#[derive(Debug)]
struct Found {
    served: Served,
    members: Vec<&'static Member>,
    /// The value of each member.
    values: Vec<Option<Vec<u8>>>,
    /// A bit for each key of each member's path that was there.
    seen: u128,
    repeated: Option<String>,
    places: Places,
}

/// Bits of [`Found::seen`] for a member: its path is not longer. A test checks that all members have room.
const LEVELS: usize = 8;

// === impl RequestBody ===

impl RequestBody {
    /// `None` if nothing of the operation's body matters.
    pub(crate) fn of(operation: Operation) -> Option<Self> {
        let members: Vec<_> = members(operation).collect();
        let matters = !members.is_empty() || operation.asks_in_body();
        let found = Found {
            served: Served::default(),
            values: vec![None; members.len()],
            members,
            seen: 0,
            repeated: None,
            places: Places::default(),
        };
        matters.then(|| Self { scanner: Scanner::default(), found, is_empty: true })
    }

    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        self.is_empty &= chunk.is_empty();
        self.scanner.feed(chunk, &mut self.found);
    }

    /// Service tier and latency mode that the body asks for.
    pub(crate) fn serving(&self) -> Serving {
        self.found.served.serving()
    }

    /// Where the request metadata stands or can stand.
    pub(crate) fn places(&self) -> Places {
        self.found.places
    }

    /// The members, when the body is complete. A body without bytes has none.
    pub(crate) fn values(self) -> Result<Vec<Value>, BodyProblem> {
        if !self.is_empty {
            self.scanner.finish()?;
        }
        if let Some(path) = self.found.repeated {
            return Err(BodyProblem::Repeated(path));
        }
        let given = self.found.members.into_iter().zip(self.found.values);
        given
            .filter_map(|(member, value)| Some((member, value?)))
            .map(|(member, value)| value_of(member, value))
            .collect()
    }
}

fn value_of(member: &'static Member, bytes: Vec<u8>) -> Result<Value, BodyProblem> {
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_VALUE);
    let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    let text = text.ok_or_else(|| BodyProblem::Value(member.name.to_owned()))?;
    Ok(Value { member, text })
}

// === impl Found ===

impl Sink for Found {
    fn begin(&mut self, path: &Path, at: u64) {
        if path.depth() == 0 {
            self.places.top = Some(at);
        } else if path.depth() == 1 && path.first().is_some_and(is_alike) {
            self.places.alike = true;
        } else if path.is_at(MEMBER) && self.places.own.replace(at).is_some() {
            self.repeated = Some(MEMBER.to_owned());
        }
        // Members below one object share its bit: the first one's.
        let depth = path.depth();
        let index = self.members.iter().position(|member| depth > 0 && path.leads_to(member.name));
        let Some((index, member)) = index.and_then(|index| Some((index, self.members.get(index)?))) else { return };
        let bit = 1u128 << (index * LEVELS + depth - 1);
        if self.seen & bit != 0 {
            let keys: Vec<_> = member.name.split('.').take(depth).collect();
            self.repeated = Some(keys.join("."));
        }
        self.seen |= bit;
    }

    fn string(&mut self, path: &Path, piece: &[u8]) {
        self.served.string(path, piece);
        let values = self.members.iter().zip(&mut self.values);
        for (_, value) in values.filter(|(member, _)| path.is_at(member.name)) {
            let value = value.get_or_insert_default();
            // One byte more than is allowed says that it is too long.
            let room = (MAX_VALUE + 1).saturating_sub(value.len());
            value.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
    }
}

#[cfg(test)]
#[path = "request_body_tests.rs"]
mod tests;
