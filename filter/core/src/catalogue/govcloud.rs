//! What GovCloud's regions offer, as the document says it.

use super::lists::Lists;
use super::offers::Offers;
use crate::config::{self, ConfigError, Snapshot, at};
use crate::names::Partition;
use std::collections::BTreeMap;

/// What GovCloud's regions offer; empty: the document does not say it.
#[derive(Debug, Default)]
pub(crate) struct GovCloud(BTreeMap<String, Offers>);

impl GovCloud {
    pub(crate) fn compile(api: &config::GatewayApi) -> Result<Self, ConfigError> {
        let offers = |(region, saved): (&String, &Snapshot)| {
            let key = format!("gateway_api.govcloud.{region}");
            if Partition::of_region(region) != Some(Partition::GovCloud) {
                return Err(at(key, format!("'{region}' is not a region of GovCloud, such as us-gov-west-1")));
            }
            let lists = Lists::of_ids(&saved.on_demand, &saved.profiles).map_err(|(list, index, id)| {
                at(format!("{key}.{list}[{index}]"), format!("{id:?} is not an id of this kind"))
            })?;
            Ok((region.clone(), lists.offers()))
        };
        api.govcloud.iter().map(offers).collect::<Result<_, _>>().map(Self)
    }

    /// The ids by which GovCloud's regions offer a model, by region; `None`: the document does not say what they offer.
    pub(crate) fn ids(&self, bare: &str) -> Option<BTreeMap<&str, Vec<String>>> {
        let ids = |offers: &Offers| {
            let offer = offers.find(bare)?;
            let own = offer.on_demand().then(|| bare.to_owned());
            Some(own.into_iter().chain(offer.geographies().map(|area| format!("{area}.{bare}"))).collect())
        };
        let regions = self.0.iter().filter_map(|(region, offers)| Some((region.as_str(), ids(offers)?)));
        (!self.0.is_empty()).then(|| regions.collect())
    }
}
