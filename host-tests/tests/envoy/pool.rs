//! Gateways that tests use one after another. Envoy takes 1.5 s of CPU to compile the module, so tests that leave no trace in
//! a gateway share it. Each user has the gateway to itself; the access log has the calls of earlier users too.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use crate::harness::{Harness, Keys};

/// The users, and the gateways that wait for the next one.
static POOL: Mutex<(usize, Vec<Harness>)> = Mutex::new((0, Vec::new()));

/// A gateway with long-lived keys and one double without earlier requests.
pub(crate) struct Pooled(Option<Harness>);

pub(crate) fn pooled() -> Pooled {
    let idle = {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.0 += 1;
        pool.1.pop()
    };
    // From here on, dropping this value counts the user out.
    let mut pooled = Pooled(idle);
    let harness = pooled.0.get_or_insert_with(|| Harness::lone(Keys::LongLived));
    harness.doubles.iter().for_each(bedrock_double::Running::clear);
    pooled
}

impl Deref for Pooled {
    type Target = Harness;

    fn deref(&self) -> &Harness {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        {
            let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
            pool.0 -= 1;
            // A failed test may leave anything behind.
            let reusable = self.0.take().filter(|_| !std::thread::panicking());
            pool.1.extend(reusable);
            // Nothing drops a static, so the last user ends all gateways.
            if pool.0 == 0 {
                ended.append(&mut pool.1);
            }
        }
        drop(ended);
    }
}
