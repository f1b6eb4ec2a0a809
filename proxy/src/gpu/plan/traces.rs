//! Traces against the usual way, and random ones.

use forebay_config::Gpu;
use proptest::prelude::*;

use super::sim::{Model, Policy, World, device};

/// Runs a trace of (second, model), in order, and until nobody waits.
fn run(policy: Policy, devices: &[Gpu], models: &[Model], trace: &[(u64, usize)]) -> World {
    let mut world = World::new(policy, devices.to_vec(), models.to_vec());
    let mut next = trace.iter().peekable();
    let mut second = 0;
    while next.peek().is_some() || world.waiting() > 0 {
        while let Some(&&(_, model)) = next.peek().filter(|(at, _)| *at <= second) {
            world.arrive(model);
            next.next();
        }
        world.step();
        world.step();
        second += 1;
        assert!(second < 1_000_000, "{} wait for ever", world.waiting());
    }
    world
}

#[test]
fn a_b_a_b_a_is_loaded_twice() {
    let models = [Model::new(8, 20, 5), Model::new(8, 20, 5)];
    let trace = [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)];
    let world = run(Policy::Ours, &[device(0, 10)], &models, &trace);
    assert_eq!((world.order, world.loads), (vec![0, 0, 0, 1, 1], 2));
}

#[test]
fn alternating_models_are_loaded_half_as_often_as_by_lru() {
    let models = [Model::new(8, 20, 2), Model::new(8, 20, 2)];
    for pause in [5, 10, 15, 20, 30] {
        let trace: Vec<(u64, usize)> = (0..400).map(|n| (n * pause, n as usize % 2)).collect();
        let all = |policy| run(policy, &[device(0, 10)], &models, &trace);
        let (ours, lru) = (all(Policy::Ours), all(Policy::Lru));
        assert_eq!((ours.served, lru.served), (400, 400));
        println!(
            "pause {pause} s: {} loads, LRU {}; longest wait {} s, LRU {} s",
            ours.loads,
            lru.loads,
            ours.longest_wait / 1000,
            lru.longest_wait / 1000
        );
        assert!(
            ours.loads * 2 <= lru.loads,
            "every {pause} s: {} of {}",
            ours.loads,
            lru.loads
        );
        // The price: a turn, the time to load, and what came in the meantime.
        assert!(ours.longest_wait <= 150_000, "{}", ours.longest_wait);
    }
}

#[test]
fn seldom_used_models_cause_fewer_loads_than_by_lru() {
    // A few models get nearly all requests; most loads are for the others.
    let models: Vec<Model> = (0..8)
        .map(|n| Model::new(6 + n % 3, 30 + 10 * n, 2))
        .collect();
    let devices = [device(0, 24), device(1, 16)];
    let mut random = fastrand::Rng::with_seed(7);
    let weights = [400.0, 200.0, 100.0, 60.0, 6.0, 4.0, 3.0, 2.0];
    let mut second = 0.0;
    let trace: Vec<(u64, usize)> = (0..5000)
        .map(|_| {
            second += -(1.0 - random.f64()).ln() * 6.0;
            let mut roll = random.f64() * weights.iter().sum::<f64>();
            let model = weights.iter().position(|weight| {
                roll -= weight;
                roll < 0.0
            });
            (second as u64, model.unwrap_or(0))
        })
        .collect();
    let (ours, lru) = (
        run(Policy::Ours, &devices, &models, &trace),
        run(Policy::Lru, &devices, &models, &trace),
    );
    println!(
        "{} loads, LRU {}; longest wait {} s, LRU {} s",
        ours.loads,
        lru.loads,
        ours.longest_wait / 1000,
        lru.longest_wait / 1000
    );
    assert!(ours.loads < lru.loads, "{} {}", ours.loads, lru.loads);
}

fn models() -> impl Strategy<Value = Vec<Model>> {
    let model = (
        1..12_u64,
        0..70_u32,
        1..40_u64,
        1..60_u64,
        0..8_u8,
        0..3_u64,
    );
    let model = model.prop_map(|(size, cores, load, service, pin, residency)| Model {
        size,
        cores,
        load,
        service,
        pinned: pin == 0,
        min_residency: residency * 45,
    });
    prop::collection::vec(model, 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The simulation itself asserts that no budget is exceeded and that no victim is pinned, young, or at work before
    /// its time.
    #[test]
    fn everybody_is_served_who_can_be(
        models in models(),
        sizes in prop::collection::vec(4..16_u64, 1..4),
        events in prop::collection::vec((0..20_u64, 0..7_usize, 0..10_u8), 0..120),
    ) {
        let devices: Vec<Gpu> = sizes.iter().enumerate().map(|(n, size)| device(n as u32, *size)).collect();
        let mut world = World::new(Policy::Ours, devices, models.clone());
        for (pause, model, kind) in events {
            for _ in 0..2 * pause {
                world.step();
            }
            let model = model % models.len();
            match kind {
                0 => world.cancel(model),
                _ => world.arrive(model),
            }
        }
        for _ in 0..40_000 {
            let served = |model: usize| !world.is_waited_for(model) || !world.could_ever(model);
            if (0..models.len()).all(served) {
                break;
            }
            world.step();
        }
        for model in 0..models.len() {
            prop_assert!(!world.is_waited_for(model) || !world.could_ever(model), "{model}");
        }
        let loads = world.loads;
        for _ in 0..2000 {
            world.step();
        }
        prop_assert_eq!(world.loads, loads, "what nobody waits for was loaded");
    }
}
