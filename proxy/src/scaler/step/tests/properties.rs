//! What holds for every policy and every demand.

use proptest::prelude::*;

use super::*;
use crate::scaler::Told;

fn policies() -> impl Strategy<Value = Policy> {
    (
        0u32..4,
        1u32..20,
        prop::option::of(0.1f64..20.0),
        prop::option::of(0.1f64..50.0),
        (10u64..120, 1u64..9),
        (1.1f64..5.0, 1.1f64..5.0),
        prop::option::of(0u64..200),
        any::<bool>(),
        (
            prop::option::of(0.5f64..20.0),
            prop::option::of(0.05f64..1.0),
        ),
    )
        .prop_map(
            |(
                min,
                max,
                in_flight,
                rate,
                (stable, burst),
                (threshold, down),
                idle,
                preload,
                (queue, kv_cache),
            )| {
                let none = in_flight.is_none() && rate.is_none();
                let none = none && queue.is_none() && kv_cache.is_none();
                Policy {
                    min,
                    max: max.max(min),
                    in_flight: in_flight.or(none.then_some(1.0)),
                    rate,
                    queue,
                    kv_cache,
                    concurrency: None,
                    stable: Duration::from_secs(stable),
                    burst: Duration::from_secs(burst),
                    panic_threshold: threshold,
                    max_down_rate: down,
                    idle: idle.map(Duration::from_secs),
                    preload,
                }
            },
        )
}

/// In flight, waiting, requests that came and went, milliseconds until the next step.
type Moment = (u32, u32, u64, u64);

fn traces() -> impl Strategy<Value = Vec<Moment>> {
    let quiet = (Just(0u32), Just(0u32), Just(0u64), Just(2000u64));
    let busy = (0u32..50, 0u32..50, 0u64..100, 1u64..4000);
    prop::collection::vec(prop_oneof![quiet, busy], 1..60)
}

impl World {
    fn moment(&mut self, &(in_flight, waiting, blinks, millis): &Moment) -> Decision {
        self.sample.in_flight = in_flight;
        self.sample.wake = self.sample.waiting == 0 && waiting > 0;
        self.sample.waiting = waiting;
        self.sample.arrivals += blinks;
        let told = |value: u32| match value % 4 {
            0 => Told::Nothing,
            1 => Told::Stale,
            _ => Told::Known(f64::from(value)),
        };
        self.sample.inside = Inside {
            queue: told(waiting),
            kv_cache: told(in_flight),
        };
        let decision = self.step();
        self.now += Duration::from_millis(millis);
        decision
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn bounds_hold_and_panic_never_shrinks(
        policy in policies(), trace in traces(), start in 0f64..100.0,
        failures in prop::collection::vec(0u32..6, 1..9),
    ) {
        let mut world = World::new(policy.clone(), start);
        let mut before = Decision::default();
        for (index, moment) in trace.iter().enumerate() {
            world.sample.failed_in_a_row = failures[index / 5 % failures.len()];
            let resting = world.state.failures.are_resting();
            let decision = world.moment(moment);
            prop_assert!((policy.min..=policy.max).contains(&decision.desired));
            prop_assert!(decision.order <= decision.desired);
            let resting = resting || world.state.failures.are_resting();
            prop_assert!(!decision.panic || resting || decision.desired >= before.desired);
            prop_assert!(decision.again.is_none_or(|again| again > world.now - Duration::from_millis(moment.3)));
            prop_assert!(decision.demand.is_finite() && decision.rate.is_finite());
            before = decision;
        }
    }

    #[test]
    fn demand_is_never_without_a_replica_and_idleness_ends_in_time(
        policy in policies(), trace in traces(), start in 0f64..100.0,
    ) {
        let mut world = World::new(policy.clone(), start);
        for moment in &trace {
            let decision = world.moment(moment);
            prop_assert!(moment.0 + moment.1 == 0 || decision.desired >= 1);
        }
        let idle = policy.idle.unwrap_or(Duration::from_secs(100));
        world.moment(&(1, 0, 0, 0));
        let last = world.now;
        world.now += Duration::from_millis(1);
        let mut decision = world.moment(&(0, 0, 0, 0));
        while world.now < last + idle {
            prop_assert!(decision.desired >= 1);
            world.now += TICK;
            decision = world.step();
        }
        world.now += TICK;
        let expected = policy.idle.map_or(policy.min.max(1), |_| policy.min);
        let decision = world.step();
        prop_assert!(decision.desired == expected || policy.idle.is_none());
        prop_assert!(decision.desired >= expected);
    }

    #[test]
    fn a_constant_load_converges_and_does_not_flap(
        policy in policies(), load in 1u32..40, start in 0f64..100.0,
    ) {
        let in_flight = policy.in_flight.unwrap_or(1.0);
        let policy = Policy { in_flight: Some(in_flight), rate: None, ..policy };
        let mut world = World::new(policy.clone(), start);
        world.load(load);
        world.run(300.0);
        let expected = (f64::from(load) / in_flight).ceil().clamp(policy.min.into(), policy.max.into());
        prop_assert_eq!(f64::from(*world.history.last().unwrap()), expected.max(1.0));
        prop_assert_eq!(world.stops, 0);
        world.history.drain(..world.history.len() - 1);
        world.run(120.0);
        prop_assert_eq!(world.changes(), 0);
    }

    #[test]
    fn the_same_trace_gives_the_same_decisions(policy in policies(), trace in traces(), start in 0f64..100.0) {
        let decisions = || {
            let mut world = World::new(policy.clone(), start);
            trace.iter().map(|moment| world.moment(moment)).collect::<Vec<_>>()
        };
        prop_assert_eq!(decisions(), decisions());
    }
}
