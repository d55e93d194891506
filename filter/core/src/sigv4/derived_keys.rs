//! The keys that sign: derived from a secret access key for a day, a region and a service ("Create a signed AWS API request",
//! AWS IAM User Guide, step 4).
//!
//! A derivation is four HMACs of ten, and the same for all calls of a day, so that it is kept next to the secret.

use super::Scope;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::cell::RefCell;
use std::fmt::{Debug, Formatter};
use std::rc::Rc;
use zeroize::Zeroizing;

/// So many are kept: a gateway signs for a few regions, and for the day before around midnight.
const MAX_KEPT: usize = 16;

/// What has been derived from one secret. Clones share it; it is gone with the last one.
#[derive(Clone, Default)]
pub struct DerivedKeys(Rc<RefCell<Vec<Derived>>>);

struct Derived {
    day: String,
    region: String,
    service: String,
    /// The state after the key: as secret as the key itself.
    keyed: Hmac<Sha256>,
}

impl DerivedKeys {
    /// The signature of a string to sign. `day` is `YYYYMMDD`.
    pub(super) fn sign(&self, secret: &str, day: &str, scope: Scope<'_>, string_to_sign: &[u8]) -> [u8; 32] {
        let mut keyed = self.keyed(secret, day, scope);
        keyed.update(string_to_sign);
        keyed.finalize().into_bytes().into()
    }

    fn keyed(&self, secret: &str, day: &str, scope: Scope<'_>) -> Hmac<Sha256> {
        let derive = || keyed(&*signing_key(secret, day, scope));
        // Nothing else borrows it while this function runs.
        let Ok(mut kept) = self.0.try_borrow_mut() else { return derive() };
        let is_it = |of: &&Derived| of.day == day && of.region == scope.region && of.service == scope.service;
        if let Some(derived) = kept.iter().find(is_it) {
            return derived.keyed.clone();
        }
        let keyed = derive();
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        let (region, service) = (scope.region.to_owned(), scope.service.to_owned());
        kept.push(Derived { day: day.to_owned(), region, service, keyed: keyed.clone() });
        keyed
    }
}

impl Debug for DerivedKeys {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("DerivedKeys")
    }
}

/// The key of a day (`YYYYMMDD`), a region and a service.
pub(super) fn signing_key(secret: &str, day: &str, scope: Scope<'_>) -> Zeroizing<[u8; 32]> {
    let start = Zeroizing::new([b"AWS4", secret.as_bytes()].concat());
    let of_day = Zeroizing::new(hmac_sha256(&start, day.as_bytes()));
    let of_region = Zeroizing::new(hmac_sha256(&*of_day, scope.region.as_bytes()));
    let of_service = Zeroizing::new(hmac_sha256(&*of_region, scope.service.as_bytes()));
    Zeroizing::new(hmac_sha256(&*of_service, b"aws4_request"))
}

/// HMAC with SHA-256 (RFC 2104).
pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut keyed = keyed(key);
    keyed.update(message);
    keyed.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of every length; the other arm is for the type only.
    Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

#[cfg(test)]
#[path = "derived_keys_tests.rs"]
mod tests;
