//! Simulations: regions with known times, calls at a known rate.

use super::*;
use crate::shared::tests::Memory;

/// Calls of one model over a time, each answered at once with its region's time.
struct Simulation {
    memory: Memory,
    regions: Vec<RegionName>,
    streams: bool,
    now: u64,
    seed: u64,
}

impl Simulation {
    fn new(streams: bool) -> Self {
        let regions = ["us-east-1", "us-west-2", "eu-west-1"].map(|name| name.parse().unwrap()).to_vec();
        Self { memory: Memory::default(), regions, streams, now: 1_000_000, seed: 1 }
    }

    fn draw(&mut self) -> f64 {
        // The generator of Numerical Recipes.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn latency(&self) -> Latency<'_> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.now);
        Latency::new(&self.memory, "any", "a.b", self.streams, now)
    }

    /// Which region each of the calls tried first, as its place in the class.
    fn run(&mut self, seconds: u64, a_second: u64, time: impl Fn(usize, f64) -> f64) -> Vec<usize> {
        let mut firsts = Vec::new();
        for _ in 0..seconds * a_second {
            self.now += 1000 / a_second;
            let (draw, noise) = (self.draw(), self.draw());
            let latency = self.latency();
            let first = latency.order(&self.regions, draw)[0].clone();
            let place = self.regions.iter().position(|region| *region == first).unwrap();
            let took = Duration::from_secs_f64(time(place, noise) / 1000.0);
            latency.answered(&first, &self.regions, took);
            firsts.push(place);
        }
        firsts
    }
}

fn share(firsts: &[usize], place: usize) -> f64 {
    firsts.iter().filter(|first| **first == place).count() as f64 / firsts.len() as f64
}

/// How often the region of most calls of a second changed.
fn changes(firsts: &[usize], a_second: usize) -> usize {
    let most = |calls: &[usize]| (0..3).max_by_key(|place| calls.iter().filter(|call| *call == place).count());
    let seconds: Vec<_> = firsts.chunks(a_second).map(most).collect();
    seconds.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn calls_leave_a_slow_region_and_come_back() {
    for a_second in [2, 20, 200] {
        let mut calls = Simulation::new(true);
        let times = [100.0, 120.0, 180.0];
        let noisy = |place: usize, noise: f64| times[place] * (0.8 + 0.4 * noise);
        let before = calls.run(60, a_second, noisy);
        assert!(share(&before, 0) > 0.9, "{a_second}: {}", share(&before, 0));
        if a_second > 2 {
            assert_eq!(changes(&before[before.len() / 2..], a_second as usize), 0, "{a_second}");
        }
        let slow = |place: usize, noise: f64| noisy(place, noise) + if place == 0 { 200.0 } else { 0.0 };
        calls.run(10, a_second, slow);
        let left = calls.run(120, a_second, slow);
        assert!(share(&left, 1) >= 0.9 && share(&left, 0) > 0.0, "{a_second}: {}", share(&left, 1));
        if a_second > 2 {
            assert!(share(&left, 1) >= 0.95, "{a_second}: {}", share(&left, 1));
        }
        calls.run(if a_second > 2 { 25 } else { 300 }, a_second, noisy);
        let back = calls.run(60, a_second, noisy);
        assert!(share(&back, 0) > 0.85, "{a_second}: {}", share(&back, 0));
    }
}

#[test]
fn equal_regions_do_not_take_turns() {
    for streams in [true, false] {
        let mut calls = Simulation::new(streams);
        let firsts = calls.run(600, 20, |_, noise| 100.0 * (0.7 + 0.6 * noise));
        assert!(changes(&firsts, 20) <= 1, "{}", changes(&firsts, 20));
    }
}

#[test]
fn answers_of_any_length_do_not_move_calls() {
    let mut calls = Simulation::new(false);
    // Exponentially distributed, as lengths of answers may be.
    let firsts = calls.run(600, 20, |_, noise| -2000.0 * (1.0 - noise).ln());
    assert!(changes(&firsts, 20) <= 10, "{}", changes(&firsts, 20));
}

#[test]
fn a_lone_call_now_and_then_still_tries() {
    let mut calls = Simulation::new(true);
    let mut firsts = Vec::new();
    for _ in 0..60 {
        calls.now += 90_000;
        firsts.extend(calls.run(1, 1, |place, _| [500.0, 100.0, 300.0][place]));
    }
    assert!(share(&firsts[30..], 1) > 0.6, "{firsts:?}");
}

#[test]
fn an_attempt_that_hangs_counts() {
    let mut calls = Simulation::new(true);
    calls.run(60, 20, |place, _| [100.0, 110.0, 120.0][place]);
    let regions = calls.regions.clone();
    for _ in 0..20 {
        calls.now += 1000;
        calls.latency().unanswered(&regions[0], &regions, Duration::from_secs(5));
    }
    assert_eq!(calls.latency().order(&regions, 0.9)[0], &regions[1]);
    // A client that left early says nothing.
    let before = calls.memory.values.borrow().clone();
    calls.latency().unanswered(&regions[1], &regions, Duration::from_millis(1));
    assert_eq!(before, *calls.memory.values.borrow());
}

#[test]
fn what_is_stored_stays_bounded() {
    let memory = Memory::default();
    let regions: Vec<RegionName> = vec!["us-east-1".parse().unwrap()];
    for nth in 0..2000 {
        let latency = Latency::new(&memory, "any", &format!("m.{nth}"), true, SystemTime::UNIX_EPOCH);
        latency.answered(&regions[0], &regions, Duration::from_secs(1));
    }
    let values = memory.values.borrow();
    assert!(values.len() as u64 <= KEYS);
    assert!(values.values().all(|(value, _)| value.len() <= MODELS * 7 * 8));
}

#[test]
fn a_new_list_of_regions_is_taken() {
    let mut calls = Simulation::new(true);
    calls.run(60, 20, |place, _| [300.0, 100.0, 500.0][place]);
    calls.regions.remove(1);
    let firsts = calls.run(30, 20, |place, _| [300.0, 500.0][place]);
    assert!(share(&firsts, 0) > 0.9);
    for broken in [&b"x"[..], &[1; 40], &[0xff; 200]] {
        let _ = read(Some(broken));
    }
}
