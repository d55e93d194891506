//! The id by which a region is called, by what it offers.

use super::offers::{Offer, Offers};
use crate::geography::{self, GLOBAL};
use crate::model;
use crate::names::RegionName;
use crate::operation::Operation;
use crate::region::Region;
use crate::reply::Refusal;
use crate::step::Context;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The model id as it is sent to a region; `None`: the region does not offer the model. The operator's entries
/// (`inference_profiles`) win. ARNs stay as they are, and so does every id where no list is known. All that is not listed has an
/// ARN, by the page of InvokeModel: provisioned, custom and imported models, prompts, application inference profiles, which may be
/// named without one, and are where resources are resolved
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html>).
pub(crate) fn sent_id<'a>(
    operation: Operation,
    id: &'a str,
    region: &'a Region,
    context: Context<'_>,
) -> Option<Cow<'a, str>> {
    let id = operators_id(operation, id, region);
    let Some(catalogue) = &context.policy.catalogue else { return Some(Cow::Borrowed(id)) };
    if is_operators(id, region) || is_name(id, context) {
        return Some(Cow::Borrowed(id));
    }
    if id.starts_with("arn:") {
        let refused = is_refused(id, region.name(), context);
        let profile = refused.then(|| by_profile(operation, id, region, context)).flatten();
        return Some(profile.map_or(Cow::Borrowed(id), Cow::Owned));
    }
    let Some(offers) = offers_of(region.name(), context) else { return Some(Cow::Borrowed(id)) };
    let has = |bare, geography| offers.find(bare).is_some_and(|offer| offer.geographies().any(|own| own == geography));
    if id.split_once('.').is_some_and(|(geography, bare)| has(bare, geography)) {
        return Some(Cow::Borrowed(id));
    }
    let offer = offers.find(id)?;
    if !operation.takes_profile() {
        return Some(Cow::Borrowed(id));
    }
    if offer.on_demand() && !context.catalogue.learnt.has(region.name(), id, Some(offer)) {
        return Some(Cow::Borrowed(id));
    }
    match profile_geography(id, offer, region.name(), catalogue.global, |id| context.policy.allows_profile(id)) {
        Some(geography) => Some(Cow::Owned(format!("{geography}.{id}"))),
        // Bedrock has refused it before, and does so in its own words.
        None => offer.on_demand().then_some(Cow::Borrowed(id)),
    }
}

/// Whether the region's lists decide by which id it is called. Ids of the operator's table are not looked up, and ARNs only once Bedrock
/// has refused to run them on demand.
pub(crate) fn asks_lists(operation: Operation, id: &str, region: &Region, context: Context<'_>) -> bool {
    let id = operators_id(operation, id, region);
    let is_listed = !id.starts_with("arn:") || is_refused(id, region.name(), context);
    is_listed && !is_operators(id, region) && !is_name(id, context)
}

/// Whether resources are resolved, and it is the name of one.
fn is_name(id: &str, context: Context<'_>) -> bool {
    context.policy.resolve.is_some() && model::is_name(id)
}

/// The id that the operator's table gives for a model.
fn operators_id<'a>(operation: Operation, id: &'a str, region: &'a Region) -> &'a str {
    if operation.takes_profile() { region.profile(id) } else { id }
}

/// Whether the operator's table has an id.
fn is_operators(id: &str, region: &Region) -> bool {
    region.profiles().iter().any(|(known, profile)| known == id || profile == id)
}

/// The profile by which a region is called in place of a bare id or of a foundation model's ARN, once Bedrock has refused to run
/// these on demand. `None`: none is known that may be sent.
pub(crate) fn by_profile(operation: Operation, id: &str, region: &Region, context: Context<'_>) -> Option<String> {
    let catalogue = context.policy.catalogue.as_ref().filter(|_| operation.takes_profile())?;
    let bare = bare_of(id)?;
    let allows = |id: &str| context.policy.allows_profile(id);
    if let Some(profile) = region.profiles().get(bare) {
        return allows(profile).then(|| profile.clone());
    }
    let offers = offers_of(region.name(), context)?;
    let geography = profile_geography(bare, offers.find(bare)?, region.name(), catalogue.global, allows)?;
    Some(format!("{geography}.{bare}"))
}

/// Learns that Bedrock has refused to run a bare id, or a foundation model's ARN, on demand. Returns whether no worker knew it.
pub(crate) fn learn(id: &str, region: &RegionName, context: Context<'_>) -> bool {
    let Some(bare) = bare_of(id) else { return false };
    let offers = offers_of(region, context);
    let offer = offers.as_ref().and_then(|offers| offers.find(bare));
    context.catalogue.learnt.add(region, bare, offer, context.shared)
}

/// Whether a region is known to refuse that.
fn is_refused(id: &str, region: &RegionName, context: Context<'_>) -> bool {
    let Some(bare) = bare_of(id).filter(|_| !context.catalogue.learnt.is_empty()) else { return false };
    let offers = offers_of(region, context);
    context.catalogue.learnt.has(region, bare, offers.as_ref().and_then(|offers| offers.find(bare)))
}

/// The model of a bare id or of a foundation model's ARN: what Bedrock may run on demand.
fn bare_of(id: &str) -> Option<&str> {
    let resource = id.strip_prefix("arn:aws:bedrock:").and_then(|arn| arn.split_once("::foundation-model/"));
    let bare = resource.map_or(id, |(_, bare)| bare);
    (!bare.starts_with("arn:") && model::without_geography(bare).is_none() && model::is_resolved(bare)).then_some(bare)
}

/// The geography of the profile by which a region is called for a bare id; `None`: by none that `allows`.
fn profile_geography<'a>(
    id: &str,
    offer: Offer<'a>,
    region: &RegionName,
    global: bool,
    allows: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let order = geography::of_region(region.as_str());
    let place = |geography: &str| match geography {
        GLOBAL => global.then_some(usize::MAX),
        other => order.iter().position(|known| *known == other),
    };
    let allowed = offer.geographies().filter(|geography| allows(&format!("{geography}.{id}")));
    let placed = allowed.filter_map(|geography| Some((place(geography)?, geography)));
    placed.min_by_key(|(place, _)| *place).map(|(_, geography)| geography)
}

/// What a region offers: by its last poll, else by the document's snapshot.
pub(crate) fn offers_of(region: &RegionName, context: Context<'_>) -> Option<Arc<Offers>> {
    let catalogue = context.policy.catalogue.as_ref()?;
    // Lists of a time when regions were polled count no more.
    let polled = catalogue.refresh.and_then(|_| context.catalogue.offers(region));
    polled.or_else(|| catalogue.snapshot.get(region).map(Arc::clone))
}

/// Whether a region offers the model of a call; calls without a model are served anywhere.
pub(crate) fn serves(operation: Operation, model: Option<&str>, region: &RegionName, context: Context<'_>) -> bool {
    let (Some(_), Some(id)) = (&context.policy.catalogue, model) else { return true };
    let region = context.policy.region(region.as_str());
    region.is_none_or(|region| sent_id(operation, id, region, context).is_some())
}

/// Why none of these regions serves a call.
pub(crate) fn not_offered(id: &str, regions: &[&RegionName], context: Context<'_>) -> Refusal {
    let ages = regions.iter().filter_map(|region| stale_age(region, context));
    let names: Vec<&str> = regions.iter().map(|region| region.as_str()).collect();
    Refusal::NotOffered {
        model: id.to_owned(),
        regions: names.join(", "),
        global: only_global(id, regions, context),
        stale: ages.max().map(|age| age.as_secs()),
    }
}

/// Whether a region has a global profile of the model, which `catalogue.global` does not allow.
fn only_global(id: &str, regions: &[&RegionName], context: Context<'_>) -> bool {
    let has =
        |offers: &Offers| offers.find(id).is_some_and(|offer| offer.geographies().any(|geography| geography == GLOBAL));
    let allowed = context.policy.catalogue.as_ref().is_some_and(|catalogue| catalogue.global);
    !allowed && regions.iter().any(|region| offers_of(region, context).is_some_and(|offers| has(&offers)))
}

/// The age of a region's lists, if at least one poll since has failed.
fn stale_age(region: &RegionName, context: Context<'_>) -> Option<Duration> {
    let age = context.catalogue.age(region, context.now)?;
    let refresh = context.policy.catalogue.as_ref()?.refresh?;
    (age >= refresh * 2).then_some(age)
}
