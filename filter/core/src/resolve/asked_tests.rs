//! Who asks, and when.

use super::asked::{Resolver, Status};
use super::table::{self, Answer, Outcome, Problem, Seen};
use super::tests::{policy, want};
use crate::caller::Caller;
use crate::policy::Policy;
use crate::shared::tests::Memory;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

/// Workers of one Envoy.
struct Scene {
    policy: Policy,
    shared: Memory,
    workers: [Resolver; 2],
}

impl Scene {
    fn new() -> Self {
        Self { policy: policy(60), shared: Memory::default(), workers: Default::default() }
    }

    fn ask(&self, worker: usize, id: &str, caller: &str, now: u64) -> Status {
        let rules = self.policy.resolve.as_ref().unwrap();
        self.workers[worker].ask(&want(id), &Caller::named(caller), rules, &self.shared, at(now))
    }

    fn due(&self, worker: usize, now: u64) -> Vec<String> {
        let rules = self.policy.resolve.as_ref().unwrap();
        let due = self.workers[worker].due(rules, worker as u64 + 1, &self.shared, at(now), |_| true);
        due.into_iter().map(|want| want.id).collect()
    }

    fn publish(&self, worker: usize, id: &str, found: Result<Answer, Problem>, now: u64) {
        self.workers[worker].publish(&want(id), worker as u64 + 1, Outcome(found), &self.shared, at(now));
    }
}

fn claude() -> Result<Answer, Problem> {
    Ok(Answer::Runs(vec!["anthropic.claude-opus-5".to_owned()]))
}

#[test]
fn one_worker_asks_for_all() {
    let scene = Scene::new();
    for worker in [0, 1, 0] {
        assert_eq!(scene.ask(worker, "p", "a", 0), Status::Pending);
        assert_eq!(scene.ask(worker, "p", "b", 0), Status::Pending);
    }
    assert_eq!((scene.due(0, 0), scene.due(1, 0)), (vec!["p".to_owned()], Vec::new()));
    assert!(scene.due(0, 0).is_empty(), "nobody has asked again");
    scene.publish(0, "p", claude(), 1);
    let runs = Status::Runs(vec!["anthropic.claude-opus-5".to_owned()]);
    for worker in [0, 1] {
        assert_eq!(scene.ask(worker, "p", "a", 44), runs);
        assert!(scene.due(worker, 44).is_empty());
    }
    // The last quarter of its time: a call has it renewed, and does not wait.
    assert_eq!((scene.ask(1, "p", "a", 47), scene.ask(0, "p", "a", 47)), (runs.clone(), runs));
    assert_eq!((scene.due(1, 47), scene.due(0, 47)), (vec!["p".to_owned()], Vec::new()));
}

#[test]
fn an_answer_ends_with_its_time() {
    let scene = Scene::new();
    scene.ask(0, "p", "a", 0);
    scene.due(0, 0);
    scene.publish(0, "p", claude(), 0);
    // Nobody has called for long.
    assert_eq!(scene.ask(0, "p", "a", 60), Status::Pending);
    // Bedrock cannot be asked: the last answer counts on, and no longer than four times its time.
    scene.due(0, 60);
    scene.publish(0, "p", Err(Problem::new(503, "down")), 60);
    for now in [61, 100, 239] {
        assert!(matches!(scene.ask(0, "p", "a", now), Status::Runs(_)), "{now}");
    }
    assert_eq!(scene.due(0, 239), ["p"]);
    scene.publish(0, "p", Err(Problem::new(503, "down")), 239);
    assert_eq!(scene.ask(0, "p", "a", 240), Status::Unknown(Problem::new(503, "down")));
    // A resource that has gone counts at once.
    scene.ask(0, "q", "a", 300);
    scene.due(0, 300);
    scene.publish(0, "q", claude(), 300);
    scene.ask(0, "q", "a", 350);
    scene.due(0, 350);
    scene.publish(0, "q", Ok(Answer::Refused(Problem::new(404, "gone"))), 350);
    assert_eq!(scene.ask(0, "q", "a", 351), Status::Unknown(Problem::new(404, "gone")));
    assert_eq!(scene.ask(0, "q", "a", 366), Status::Pending, "a refusal counts for a short time");
}

#[test]
fn a_failed_lookup_waits_before_the_next() {
    let scene = Scene::new();
    scene.ask(0, "p", "a", 0);
    scene.due(0, 0);
    scene.publish(0, "p", Err(Problem::new(503, "down")), 0);
    assert_eq!(scene.ask(0, "p", "a", 0), Status::Unknown(Problem::new(503, "down")));
    assert_eq!(scene.ask(0, "p", "a", 1), Status::Pending);
    assert_eq!(scene.due(0, 1), ["p"]);
    // A worker that died with its lookup.
    assert_eq!(scene.ask(1, "p", "a", 6), Status::Pending);
    assert!(scene.due(1, 6).is_empty());
    scene.ask(1, "p", "a", 7);
    assert_eq!(scene.due(1, 7), ["p"]);
    // What the first one still finds is not taken.
    scene.publish(0, "p", claude(), 7);
    assert_eq!(scene.ask(1, "p", "a", 7), Status::Pending);
}

#[test]
fn another_document_leaves_a_lookup_alone() {
    let scene = Scene::new();
    let rules = scene.policy.resolve.as_ref().unwrap();
    let due = |now: u64, can_ask: bool| scene.workers[0].due(rules, 1, &scene.shared, at(now), |_| can_ask).len();
    scene.ask(0, "p", "a", 0);
    assert_eq!((due(0, false), due(0, true), due(0, true)), (0, 1, 0));
    scene.publish(0, "p", claude(), 0);
    // The same holds for what is renewed.
    scene.ask(0, "p", "a", 50);
    assert_eq!((due(50, false), due(51, true)), (0, 1));
    // The document that it was for has gone.
    scene.ask(0, "q", "a", 60);
    assert_eq!((due(64, false), due(65, false), due(65, true)), (0, 0, 0));
}

#[test]
fn a_flood_leaves_others_their_turn() {
    let scene = Scene::new();
    let (mut asked, mut refused) = (BTreeSet::new(), 0);
    for round in 0..100 {
        for nth in 0..1000 {
            let status = scene.ask(0, &format!("random-{}", (round * 1000) + nth), "hostile", round);
            refused += usize::from(status == Status::Full);
        }
        if round >= 50 {
            scene.ask(0, &format!("good-{round}"), "good", round);
        }
        // A worker ticks more than once a second.
        for id in scene.due(0, round).into_iter().chain(scene.due(0, round)) {
            let found = if id.starts_with("good") { claude() } else { Ok(Answer::Refused(Problem::new(404, "none"))) };
            scene.publish(0, &id, found, round);
            asked.insert(id);
        }
    }
    let good = asked.iter().filter(|id| id.starts_with("good")).count();
    assert_eq!(good, 50, "each good id has its turn at once");
    // Ten calls a second, and twenty at once.
    assert!(asked.len() <= 20 + 100 * 10, "{}", asked.len());
    assert!(refused > 90_000, "{refused}");
    // Refusals did not push out what is known.
    for round in 50..90 {
        assert!(!matches!(scene.ask(0, &format!("good-{round}"), "good", 99), Status::Full), "{round}");
    }
    assert!(matches!(scene.ask(0, "good-98", "good", 99), Status::Runs(_)));
    let kept = scene.shared.values.borrow();
    let bytes: usize = kept.values().map(|(value, _)| value.len()).sum();
    assert!(kept.len() <= 2049 && bytes < 2 << 20, "{} keys, {bytes} bytes", kept.len());
}

#[test]
fn a_flood_leaves_other_workers_their_turn() {
    let scene = Scene::new();
    let (mut good, mut all) = (0, 0);
    // The worker with the flood ticks first, ten times a second.
    for tick in 0..200 {
        let now = at(0) + Duration::from_millis(tick * 100);
        let rules = scene.policy.resolve.as_ref().unwrap();
        let ask = |worker: usize, id: &str, caller: &str| {
            scene.workers[worker].ask(&want(id), &Caller::named(caller), rules, &scene.shared, now)
        };
        (0..64).for_each(|nth| drop(ask(0, &format!("random-{tick}-{nth}"), "hostile")));
        if tick % 10 == 0 {
            ask(1, &format!("good-{tick}"), "good");
        }
        for (worker, resolver) in scene.workers.iter().enumerate() {
            let due = resolver.due(rules, worker as u64 + 1, &scene.shared, now, |_| true);
            all += due.len();
            good += due.iter().filter(|want| want.id.starts_with("good")).count();
        }
        // Calls that wait ask again.
        if tick % 10 < 9 {
            ask(1, &format!("good-{}", tick - tick % 10), "good");
        }
    }
    assert_eq!(good, 20);
    assert!((200..=221).contains(&all), "the rate is used, and not exceeded: {all}");
}

#[test]
fn refusals_leave_a_full_table_alone() {
    let scene = Scene::new();
    let rules = scene.policy.resolve.as_ref().unwrap();
    let look_up = |id: &str, found: Result<Answer, Problem>| {
        assert!(table::claim(&want(id), rules, 1, &scene.shared, at(0)), "{id}");
        table::publish(&want(id), 1, found.clone(), &scene.shared, at(0));
        let seen = table::look(&want(id), rules, &scene.shared, at(0));
        assert_eq!(seen, Seen::Answer { answer: found.unwrap(), renew: false }, "{id}");
    };
    let runs = |id: &str| {
        let seen = table::look(&want(id), rules, &scene.shared, at(0));
        matches!(seen, Seen::Answer { answer: Answer::Runs(_), .. })
    };
    let ids = || (0..10_000).map(|nth| format!("p{nth}"));
    ids().for_each(|id| look_up(&id, claude()));
    let known: Vec<String> = ids().filter(|id| runs(id)).collect();
    assert_eq!(known.len(), 2048, "every slot is used");
    (0..2000).for_each(|nth| look_up(&format!("q{nth}"), Ok(Answer::Refused(Problem::new(404, "none")))));
    assert!(known.iter().all(|id| runs(id)));
    // What runs a model takes the place of another answer.
    look_up("r", claude());
    assert_eq!(known.iter().filter(|id| runs(id)).count(), 2047);
    assert!(scene.shared.values.borrow().len() <= 2048 + 256);
}

#[test]
fn a_full_table_stays_bounded() {
    let scene = Scene::new();
    for nth in 0_u64..6000 {
        let id = format!("p{nth}");
        scene.ask(0, &id, "a", nth);
        assert_eq!(scene.due(0, nth), [id.as_str()]);
        scene.publish(0, &id, claude(), nth);
        assert!(matches!(scene.ask(0, &id, "a", nth), Status::Runs(_)), "{nth}");
    }
    assert!(scene.shared.values.borrow().len() <= 2049);
}
