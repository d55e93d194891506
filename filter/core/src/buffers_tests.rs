use super::*;
use crate::shared::tests::Memory;
use std::time::Duration;

const LIMITS: Budgets = Budgets { total_bytes: 100, caller_bytes: 60, connection_bytes: 40, calls: 8 };
const MIB: u64 = 1 << 20;

fn owner(caller: &str, connection: u64) -> Owner {
    Owner::new(&caller::Caller::named(caller), connection)
}

/// A stream of a caller's connection that holds so many bytes.
fn held(ledger: &mut Ledger, stream: Stream, (caller, connection): (&str, u64), bytes: u64) {
    ledger.begin(stream, 0);
    ledger.own(stream, owner(caller, connection));
    ledger.grow(stream, bytes);
}

fn full_of(ledger: &Ledger, stream: Stream, budgets: &Budgets) -> Option<Stream> {
    ledger.full(Some(stream), budgets).map(|evicted| evicted.stream)
}

fn full(ledger: &Ledger, stream: Stream) -> Option<(Stream, Full)> {
    ledger.full(Some(stream), &LIMITS).map(|evicted| (evicted.stream, evicted.full))
}

#[test]
fn each_budget_costs_its_largest_stream() {
    let mut ledger = Ledger::default();
    held(&mut ledger, 1, ("a", 1), 25);
    held(&mut ledger, 2, ("a", 1), 15);
    assert_eq!(full(&ledger, 2), None);
    ledger.grow(2, 1);
    assert_eq!(full(&ledger, 2), Some((1, Full::Connection)));
    ledger.end(1);
    held(&mut ledger, 3, ("a", 2), 38);
    held(&mut ledger, 4, ("a", 3), 7);
    assert_eq!(full(&ledger, 4), Some((3, Full::Caller)), "the connection with most gives way");
    ledger.end(3);
    assert_eq!(full(&ledger, 4), None);
}

#[test]
fn small_calls_pass_while_one_caller_fills_all() {
    let mut ledger = Ledger::default();
    held(&mut ledger, 1, ("a", 1), 40);
    held(&mut ledger, 2, ("b", 2), 40);
    held(&mut ledger, 3, ("c", 3), 20);
    assert!(!ledger.is_full(&LIMITS));
    held(&mut ledger, 4, ("d", 4), 1);
    assert!(ledger.is_full(&LIMITS));
    let (stream, kind) = full(&ledger, 4).unwrap();
    assert!(kind == Full::Process && (stream == 1 || stream == 2), "{stream}");
    // Calls that were sent do not give way; then the next does.
    ledger.note(1, Phase::Sent);
    ledger.note(2, Phase::Sent);
    assert_eq!(full(&ledger, 4), None, "who has less than a quarter does not give way for others");
    ledger.grow(3, 6);
    assert_eq!(full(&ledger, 4), Some((3, Full::Process)));
    ledger.note(3, Phase::Dropped);
    assert_eq!(full(&ledger, 4), None);
}

#[test]
fn a_body_that_stays_counts_again() {
    let mut ledger = Ledger::default();
    held(&mut ledger, 1, ("a", 1), 30);
    held(&mut ledger, 2, ("a", 1), 20);
    assert_eq!(full(&ledger, 2), Some((1, Full::Connection)));
    ledger.note(1, Phase::Leaving);
    assert_eq!(full(&ledger, 2), None);
    ledger.note(1, Phase::Refused);
    assert_eq!(full(&ledger, 2), Some((2, Full::Connection)), "a call gives way once");
    ledger.note(2, Phase::Dropped);
    ledger.note(2, Phase::Refused);
    assert_eq!(full(&ledger, 2), None);
}

#[test]
fn calls_without_a_body_are_bounded_too() {
    let mut ledger = Ledger::default();
    for stream in 0..4 {
        ledger.begin(stream, 0);
    }
    assert!(!ledger.is_full(&LIMITS));
    for stream in 4..8 {
        ledger.begin(stream, 0);
    }
    assert!(ledger.is_full(&LIMITS), "from half of the calls on, each has an owner");
    ledger.begin(8, 0);
    assert!(ledger.over(&LIMITS).calls == 1);
    assert_eq!(ledger.unowned().len(), 9);
    assert_eq!(ledger.full(Some(8), &LIMITS), None, "no stream is known to belong to anybody");
    for stream in ledger.unowned() {
        ledger.own(stream, if stream == 8 { owner("b", 2) } else { owner("a", 1) });
    }
    let evicted = ledger.full(Some(8), &LIMITS).unwrap();
    assert!(evicted.stream < 8 && evicted.full == Full::Process, "{evicted:?}");
    // Half of the calls may be one caller's.
    assert_eq!(full(&ledger, 0).unwrap().1, Full::Caller);
}

#[test]
fn nothing_is_left_when_all_calls_are_over() {
    let mut ledger = Ledger::default();
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..20_000 {
        let stream = next(40) as Stream;
        match next(9) {
            0 => ledger.begin(stream, next(5)),
            1 => ledger.own(stream, owner(["a", "b", "c"][next(3) as usize], next(4))),
            2 | 3 => ledger.grow(stream, next(9)),
            4 => ledger.note(stream, Phase::Sent),
            5 => ledger.note(stream, Phase::Dropped),
            6 => ledger.note(stream, Phase::Leaving),
            7 => ledger.note(stream, Phase::Refused),
            _ => ledger.end(stream),
        }
        let sum = |entries: &mut dyn Iterator<Item = &Entry>| {
            entries.fold(Counts::default(), |mut counts, entry| {
                counts.add(entry.counts());
                counts
            })
        };
        assert_eq!(ledger.counts, sum(&mut ledger.streams.values()));
        let mut owned = Counts::default();
        ledger.callers.values().for_each(|caller| owned.add(caller.counts));
        assert_eq!(owned, sum(&mut ledger.streams.values().filter(|entry| entry.owner.is_some())));
        let held = ledger.streams.values().filter(|entry| entry.owner.is_some() && entry.phase == Phase::Held).count();
        let listed = ledger.callers.values().flat_map(|caller| caller.connections.values());
        assert_eq!(listed.map(|connection| connection.held.len()).sum::<usize>(), held);
        if let Some(evicted) = ledger.full(Some(stream), &LIMITS) {
            ledger.end(evicted.stream);
        }
    }
    for stream in 0..40 {
        ledger.end(stream);
    }
    assert!(ledger.callers.is_empty() && ledger.unowned.is_empty() && ledger.counts == Counts::default());
}

#[test]
fn workers_share_the_budget_of_the_process() {
    let shared = Memory::default();
    let limits = Budgets { total_bytes: 10 * MIB, caller_bytes: 8 * MIB, connection_bytes: 8 * MIB, calls: 1000 };
    let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
    let (mut first, mut second) = (Ledger::default(), Ledger::default());
    held(&mut first, 1, ("a", 1), 7 * MIB);
    first.publish(1, &shared, at(0));
    held(&mut second, 1, ("b", 9), 4 * MIB);
    second.publish(2, &shared, at(1));
    // The first is over its half, and gives way once it knows; the second is below its own.
    assert!(!second.is_full(&limits));
    first.publish(1, &shared, at(1000));
    assert!(first.is_full(&limits));
    assert_eq!(first.full(None, &limits), Some(Evicted { stream: 1, full: Full::Process }));
    // A caller's bytes count on all workers.
    held(&mut second, 2, ("a", 10), 2 * MIB);
    assert_eq!(second.full(Some(2), &limits), Some(Evicted { stream: 2, full: Full::Caller }));
    // And its calls.
    let half = Budgets { calls: 200, ..limits };
    for stream in 10..90 {
        first.begin(stream, 0);
        first.own(stream, owner("a", 1));
        second.begin(stream, 0);
        second.own(stream, owner("a", 11));
    }
    first.publish(1, &shared, at(1001));
    assert_eq!(second.full(Some(10), &Budgets { caller_bytes: 90 * MIB, total_bytes: 90 * MIB, ..half }), None);
    second.publish(2, &shared, at(1001));
    let evicted = second.full(Some(10), &Budgets { caller_bytes: 90 * MIB, total_bytes: 90 * MIB, ..half });
    assert_eq!(evicted.unwrap().full, Full::Caller);
    for stream in 10..90 {
        first.end(stream);
        second.end(stream);
    }
    first.publish(1, &shared, at(1002));
    second.publish(2, &shared, at(1002));
    // A worker that crashed is forgotten.
    second.publish(2, &shared, at(1002 + FORGOTTEN_MS));
    assert_eq!(second.full(Some(2), &limits), None);
    assert!(!second.is_full(&limits));
}

#[test]
fn small_calls_publish_nothing() {
    let shared = Memory::default();
    let mut ledger = Ledger::default();
    for stream in 0..50 {
        ledger.begin(stream, 0);
        ledger.publish(1, &shared, SystemTime::UNIX_EPOCH);
        ledger.end(stream);
    }
    ledger.publish(1, &shared, SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    assert!(shared.values.borrow().is_empty());
}

#[test]
fn the_shared_value_survives_nonsense() {
    let report = Report {
        worker: 1,
        at: 2,
        sums: Sums { bytes: 3, calls: 4 },
        callers: vec![(5, Sums { bytes: 6, calls: 7 }), (8, Sums::default())],
    };
    let bytes = [report.write(), report.write()].concat();
    assert_eq!(Report::read_all(&bytes), [report.clone(), report.clone()]);
    for end in 0..bytes.len() {
        assert!(Report::read_all(&bytes[..end]).len() < 2);
    }
    assert!(Report::read_all(&[0xff; 200]).len() < 5);
}

#[test]
fn calls_of_others_refuse_nobody_in_its_share() {
    let budgets = Budgets { calls: 128, ..LIMITS };
    let mut ledger = Ledger::default();
    // An attacker's calls give way for ever, and others have been sent.
    for stream in 0..300 {
        ledger.begin(stream, 0);
        ledger.own(stream, owner("a", 1));
        ledger.note(stream, if stream % 2 == 0 { Phase::Leaving } else { Phase::Sent });
    }
    ledger.begin(1000, 0);
    ledger.own(1000, owner("a", 1));
    assert!(ledger.full(Some(1000), &budgets).is_some());
    ledger.end(1000);
    let begin = |ledger: &mut Ledger, stream| {
        ledger.begin(stream, 0);
        ledger.own(stream, owner("b", 2));
        ledger.full(Some(stream), &budgets)
    };
    for stream in 1001..1065 {
        assert_eq!(begin(&mut ledger, stream), None);
    }
    assert!(begin(&mut ledger, 1065).is_some(), "65 are more than half");
}

#[test]
fn headers_count_until_the_call_is_over() {
    let mut ledger = Ledger::default();
    ledger.begin(1, 10);
    ledger.own(1, owner("a", 1));
    ledger.grow(1, 5);
    let counted = |ledger: &Ledger| ledger.counts.all.bytes;
    assert_eq!(counted(&ledger), 15);
    ledger.note(1, Phase::Leaving);
    assert_eq!(counted(&ledger), 10);
    ledger.note(1, Phase::Dropped);
    ledger.note(1, Phase::Refused);
    assert_eq!((counted(&ledger), ledger.counts.refused), (10, Sums { bytes: 10, calls: 1 }));
    ledger.end(1);
    assert_eq!(counted(&ledger), 0);
}

#[test]
fn unread_replies_end_in_resets() {
    let budgets = Budgets { total_bytes: 12_800, caller_bytes: 6400, connection_bytes: 6400, calls: 128 };
    let refuse = |ledger: &mut Ledger, stream: Stream, caller: &str, headers: u64| {
        ledger.begin(stream, headers);
        ledger.own(stream, owner(caller, 1));
        ledger.note(stream, Phase::Refused);
        ledger.may_reply(stream, &budgets)
    };
    // By their number: a quarter of the calls for one caller, half for all.
    let mut ledger = Ledger::default();
    let replies = (0..100).take_while(|stream| refuse(&mut ledger, *stream, "a", 0)).count();
    assert_eq!(replies, 32);
    assert!(ledger.has_unread(&budgets) && refuse(&mut ledger, 200, "b", 0), "others get theirs");
    // By their bytes.
    let mut ledger = Ledger::default();
    let replies = (0..100).take_while(|stream| refuse(&mut ledger, *stream, "a", 400)).count();
    assert_eq!(replies, 8);
    // When they have been read, there is room again.
    for stream in 0..5 {
        ledger.end(stream);
    }
    assert!(refuse(&mut ledger, 300, "a", 400));
}

#[test]
fn unread_answers_leave_others_their_share() {
    let budgets = Budgets { total_bytes: 6400, caller_bytes: 6400, connection_bytes: 6400, calls: 1280 };
    let mut ledger = Ledger::default();
    ledger.begin(1, 9000);
    ledger.own(1, owner("a", 1));
    ledger.note(1, Phase::Sent);
    held(&mut ledger, 2, ("b", 2), 3200);
    assert_eq!(ledger.full(Some(2), &budgets), None);
    held(&mut ledger, 3, ("b", 2), 1);
    assert!(ledger.full(Some(3), &budgets).is_some());
    // However many callers there are, each has a 64th.
    ledger.end(2);
    ledger.end(3);
    for stream in 100..300 {
        held(&mut ledger, stream, (&stream.to_string(), stream.into()), 100);
        assert_eq!(full_of(&ledger, stream, &budgets), None);
    }
    held(&mut ledger, 300, ("300", 300), 101);
    assert!(full_of(&ledger, 300, &budgets).is_some());
}

#[test]
fn few_calls_wait_for_the_end_of_their_bodies() {
    let budgets = Budgets { total_bytes: 6400, caller_bytes: 6400, connection_bytes: 6400, calls: 128 };
    let give_way = |ledger: &mut Ledger, stream: Stream, caller: &str, headers: u64| {
        ledger.begin(stream, headers);
        ledger.own(stream, owner(caller, 1));
        ledger.note(stream, Phase::Dropped);
        ledger.may_wait(stream, &budgets)
    };
    let mut ledger = Ledger::default();
    assert_eq!((0..100).take_while(|stream| give_way(&mut ledger, *stream, "a", 0)).count(), 32);
    assert!(give_way(&mut ledger, 200, "b", 0));
    let mut ledger = Ledger::default();
    assert_eq!((0..100).take_while(|stream| give_way(&mut ledger, *stream, "a", 400)).count(), 16, "by their headers");
}
