//! `GET /gateway/v1/models`: the models that a caller may use, as the document and the regions' lists say.

use crate::catalogue::offers::{Offer, Offers};
use crate::catalogue::{age, choice};
use crate::model;
use crate::names::{PathName, RegionName};
use crate::operation::Operation;
use crate::policy::Viewer;
use crate::region::Region;
use crate::retention::guard::Guard;
use crate::route::RouteClass;
use crate::step::Context;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The operation whose calls the list describes. The others that run a model are sent the same, but for CountTokens.
const OPERATION: Operation = Operation::InvokeModel;

/// `GET /gateway/v1/models`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Models<'a> {
    /// The models that this caller may use, by id: those that the document names, and those that a region of the caller's classes lists.
    #[cfg_attr(test, schemars(with = "Vec<Model<'a>>"))]
    models: Each<'a>,
    /// Regions of the caller's classes whose lists are not known. More models may be usable there.
    unlisted_regions: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Model<'a> {
    /// The id by which it is called.
    id: &'a str,
    /// The operator's names for it.
    aliases: Vec<&'a str>,
    /// What a request may have, in AWS's words (`TEXT`, `IMAGE` …). This and the next two are absent if no region's list says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_modalities: Option<Vec<&'a str>>,
    /// What an answer may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_modalities: Option<Vec<&'a str>>,
    /// Whether the answer can be a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    streaming: Option<bool>,
    /// The Commercial regions that this caller's calls may go to, by name.
    commercial: BTreeMap<&'a str, Offered<'a>>,
    /// The ids by which regions of GovCloud offer it, by region, as the document says (`gateway_api.govcloud`); `{}`: by none. Absent:
    /// the document does not say what GovCloud offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    govcloud: Option<BTreeMap<&'a str, Vec<String>>>,
}

/// A model in a Commercial region.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Offered<'a> {
    /// The id or the inference profile that is sent.
    sent: String,
    /// The paths that calls may take, in order of the classes.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    paths: Vec<PathName>,
    /// Where the model is in its life, in AWS's words (`ACTIVE`, `LEGACY`); absent if the region's list does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    /// When its life ends (RFC 3339); absent if the region's list does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_of_life: Option<&'a str>,
}

/// The models one after the other: they are never in memory together.
#[derive(Debug)]
struct Each<'a> {
    /// By id, whether the document names them.
    known: BTreeMap<&'a str, bool>,
    places: &'a [Place<'a>],
    viewer: Viewer<'a>,
    context: Context<'a>,
}

impl Serialize for Each<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let models = self
            .known
            .iter()
            .filter_map(|(id, is_named)| model_of((*id, *is_named), self.places, self.viewer, self.context));
        serializer.collect_seq(models)
    }
}

/// A region of the caller's classes, and what it offers, as far as is known.
#[derive(Debug)]
struct Place<'a> {
    region: &'a Region,
    offers: Option<Arc<Offers>>,
}

/// The list for a caller, as JSON.
pub(super) fn body(viewer: Viewer<'_>, context: Context<'_>) -> Vec<u8> {
    let policy = context.policy;
    let own = policy.classes().iter().filter(|class| class.takes_caller(viewer.principal));
    let own: BTreeSet<&RegionName> = own.flat_map(RouteClass::regions).collect();
    let places: Vec<Place<'_>> = policy
        .regions()
        .filter(|region| own.contains(region.name()))
        .map(|region| Place { region, offers: choice::offers_of(region.name(), context) })
        .collect();
    let named = places.iter().flat_map(|place| place.region.profiles().keys()).chain(policy.aliases().values());
    let listed = places.iter().flat_map(|place| &place.offers).flat_map(|offers| offers.iter().map(|(id, _)| id));
    let known = listed.map(|id| (id, false)).chain(named.map(|id| (id.as_str(), true)));
    let unlisted = places.iter().filter(|place| place.offers.is_none());
    let models = Models {
        models: Each { known: known.collect(), places: &places, viewer, context },
        unlisted_regions: unlisted.map(|place| place.region.name().as_str()).collect(),
    };
    // Tables of texts: serialising them cannot fail.
    serde_json::to_vec(&models).unwrap_or_default()
}

/// A model, and whether the document names it. `None`: the caller may not use it, or no region offers it.
fn model_of<'a>(
    (id, is_named): (&'a str, bool),
    places: &'a [Place<'a>],
    viewer: Viewer<'_>,
    context: Context<'a>,
) -> Option<Model<'a>> {
    let policy = context.policy;
    let resolved = policy.resolve_model(id).ok()?;
    let sent: Vec<(&Place<'_>, String)> = places
        .iter()
        // Elsewhere it is listed. Here that is not known.
        .filter(|place| is_named || place.offers.is_some())
        .filter_map(|place| {
            let sent = choice::sent_id(OPERATION, &resolved, place.region, context)?;
            Some((place, sent.into_owned()))
        })
        .collect();
    let profiles = |class: &RouteClass| {
        let of_class =
            sent.iter().filter(|(place, sent)| class.regions().contains(place.region.name()) && *sent != resolved);
        of_class.map(|(_, sent)| sent.as_str()).collect()
    };
    let classes = policy.classes_of_model(viewer, &resolved, profiles);
    let bare = model::of_profile(id);
    let mut model = Model {
        id,
        aliases: policy.aliases().iter().filter(|(_, model)| *model == id).map(|(alias, _)| alias.as_str()).collect(),
        input_modalities: None,
        output_modalities: None,
        streaming: None,
        commercial: BTreeMap::new(),
        // What an ARN runs is not looked up.
        govcloud: policy.govcloud.ids(bare).filter(|_| !bare.starts_with("arn:")),
    };
    for (place, sent) in &sent {
        let name = place.region.name();
        let old = |class: &RouteClass| age::is_too_old(class, (OPERATION, Some(&resolved)), name, context);
        let retains = |class: &RouteClass| {
            Guard::of(class, (OPERATION, Some(&resolved)), &[], context).is_none_or(|guard| guard.admits(name))
        };
        let takes = |class: &&&RouteClass| class.regions().contains(name) && !old(class) && retains(class);
        let mut paths: Vec<PathName> = Vec::new();
        for path in classes.iter().filter(takes).flat_map(|class| class.paths()) {
            if !paths.contains(path) {
                paths.push(*path);
            }
        }
        if paths.is_empty() {
            continue;
        }
        let offer = place.offers.as_ref().and_then(|offers| offers.find(bare));
        let details = offer.map(Offer::details).unwrap_or_default();
        model.input_modalities = model.input_modalities.or(details.input());
        model.output_modalities = model.output_modalities.or(details.output());
        model.streaming = model.streaming.or(details.streaming());
        let offered =
            Offered { sent: sent.clone(), paths, status: details.status(), end_of_life: details.end_of_life() };
        model.commercial.insert(name.as_str(), offered);
    }
    (!model.commercial.is_empty()).then_some(model)
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
