//! No call without a record, while everything that keeps records fails in turn: the collector and Envoy are killed, the store
//! is down, slow, locked or throttles, the disk of log and ledger is full, the log is rotated in three ways, and the machine's
//! clock steps.
//!
//! Each call has a model of its own, so that what the double got can be compared with the records. Half are audited as
//! `required`: each call that the double got has a record. Others are `best_effort`: each one without a record is in a window
//! that a record names, and the windows' bounds add up to at least as many.

mod clock;
mod judge;
mod load;
mod proxy;
mod scene;
mod store;

use std::time::{Duration, Instant};

use self::clock::now;
use self::judge::Repair;
use self::load::Load;
use self::proxy::Mode;
use self::scene::Scene;
use self::store::Store;

/// How the models of calls begin that are audited as `required`, and those of the others.
const REQUIRED: &str = "vendor.required";
const OTHER: &str = "vendor.other";

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    CollectorKilled,
    EnvoyKilled,
    BothKilled,
    LogRenamed,
    LogRenamedAndCreated,
    LogCopied,
    DiskFull,
    /// The clock steps by that many seconds, and back.
    Clock(i64),
    /// SQLite's.
    StoreLocked,
    StoreLockedOften,
    /// DynamoDB's.
    Store(Mode),
}

const ALWAYS: [Fault; 11] = [
    Fault::CollectorKilled,
    Fault::EnvoyKilled,
    Fault::LogRenamed,
    // Within the time that AWS allows a signature to be off, and beyond it. Records of a clock that was a month behind would
    // have expired when it is right again.
    Fault::Clock(4 * MINUTE),
    Fault::LogRenamedAndCreated,
    Fault::Clock(31 * DAY),
    Fault::DiskFull,
    Fault::Clock(-4 * MINUTE),
    Fault::LogCopied,
    Fault::Clock(-2 * DAY),
    Fault::BothKilled,
];
const OF_SQLITE: [Fault; 2] = [Fault::StoreLocked, Fault::StoreLockedOften];
const OF_DYNAMODB: [Fault; 4] = [
    Fault::Store(Mode::Throttles(40)),
    Fault::Store(Mode::Down),
    Fault::Store(Mode::Slow),
    Fault::Store(Mode::Throttles(100)),
];

impl Fault {
    /// Breaks something and repairs it. `round` chooses what else breaks meanwhile.
    fn inject(self, scene: &mut Scene, soak: bool, round: usize) {
        let time = |short: u64, long: u64| Duration::from_millis(if soak { long } else { short });
        let away = time(300, 700);
        match self {
            Fault::CollectorKilled => scene.kill_collector(away),
            Fault::EnvoyKilled => scene.kill_envoy(),
            Fault::BothKilled => {
                scene.kill_envoy();
                scene.kill_collector(away);
            }
            Fault::LogRenamed => scene.rename_log(false),
            Fault::LogRenamedAndCreated => scene.rename_log(true),
            Fault::LogCopied => scene.copy_and_truncate_log(),
            Fault::DiskFull => scene.fill_disk(time(700, 2000)),
            Fault::StoreLocked => scene.store.lock(time(1000, 5000), false),
            Fault::StoreLockedOften => scene.store.lock(time(1000, 5000), true),
            Fault::Store(mode) => {
                scene.store.set(mode);
                std::thread::sleep(time(300, 2500));
                if round % 2 == 1 {
                    scene.kill_collector(away);
                }
                std::thread::sleep(time(200, 1500));
                scene.store.set(Mode::Passes);
            }
            Fault::Clock(seconds) => {
                scene.clock.step(seconds);
                std::thread::sleep(time(200, 2000));
                if seconds == 31 * DAY || round % 3 == 1 {
                    // Its start deletes expired records, unless it knows better.
                    scene.kill_collector(away);
                    if let Some(said) = scene.purge() {
                        println!("purge with the clock {seconds} s ahead: {said}");
                    }
                }
                if round % 3 == 2 {
                    scene.kill_envoy();
                }
                std::thread::sleep(time(200, 1000));
                scene.clock.step(0);
            }
        }
    }
}

#[test]
fn no_call_is_without_a_record() {
    run(Scene::start(Store::sqlite), &[&ALWAYS[..], &OF_SQLITE].concat());
}

#[test]
fn no_call_is_without_a_record_in_dynamodb() {
    run(Scene::start(|_| Store::dynamodb()), &[&ALWAYS[..], &OF_DYNAMODB].concat());
}

fn run(mut scene: Scene, faults: &[Fault]) {
    // `cargo xtask soak audit` sets it. Each of the two tests has half of the time.
    let soak = std::env::var_os("SOAK").is_some();
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse::<u64>().ok());
    let time = Duration::from_secs(seconds.unwrap_or(if soak { 600 } else { 30 }) / 2);
    let load = Load::start(scene.listen);
    let (start, mut repairs) = (Instant::now(), Vec::new());
    // Every fault in each round; a later round has another order, and a soak pauses of several lengths.
    let strides = [1, 3, 5, 7, 11].into_iter().filter(|stride| gcd(*stride, faults.len()) == 1).collect::<Vec<_>>();
    for round in 0.. {
        if start.elapsed() >= time {
            break;
        }
        let stride = strides[round % strides.len()];
        for step in 0..faults.len() {
            let fault = faults[(step * stride + round) % faults.len()];
            let broken = now();
            fault.inject(&mut scene, soak, round);
            println!("{fault:?} in round {round}: repaired after {:.1} s", now() - broken);
            repairs.push(Repair { fault, broken, repaired: now() });
            let pause = if soak { 700 + ((round * 31 + step * 370) % 1700) as u64 } else { 150 };
            std::thread::sleep(Duration::from_millis(pause));
            if soak && start.elapsed() >= time && round > 0 {
                break;
            }
        }
    }
    let (calls, load_lasted) = (load.stop(), start.elapsed());
    let (requests, refused) = scene.store.counts();
    println!(
        "{} faults in {:.0} s of load; {requests} requests to DynamoDB, {refused} refused",
        repairs.len(),
        load_lasted.as_secs_f64()
    );
    judge::check(&scene, &calls, &repairs);
}

/// Waits for a program that starts: on a machine that builds something, that takes half a minute.
fn patiently(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
