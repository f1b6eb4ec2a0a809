use std::time::Duration;

use forebay_config::{Balance, HashKey};
use tokio::time::advance;

use super::{Pool, address, rolls};
use crate::cluster::{InFlight, Verdict};

const SLOW: Duration = Duration::from_secs(100);

fn pool(size: usize, balance: Balance) -> Pool {
    Pool::new(&vec![1; size], balance).with_outlier(|o| o.slow_start = SLOW)
}

/// The share of 10 000 requests that the endpoint gets, each over before the next one.
fn share(pool: &Pool, index: usize) -> f64 {
    let key = |roll: u32| roll.to_be_bytes();
    let chosen = rolls(10_000).map(|r| pool.choose_with(Some(&key(r)), r, &[]).unwrap());
    let here = chosen.filter(|c| c.endpoint.address == address(index));
    here.count() as f64 / 10_000.0
}

fn assert_near(found: f64, expected: f64, balance: &Balance) {
    let error = (found - expected).abs();
    // The ring's own parts are uneven.
    let allowed = match balance {
        Balance::Hash(_) => 0.3 * expected + 0.02,
        _ => 0.01,
    };
    assert!(error < allowed, "{balance:?}: {found} for {expected}");
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_gets_a_tenth_first_and_its_full_share_in_the_end() {
    for balance in [
        Balance::LeastRequests,
        Balance::RoundRobin,
        Balance::Random,
        Balance::Hash(HashKey::ClientIp),
    ] {
        let pool = pool(3, balance.clone());
        assert_near(share(&pool, 2), 1.0 / 3.0, &balance); // at the start nobody is slow
        pool.update(&[1; 4]);
        for (gone, part) in [(0, 0.1), (50, 0.55), (100, 1.0)] {
            let hash = matches!(balance, Balance::Hash(_));
            let expected = match hash {
                true => part / 4.0,
                false => part / (3.0 + part),
            };
            assert_near(share(&pool, 3), expected, &balance);
            let step = if gone < 100 { SLOW / 2 } else { Duration::ZERO };
            advance(step).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_back_from_ejection_or_illness_begins_slowly() {
    let balance = Balance::LeastRequests;
    let pool = pool(2, balance.clone()).with_health();
    (0..2).for_each(|index| pool.check(index, true));
    assert_near(share(&pool, 0), 0.5, &balance); // the first check is no way back
    pool.fail(0, 3);
    advance(Duration::from_secs(30)).await;
    let probe = pool.choose(0).unwrap();
    pool.answer(probe, Verdict::Good);
    assert_near(share(&pool, 0), 0.1 / 1.1, &balance);
    advance(SLOW).await;
    assert_near(share(&pool, 0), 0.5, &balance);
    pool.check(0, false);
    pool.check(0, true);
    assert_near(share(&pool, 0), 0.1 / 1.1, &balance);
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_is_never_preferred_to_a_less_loaded_one() {
    let pool = pool(1, Balance::LeastRequests);
    pool.update(&[1; 2]);
    let _held = InFlight::begin(pool.endpoint(1), None);
    assert_near(share(&pool, 1), 0.0, &Balance::LeastRequests);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_all_begin_share_by_load() {
    let pool = pool(2, Balance::LeastRequests).with_health();
    (0..2).for_each(|index| pool.check(index, false));
    (0..2).for_each(|index| pool.check(index, true));
    let _held = InFlight::begin(pool.endpoint(1), None);
    assert_near(share(&pool, 0), 1.0, &Balance::LeastRequests);
}

#[tokio::test(start_paused = true)]
async fn keys_move_to_a_new_endpoint_once_and_only_there() {
    let pool = pool(3, Balance::Hash(HashKey::ClientIp));
    let map = || -> Vec<u16> {
        let keys = rolls(3000).map(u32::to_be_bytes);
        let chosen = keys.map(|k| pool.choose_with(Some(&k), 0, &[]).unwrap());
        chosen.map(|c| c.endpoint.address.port()).collect()
    };
    let mut before = map();
    pool.update(&[1; 4]);
    for _ in 0..11 {
        let now = map();
        for (was, is) in before.iter().zip(&now) {
            assert!(was == is || *is == address(3).port());
        }
        before = now;
        advance(SLOW / 10).await;
    }
}
