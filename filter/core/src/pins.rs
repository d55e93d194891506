//! The ids that a call names besides its model: they tie it to a region, and none may be GovCloud's.

use crate::headers::Headers;
use crate::inventory::{Entry, Names, Place};
use crate::model::GovCloudId;
use crate::operation::{Call, RegionScope, arn_region};
use crate::policy::Policy;
use crate::reply::Refusal;
use crate::retention::guard::project_id;
use crate::retention::setting::DEFAULT_PROJECT;

/// Headers that name a resource of the account.
const RESOURCES: [&str; 2] = ["x-amzn-bedrock-guardrailidentifier", PROJECT];
/// The one that names a project.
pub(crate) const PROJECT: &str = "x-amzn-bedrock-projectidentifier";
/// The member and the parameter that name one.
const PROJECT_MEMBER: &str = "projectIdentifier";

/// What ties a call to a region. A resource exists in one region: in another one Bedrock does not find it.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// The region of an ARN, and where the ARN stands.
    region: Option<(String, String)>,
    /// Whether there is an id without a region.
    resource: bool,
    /// Ids of the projects that it names, without the default one.
    projects: Vec<String>,
}

impl Pins {
    /// What labels, query and headers name.
    pub(crate) fn of(call: &Call, headers: &Headers, policy: &Policy) -> Result<Self, Refusal> {
        let mut pins = Self::default();
        let model = usize::from(call.operation.names_model());
        for label in call.labels.iter().take(model) {
            pins.arn("path", label)?;
        }
        for label in call.labels.iter().skip(model) {
            check_commercial(policy, "path", label)?;
            pins.arn("path", label)?;
        }
        let members = Entry::of(call.operation).map_or(&[][..], |entry| entry.members);
        let named = |place, name: &str| members.iter().find(|member| member.place == place && member.name == name);
        for (name, value) in call.parameters() {
            match named(Place::Query, &name).map(|member| member.names) {
                Some(names) if names != Names::Model => pins.resource(&name, &value, policy)?,
                _ => {
                    check_commercial(policy, &name, &value)?;
                    pins.arn(&name, &value)?;
                }
            }
        }
        // Of a header that the operation does not have, Bedrock may make what it likes.
        for name in RESOURCES {
            if let Some(value) = headers.get_str(name).filter(|value| !value.is_empty()) {
                pins.resource(name, value, policy)?;
            }
        }
        Ok(pins)
    }

    /// Takes the id of a resource of the account.
    pub(crate) fn resource(&mut self, place: &str, id: &str, policy: &Policy) -> Result<(), Refusal> {
        check_commercial(policy, place, id)?;
        // The project of calls that name none is in each region; AWS gives no other resource this id.
        self.resource |= id != DEFAULT_PROJECT;
        if [PROJECT, PROJECT_MEMBER].contains(&place) && project_id(id) != DEFAULT_PROJECT {
            self.projects.push(project_id(id).to_owned());
        }
        self.arn(place, id)
    }

    /// Takes an id, which may be an ARN.
    pub(crate) fn arn(&mut self, place: &str, id: &str) -> Result<(), Refusal> {
        arn_region(id).map_or(Ok(()), |region| self.own_region(place, region))
    }

    /// Takes the region of an id.
    pub(crate) fn own_region(&mut self, place: &str, region: &str) -> Result<(), Refusal> {
        match &self.region {
            Some((known, first)) if known != region => Err(Refusal::TwoRegions {
                first: format!("'{first}' is of {known}"),
                second: format!("'{place}' of {region}"),
            }),
            Some(_) => Ok(()),
            None => {
                self.region = Some((region.to_owned(), place.to_owned()));
                Ok(())
            }
        }
    }

    /// The projects that the call names.
    pub(crate) fn into_projects(self) -> Vec<String> {
        self.projects
    }

    /// Which regions can serve the call.
    pub(crate) fn scope(&self, call: &Call) -> RegionScope {
        match &self.region {
            Some((region, _)) => RegionScope::Region(region.clone()),
            None if self.resource => RegionScope::First,
            None => call.region_scope(),
        }
    }
}

/// Refuses an id of GovCloud's in a place where the gateway does not translate.
fn check_commercial(policy: &Policy, place: &str, id: &str) -> Result<(), Refusal> {
    let problem = match policy.to_commercial(id) {
        Ok(same) if same == id => return Ok(()),
        Ok(instead) => GovCloudId::Untranslated { id: id.to_owned(), instead: instead.to_owned() },
        Err(problem) => problem,
    };
    Err(Refusal::GovCloud { place: place.to_owned(), problem })
}

#[cfg(test)]
#[path = "pins_tests.rs"]
mod tests;
