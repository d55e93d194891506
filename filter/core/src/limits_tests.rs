use super::*;
use crate::shared::tests::Memory;
use std::time::Duration;

fn limits(requests: Option<u32>, tokens: Option<u32>) -> Limits {
    Limits { requests_per_minute: requests, tokens_per_minute: tokens, concurrent_calls: None }
}

fn allowance<'a>(memory: &'a Memory, limits: Limits, caller: &str, ms: u64) -> Allowance<'a> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
    Allowance::new((memory, worker(1)), limits, "any", &Caller::named(caller), now).unwrap()
}

fn worker(number: u64) -> &'static Worker {
    Box::leak(Box::new(Worker::new(number)))
}

#[test]
fn a_burst_is_followed_by_even_refill() {
    let memory = Memory::default();
    let of = |ms| allowance(&memory, limits(Some(10), None), "a", ms);
    for _ in 0..10 {
        assert_eq!(of(0).take(), Ok(()));
    }
    assert_eq!(of(0).take(), Err(Exhausted::For(6)));
    assert_eq!(of(5001).take(), Err(Exhausted::For(1)));
    assert_eq!(of(6000).take(), Ok(()));
    assert_eq!(of(6000).take(), Err(Exhausted::For(6)));
    assert_eq!(of(600_000).take(), Ok(()));
}

#[test]
fn tokens_are_charged_at_the_end() {
    let memory = Memory::default();
    let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
    assert_eq!((of(0).take(), of(0).take()), (Ok(()), Ok(())));
    of(0).settle(true, 0, 700);
    // 100 overdrawn and one wanted, at ten a second.
    assert_eq!(of(0).take(), Err(Exhausted::For(11)));
    assert_eq!(of(10_200).take(), Ok(()));
}

#[test]
fn calls_in_flight_cannot_overdraw() {
    let memory = Memory::default();
    let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
    assert_eq!((of(0).reserve(0, 400), of(0).reserve(0, 300)), (Ok(400), Err(Exhausted::For(10))));
    // A call for more than a minute's worth needs all of it.
    assert_eq!(of(0).reserve(0, 10_000), Err(Exhausted::For(40)));
    // It used less than it reserved.
    of(0).settle(true, 400, 100);
    assert_eq!((of(0).reserve(0, 500), of(0).take()), (Ok(500), Err(Exhausted::For(1))));
    of(0).settle(true, 500, 0);
    assert_eq!(of(60_000).reserve(0, 10_000), Ok(600));
}

#[test]
fn no_usage_locks_a_caller_out() {
    let memory = Memory::default();
    let of = |ms| allowance(&memory, limits(None, Some(600)), "a", ms);
    of(0).settle(true, 0, u64::MAX);
    of(0).settle(true, 0, u64::MAX);
    assert_eq!(of(0).take(), Err(Exhausted::For(3601)));
    assert_eq!(of(3_601_000).take(), Ok(()));
}

#[test]
fn calls_at_the_same_time_are_counted() {
    let memory = Memory::default();
    let workers = [0, 1, 2, 3].map(worker);
    let of = |number: usize, ms: u64| {
        let limits = Limits { concurrent_calls: Some(3), ..Limits::default() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
        Allowance::new((&memory, workers[number]), limits, "any", &Caller::named("a"), now).unwrap()
    };
    assert_eq!((of(1, 0).take(), of(1, 0).take(), of(2, 0).take()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(of(3, 0).take(), Err(Exhausted::Calls(3)));
    of(2, 1).settle(true, 0, 900);
    assert_eq!((of(3, 1).take(), of(3, 1).take()), (Ok(()), Err(Exhausted::Calls(3))));
    of(3, 2).settle(false, 0, 0);
    assert_eq!(of(3, 2).take(), Err(Exhausted::Calls(3)), "a call that was refused is not counted");
    // The first worker's VM crashed: its calls are forgotten. The third's are repeated.
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
    for ms in (0..10 * FORGOTTEN_MS).step_by(100) {
        workers[3].tick(&memory, at(ms));
    }
    let now = 10 * FORGOTTEN_MS;
    assert_eq!((of(2, now).take(), of(2, now).take(), of(2, now).take()), (Ok(()), Ok(()), Err(Exhausted::Calls(3))));
    of(3, now).settle(true, 0, 0);
    assert_eq!((of(2, now).take(), of(2, now).take()), (Ok(()), Err(Exhausted::Calls(3))));
    for _ in 0..3 {
        of(2, now).settle(true, 0, 0);
    }
    assert!(workers[2].open.borrow().is_empty() && workers[3].open.borrow().is_empty());
}

/// Other workers win every race when a call ends.
#[test]
fn what_ends_in_a_race_is_settled_later() {
    let memory = Memory::default();
    let worker = worker(1);
    let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
    let of = |ms| {
        let limits = Limits { tokens_per_minute: Some(600), concurrent_calls: Some(1), ..Limits::default() };
        Allowance::new((&memory, worker), limits, "any", &Caller::named("a"), at(ms)).unwrap()
    };
    assert_eq!((of(0).take(), of(0).reserve(0, 100)), (Ok(()), Ok(100)));
    memory.races.set(64);
    of(0).settle(true, 100, 700);
    worker.tick(&memory, at(100));
    assert_eq!(of(100).take(), Err(Exhausted::Calls(1)));
    worker.tick(&memory, at(200));
    assert_eq!(of(200).take(), Err(Exhausted::For(10)), "100 overdrawn but for 0.2 s");
    assert!(worker.open.borrow().is_empty());
}

#[test]
fn callers_and_classes_are_separate() {
    let memory = Memory::default();
    let limits = limits(Some(1), None);
    assert_eq!(allowance(&memory, limits, "a", 0).take(), Ok(()));
    assert!(allowance(&memory, limits, "a", 0).take().is_err());
    assert_eq!(allowance(&memory, limits, "b", 0).take(), Ok(()));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    assert_eq!(Allowance::new((&memory, worker(1)), limits, "bulk", &Caller::named("a"), now).unwrap().take(), Ok(()));
    assert!(Allowance::new((&memory, worker(1)), Limits::default(), "any", &Caller::named("a"), now).is_none());
}

#[test]
fn the_table_is_bounded_and_keeps_debtors() {
    let memory = Memory::default();
    let limits = limits(Some(1), None);
    assert_eq!(allowance(&memory, limits, "first", 0).take(), Ok(()));
    for nth in 0..2000 {
        assert_eq!(allowance(&memory, limits, &format!("p{nth}"), 0).take(), Ok(()), "{nth}");
    }
    assert!(allowance(&memory, limits, "first", 1).take().is_err());
    assert!(memory.values.borrow().len() as u64 <= SLOTS);
    // If all slots of a caller are taken, it takes the one that is full soonest.
    let caller = allowance(&memory, limits, "late", 10);
    for probe in 0..PROBES {
        let taken = TokenBucket {
            id: [9; 16],
            requests: 0.0,
            tokens: 0.0,
            at: 0,
            full_at: 2_000_000 - probe,
            in_flight: Vec::new(),
        };
        let key = format!("limit/{}", (caller.first_slot + probe) % SLOTS);
        memory.set(&key, &taken.write(), None);
    }
    assert_eq!(caller.slot(), format!("limit/{}", (caller.first_slot + PROBES - 1) % SLOTS));
    assert_eq!(caller.take(), Ok(()));
    assert!(caller.take().is_err());
}
