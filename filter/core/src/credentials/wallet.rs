//! The credentials of every source in the configuration, as calls ask for them.

use super::Credentials;
use super::fetch::{Fetched, Source};
use super::keeper::Keeper;
use super::source::Origin;
use crate::config::{self, Auth, ConfigError};
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The name of the source of classes that name none.
pub const DEFAULT: &str = "default";

/// All sources, by name.
#[derive(Debug)]
pub struct Wallet(BTreeMap<String, (Origin, Keeper)>);

/// What a source has at a moment.
#[derive(Debug, Clone)]
pub enum Found {
    /// Credentials that may be used. The generation is 0 where they are never fetched.
    Ready(Credentials, u64),
    /// None yet: they are being fetched.
    Awaited,
    /// Those that there were have expired, and no new ones came.
    Expired,
    /// None, and none will come.
    Never,
}

impl Wallet {
    /// Checks the sources of a document. `lookup` reads the VM's environment; `holder` must be unlike that of any worker.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn compile(
        default: &config::Credentials,
        sets: &BTreeMap<String, config::Credentials>,
        auth: Auth,
        holder: u64,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let default = (DEFAULT.to_owned(), "credentials".to_owned(), default);
        let named = sets.iter().map(|(name, set)| (name.clone(), format!("credential_sets.{name}"), set));
        let compiled = std::iter::once(default).chain(named).map(|(name, key, source)| {
            let origin = Origin::compile(source, auth, &key, lookup)?;
            let keeper = Keeper::new(&name, holder);
            Ok((name, (origin, keeper)))
        });
        compiled.collect::<Result<_, _>>().map(Self)
    }

    /// One source, which has these.
    #[cfg(test)]
    pub fn fixed(credentials: Option<Credentials>) -> Self {
        Self([(DEFAULT.to_owned(), (Origin::Fixed(credentials), Keeper::new(DEFAULT, 1)))].into())
    }

    /// What the source of a name has now.
    pub fn find(&self, name: &str, shared: &dyn Shared, now: SystemTime) -> Found {
        match self.0.get(name) {
            None | Some((Origin::Fixed(None), _)) => Found::Never,
            Some((Origin::Fixed(Some(credentials)), _)) => Found::Ready(credentials.clone(), 0),
            Some((Origin::Fetched(_), keeper)) => match keeper.held(shared) {
                None => Found::Awaited,
                Some(held) if held.usable(now) => Found::Ready(held.credentials, held.generation),
                Some(_) => Found::Expired,
            },
        }
    }

    /// Whether any source has to be fetched.
    pub fn fetches(&self) -> bool {
        self.0.values().any(|(origin, _)| matches!(origin, Origin::Fetched(_)))
    }

    /// Whether every source has what it ever will have: none lacks credentials for want of configuration.
    pub fn lacks(&self) -> Option<&str> {
        let mut lacking = self.0.iter().filter(|(_, (origin, _))| matches!(origin, Origin::Fixed(None)));
        lacking.next().map(|(name, _)| name.as_str())
    }

    /// The sources that this worker is to fetch now.
    pub fn due(&self, shared: &dyn Shared, now: SystemTime) -> Vec<&str> {
        let due = |(origin, keeper): &(Origin, Keeper)| matches!(origin, Origin::Fetched(_)) && keeper.due(shared, now);
        self.0.iter().filter(|(_, set)| due(set)).map(|(name, _)| name.as_str()).collect()
    }

    /// How a source is fetched.
    pub fn source(&self, name: &str) -> Option<&Source> {
        match self.0.get(name) {
            Some((Origin::Fetched(source), _)) => Some(source),
            _ => None,
        }
    }

    /// As [`Keeper::publish`].
    pub fn publish(&self, name: &str, shared: &dyn Shared, fetched: &Fetched, now: SystemTime, jitter: f64) {
        if let Some((_, keeper)) = self.0.get(name) {
            keeper.publish(shared, fetched, now, jitter);
        }
    }

    /// As [`Keeper::going_on`].
    pub fn going_on(&self, name: &str, shared: &dyn Shared, now: SystemTime) {
        if let Some((_, keeper)) = self.0.get(name) {
            keeper.going_on(shared, now);
        }
    }

    /// How long the fetched credentials of each source may still be used, where an end is known; zero where there are none.
    pub fn left(&self, shared: &dyn Shared, now: SystemTime) -> Vec<(&str, Duration)> {
        let fetched = self.0.iter().filter(|(_, (origin, _))| matches!(origin, Origin::Fetched(_)));
        let left = |keeper: &Keeper| keeper.held(shared).map_or(Some(Duration::ZERO), |held| held.left(now));
        fetched.filter_map(|(name, (_, keeper))| Some((name.as_str(), left(keeper)?))).collect()
    }

    /// As [`Keeper::failed`].
    pub fn failed(&self, name: &str, shared: &dyn Shared, now: SystemTime) {
        if let Some((_, keeper)) = self.0.get(name) {
            keeper.failed(shared, now);
        }
    }

    /// As [`Keeper::refused`]. Says whether new ones can be fetched at all.
    pub fn refused(&self, name: &str, shared: &dyn Shared, generation: u64) -> bool {
        match self.0.get(name) {
            Some((Origin::Fetched(_), keeper)) => {
                keeper.refused(shared, generation);
                true
            }
            _ => false,
        }
    }
}
