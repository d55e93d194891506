//! Data that all workers of an Envoy share.
//!
//! Envoy never forgets a key, so users must take keys from a bounded set.

use std::fmt::Debug;

/// Proxy-Wasm's shared data: a map with compare-and-swap.
pub trait Shared: Debug {
    /// The value of a key, and its version for [`Shared::set`]. An empty value counts as absent.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Sets a key's value if its version is still `version` (`None`: at any version). Returns whether it did.
    fn set(&self, key: &str, value: &[u8], version: Option<u32>) -> bool;
}

/// Attempts of a change before it is given up: each failure means that another worker succeeded.
const TRIES: usize = 32;

/// Changes a value: `change` turns the old value into a new one (`None`: it stays) and an outcome. Returns `None` if other
/// workers were faster every time.
pub fn update<T>(shared: &dyn Shared, key: &str, change: impl Fn(Option<&[u8]>) -> (Option<Vec<u8>>, T)) -> Option<T> {
    for _ in 0..TRIES {
        let found = shared.get(key);
        let (value, version) = found.map_or((None, None), |(value, version)| (Some(value), Some(version)));
        let (new, outcome) = change(value.as_deref().filter(|value| !value.is_empty()));
        let Some(new) = new else { return Some(outcome) };
        if shared.set(key, &new, version) {
            return Some(outcome);
        }
    }
    None
}

/// Milliseconds since 1970; 0 before.
pub fn millis(now: std::time::SystemTime) -> u64 {
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An in-memory map, for tests.
#[cfg(test)]
pub mod tests {
    use super::Shared;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    /// Shared data of one test.
    #[derive(Debug, Default)]
    pub struct Memory {
        /// By key, with their versions.
        pub values: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
        /// How many of the next writes lose to another worker.
        pub races: std::cell::Cell<u32>,
    }

    impl Shared for Memory {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            self.values.borrow().get(key).cloned()
        }

        fn set(&self, key: &str, value: &[u8], version: Option<u32>) -> bool {
            let mut values = self.values.borrow_mut();
            let held = values.get(key).map_or(0, |(_, version)| *version);
            if self.races.get() > 0 {
                self.races.set(self.races.get() - 1);
                return false;
            }
            if version.is_some_and(|version| version != held) {
                return false;
            }
            values.insert(key.to_owned(), (value.to_vec(), held + 1));
            true
        }
    }

    #[test]
    fn a_lost_change_is_tried_again() {
        let memory = Memory::default();
        let count = |value: Option<&[u8]>| (Some(vec![value.map_or(0, |value| value[0]) + 1]), ());
        memory.races.set(3);
        assert_eq!(super::update(&memory, "k", count), Some(()));
        assert_eq!(super::update(&memory, "k", count), Some(()));
        assert_eq!(memory.get("k").unwrap().0, [2]);
        memory.races.set(1000);
        assert_eq!(super::update(&memory, "k", count), None);
    }
}
