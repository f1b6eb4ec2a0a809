//! That the short way of a choice is taken exactly while all endpoints are well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_config::Balance;
use tokio::time::advance;

use super::{Candidate, Pool, address, candidates, health};
use crate::cluster::Verdict;
use crate::cluster::vitals::Policy;

/// Whether the short way is taken, and whether it should be.
fn wellness(pool: &Pool) -> (bool, bool) {
    let set = pool.state.endpoints();
    let policy = Policy::of(&pool.config);
    let well = policy.all_well();
    let changes = &pool.state.roots.common.changes;
    let holds = set.wellness.holds(&set, changes, well, policy.checked);
    let recount = set.endpoints.iter().all(|e| e.vitals().flags() == well);
    (holds, recount)
}

/// One thing that happens to a cluster of up to four endpoints.
async fn happen(pool: &mut Pool, random: &mut fastrand::Rng) {
    let endpoints = pool.state.endpoints().endpoints.clone();
    let at = random.usize(..endpoints.len().max(1));
    let Some(endpoint) = endpoints.get(at) else {
        return pool.state.update(candidates(&[1, 1]), &pool.config.balance);
    };
    let outlier = pool.config.outlier.clone();
    let observe = |verdict| {
        pool.state
            .observe(endpoint, None, verdict, outlier.as_ref())
    };
    match random.u32(..12) {
        0 => (0..3).for_each(|_| observe(Verdict::Failed)),
        1 => observe(Verdict::Busy(Duration::from_secs(random.u64(..3)))),
        2 => drop(pool.state.drain(endpoint.address)),
        3 | 4 => drop(pool.state.undrain(endpoint.address)),
        5 => pool.state.enter_check(endpoint, Some(random.bool()), None),
        6 | 7 => pool.state.enter_check(endpoint, Some(true), None),
        8 => advance(Duration::from_secs(random.u64(..40))).await,
        9 => {
            let weights = (0..random.u32(1..5)).map(|_| random.u32(1..3));
            let some: Vec<Candidate> = candidates(&weights.collect::<Vec<_>>());
            pool.state.update(some, &pool.config.balance);
        }
        10 => {
            pool.state = pool.state.next_generation();
            pool.config.health = random.bool().then(health);
            assert_eq!(wellness(pool).0, wellness(pool).1, "before it settles");
            pool.settle();
        }
        _ => {
            if let Some(chosen) = pool.choose(random.u32(..)) {
                let (state, outlier) = (&pool.state, outlier.as_ref());
                state.observe(&chosen.endpoint, chosen.probe, Verdict::Good, outlier);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_short_way_is_taken_exactly_while_all_are_well() {
    let (mut well, mut ailing) = (0, 0);
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pool = Pool::new(&[1, 1, 1], Balance::Random)
            .with_outlier(|outlier| outlier.slow_start = Duration::from_secs(seed % 3 * 10));
        for _ in 0..60 {
            happen(&mut pool, &mut random).await;
            let (holds, recount) = wellness(&pool);
            assert_eq!(holds, recount, "seed {seed}");
            assert_eq!(wellness(&pool).0, recount, "seed {seed}, asked again");
            *if recount { &mut well } else { &mut ailing } += 1;
        }
    }
    assert!(well > 1000 && ailing > 1000, "{well} {ailing}");
}

/// One thread drains and undrains, others look: after each change is over nobody may still see how it was.
#[test]
fn no_change_is_missed_by_another_thread() {
    let pool = Pool::new(&[1; 4], Balance::Random);
    let over = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (pool, over) = (&pool, Arc::clone(&over));
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    wellness(pool);
                }
            });
        }
        for round in 0..5000 {
            let address = address(round % 4);
            pool.state.drain(address);
            assert!(!wellness(&pool).0, "{round}");
            pool.state.undrain(address);
            assert!(wellness(&pool).0, "{round}");
        }
        over.store(true, Ordering::Relaxed);
    });
}
