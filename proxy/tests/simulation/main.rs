//! Waiting room, scaler and endpoints that fail, together, in virtual time: what a seed decides happens again with the
//! same seed.
//!
//! The room is the one of a real `ClusterState`, with its choice of endpoints; demand becomes replicas by the scaler's
//! real `step`, in another test by the real `Scaler` and its task. Played are the clients, the driver, the servers and
//! the probes. After every event the promises of [`promises`] are looked at.
//!
//! ```text
//! FOREBAY_SEED=17 cargo test -p forebay --test simulation        # one seed again
//! FOREBAY_SEEDS=20000 cargo test -p forebay --test simulation --release
//! ```

mod brain;
mod clients;
mod events;
mod promises;
mod replicas;
mod scenario;
mod world;

use std::ops::Range;

use scenario::{Scaling, Scenario, Spoilt};
use world::{Tally, World};

/// The seeds that every run goes through.
const SEEDS: u64 = 320;
/// The seeds of the scaler's own task, which takes longer.
const TASK_SEEDS: u64 = 64;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds(usual: u64) -> Range<u64> {
    match number("FOREBAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FOREBAY_SEEDS").unwrap_or(usual),
    }
}

fn play(scenario: Scenario) -> Result<Tally, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async { World::new(scenario).run().await })
}

/// Plays all of them; returns what happened in all.
///
/// # Panics
///
/// With the seed, when a promise is broken.
fn play_all(seeds: Range<u64>, scaling: Scaling) -> Tally {
    let mut all = Tally::default();
    for seed in seeds {
        match play(Scenario::new(seed, scaling, Spoilt::Nothing)) {
            Ok(tally) => all.add(&tally),
            Err(broken) => panic!("{broken}\nagain with FOREBAY_SEED={seed}"),
        }
    }
    println!("{all:?}");
    all
}

#[test]
fn whatever_the_seed_every_promise_holds() {
    let all = play_all(seeds(SEEDS), Scaling::Step);
    if number("FOREBAY_SEED").is_none() {
        assert_eq!(all.missing(), [""; 0], "it never happened: {all:?}");
    }
}

#[test]
fn the_scalers_own_task_keeps_them_too() {
    play_all(seeds(TASK_SEEDS), Scaling::Task);
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for seed in 0..16 {
        let once = play(Scenario::new(seed, Scaling::Step, Spoilt::Nothing));
        let again = play(Scenario::new(seed, Scaling::Step, Spoilt::Nothing));
        assert_eq!(once, again, "seed {seed}");
    }
    let courses = (0..16).map(|seed| play(Scenario::new(seed, Scaling::Step, Spoilt::Nothing)));
    let mut courses: Vec<u64> = courses.map(|tally| tally.map_or(0, |t| t.course)).collect();
    courses.dedup();
    assert_eq!(courses.len(), 16);
}

#[test]
fn a_promise_that_is_broken_is_noticed() {
    for (spoilt, words) in [
        (Spoilt::NeverStarts, "nothing starts"),
        (Spoilt::NeverStops, "when nobody comes"),
        (Spoilt::StartsTooMany, "more replicas than there may be"),
        (Spoilt::LosesSlots, "slots are in use"),
        (Spoilt::LosesBytes, "bytes are held"),
        (Spoilt::Overtakes, "was overtaken"),
        (Spoilt::ForgetsClocks, "waits longer than it may"),
    ] {
        let noticed = (0..16).any(|seed| {
            let played = play(Scenario::new(seed, Scaling::Step, spoilt));
            played.is_err_and(|broken| broken.contains(words))
        });
        assert!(noticed, "{spoilt:?}");
    }
}
