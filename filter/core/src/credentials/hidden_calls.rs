//! Headers of calls for credentials that Envoy's router does not see. At debug it logs those that it sees.
//!
//! The context that fetches leaves them in shared data and sends a handle. The module's filter in the cluster's upstream chain,
//! behind the router, takes them. That filter runs in another VM: Envoy calls it during the call of the host that sends the
//! request, and a VM of the SDK cannot be entered twice.

use super::call::Call;
use crate::envoy_names::CALL_HEADER;
use crate::headers::Headers;
use crate::shared::{Shared, update};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most calls to one cluster whose headers are kept. Those of a worker that died are the oldest.
const MAX_CALLS: usize = 32;

/// Headers that go to the cluster alone.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HiddenHeaders(Vec<(String, String)>);

/// Headers that were left, by their handle, in the order in which they came.
type Left = Vec<(String, HiddenHeaders)>;

impl fmt::Debug for HiddenHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl HiddenHeaders {
    /// The request that goes to the cluster: the router's headers without the handle, and these.
    pub fn reveal(&self, seen: &Headers) -> Headers {
        let replaced = |name: &str| name == CALL_HEADER || self.0.iter().any(|(own, _)| own == name);
        let kept =
            seen.iter().filter(|(name, _)| !replaced(name)).map(|(name, value)| (name.to_owned(), value.to_vec()));
        kept.chain(self.0.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes()))).collect()
    }
}

/// Leaves a call's headers, but those that the router needs, and puts a handle in their place. `false`: they could not be left,
/// and the call must not be made.
#[must_use]
pub fn leave(call: &mut Call, handle: &str, shared: &dyn Shared) -> bool {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let is_shown = |name: &str| name.starts_with(':') || name == "content-length";
    let hidden =
        call.headers.iter().filter(|(name, _)| !is_shown(name)).map(|(name, value)| (name.to_owned(), text(value)));
    let hidden = HiddenHeaders(hidden.collect());
    let shown =
        call.headers.iter().filter(|(name, _)| is_shown(name)).map(|(name, value)| (name.to_owned(), value.to_vec()));
    call.headers = shown.chain([(CALL_HEADER.to_owned(), handle.into())]).collect();
    change(shared, &call.cluster, |left| {
        left.push((handle.to_owned(), hidden.clone()));
        left.drain(..left.len().saturating_sub(MAX_CALLS));
    })
    .is_some()
}

/// Takes what was left for a cluster under a handle. It is there once.
pub fn take(handle: &str, cluster: &str, shared: &dyn Shared) -> Option<HiddenHeaders> {
    change(shared, cluster, |left| {
        let at = left.iter().position(|(own, _)| own == handle)?;
        Some(left.remove(at).1)
    })?
}

/// Changes what was left for a cluster.
fn change<T>(shared: &dyn Shared, cluster: &str, change: impl Fn(&mut Left) -> T) -> Option<T> {
    update(shared, &format!("hidden_calls/{cluster}"), |value| {
        let mut left: Left = value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default();
        let before = left.len();
        let outcome = change(&mut left);
        let new = (left.len(), before) != (0, 0);
        // Texts alone: serialising them cannot fail.
        let value = || if left.is_empty() { Vec::new() } else { serde_json::to_vec(&left).unwrap_or_default() };
        (new.then(value), outcome)
    })
}

// === which clusters have the filter ===

/// Says that a filter runs in a cluster. `id` is unlike any other's.
pub fn enter(cluster: &str, id: &str, shared: &dyn Shared) {
    shared.set(&filter_key(cluster), id.as_bytes(), None);
}

/// Says that a filter ends, unless another has come since: a cluster that changes has the new filter before the old one ends.
pub fn exit(cluster: &str, id: &str, shared: &dyn Shared) {
    update(shared, &filter_key(cluster), |value| ((value == Some(id.as_bytes())).then(Vec::new), ()));
}

/// Whether a filter runs in a cluster. Without it, calls must go with their headers. A VM that crashes does not end its filter:
/// Envoy makes it again for the next call.
pub fn has_filter(cluster: &str, shared: &dyn Shared) -> bool {
    shared.get(&filter_key(cluster)).is_some_and(|(value, _)| !value.is_empty())
}

fn filter_key(cluster: &str) -> String {
    format!("source_filter/{cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::Memory;

    fn headers(all: &[(&str, &str)]) -> Headers {
        all.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn call(all: &[(&str, &str)]) -> Call {
        Call { cluster: "sts".to_owned(), headers: headers(all), body: Vec::new() }
    }

    #[test]
    fn the_router_sees_a_handle_alone() {
        let memory = Memory::default();
        let pseudo = [(":method", "POST"), (":authority", "sts"), (":path", "/")];
        let secret = [("content-type", "form"), ("authorization", "hush"), ("x-amz-security-token", "hush")];
        let mut call = call(&[&pseudo[..], &[("content-length", "3")], &secret].concat());
        assert!(leave(&mut call, "1", &memory));
        let shown = [&pseudo[..], &[("content-length", "3"), (CALL_HEADER, "1")]].concat();
        assert_eq!(call.headers, headers(&shown));
        // Envoy adds headers of its own. One that the call has is replaced.
        let seen = [&shown[..], &[(":scheme", "http"), ("x-envoy-internal", "true"), ("authorization", "x")]].concat();
        let envoys = [(":scheme", "http"), ("x-envoy-internal", "true")];
        let wanted = [&pseudo[..], &[("content-length", "3")], &envoys, &secret].concat();
        let hidden = take("1", "sts", &memory).unwrap();
        assert_eq!(hidden.reveal(&headers(&seen)), headers(&wanted));
        assert_eq!(format!("{hidden:?}"), "***");
    }

    #[test]
    fn headers_are_taken_once_in_their_cluster() {
        let memory = Memory::default();
        for handle in ["1", "2"] {
            assert!(leave(&mut call(&[("authorization", handle)]), handle, &memory));
        }
        assert_eq!(take("3", "sts", &memory), None);
        assert_eq!(take("1", "imds", &memory), None);
        assert!(take("1", "sts", &memory).is_some());
        assert_eq!(take("1", "sts", &memory), None);
        assert!(take("2", "sts", &memory).is_some());
        let values = memory.values.borrow();
        assert!(values.values().all(|(value, _)| value.is_empty()), "nothing stays: {values:?}");
    }

    #[test]
    fn what_dead_workers_left_is_bounded() {
        let memory = Memory::default();
        for handle in 0..100 {
            assert!(leave(&mut call(&[]), &handle.to_string(), &memory));
        }
        assert_eq!(take("67", "sts", &memory), None);
        assert!(take("68", "sts", &memory).is_some() && take("99", "sts", &memory).is_some());
        memory.races.set(1000);
        assert!(!leave(&mut call(&[]), "100", &memory));
    }

    #[test]
    fn an_old_filter_ends_after_a_new_one_came() {
        let memory = Memory::default();
        assert!(!has_filter("sts", &memory));
        enter("sts", "old", &memory);
        enter("sts", "new", &memory);
        exit("sts", "old", &memory);
        assert!(has_filter("sts", &memory) && !has_filter("imds", &memory));
        exit("sts", "new", &memory);
        assert!(!has_filter("sts", &memory));
    }
}
