use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_config::{Balance, HashKey};
use tokio::time::advance;

use super::{Pool, address, rolls};
use crate::cluster::{Chosen, EndpointState, InFlight, Verdict};

const SECOND: Duration = Duration::from_secs(1);

fn pool(size: usize) -> Pool {
    Pool::new(&vec![1; size], Balance::LeastRequests).with_outlier(|_| {})
}

fn state(pool: &Pool, index: usize) -> EndpointState {
    pool.endpoint(index).state()
}

/// Ejects the endpoint and lets its time pass.
async fn half_open(pool: &Pool, index: usize) {
    pool.fail(index, 3);
    advance(30 * SECOND).await;
    assert_eq!(state(pool, index), EndpointState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_in_a_row_gets_nothing_for_a_while() {
    for size in [2, 3, 4] {
        for balance in [
            Balance::LeastRequests,
            Balance::RoundRobin,
            Balance::Random,
            Balance::Hash(HashKey::ClientIp),
        ] {
            let pool = Pool::new(&vec![1; size], balance).with_outlier(|_| {});
            pool.fail(0, 2);
            pool.observe(0, Verdict::Good);
            pool.fail(0, 2);
            assert_eq!(state(&pool, 0), EndpointState::Healthy);
            pool.fail(0, 1);
            assert_eq!(state(&pool, 0), EndpointState::Ejected);
            assert!((29.0..=30.0).contains(&pool.endpoint(0).report().ejected_for));
            assert!(rolls(100).all(|roll| pool.index(roll) != 0));
            for key in 0..100u32 {
                let chosen = pool.choose_with(Some(&key.to_be_bytes()), key, &[]);
                assert_ne!(chosen.unwrap().endpoint.address, address(0));
            }
            advance(29 * SECOND).await;
            assert!(rolls(100).all(|roll| pool.index(roll) != 0));
            assert_eq!(pool.endpoint(0).ejections(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_endpoints_are_left_whatever_they_answer() {
    for (size, keep) in [(1, 1), (2, 1), (3, 1), (3, 2), (4, 3), (2, 5)] {
        let ones = vec![1; size];
        let pool = Pool::new(&ones, Balance::LeastRequests);
        let pool = pool.with_outlier(|o| o.keep_at_least = keep);
        (0..size).for_each(|index| pool.fail(index, 10));
        let left = (0..size).filter(|&i| state(&pool, i) == EndpointState::Healthy);
        assert_eq!(left.count(), size.min(keep as usize), "{size} {keep}");
        assert!(pool.choose(7).is_some());
    }
    let pool = pool(2).with_outlier(|o| o.keep_at_least = 0);
    (0..2).for_each(|index| pool.fail(index, 3));
    assert!(pool.choose(7).is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ejected_without_outlier() {
    let pool = Pool::new(&[1, 1], Balance::LeastRequests);
    pool.fail(0, 100);
    assert_eq!(state(&pool, 0), EndpointState::Healthy);
}

#[test]
fn one_request_at_a_time_tries_a_half_open_endpoint() {
    let pool = Arc::new(pool(2).with_outlier(|o| o.base = Duration::ZERO));
    pool.fail(0, 3);
    assert_eq!(state(&pool, 0), EndpointState::HalfOpen);
    let threads: Vec<_> = (0..100)
        .map(|roll| {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || pool.choose(roll).unwrap())
        })
        .collect();
    let chosen: Vec<Chosen> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let (probes, others): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|c| c.probe.is_some());
    assert_eq!(probes.len(), 1);
    assert!(probes.iter().all(|c| c.endpoint.address == address(0)));
    assert!(others.iter().all(|c| c.endpoint.address == address(1)));
    drop(probes); // the client left: the place is free
    let again = pool.choose(0).unwrap();
    assert!(again.probe.is_some());
    assert!(pool.choose(0).unwrap().probe.is_none());
    pool.answer(again, Verdict::Unknown);
    assert!(pool.choose(0).unwrap().probe.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_probe_brings_an_endpoint_back_or_out_for_longer() {
    let pool = pool(2).with_outlier(|o| o.max = 100 * SECOND);
    half_open(&pool, 0).await;
    for seconds in [60, 90, 100, 100] {
        let probe = pool.choose(0).unwrap();
        pool.answer(probe, Verdict::Failed);
        assert_eq!(state(&pool, 0), EndpointState::Ejected);
        advance(seconds * SECOND - Duration::from_millis(1)).await;
        assert_eq!(pool.index(0), 1, "{seconds}");
        advance(Duration::from_millis(1)).await;
    }
    assert_eq!(pool.endpoint(0).ejections(), 5);
    let probe = pool.choose(0).unwrap();
    pool.answer(probe, Verdict::Good);
    assert_eq!(state(&pool, 0), EndpointState::Healthy);
    pool.fail(0, 3);
    assert!((29.0..=30.0).contains(&pool.endpoint(0).report().ejected_for));
}

#[tokio::test(start_paused = true)]
async fn answers_to_what_was_sent_before_an_ejection_do_not_count() {
    let pool = pool(2);
    pool.fail(0, 3);
    pool.observe(0, Verdict::Good);
    pool.fail(0, 10);
    assert_eq!(state(&pool, 0), EndpointState::Ejected);
    assert_eq!(pool.endpoint(0).ejections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_failed_elsewhere_is_no_probe_while_a_healthy_endpoint_is_left() {
    let pool = pool(3);
    half_open(&pool, 0).await;
    let tried = [pool.endpoint(1).id];
    let chosen = pool.choose_with(None, 0, &tried).unwrap();
    assert_eq!(chosen.endpoint.address, address(2));
    let tried = [pool.endpoint(1).id, pool.endpoint(2).id];
    assert!(pool.choose_with(None, 0, &tried).unwrap().probe.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_busy_endpoint_serves_only_when_no_other_can() {
    let pool = pool(2);
    pool.observe(0, Verdict::Busy(7 * SECOND));
    pool.observe(0, Verdict::Busy(2 * SECOND)); // the earlier word reaches further
    assert!(pool.endpoint(0).report().busy);
    assert!(pool.endpoint(0).is_healthy());
    let _held: Vec<_> = (0..9)
        .map(|_| InFlight::begin(pool.endpoint(1), None))
        .collect();
    assert!(rolls(50).all(|roll| pool.index(roll) == 1));
    let tried = [pool.endpoint(1).id];
    assert!(pool.choose_with(None, 0, &tried).is_some());
    pool.observe(1, Verdict::Busy(SECOND));
    assert!((0..50).any(|roll| pool.index(roll) == 0));
    advance(7 * SECOND).await;
    assert!(rolls(50).all(|roll| pool.index(roll) == 0));
    assert!(!pool.endpoint(0).report().busy);
    pool.fail(0, 2);
    pool.observe(0, Verdict::Busy(SECOND)); // neither a failure nor a success
    assert_eq!(state(&pool, 0), EndpointState::Healthy);
    pool.fail(0, 1);
    assert_eq!(state(&pool, 0), EndpointState::Ejected);
}

#[tokio::test(start_paused = true)]
async fn a_single_endpoint_is_chosen_by_its_flags_too() {
    let pool = Pool::new(&[1], Balance::LeastRequests).with_health();
    assert!(pool.choose(0).is_some(), "not checked yet");
    pool.check(0, false);
    assert!(pool.choose(0).is_none());
    pool.check(0, true);
    assert!(pool.choose(0).is_some());
    pool.state.drain(address(0)).unwrap();
    assert!(pool.choose(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_checked_yet_serves_only_when_nothing_healthy_can() {
    let pool = Pool::new(&[1, 1, 1], Balance::RoundRobin).with_health();
    assert!(!pool.state.has_ready_endpoint());
    let seen: Vec<usize> = (0..3).map(|_| pool.index(0)).collect();
    assert!((0..3).all(|index| seen.contains(&index)));
    pool.check(1, true);
    assert!(pool.state.has_ready_endpoint());
    assert!((0..10).all(|_| pool.index(0) == 1));
    pool.observe(1, Verdict::Busy(SECOND));
    assert!((0..10).all(|_| pool.index(0) == 1));
    let tried = [pool.endpoint(1).id];
    assert!(pool.choose_with(None, 0, &tried).is_some());
    pool.check(1, false);
    assert!((0..10).all(|_| pool.index(0) != 1));
    pool.check(0, false);
    pool.check(2, false);
    assert!(pool.choose(0).is_none());
    let report = pool.endpoint(0).report();
    assert_eq!(report.state, EndpointState::Unhealthy);
    assert_eq!(report.check_error.as_deref(), Some("status 500"));
}

#[tokio::test(start_paused = true)]
async fn checks_that_are_not_wanted_any_more_are_forgotten() {
    let mut pool = Pool::new(&[1, 1], Balance::LeastRequests).with_health();
    pool.check(0, false);
    pool.config.health = None;
    pool.settle();
    assert!((0..2).all(|index| state(&pool, index) == EndpointState::Healthy));
    let pool = pool.with_outlier(|_| {});
    pool.fail(0, 3);
    let pool = Pool {
        config: super::plain_cluster(),
        ..pool
    };
    pool.settle();
    assert_eq!(state(&pool, 0), EndpointState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_endpoint_must_pass_its_checks_too() {
    let pool = pool(2).with_health();
    (0..2).for_each(|index| pool.check(index, true));
    half_open(&pool, 0).await;
    pool.check(0, false);
    assert_eq!(pool.index(0), 1);
    pool.check(0, true);
    assert!(pool.choose(0).unwrap().probe.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_comes_back_when_the_others_go_for_other_reasons() {
    let pool = pool(2).with_health();
    (0..2).for_each(|index| pool.check(index, true));
    pool.fail(0, 3);
    pool.check(1, false);
    assert_eq!(pool.index(0), 0);
    pool.fail(0, 10);
    assert_eq!(state(&pool, 0), EndpointState::Healthy, "the only one");
    pool.check(1, true);
    pool.fail(0, 1);
    assert!((59.0..=60.0).contains(&pool.endpoint(0).report().ejected_for));
    pool.state.drain(address(1)).unwrap();
    assert_eq!(pool.index(0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drained_endpoint_stays_so_over_weights_and_generations() {
    let pool = pool(2);
    assert!(pool.state.drain(address(7)).is_none());
    let report = pool.state.drain(address(0)).unwrap();
    assert_eq!(report.state, EndpointState::Draining);
    pool.update(&[5, 1]);
    let Pool { state, config } = pool;
    let pool = Pool {
        state: state.next_generation(),
        config,
    };
    pool.update(&[7, 1]);
    state.update(Vec::new(), &Balance::LeastRequests); // too late to count
    pool.settle();
    assert!(rolls(50).all(|roll| pool.index(roll) == 1));
    let report = pool.state.undrain(address(0)).unwrap();
    assert_eq!(report.state, EndpointState::Healthy);
    assert!(rolls(50).any(|roll| pool.index(roll) == 0));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_survives_a_reload_and_a_change_of_weight() {
    let pool = pool(2);
    pool.fail(0, 3);
    pool.update(&[3, 1]);
    let next = Pool {
        state: pool.state.next_generation(),
        config: pool.config.clone(),
    };
    next.settle();
    next.update(&[4, 1]);
    assert_eq!(state(&next, 0), EndpointState::Ejected);
    assert_eq!(next.endpoint(0).ejections(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_an_endpoint_is_told() {
    let pool = Pool::new(&[1], Balance::LeastRequests).with_health();
    let mut changes = pool.state.changes();
    changes.mark_unchanged();
    pool.check(0, true);
    assert!(changes.has_changed().unwrap());
    assert!(pool.state.has_ready_endpoint());
}

#[test]
fn a_report_is_what_the_admin_api_shows() {
    let pool = pool(1);
    let report = serde_json::to_value(pool.endpoint(0).report()).unwrap();
    let expected = serde_json::json!({
        "endpoint": "127.0.0.1:8000", "state": "healthy", "ejections": 0, "ejected_for": 0.0,
        "busy": false, "in_flight": 0, "check_error": null,
    });
    assert_eq!(report, expected);
}

#[test]
fn whatever_happens_at_once_one_probe_is_out_and_enough_endpoints_are_left() {
    let pool = Pool::new(&[1; 4], Balance::LeastRequests).with_outlier(|o| {
        o.base = Duration::from_micros(500);
        o.keep_at_least = 2;
    });
    let pool = Arc::new(pool);
    let probing: Arc<[AtomicU32; 4]> = Arc::default();
    let threads = (0..4u64).map(|seed| {
        let (pool, probing) = (Arc::clone(&pool), Arc::clone(&probing));
        std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..5000 {
                let chosen = pool.choose(random.u32(..)).unwrap();
                let index = usize::from(chosen.endpoint.address.port() - 8000);
                if chosen.probe.is_some() {
                    assert_eq!(probing[index].fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    probing[index].fetch_sub(1, Ordering::SeqCst);
                }
                let verdicts = [Verdict::Failed, Verdict::Good, Verdict::Unknown];
                pool.answer(chosen, verdicts[random.usize(..3) * random.usize(..2)]);
                let _nobody_goes = pool.state.roots.keep.lock().unwrap();
                let states = (0..4).map(|index| state(&pool, index));
                assert!(states.filter(|s| *s == EndpointState::Healthy).count() >= 2);
            }
        })
    });
    threads
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert!((0..4).any(|index| pool.endpoint(index).ejections() > 1));
}

#[tokio::test(start_paused = true)]
async fn an_old_request_ejects_nobody_once_nobody_is_to_be_ejected() {
    let pool = pool(2);
    let old = pool.config.outlier.clone();
    let pool = Pool {
        config: super::plain_cluster(),
        ..pool
    };
    pool.settle();
    for _ in 0..9 {
        let endpoint = pool.endpoint(0);
        pool.state
            .observe(&endpoint, None, Verdict::Failed, old.as_ref());
    }
    assert_eq!(state(&pool, 0), EndpointState::Healthy);
    assert_eq!(pool.endpoint(0).ejections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_ends_after_the_last_one_was_wanted_changes_nothing() {
    let mut pool = Pool::new(&[1], Balance::LeastRequests).with_health();
    pool.check(0, true);
    pool.config.health = None;
    pool.settle();
    pool.check(0, false);
    pool.config.health = Some(super::health());
    pool.settle();
    assert_eq!(state(&pool, 0), EndpointState::Unknown);
    assert!(pool.choose(0).is_some());
}

#[tokio::test(start_paused = true)]
async fn good_answers_make_the_next_ejection_a_first_one_again() {
    let pool = pool(2);
    pool.fail(0, 3);
    pool.state.drain(address(1)).unwrap(); // too few others are left
    pool.state.undrain(address(1)).unwrap();
    assert_eq!(state(&pool, 0), EndpointState::Healthy);
    pool.observe(0, Verdict::Good);
    pool.fail(0, 3);
    assert!((29.0..=30.0).contains(&pool.endpoint(0).report().ejected_for));
    pool.observe(0, Verdict::Good); // sent before
    half_open_again(&pool).await;
}

/// Fails the half-open first endpoint once more.
async fn half_open_again(pool: &Pool) {
    advance(30 * SECOND).await;
    let chosen = pool.choose(0).unwrap();
    assert!(chosen.probe.is_some());
    pool.answer(chosen, Verdict::Failed);
    assert!((59.0..=60.0).contains(&pool.endpoint(0).report().ejected_for));
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_nothing_until_an_endpoint_is_ready_does_not_wait_for_a_half_open_one_forever()
 {
    let pool = Pool::new(&[1], Balance::LeastRequests).with_outlier(|o| o.keep_at_least = 0);
    pool.fail(0, 3);
    assert!(!pool.state.has_ready_endpoint());
    advance(30 * SECOND).await;
    assert_eq!(state(&pool, 0), EndpointState::HalfOpen);
    assert!(pool.state.has_ready_endpoint());
    let pool = pool.with_health();
    assert!(!pool.state.has_ready_endpoint(), "not checked yet");
    pool.check(0, true);
    assert!(pool.state.has_ready_endpoint());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_away_while_checks_ended_comes_back_without_their_word() {
    let mut pool = Pool::new(&[1, 1], Balance::LeastRequests).with_health();
    pool.check(1, false);
    let held = pool.endpoint(1); // by a request under way
    pool.update(&[1]);
    pool.config.health = None;
    pool.settle();
    pool.update(&[1, 1]);
    pool.config.health = Some(super::health());
    pool.settle();
    assert_eq!(held.id, pool.endpoint(1).id);
    assert_eq!(state(&pool, 1), EndpointState::Unknown);
}
