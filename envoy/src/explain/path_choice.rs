//! The paths that the explained gateway has.

use std::str::FromStr;

use filter_core::names::{PathName, RegionName};
use filter_core::operation::Service;

use crate::paths::{self, PathError, PathSpec};

/// A path that the gateway has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChoice {
    /// A path to every region and service.
    Name(PathName),
    /// A path as `up` takes it.
    Spec(PathSpec),
}

impl FromStr for PathChoice {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        match text.parse() {
            Ok(name) => Ok(Self::Name(name)),
            Err(_) => text.parse().map(Self::Spec),
        }
    }
}

/// Whether the gateway has a path to a service in a region. Without any choice, it has all.
pub(super) fn is_chosen(choices: &[PathChoice], path: PathName, service: Service, region: &RegionName) -> bool {
    let specs = choices.iter().filter_map(|choice| match choice {
        PathChoice::Spec(spec) => Some(spec.clone()),
        PathChoice::Name(_) => None,
    });
    let specs: Vec<PathSpec> = specs.collect();
    choices.is_empty()
        || choices.contains(&PathChoice::Name(path))
        || paths::find(&specs, path, service.name(), region.as_str()).is_some()
}
