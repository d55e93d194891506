//! The name of a caller's own role session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fmt::Write as _;

/// Longest name (`roleSessionName`:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>). The shortest has two characters.
const MAX_NAME: usize = 64;
/// Between the hash of a long name and its end. No other name has it.
const HASHED: &str = "=.";

/// A `roleSessionName` that no other principal has: 2 to 64 of `[\w+=,.@-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionName(String);

impl SessionName {
    /// The name for a principal. A byte that a name cannot have, and `=`, becomes `=` and two hexadecimal digits. Of a name that
    /// is longer than 64 characters then, the end stays, behind the hash of the principal.
    pub fn of(principal: &str) -> Self {
        let mut name = String::with_capacity(principal.len());
        for byte in principal.bytes() {
            if byte.is_ascii_alphanumeric() || b"_+,.@-".contains(&byte) {
                name.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(name, "={byte:02X}");
            }
        }
        if let Some(cut) = name.len().checked_sub(MAX_NAME).filter(|cut| *cut > 0) {
            let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(principal));
            // All of it is ASCII.
            let end = name.split_off(cut + hash.len() + HASHED.len());
            name = format!("{hash}{HASHED}{end}");
        }
        // A single `=` follows no other name.
        while name.len() < 2 {
            name.push('=');
        }
        Self(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn is_name(name: &str) -> bool {
        (2..=MAX_NAME).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
    }

    #[test]
    fn principals_become_session_names() {
        let long = format!("spiffe://corp.example/{}", "x".repeat(60));
        for (principal, wanted) in [
            ("alice@corp.example", "alice@corp.example"),
            ("spiffe://corp/ns/a", "spiffe=3A=2F=2Fcorp=2Fns=2Fa"),
            ("a=b", "a=3Db"),
            ("a", "a="),
            ("", "=="),
            ("ü", "=C3=BC"),
            (long.as_str(), "FAJtG77tMqYqrzbZ-CF7953diTUgy_bmQjDM8zRoEaI=.xxxxxxxxxxxxxxxxxxx"),
        ] {
            let name = SessionName::of(principal);
            assert!(is_name(name.as_str()), "{name}");
            assert_eq!(name.as_str(), wanted);
        }
    }

    #[test]
    fn names_that_look_alike_differ() {
        let long = "x".repeat(65);
        let hashed = SessionName::of(&long);
        for (one, other) in [("a", "a="), ("a/b", "a=2Fb"), ("=", "=="), ("", "="), (long.as_str(), hashed.as_str())] {
            assert_ne!(SessionName::of(one), SessionName::of(other), "{one} {other}");
        }
        assert_ne!(SessionName::of(&long), SessionName::of(&format!("{long}x")));
        assert_ne!(SessionName::of("Alice"), SessionName::of("alice"));
    }

    /// Texts from a small alphabet resemble each other and their names.
    #[test]
    fn no_two_principals_share_a_name() {
        let (mut random, mut owners) = (1_u64, BTreeMap::new());
        let mut next = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((random >> 33) % bound).unwrap()
        };
        for round in 0..50_000 {
            let length = if round % 2 == 0 { next(5) } else { 15 + next(60) };
            let principal: String = (0..length).map(|_| ["a", "=", "2", "F", "/", ".", "=."][next(7)]).collect();
            let name = SessionName::of(&principal);
            assert!(is_name(name.as_str()), "{name}");
            let owner = owners.entry(name).or_insert_with(|| principal.clone());
            assert_eq!(*owner, principal);
        }
    }
}
