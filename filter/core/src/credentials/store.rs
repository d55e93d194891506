//! The credentials of every source in the configuration, as calls ask for them.

use super::id::CredentialId;
use super::provider::{FetchPlan, Provider};
use super::sessions::{self, Sessions};
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
pub struct CredentialStore {
    sources: BTreeMap<String, Known>,
    sessions: Sessions,
    holder: u64,
}

#[derive(Debug)]
struct Known {
    provider: Provider,
    own: SharedCredentials,
    /// How many sessions of callers it begins in a second; `None`: it has none.
    sessions_per_second: Option<u32>,
}

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
    /// None yet: a session that is fetched, after those that were asked for before it, in about so many seconds.
    Queued(u64),
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
            let own = SharedCredentials::new(name, holder);
            Ok((name.to_owned(), Known { provider, own, sessions_per_second: source.sessions_per_second() }))
        });
        let sources = resolved.collect::<Result<_, _>>()?;
        Ok(Self { sources, sessions: Sessions::default(), holder })
    }

    /// One source, with these credentials.
    #[cfg(test)]
    pub fn fixed(credentials: Option<Credentials>) -> Self {
        use super::source::DEFAULT;
        let own = SharedCredentials::new(DEFAULT, 1);
        let known = Known { provider: Provider::Fixed(credentials), own, sessions_per_second: None };
        Self { sources: [(DEFAULT.to_owned(), known)].into(), sessions: Sessions::default(), holder: 1 }
    }

    /// What there is now.
    pub fn status(&self, id: &CredentialId, shared: &dyn Shared, now: SystemTime) -> CredentialStatus {
        match self.sources.get(&id.source).map(|known| &known.provider) {
            None | Some(Provider::Fixed(None)) => CredentialStatus::Missing,
            Some(Provider::Fixed(Some(credentials))) => {
                CredentialStatus::Usable { credentials: credentials.clone(), generation: 0 }
            }
            Some(Provider::Fetched(_)) => self.with(id, shared, now, |fetched| of_fetched(id, fetched, shared, now)),
        }
    }

    /// What there is now, for a call of the gateway role: a session that is missing, or about to expire, is fetched.
    pub fn ask(&self, id: &CredentialId, shared: &dyn Shared, now: SystemTime) -> CredentialStatus {
        let per_second = self.sources.get(&id.source).and_then(|known| known.sessions_per_second);
        let (Some(session), Some(per_second)) = (&id.session, per_second) else { return self.status(id, shared, now) };
        let queued = || CredentialStatus::Queued(self.sessions.wait(&id.source, per_second));
        if self.sessions.is_awaited(&id.source, session, now) {
            return queued();
        }
        self.with(id, shared, now, |fetched| {
            let status = of_fetched(id, fetched, shared, now);
            if fetched.is_stale(shared, now) {
                let is_missing = matches!(status, CredentialStatus::Pending);
                self.sessions.ask(&id.source, session, is_missing, now);
            }
            match status {
                // It has not been begun.
                CredentialStatus::Pending if !fetched.has_failed(shared) && fetched.may_begin(shared, now) => queued(),
                status => status,
            }
        })
    }

    /// A signer waits for a session that no gateway role may be asked for any more.
    pub fn miss(&self, id: &CredentialId, shared: &dyn Shared) {
        if let Some(session) = &id.session {
            sessions::miss(&id.source, session, shared);
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
        let mut missing = self.sources.iter().filter(|(_, known)| matches!(known.provider, Provider::Fixed(None)));
        missing.next().map(|(name, _)| name.as_str())
    }

    /// What this worker is to fetch now. It holds their leases.
    pub fn due(&self, shared: &dyn Shared, now: SystemTime) -> Vec<CredentialId> {
        let own = self.fetched().filter(|(_, _, own)| own.due(shared, now));
        let mut due: Vec<CredentialId> = own.map(|(name, ..)| CredentialId::of_source(name)).collect();
        for (source, known) in &self.sources {
            let Some(per_second) = known.sessions_per_second else { continue };
            self.sessions.take_missed(source, shared, now);
            for (first, session) in self.sessions.asked(source, now) {
                let id = CredentialId { source: source.clone(), session: Some(session.clone()) };
                let fetched = SharedCredentials::of_session(source, &session, self.holder, shared, now);
                if !fetched.is_stale(shared, now) {
                    self.sessions.forget(source, &session);
                } else if fetched.may_begin(shared, now) {
                    if !sessions::begin_exchange(source, per_second, (self.holder, first), shared, now) {
                        break;
                    }
                    if fetched.due(shared, now) {
                        due.push(id);
                    }
                }
            }
        }
        due
    }

    /// How credentials are fetched.
    pub fn plan(&self, id: &CredentialId) -> Option<FetchPlan> {
        let (_, plan, _) = self.fetched().find(|(known, ..)| *known == id.source)?;
        Some(match &id.session {
            Some(session) => plan.clone().named(session),
            None => plan.clone(),
        })
    }

    /// As [`SharedCredentials::publish`].
    pub fn publish(&self, id: &CredentialId, shared: &dyn Shared, fetched: &Fetched, now: SystemTime, jitter: f64) {
        self.with(id, shared, now, |source| source.publish(shared, fetched, now, jitter));
        if let Some(session) = &id.session {
            self.sessions.succeeded();
            self.sessions.forget(&id.source, session);
        }
    }

    /// As [`SharedCredentials::extend_lease`].
    pub fn extend_lease(&self, id: &CredentialId, shared: &dyn Shared, now: SystemTime) {
        self.with(id, shared, now, |source| source.extend_lease(shared, now));
    }

    /// As [`SharedCredentials::failed`].
    pub fn failed(&self, id: &CredentialId, shared: &dyn Shared, now: SystemTime) {
        self.with(id, shared, now, |source| source.failed(shared, now));
    }

    /// As [`SharedCredentials::hand_over`].
    pub fn hand_over(&self, id: &CredentialId, shared: &dyn Shared, now: SystemTime) -> bool {
        if let Some(session) = &id.session
            && !self.sessions.leave(&id.source, session, shared)
        {
            return false;
        }
        self.with(id, shared, now, |source| source.hand_over(shared))
    }

    /// As [`SharedCredentials::refused`]. `false`, too: the source cannot be fetched again.
    pub fn refused(&self, id: &CredentialId, shared: &dyn Shared, generation: u64, now: SystemTime) -> bool {
        if !self.fetched().any(|(known, ..)| known == id.source) {
            return false;
        }
        let renewed = self.with(id, shared, now, |source| source.refused(shared, generation, now));
        if renewed {
            self.miss(id, shared);
        }
        renewed
    }

    /// As [`SharedCredentials::accepted`].
    pub fn accepted(&self, id: &CredentialId, shared: &dyn Shared, generation: u64, now: SystemTime) {
        // Sessions are read anew for each call, so that many take no memory here.
        if id.session.is_none()
            && let Some(known) = self.sources.get(&id.source)
        {
            known.own.accepted(shared, generation, now);
        }
    }

    /// How long the fetched credentials of each source may still be used, where they expire; zero where there are none.
    pub fn left(&self, shared: &dyn Shared, now: SystemTime) -> Vec<(&str, Duration)> {
        let left =
            |source: &SharedCredentials| source.cached(shared).map_or(Some(Duration::ZERO), |cached| cached.left(now));
        self.fetched().filter_map(|(name, _, source)| Some((name, left(source)?))).collect()
    }

    /// When the last credentials of each source were fetched, in milliseconds since 1970.
    pub(crate) fn fetched_at(&self, shared: &dyn Shared) -> Vec<(&str, u64)> {
        let at = |source: &SharedCredentials| Some(source.cached(shared)?.fetched_at).filter(|at| *at != 0);
        self.fetched().filter_map(|(name, _, source)| Some((name, at(source)?))).collect()
    }

    /// How long the certificate of each source that has one is still valid.
    pub fn certificates_left(&self, shared: &dyn Shared, now: SystemTime) -> Vec<(&str, Duration)> {
        let left = |source: &SharedCredentials| source.cached(shared)?.certificate_left(now);
        self.fetched().filter_map(|(name, _, source)| Some((name, left(source)?))).collect()
    }

    fn fetched(&self) -> impl Iterator<Item = (&str, &FetchPlan, &SharedCredentials)> {
        self.sources.iter().filter_map(|(name, known)| match &known.provider {
            Provider::Fetched(plan) => Some((name.as_str(), &**plan, &known.own)),
            Provider::Fixed(_) => None,
        })
    }

    /// Uses what the credentials are shared by. An unknown source has nothing there.
    fn with<T>(
        &self,
        id: &CredentialId,
        shared: &dyn Shared,
        now: SystemTime,
        use_shared: impl FnOnce(&SharedCredentials) -> T,
    ) -> T {
        match (&id.session, self.sources.get(&id.source)) {
            (None, Some(known)) => use_shared(&known.own),
            (Some(session), _) => {
                use_shared(&SharedCredentials::of_session(&id.source, session, self.holder, shared, now))
            }
            (None, None) => use_shared(&SharedCredentials::new(&id.source, self.holder)),
        }
    }
}

fn of_fetched(
    id: &CredentialId,
    fetched: &SharedCredentials,
    shared: &dyn Shared,
    now: SystemTime,
) -> CredentialStatus {
    match fetched.cached(shared) {
        None => CredentialStatus::Pending,
        Some(cached) if cached.usable(now) || cached.usable(clock::corrected(shared, now)) => {
            CredentialStatus::Usable { credentials: cached.credentials, generation: cached.generation }
        }
        // A session is fetched only for its caller's calls, so it may have expired since the last.
        Some(_) if id.session.is_some() => CredentialStatus::Pending,
        Some(_) => CredentialStatus::Expired,
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
