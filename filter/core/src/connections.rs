//! Limits what one client's connections may hold: Envoy limits connections of a process and of a filter chain, not of a client
//! (<https://github.com/envoyproxy/envoy/issues/27853>).

use crate::caller::Address;
use crate::config::Connections;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

/// The open connections of one worker, which has them in its memory: they are forgotten with it.
#[derive(Debug)]
pub struct OpenConnections {
    limits: Connections,
    by_client: HashMap<Address, u32>,
    /// The connections that have sent no request, with the time of their beginning.
    silent: BTreeMap<u32, SystemTime>,
    refused: u64,
}

impl OpenConnections {
    /// None yet.
    pub fn new(limits: Connections) -> Self {
        Self { limits, by_client: HashMap::new(), silent: BTreeMap::new(), refused: 0 }
    }

    /// Counts a new connection. `id` is unique among the open ones. Returns whether the client may have it; one that may not is
    /// not counted.
    pub fn open(&mut self, id: u32, client: Address, now: SystemTime) -> bool {
        let count = self.by_client.entry(client).or_default();
        if *count >= self.limits.per_client {
            self.refused += 1;
            return false;
        }
        *count += 1;
        self.silent.insert(id, now);
        true
    }

    /// The connection has sent a request.
    pub fn hear(&mut self, id: u32) {
        self.silent.remove(&id);
    }

    /// Ends a connection that was counted.
    pub fn close(&mut self, id: u32, client: Address) {
        self.silent.remove(&id);
        if let Some(count) = self.by_client.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
    }

    /// The connections that have been silent too long. Each is returned once.
    pub fn take_silent(&mut self, now: SystemTime) -> Vec<u32> {
        let limit = Duration::from_secs(self.limits.first_request_seconds.into());
        let is_late = |begun: SystemTime| now.duration_since(begun).is_ok_and(|silence| silence >= limit);
        self.silent.extract_if(.., |_, begun| is_late(*begun)).map(|(id, _)| id).collect()
    }

    /// How many connections were refused since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// The number of clients with open connections.
    pub fn clients(&self) -> usize {
        self.by_client.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Connections = Connections { per_client: 3, first_request_seconds: 30 };

    fn client(text: &str) -> Address {
        Address::of(text.as_bytes()).unwrap()
    }

    #[test]
    fn one_client_leaves_connections_to_others() {
        let (mut open, now) = (OpenConnections::new(LIMITS), SystemTime::UNIX_EPOCH);
        let greedy = client("10.0.0.1:1");
        let allowed = (0..100).filter(|id| open.open(*id, greedy, now)).count();
        assert_eq!((allowed, open.take_refused(), open.take_refused()), (3, 97, 0));
        assert!(open.open(200, client("10.0.0.2:1"), now));
        open.close(0, greedy);
        assert!(open.open(201, greedy, now) && !open.open(202, greedy, now), "one was given back");
    }

    /// Whatever the order of events, the counts are those of the open connections, and nothing is kept of closed ones.
    #[test]
    fn counts_are_exact() {
        let (mut open, now) = (OpenConnections::new(LIMITS), SystemTime::UNIX_EPOCH);
        let clients: Vec<Address> = (0..7).map(|n| client(&format!("10.0.0.{n}:1"))).collect();
        let mut alive: Vec<(u32, Address)> = Vec::new();
        let mut random = 0x2545_f491_u64;
        for id in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = usize::try_from(random >> 40).unwrap();
            if pick % 2 == 0 || alive.is_empty() {
                let client = clients[pick % clients.len()];
                let count = alive.iter().filter(|(_, known)| *known == client).count();
                assert_eq!(open.open(id, client, now), count < 3);
                if count < 3 {
                    alive.push((id, client));
                }
            } else {
                let (id, client) = alive.swap_remove(pick % alive.len());
                open.close(id, client);
            }
        }
        for (id, client) in alive.drain(..) {
            open.close(id, client);
        }
        assert_eq!((open.clients(), open.silent.len()), (0, 0));
    }

    #[test]
    fn a_connection_without_request_is_ended_once() {
        let mut open = OpenConnections::new(LIMITS);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let (a, b) = (client("10.0.0.1:1"), client("10.0.0.2:1"));
        assert!(open.open(1, a, at(0)) && open.open(2, b, at(10)) && open.open(3, a, at(0)));
        open.hear(3);
        assert!(open.take_silent(at(29)).is_empty());
        assert_eq!(open.take_silent(at(30)), [1]);
        assert!(open.take_silent(at(30)).is_empty());
        open.close(2, b);
        assert!(open.take_silent(at(1000)).is_empty());
    }
}
