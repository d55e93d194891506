//! The regions' data retention, which `explain` cannot read: as `--retention` says, or as the classes demand it.

use std::str::FromStr;

use filter_core::catalogue::CatalogueStore;
use filter_core::config::Retention;
use filter_core::names::RegionName;
use filter_core::policy::Policy;
use filter_core::retention::guard::mode_of;
use filter_core::retention::rules::RetentionRules;
use filter_core::route::RouteClass;
use filter_core::step::Context;

/// `--retention us-east-1=none`: the mode that AWS has for the account in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionMode {
    region: RegionName,
    mode: String,
}

/// A text is not a [`RegionMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a region and the mode of its account, such as us-east-1=none")]
pub struct RegionModeError;

impl FromStr for RegionMode {
    type Err = RegionModeError;

    fn from_str(text: &str) -> Result<Self, RegionModeError> {
        let (region, mode) = text.split_once('=').ok_or(RegionModeError)?;
        let region = region.parse().map_err(|_| RegionModeError)?;
        if mode.is_empty() { Err(RegionModeError) } else { Ok(Self { region, mode: mode.to_owned() }) }
    }
}

/// What a gateway knows whose regions have the modes that are given. One without has the mode that the first class demands there.
pub(super) fn known(policy: &Policy, given: &[RegionMode], now: std::time::SystemTime) -> CatalogueStore {
    let store = CatalogueStore::default();
    let places = policy.retention.as_ref().map(RetentionRules::places).into_iter().flatten();
    for place in places {
        let own = given.iter().rfind(|own| own.region == place.region).map(|own| own.mode.as_str());
        let demanded = || {
            let classes = policy.classes().iter().filter(|class| class.credentials() == place.source);
            let mut there = classes.filter(|class| class.regions().contains(&place.region));
            there.find_map(|class| class.retention()?.mode()).map_or("none", |mode| mode.as_str())
        };
        store.retention.assume(place, own.unwrap_or_else(demanded), now);
    }
    store
}

/// What a class demands of each of its regions, and what they have.
pub(super) fn note(
    class: &RouteClass,
    model: Option<&str>,
    given: &[RegionMode],
    context: Context<'_>,
) -> Option<String> {
    let demand = class.retention()?;
    let first = class.regions().first()?;
    let wanted = demand.mode().or_else(|| mode_of(class, first, model, context).ok());
    let wants = match demand {
        Retention::Same => format!("the data retention mode of {first}"),
        Retention::None | Retention::AwsReview | Retention::ProviderDataShare => {
            format!("the data retention mode '{}'", wanted.map_or("", |mode| mode.as_str()))
        }
    };
    let of = |region: &RegionName| {
        let mode = mode_of(class, region, model, context);
        let goes = (demand == Retention::Same && region == first)
            || (wanted.is_some() && mode.as_ref().ok() == wanted.as_ref());
        let goes = if goes { "" } else { " (never called)" };
        match mode {
            Ok(mode) => format!("{region} has '{mode}'{goes}"),
            Err(why) => format!("{region}: {why}{goes}"),
        }
    };
    let regions: Vec<String> = class.regions().iter().map(of).collect();
    let assumed = class.regions().iter().any(|region| given.iter().all(|own| own.region != *region));
    let assumed = if assumed { ". Regions without --retention are taken to have what is demanded" } else { "" };
    Some(format!("class {} demands {wants}: {}{assumed}", class.name(), regions.join(", ")))
}
