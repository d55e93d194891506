//! Data retention: which mode each region has, and that no call goes to a region with another one.
//!
//! One worker polls a region ([`poll`]) for each source of credentials, since settings are an account's in a region, and shares what
//! AWS has set ([`setting`]). Each VM keeps a copy ([`RetentionStore`]). By it the gateway chooses regions, and the signer checks
//! each attempt ([`guard`]).

pub mod guard;
pub mod poll;
pub mod rules;
pub mod setting;

use crate::config::{Credentials, RetentionMode};
use crate::encoding::hex;
use crate::metrics::{Sample, retention_age, retention_mode};
use crate::names::RegionName;
use crate::polls::{Task, Work, age, generation};
use crate::shared::{Shared, millis};
use setting::{DEFAULT_PROJECT, Setting, Settings, Unresolved, resolve};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Counts up with each change of what AWS has set somewhere.
const GENERATION: &str = "retention/generation";

/// An account's region: a source of credentials, and a region. What a document reads otherwise is another place, so that its calls
/// are not judged by what another document has read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The name of the source.
    pub source: String,
    /// The region.
    pub region: RegionName,
    /// Of the source's keys in the document, and of the projects that are read.
    digest: String,
}

/// A VM's copy of what AWS has set.
#[derive(Debug, Default)]
pub struct RetentionStore {
    places: RefCell<BTreeMap<Place, Known>>,
}

/// What is known of a place.
#[derive(Debug, Default)]
struct Known {
    /// Absent before the first poll.
    settings: Option<Settings>,
    /// In milliseconds since 1970.
    polled_at: u64,
    /// When it was read. Of its own, because documents with other places follow, too, while their calls last.
    generation: u64,
}

impl Place {
    /// The region, as a source of credentials and a document's projects there show it.
    pub(crate) fn new(source: &str, region: &RegionName, (credentials, projects): (&Credentials, &[String])) -> Self {
        // A document is made of texts and numbers: serialising it cannot fail.
        let read = serde_json::to_vec(&(credentials, projects)).unwrap_or_default();
        let digest = Sha256::digest(read).iter().copied().take(8).collect::<Vec<u8>>();
        Self { source: source.to_owned(), region: region.clone(), digest: hex(&digest) }
    }

    /// The poll of its settings.
    pub(crate) fn task(&self, refresh: Duration) -> Task {
        let value = format!("retention/{}/{}/{}", self.source, self.digest, self.region);
        Task { work: format!("{value}/work"), value, generation: GENERATION, refresh }
    }
}

impl RetentionStore {
    /// Takes what was shared since. Asks for one number while nothing was.
    pub fn follow<'a>(&self, places: impl Iterator<Item = &'a Place>, shared: &dyn Shared) {
        let generation = generation(shared.get(GENERATION).map(|(value, _)| value).as_deref());
        let mut all = self.places.borrow_mut();
        for place in places {
            if all.get(place).is_some_and(|known| known.generation == generation) {
                continue;
            }
            let task = place.task(Duration::ZERO);
            let known = all.entry(place.clone()).or_default();
            known.generation = generation;
            if let Some(settings) = shared.get(&task.value).and_then(|(value, _)| Settings::read(&value)) {
                known.settings = Some(settings);
                known.polled_at = Work::of(&task, shared).polled_at;
            }
        }
    }

    /// Takes an account's mode as if it were read, for a gateway that cannot ask.
    pub fn assume(&self, place: &Place, account: &str, now: SystemTime) {
        let projects = BTreeMap::from([(DEFAULT_PROJECT.to_owned(), "inherit".to_owned())]);
        let settings = Some(Settings { account: account.to_owned(), projects });
        self.places.borrow_mut().insert(place.clone(), Known { settings, polled_at: millis(now), generation: 0 });
    }

    /// Takes when a document's places were polled, and gives that to the metrics.
    pub fn look<'a>(
        &self,
        places: impl Iterator<Item = &'a Place>,
        max_age: Duration,
        shared: &dyn Shared,
        now: SystemTime,
    ) -> Vec<Sample> {
        let (mut samples, mut all) = (Vec::new(), self.places.borrow_mut());
        for place in places {
            let Some(known) = all.get_mut(place).filter(|known| known.settings.is_some()) else { continue };
            known.polled_at = Work::polled_at(&place.task(Duration::ZERO), shared, now);
            let (source, region) = (place.source.as_str(), place.region.as_str());
            let age = Duration::from_millis(millis(now).saturating_sub(known.polled_at));
            samples.push(retention_age(source, region, age));
            let current = known.fresh(max_age, now).map_or("unresolved", |settings| settings.label());
            let labels = RetentionMode::ALL.into_iter().map(RetentionMode::as_str).chain(["default", "unresolved"]);
            samples.extend(labels.map(|label| retention_mode(source, region, label, label == current)));
        }
        samples
    }

    /// The time since a place's last poll that succeeded.
    pub(crate) fn age(&self, place: &Place, now: SystemTime) -> Option<Duration> {
        age(self.places.borrow().get(place)?.polled_at, now)
    }

    /// The mode of a call in a project of a place; `model` is the mode that its model has by itself.
    pub(crate) fn mode(
        &self,
        place: &Place,
        project: &str,
        model: Option<RetentionMode>,
        (max_age, now): (Duration, SystemTime),
    ) -> Result<RetentionMode, Unresolved> {
        let places = self.places.borrow();
        places.get(place).ok_or(Unresolved::Unread)?.fresh(max_age, now)?.mode(project, model)
    }

    /// The mode of calls that name no project, for people: `default` is the model's own.
    pub(crate) fn label(&self, place: &Place, max_age: Duration, now: SystemTime) -> &'static str {
        let places = self.places.borrow();
        let fresh = places.get(place).and_then(|known| known.fresh(max_age, now).ok());
        fresh.map_or("unresolved", Settings::label)
    }
}

impl Known {
    fn fresh(&self, max_age: Duration, now: SystemTime) -> Result<&Settings, Unresolved> {
        let age = age(self.polled_at, now).ok_or(Unresolved::Unread)?;
        if age > max_age {
            Err(Unresolved::Stale(age.as_secs()))
        } else {
            self.settings.as_ref().ok_or(Unresolved::Unread)
        }
    }
}

impl Settings {
    fn label(&self) -> &'static str {
        let Some(project) = self.projects.get(DEFAULT_PROJECT) else { return "unresolved" };
        match resolve(Setting::of(project), Setting::of(&self.account), None) {
            Ok(mode) => mode.as_str(),
            Err(Unresolved::Model) => "default",
            Err(_) => "unresolved",
        }
    }
}

#[cfg(test)]
mod tests;
