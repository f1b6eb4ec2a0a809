use std::collections::HashMap;
use std::sync::Arc;

use forebay_config::{Balance, HashKey};

use super::{Pool, candidates};
use crate::cluster::{Candidate, InFlight};

#[test]
fn two_endpoints_with_two_concurrent_requests_get_one_each() {
    let pool = Pool::new(&[1, 1], Balance::LeastRequests);
    for roll in 0..100u32 {
        let first = pool.choose(roll).unwrap().endpoint;
        let _busy = InFlight::begin(Arc::clone(&first), None);
        let second = pool.choose(roll * 7).unwrap().endpoint;
        assert_ne!(first.id, second.id);
    }
}

#[test]
fn round_robin_serves_each_exactly_its_weight() {
    let pool = Pool::new(&[1, 2, 3], Balance::RoundRobin);
    let mut served: HashMap<u32, u32> = HashMap::new();
    for _ in 0..600 {
        let picked = pool.choose(0).unwrap().endpoint;
        *served.entry(picked.weight).or_default() += 1;
    }
    assert_eq!(served, HashMap::from([(1, 100), (2, 200), (3, 300)]));
}

#[test]
fn a_key_keeps_its_endpoint_and_moves_only_when_that_goes() {
    let pool = Pool::new(&[1; 8], Balance::Hash(HashKey::ClientIp));
    let keys: Vec<String> = (0..4000).map(|k| format!("user-{k}")).collect();
    let map = || -> Vec<_> {
        let chosen = |k: &String| pool.choose_with(Some(k.as_bytes()), 0, &[]).unwrap();
        keys.iter().map(|k| chosen(k).endpoint.address).collect()
    };
    let before = map();
    assert_eq!(before, map());
    let gone = before[0];
    let left = candidates(&[1; 8]).into_iter();
    let left: Vec<Candidate> = left.filter(|c| c.address != gone).collect();
    pool.state.update(left, &pool.config.balance);
    for (was, is) in before.iter().zip(map()) {
        assert!(*was == is || *was == gone);
    }
}

#[test]
fn bounded_load_never_piles_one_hot_key_on_one_endpoint() {
    let pool = Pool::new(&[1; 4], Balance::Hash(HashKey::ClientIp));
    let hot = || pool.choose_with(Some(b"hot"), 0, &[]).unwrap().endpoint;
    let held: Vec<_> = (0..100).map(|_| InFlight::begin(hot(), None)).collect();
    let set = pool.state.endpoints();
    let most = set.endpoints.iter().map(|e| e.in_flight()).max().unwrap();
    assert!(most <= 33, "{most} of {}", held.len());
}

#[test]
fn what_was_tried_is_not_chosen_again() {
    for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::Random] {
        let pool = Pool::new(&[1, 1], balance);
        let first = pool.choose(5).unwrap().endpoint;
        let second = pool.choose_with(None, 5, &[first.id]).unwrap().endpoint;
        assert_ne!(first.id, second.id);
        assert!(pool.choose_with(None, 5, &[first.id, second.id]).is_none());
    }
}

#[test]
fn an_endpoint_that_stays_keeps_its_counters() {
    let pool = Pool::new(&[1, 1], Balance::Random);
    let _held = InFlight::begin(pool.endpoint(0), None);
    pool.update(&[9]);
    assert_eq!(pool.endpoint(0).in_flight(), 1);
    assert_eq!(pool.state.requests(), 1);
}
