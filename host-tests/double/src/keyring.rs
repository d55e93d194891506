//! Keys that are issued and revoked while a double runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::sigv4::AccessKey;

/// Keys that a test or a credential source issues and revokes.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Arc<Mutex<Vec<Issued>>>);

/// A key that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    pub key: AccessKey,
    /// When it expires.
    pub expires: OffsetDateTime,
    /// Whether it is revoked.
    pub revoked: bool,
}

impl Keyring {
    /// Issues a new key, unlike the ones before.
    pub fn issue(&self, prefix: &str, expires: OffsetDateTime) -> AccessKey {
        let mut keys = self.lock();
        let nth = keys.len() + 1;
        let key = AccessKey {
            id: format!("{prefix}{nth:08}"),
            secret: format!("issued/secret+{prefix}{nth:08}"),
            session_token: Some(format!("issued/token+{prefix}{nth:08}==")),
        };
        keys.push(Issued { key: key.clone(), expires, revoked: false });
        key
    }

    /// Adds a key that another service issued.
    pub fn add(&self, key: AccessKey, expires: OffsetDateTime) {
        self.lock().push(Issued { key, expires, revoked: false });
    }

    /// The key of an id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Issued> {
        self.lock().iter().find(|issued| issued.key.id == id).cloned()
    }

    /// Revokes all keys.
    pub fn revoke_all(&self) {
        self.lock().iter_mut().for_each(|issued| issued.revoked = true);
    }

    /// The number of issued keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Issued>> {
        // Every change is one push or one flag, so a panic leaves valid data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
