//! Which regions a call may go to, by their data retention, and that each attempt's is still what it was when the call left.

use super::setting::{DEFAULT_PROJECT, Unresolved};
use crate::config::{Retention, RetentionMode};
use crate::names::RegionName;
use crate::operation::{Method, Operation};
use crate::reply::Refusal;
use crate::route::RouteClass;
use crate::step::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a call's class demands, when the call leaves.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    class: &'a RouteClass,
    demand: Retention,
    model: Option<&'a str>,
    /// Ids of the projects that the call names, without the default one.
    projects: &'a [String],
    /// The mode that every region needs.
    wanted: Result<RetentionMode, Unresolved>,
    context: Context<'a>,
}

/// What the call left with, for the signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admitted {
    /// The mode that every region needs; absent if the first region's is not known, and the call goes nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<RetentionMode>,
    /// The regions that had it.
    regions: Vec<RegionName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    projects: Vec<String>,
}

/// Whether calls of an operation carry data that Bedrock may retain: all that run a model or judge a text.
pub(crate) fn carries_data(operation: Operation) -> bool {
    operation.method() == Method::Post && operation != Operation::StopModelInvocationJob
}

/// The id of a project, which may be given as an ARN.
pub(crate) fn project_id(given: &str) -> &str {
    given.split_once(":project/").map_or(given, |(_, id)| id)
}

impl<'a> Guard<'a> {
    /// `None`: the class demands nothing of such calls.
    pub(crate) fn of(
        class: &'a RouteClass,
        (operation, model): (Operation, Option<&'a str>),
        projects: &'a [String],
        context: Context<'a>,
    ) -> Option<Self> {
        let demand = class.retention().filter(|_| carries_data(operation))?;
        let wanted = match (demand.mode(), class.regions().first()) {
            (Some(mode), _) => Ok(mode),
            (None, Some(first)) => mode_in(class, first, (model, &[]), context),
            (None, None) => Err(Unresolved::Unread),
        };
        Some(Self { class, demand, model, projects, wanted, context })
    }

    /// Whether the call may go to a region.
    pub(crate) fn admits(&self, region: &RegionName) -> bool {
        if is_own_first(self.class, self.demand, region, self.projects) {
            return true;
        }
        let call = (self.model, self.projects);
        self.wanted.is_ok() && mode_in(self.class, region, call, self.context) == self.wanted
    }

    /// Why the call may go to none of these regions.
    pub(crate) fn refusal(&self, regions: &[&RegionName]) -> Refusal {
        let call = (self.model, self.projects);
        let state = |region: &&RegionName| (region.to_string(), mode_in(self.class, region, call, self.context));
        refusal(self.class, &self.wanted, regions.iter().map(state).collect())
    }

    /// What the call leaves with, if it may go to these regions.
    pub(crate) fn admitted(&self, regions: Vec<RegionName>) -> Admitted {
        Admitted { mode: self.wanted.clone().ok(), regions, projects: self.projects.to_vec() }
    }
}

impl Admitted {
    /// Whether the call may go to a region of its class at all.
    pub(crate) fn has(&self, region: &RegionName) -> bool {
        self.regions.contains(region)
    }

    /// Whether a region still has the mode with which the call left. Returns the region's mode, if it is known.
    ///
    /// # Errors
    /// The call may not go there any more.
    pub(crate) fn check(
        &self,
        class: &RouteClass,
        region: &RegionName,
        model: Option<&str>,
        context: Context<'_>,
    ) -> Result<Option<RetentionMode>, Refusal> {
        let Some(demand) = class.retention() else { return Ok(None) };
        let mode = mode_in(class, region, (model, &self.projects), context);
        let stays = self.mode.is_some() && mode.as_ref().ok() == self.mode.as_ref();
        if stays || is_own_first(class, demand, region, &self.projects) {
            return Ok(mode.ok());
        }
        let wanted = self.mode.ok_or(Unresolved::Unread);
        Err(refusal(class, &wanted, vec![(region.to_string(), mode)]))
    }
}

/// The mode of each region of a class that demands something, for people.
pub(crate) fn modes<'a>(class: &'a RouteClass, context: Context<'a>) -> Option<BTreeMap<&'a str, &'static str>> {
    let (_, rules) = class.retention().zip(context.policy.retention.as_ref())?;
    let label = |region: &'a RegionName| {
        let known = &context.catalogue.retention;
        let place = rules.place(class.credentials(), region);
        (region.as_str(), place.map_or("unresolved", |place| known.label(place, rules.max_age, context.now)))
    };
    Some(class.regions().iter().map(label).collect())
}

/// The mode of a class's calls of a model in a region, in the default project.
///
/// # Errors
/// It is not known.
pub fn mode_of(
    class: &RouteClass,
    region: &RegionName,
    model: Option<&str>,
    context: Context<'_>,
) -> Result<RetentionMode, Unresolved> {
    mode_in(class, region, (model, &[]), context)
}

/// Whether the region is the one that the others are compared with.
fn is_own_first(class: &RouteClass, demand: Retention, region: &RegionName, projects: &[String]) -> bool {
    demand == Retention::Same && projects.is_empty() && class.regions().first() == Some(region)
}

/// The mode of a class's call in a region. AWS's pages differ on whether `bedrock-runtime` uses the project that a call names: the
/// user guide says that it resolves to the default project only, botocore 1.44.8 has a member for it. So both need the same mode.
fn mode_in(
    class: &RouteClass,
    region: &RegionName,
    (model, projects): (Option<&str>, &[String]),
    context: Context<'_>,
) -> Result<RetentionMode, Unresolved> {
    let rules = context.policy.retention.as_ref().ok_or(Unresolved::Unread)?;
    let place = rules.place(class.credentials(), region).ok_or(Unresolved::Unread)?;
    let (own, times) = (rules.of_model(model), (rules.max_age, context.now));
    let mode = |project: &str| context.catalogue.retention.mode(place, project, own, times);
    let default = mode(DEFAULT_PROJECT)?;
    for project in projects {
        if !rules.projects(region).contains(project) {
            return Err(Unresolved::Unlisted(project.clone()));
        }
        let named = mode(project)?;
        if named != default {
            return Err(Unresolved::Differs { project: project.clone(), named, default });
        }
    }
    Ok(default)
}

fn refusal(
    class: &RouteClass,
    wanted_mode: &Result<RetentionMode, Unresolved>,
    regions: Vec<(String, Result<RetentionMode, Unresolved>)>,
) -> Refusal {
    let first = || class.regions().first().map(ToString::to_string).unwrap_or_default();
    let wanted = match (class.retention().and_then(Retention::mode), wanted_mode) {
        (Some(mode), _) => format!("'{mode}'"),
        (None, Ok(mode)) => format!("that of {}, '{mode}'", first()),
        (None, Err(why)) => format!("that of {}, which is {why}", first()),
    };
    // What is read later may be another thing.
    let passing =
        |mode: &Result<RetentionMode, Unresolved>| matches!(mode, Err(Unresolved::Unread | Unresolved::Stale(_)));
    let known = !passing(wanted_mode) && !regions.iter().any(|(_, mode)| passing(mode));
    let said = regions.iter().map(|(region, mode)| match mode {
        Ok(mode) => format!("'{mode}' in {region}"),
        Err(why) => format!("in {region} {why}"),
    });
    Refusal::Retention { class: class.name().to_owned(), wanted, found: said.collect::<Vec<_>>().join("; "), known }
}
