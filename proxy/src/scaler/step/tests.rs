mod properties;
mod signals;

use std::collections::VecDeque;

use forebay_config::units::Rate;
use forebay_config::{Driver, Position, Targets};

use super::*;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// The defaults of `scale:`, with `max: 10`, for one request per replica.
fn policy() -> Policy {
    Policy {
        min: 0,
        max: 10,
        in_flight: Some(1.0),
        rate: None,
        queue: None,
        kv_cache: None,
        concurrency: None,
        stable: at(60.0),
        burst: at(6.0),
        panic_threshold: 2.0,
        max_down_rate: 2.0,
        idle: Some(at(300.0)),
        preload: false,
    }
}

/// A cluster whose replicas take their time, and what is asked of it.
struct World {
    policy: Policy,
    state: State,
    now: Duration,
    sample: Sample,
    start: Duration,
    pending: VecDeque<Duration>,
    starts: u32,
    stops: u32,
    history: Vec<u32>,
}

impl World {
    fn new(policy: Policy, start: f64) -> Self {
        let now = at(1000.0);
        Self {
            policy,
            state: State::new(now),
            now,
            sample: Sample::default(),
            start: at(start),
            pending: VecDeque::new(),
            starts: 0,
            stops: 0,
            history: Vec::new(),
        }
    }

    fn step(&mut self) -> Decision {
        while self.pending.front().is_some_and(|&due| due <= self.now) {
            self.pending.pop_front();
            self.sample.ready += 1;
            self.sample.last_start = Some(self.start + Duration::from_nanos(self.starts.into()));
        }
        self.sample.starting = u32::try_from(self.pending.len()).unwrap();
        let decision = step(&self.policy, &mut self.state, &self.sample, self.now);
        while self.sample.ready + self.sample.starting < decision.order {
            self.pending.push_back(self.now + self.start);
            self.sample.starting += 1;
            self.starts += 1;
        }
        while self.sample.ready + self.sample.starting > decision.order {
            self.stops += 1;
            match self.pending.pop_back() {
                Some(_) => self.sample.starting -= 1,
                None => self.sample.ready -= 1,
            }
        }
        self.sample.wake = false;
        self.history.push(decision.desired);
        decision
    }

    /// Lets `seconds` go by with a step each tick; returns the last.
    fn run(&mut self, seconds: f64) -> Decision {
        let end = self.now + at(seconds);
        let mut decision = Decision::default();
        while self.now + TICK <= end {
            self.now += TICK;
            decision = self.step();
        }
        decision
    }

    /// So many are in flight from now on.
    fn load(&mut self, in_flight: u32) {
        self.sample.in_flight = in_flight;
        self.sample.arrivals += u64::from(in_flight);
    }

    /// A request that is over before anybody looks.
    fn blink(&mut self) {
        self.sample.arrivals += 1;
    }

    fn changes(&self) -> usize {
        self.history
            .windows(2)
            .filter(|two| two[0] != two[1])
            .count()
    }
}

#[test]
fn targets_come_from_the_configuration() {
    let mut scale = Scale {
        min: 0,
        max: 3,
        target: Targets::default(),
        stable_window: at(60.0),
        panic_window: at(6.0),
        panic_threshold: 2.0,
        max_down_rate: 2.0,
        idle: None,
        start_timeout: at(600.0),
        preload: false,
        pin: false,
        min_residency: at(60.0),
        gpu: None,
        driver: Driver::Observe,
        position: Position {
            file: "forebay.yaml".into(),
            line: 1,
            column: 1,
        },
    };
    let of = |scale: &Scale, concurrency| {
        let policy = Policy::new(scale, NonZeroU32::new(concurrency));
        (policy.in_flight, policy.rate)
    };
    assert_eq!(of(&scale, 0), (Some(1.0), None));
    assert_eq!(of(&scale, 8), (Some(8.0), None));
    scale.target.rate = Some(Rate {
        thousandths: 3_000,
        period: at(60.0),
    });
    assert_eq!(of(&scale, 8), (None, Some(0.05)));
    scale.target.in_flight = Some(2.5);
    assert_eq!(of(&scale, 8), (Some(2.5), Some(0.05)));
}

#[test]
fn the_first_waiter_starts_a_replica_at_once() {
    let mut world = World::new(policy(), 5.0);
    assert_eq!(world.step().desired, 0);
    world.run(600.0);
    world.now += at(0.3);
    world.sample.waiting = 1;
    world.sample.arrivals += 1;
    world.sample.wake = true;
    let decision = world.step();
    assert_eq!((decision.desired, decision.order), (1, 1));
    assert_eq!(decision.again, Some(world.now + SECOND_LOOK));
    assert_eq!((world.starts, world.stops), (1, 0));
}

#[test]
fn a_cold_burst_makes_one_wave() {
    let mut world = World::new(
        Policy {
            max: 1000,
            in_flight: Some(8.0),
            ..policy()
        },
        30.0,
    );
    world.step();
    world.sample.wake = true;
    world.sample.waiting = 100;
    world.step();
    world.now += SECOND_LOOK;
    assert_eq!(world.step().desired, 13);
    for more in 1..15 {
        world.sample.waiting = 100 + more * 5;
        world.run(2.0);
    }
    assert_eq!((world.starts, world.stops), (13, 0));
    world.sample.waiting = 2000; // another burst
    world.run(6.0);
    assert!(world.starts > 100, "{}", world.starts);
}

#[test]
fn served_demand_grows_the_cluster_while_replicas_start() {
    let mut world = World::new(policy(), 600.0);
    world.load(1);
    world.run(60.0);
    for more in 2..=6 {
        world.load(more);
        world.run(60.0);
    }
    assert_eq!(world.history.last(), Some(&6));
    assert_eq!(world.stops, 0);
}

#[test]
fn a_fall_is_slow_and_keeps_the_last_replica_while_it_is_not_idle() {
    let mut world = World::new(policy(), 1.0);
    world.load(9);
    world.run(120.0);
    assert_eq!(world.history.last(), Some(&9));
    world.load(0);
    world.history.clear();
    world.run(200.0);
    let falls: Vec<_> = world.history.windows(2).collect();
    assert!(falls.iter().all(|two| two[1] >= two[0] / 2), "{falls:?}");
    assert_eq!(world.history.last(), Some(&1));
    assert_eq!(world.run(100.0).desired, 1);
    assert_eq!(world.run(2.0).desired, 0);
}

#[test]
fn replicas_shrink_by_their_rate_once_a_tick_however_often_it_steps() {
    let mut world = World::new(
        Policy {
            stable: at(2.0),
            burst: at(1.0),
            ..policy()
        },
        1.0,
    );
    world.load(8);
    world.run(200.0);
    world.load(0);
    world.run(2.0);
    world.history.clear();
    world.run(2.0);
    for _ in 0..10 {
        world.now += at(0.1);
        world.step();
    }
    world.run(2.0);
    assert_eq!(world.history, [[4].as_slice(), &[4; 10], &[2]].concat());
}

#[test]
fn rates_count_as_arrivals_per_second() {
    let mut world = World::new(
        Policy {
            in_flight: None,
            rate: Some(5.0),
            ..policy()
        },
        1.0,
    );
    for _ in 0..60 {
        world.sample.arrivals += 34; // 17/s
        world.run(2.0);
    }
    assert_eq!(world.history.last(), Some(&4));
    let decision = world.step();
    assert!((decision.rate - 17.0).abs() < 0.3, "{}", decision.rate);
}

#[test]
fn the_largest_answer_wins() {
    let mut world = World::new(
        Policy {
            in_flight: Some(4.0),
            rate: Some(100.0),
            ..policy()
        },
        1.0,
    );
    world.load(10);
    assert_eq!(world.run(120.0).desired, 3);
}

#[test]
fn one_request_a_minute_keeps_the_replica() {
    let mut world = World::new(
        Policy {
            idle: Some(at(90.0)),
            ..policy()
        },
        5.0,
    );
    world.step();
    for _ in 0..30 {
        world.blink();
        world.run(60.0);
    }
    assert_eq!((world.starts, world.stops), (1, 0));
}

#[test]
fn without_idle_the_last_replica_stays_once_it_runs() {
    let mut world = World::new(
        Policy {
            idle: None,
            ..policy()
        },
        1.0,
    );
    assert_eq!(world.run(100.0).desired, 0);
    world.load(3);
    world.run(120.0);
    world.load(0);
    assert_eq!(world.run(1e5).desired, 1);
}

#[test]
fn idle_of_no_time_still_serves() {
    let mut world = World::new(
        Policy {
            idle: Some(Duration::ZERO),
            ..policy()
        },
        1.0,
    );
    world.step();
    world.load(1);
    assert_eq!(world.run(20.0).desired, 1);
    world.load(0);
    assert_eq!(world.run(2.0).desired, 0);
}

#[test]
fn a_preloaded_replica_goes_when_it_is_idle() {
    let mut world = World::new(
        Policy {
            preload: true,
            ..policy()
        },
        1.0,
    );
    let decision = world.step();
    assert_eq!(decision.desired, 1);
    assert_eq!(decision.again, Some(world.now + at(300.0)));
    assert_eq!(world.run(298.0).desired, 1);
    assert_eq!(world.run(2.0).desired, 0);
}

#[test]
fn what_runs_when_the_proxy_starts_is_kept_for_a_window() {
    let mut world = World::new(policy(), 1.0);
    world.sample.ready = 4;
    world.step();
    assert_eq!(world.run(60.0).desired, 4);
    assert!(world.run(20.0).desired < 4);
    assert!(world.stops >= 1);
}

#[test]
fn an_operator_has_the_last_word() {
    let mut world = World::new(Policy { min: 1, ..policy() }, 1.0);
    assert_eq!(world.step().desired, 1);
    world.state.pin(Some(4));
    assert_eq!(world.run(1000.0).desired, 4);
    world.state.pin(Some(99));
    assert_eq!(world.run(2.0).desired, 10);
    world.state.pin(Some(0));
    world.load(5);
    assert_eq!(world.run(100.0).desired, 0);
    world.state.pin(None);
    assert_eq!(world.run(100.0).desired, 5);
}

#[test]
fn failed_starts_wait_and_give_up_after_three() {
    let mut world = World::new(policy(), 1e6);
    world.step();
    world.sample.waiting = 1;
    world.sample.arrivals = 1;
    assert_eq!(world.step().order, 1);
    for (failed, backoff) in [(1, 1.0), (2, 2.0), (3, 4.0)] {
        world.now += at(1.0);
        world.pending.clear();
        world.sample.failed_in_a_row = failed;
        let decision = world.step();
        assert_eq!(
            (decision.order, decision.desired),
            (0, u32::from(failed < 3))
        );
        assert_eq!(decision.start_failed, failed == 3);
        assert_eq!(decision.again, Some(world.now + at(backoff)));
        if failed == 3 {
            world.sample.waiting = 0; // they are answered
        }
        world.now += at(backoff);
        let decision = world.step();
        assert!(!decision.start_failed);
        assert_eq!(decision.order, u32::from(failed < 3));
    }
    assert_eq!(world.run(100.0).order, 0);
    world.sample.waiting = 1;
    world.sample.arrivals = 2;
    world.sample.wake = true;
    let decision = world.step();
    assert_eq!((decision.order, decision.start_failed), (1, false));
}

#[test]
fn a_minimum_is_tried_again_without_requests() {
    let mut world = World::new(Policy { min: 1, ..policy() }, 1e6);
    world.step();
    world.pending.clear();
    world.sample.failed_in_a_row = 3;
    let decision = world.step();
    assert_eq!((decision.desired, decision.order), (1, 0));
    assert!(decision.start_failed);
    world.now += at(4.0);
    assert_eq!(world.step().order, 1);
}

#[test]
fn slow_starts_are_ordered_ahead_of_a_ramp() {
    let mut worlds = [1.0, 60.0].map(|start| {
        let mut world = World::new(
            Policy {
                max: 100,
                ..policy()
            },
            start,
        );
        world.load(2);
        world.run(400.0);
        assert_eq!(world.sample.ready, 2, "{:?}", world.history);
        for load in 2..14 {
            world.load(load);
            world.run(8.0);
        }
        world
    });
    let [quick, slow] = worlds
        .each_mut()
        .map(|world| world.history.last().copied().unwrap());
    assert!(slow > quick + 3, "{slow} {quick}");
    assert!(slow <= 30, "{slow}");
}
