//! The credentials of every source in the configuration, as calls ask for them.

use super::provider::{FetchPlan, Provider};
use super::shared_credentials::SharedCredentials;
use super::source::CredentialSources;
use super::{Credentials, Fetched};
use crate::clock;
use crate::config::{Auth, ConfigError};
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// All sources, by name.
#[derive(Debug)]
pub struct CredentialStore(BTreeMap<String, (Provider, SharedCredentials)>);

/// What a source has at a moment.
#[derive(Debug, Clone)]
pub enum CredentialStatus {
    /// Credentials that have not expired.
    Usable {
        /// The credentials.
        credentials: Credentials,
        /// Counts up with each fetch; 0 if they are never fetched.
        generation: u64,
    },
    /// None yet: they are being fetched.
    Pending,
    /// The last ones have expired, and could not be replaced.
    Expired,
    /// None, and none will come.
    Missing,
}

impl CredentialStore {
    /// Adds to a policy's sources what the VM's environment says, which `lookup` reads. `holder` must differ from that of any
    /// other worker.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and the environment's variable.
    pub fn resolve(
        sources: &CredentialSources,
        auth: Auth,
        holder: u64,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let resolved = sources.iter().map(|(name, key, source)| {
            let provider = Provider::resolve(source, auth, &key, lookup)?;
            Ok((name.to_owned(), (provider, SharedCredentials::new(name, holder))))
        });
        resolved.collect::<Result<_, _>>().map(Self)
    }

    /// One source, with these credentials.
    #[cfg(test)]
    pub fn fixed(credentials: Option<Credentials>) -> Self {
        use super::source::DEFAULT;
        Self([(DEFAULT.to_owned(), (Provider::Fixed(credentials), SharedCredentials::new(DEFAULT, 1)))].into())
    }

    /// What the source of a name has now.
    pub fn status(&self, name: &str, shared: &dyn Shared, now: SystemTime) -> CredentialStatus {
        match self.0.get(name) {
            None | Some((Provider::Fixed(None), _)) => CredentialStatus::Missing,
            Some((Provider::Fixed(Some(credentials)), _)) => {
                CredentialStatus::Usable { credentials: credentials.clone(), generation: 0 }
            }
            Some((Provider::Fetched(_), fetched)) => match fetched.cached(shared) {
                None => CredentialStatus::Pending,
                Some(cached) if cached.usable(now) || cached.usable(clock::corrected(shared, now)) => {
                    CredentialStatus::Usable { credentials: cached.credentials, generation: cached.generation }
                }
                Some(_) => CredentialStatus::Expired,
            },
        }
    }

    /// Replaces the credentials of all sources by what was published since, so that no old ones stay in memory without calls.
    pub fn follow(&self, shared: &dyn Shared) {
        for (_, _, source) in self.fetched() {
            source.follow(shared);
        }
    }

    /// Whether any source has to be fetched.
    pub fn fetches(&self) -> bool {
        self.fetched().next().is_some()
    }

    /// The first source whose credentials the environment lacks.
    pub fn missing(&self) -> Option<&str> {
        let mut missing = self.0.iter().filter(|(_, (provider, _))| matches!(provider, Provider::Fixed(None)));
        missing.next().map(|(name, _)| name.as_str())
    }

    /// The sources that this worker is to fetch now. It holds their leases.
    pub fn due(&self, shared: &dyn Shared, now: SystemTime) -> Vec<&str> {
        self.fetched().filter(|(_, _, fetched)| fetched.due(shared, now)).map(|(name, ..)| name).collect()
    }

    /// How a source is fetched.
    pub fn plan(&self, name: &str) -> Option<&FetchPlan> {
        self.fetched().find(|(known, ..)| *known == name).map(|(_, plan, _)| plan)
    }

    /// As [`SharedCredentials::publish`].
    pub fn publish(&self, name: &str, shared: &dyn Shared, fetched: &Fetched, now: SystemTime, jitter: f64) {
        if let Some((_, source)) = self.0.get(name) {
            source.publish(shared, fetched, now, jitter);
        }
    }

    /// As [`SharedCredentials::extend_lease`].
    pub fn extend_lease(&self, name: &str, shared: &dyn Shared, now: SystemTime) {
        if let Some((_, source)) = self.0.get(name) {
            source.extend_lease(shared, now);
        }
    }

    /// As [`SharedCredentials::failed`].
    pub fn failed(&self, name: &str, shared: &dyn Shared, now: SystemTime) {
        if let Some((_, source)) = self.0.get(name) {
            source.failed(shared, now);
        }
    }

    /// As [`SharedCredentials::hand_over`].
    pub fn hand_over(&self, name: &str, shared: &dyn Shared) -> bool {
        self.0.get(name).is_some_and(|(_, source)| source.hand_over(shared))
    }

    /// As [`SharedCredentials::refused`]. `false`, too: the source cannot be fetched again.
    pub fn refused(&self, name: &str, shared: &dyn Shared, generation: u64, now: SystemTime) -> bool {
        let source = self.fetched().find(|(known, ..)| *known == name);
        source.is_some_and(|(_, _, source)| source.refused(shared, generation, now))
    }

    /// As [`SharedCredentials::accepted`].
    pub fn accepted(&self, name: &str, shared: &dyn Shared, generation: u64, now: SystemTime) {
        if let Some((_, source)) = self.0.get(name) {
            source.accepted(shared, generation, now);
        }
    }

    /// How long the fetched credentials of each source may still be used, where they expire; zero where there are none.
    pub fn left(&self, shared: &dyn Shared, now: SystemTime) -> Vec<(&str, Duration)> {
        let left =
            |source: &SharedCredentials| source.cached(shared).map_or(Some(Duration::ZERO), |cached| cached.left(now));
        self.fetched().filter_map(|(name, _, source)| Some((name, left(source)?))).collect()
    }

    /// How long the certificate of each source that has one is still valid.
    pub fn certificates_left(&self, shared: &dyn Shared, now: SystemTime) -> Vec<(&str, Duration)> {
        let left = |source: &SharedCredentials| source.cached(shared)?.certificate_left(now);
        self.fetched().filter_map(|(name, _, source)| Some((name, left(source)?))).collect()
    }

    fn fetched(&self) -> impl Iterator<Item = (&str, &FetchPlan, &SharedCredentials)> {
        self.0.iter().filter_map(|(name, (provider, source))| match provider {
            Provider::Fetched(plan) => Some((name.as_str(), plan, source)),
            Provider::Fixed(_) => None,
        })
    }
}
