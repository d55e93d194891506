//! How old a region's lists may be where they decide a call (`catalogue_max_age_seconds` of a route class).

use super::choice;
use crate::names::RegionName;
use crate::operation::Operation;
use crate::reply::Refusal;
use crate::route::RouteClass;
use crate::step::Context;

/// Whether a call of a class is not sent to a region, because its lists would decide by which id, and are too old or were never read.
/// A snapshot has no age, and does not count.
pub(crate) fn is_too_old(
    class: &RouteClass,
    (operation, model): (Operation, Option<&str>),
    region: &RegionName,
    context: Context<'_>,
) -> bool {
    let (Some(most), Some(id)) = (class.catalogue_max_age(), model) else { return false };
    let Some(own) = context.policy.region(region.as_str()) else { return false };
    choice::asks_lists(operation, id, own, context)
        && context.catalogue.age(region, context.now).is_none_or(|age| age > most)
}

/// Why the regions whose lists are too old get no call of the class; `None`: none of these regions is one.
pub(crate) fn refusal(
    class: &RouteClass,
    call: (Operation, Option<&str>),
    regions: &[&RegionName],
    context: Context<'_>,
) -> Option<Refusal> {
    let old: Vec<&RegionName> =
        regions.iter().copied().filter(|region| is_too_old(class, call, region, context)).collect();
    let names: Vec<&str> = old.iter().map(|region| region.as_str()).collect();
    // One that was never read is older than any.
    let ages: Option<Vec<u64>> =
        old.iter().map(|region| context.catalogue.age(region, context.now).map(|age| age.as_secs())).collect();
    (!old.is_empty()).then(|| Refusal::OldCatalogue {
        class: class.name().to_owned(),
        regions: names.join(", "),
        age: ages.and_then(|ages| ages.into_iter().max()),
        most: class.catalogue_max_age().unwrap_or_default().as_secs(),
    })
}
