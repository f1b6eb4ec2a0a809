//! The choice of an endpoint.

use std::sync::Arc;

use forebay_config::Balance;
use xxhash_rust::xxh3::xxh3_64;

use super::{ClusterState, Endpoint, EndpointSet};

/// Endpoints up to which `least_requests` looks at every one.
const FULL_SCAN: usize = 64;
/// How far above its fair share consistent hashing loads an endpoint before it moves on.
const BOUND: f64 = 1.25;
/// Points on the ring per endpoint of weight 1.
const POINTS: u32 = 100;
/// Points of the whole ring, whatever the weights.
const MAX_POINTS: u64 = 200_000;

/// What the choice depends on besides the endpoints' counters.
pub struct Choice<'a> {
    /// The cluster's policy.
    pub balance: &'a Balance,
    /// Key of a consistent hash, when the request has one.
    pub key: Option<&'a [u8]>,
    /// Uniform.
    pub roll: u32,
    /// Ids of endpoints that already failed this request.
    pub tried: &'a [u64],
}

impl ClusterState {
    /// Chooses an endpoint that has not been tried; `None` when there is none.
    pub fn choose(&self, set: &EndpointSet, choice: &Choice<'_>) -> Option<Arc<Endpoint>> {
        let all = &set.endpoints;
        if let [only] = all.as_slice() {
            return (!choice.tried.contains(&only.id)).then(|| Arc::clone(only));
        }
        let usable = |e: &&Arc<Endpoint>| !choice.tried.contains(&e.id);
        let picked = match (choice.balance, choice.key, &set.ring) {
            (Balance::Hash(_), Some(key), Some(ring)) => ring.pick(all, key, choice.tried),
            (Balance::RoundRobin, ..) => weighted(all.iter().filter(usable), self.next_turn()),
            (Balance::Random, ..) => weighted_roll(all.iter().filter(usable), choice.roll),
            _ => least_requests(all, choice),
        };
        picked.map(Arc::clone)
    }
}

/// The endpoint with the fewest requests per weight once this one is added; ties go to a random one.
fn least_requests<'a>(all: &'a [Arc<Endpoint>], choice: &Choice<'_>) -> Option<&'a Arc<Endpoint>> {
    if all.is_empty() {
        return None;
    }
    let load = |e: &Endpoint| f64::from(e.in_flight() + 1) / f64::from(e.weight);
    let start = choice.roll as usize % all.len();
    let (head, tail) = all.split_at(start);
    let rotated = tail
        .iter()
        .chain(head)
        .filter(|e| !choice.tried.contains(&e.id));
    // A full scan: a choice of two would pick the busier of two endpoints a quarter of the time.
    let looked_at = if all.len() <= FULL_SCAN {
        usize::MAX
    } else {
        8
    };
    rotated
        .take(looked_at)
        .min_by(|a, b| load(a).total_cmp(&load(b)))
}

/// In turn, each as often as its weight says.
fn weighted<'a>(
    endpoints: impl Iterator<Item = &'a Arc<Endpoint>> + Clone,
    turn: u32,
) -> Option<&'a Arc<Endpoint>> {
    let total: u64 = endpoints.clone().map(|e| u64::from(e.weight)).sum();
    at_point(endpoints, u64::from(turn).checked_rem(total)?)
}

/// By chance, each as often as its weight says.
fn weighted_roll<'a>(
    endpoints: impl Iterator<Item = &'a Arc<Endpoint>> + Clone,
    roll: u32,
) -> Option<&'a Arc<Endpoint>> {
    let total: u64 = endpoints.clone().map(|e| u64::from(e.weight)).sum();
    at_point(endpoints, (u64::from(roll) * total) >> 32)
}

fn at_point<'a>(
    mut endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    mut point: u64,
) -> Option<&'a Arc<Endpoint>> {
    endpoints.find(|e| {
        let weight = u64::from(e.weight);
        let here = point < weight;
        point = point.saturating_sub(weight);
        here
    })
}

/// A consistent hash ring with bounded load: a key keeps its endpoint while that is not overloaded,
/// and a change of the set moves only the keys of what came or went.
pub struct Ring {
    /// Sorted hashes, each with the index of its endpoint.
    points: Box<[(u64, u32)]>,
    total_weight: u64,
}

impl Ring {
    /// A ring over `endpoints`, deterministic in their addresses and weights: every replica agrees.
    pub fn new(endpoints: &[Arc<Endpoint>]) -> Self {
        let total_weight: u64 = endpoints.iter().map(|e| u64::from(e.weight)).sum();
        let lightest = endpoints.iter().map(|e| e.weight).min().unwrap_or(1);
        let wanted = |e: &Endpoint| u64::from(POINTS) * u64::from(e.weight) / u64::from(lightest);
        let all: u64 = endpoints.iter().map(|e| wanted(e)).sum();
        let mut points = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let count = if all <= MAX_POINTS {
                wanted(endpoint)
            } else {
                wanted(endpoint) * MAX_POINTS / all
            };
            for replica in 0..count.max(1) {
                let name = format!("{}#{replica}", endpoint.label);
                points.push((xxh3_64(name.as_bytes()), index as u32));
            }
        }
        points.sort_unstable();
        Self {
            points: points.into(),
            total_weight,
        }
    }

    fn pick<'a>(
        &self,
        all: &'a [Arc<Endpoint>],
        key: &[u8],
        tried: &[u64],
    ) -> Option<&'a Arc<Endpoint>> {
        let load: u64 = all.iter().map(|e| u64::from(e.in_flight())).sum::<u64>() + 1;
        let share = |e: &Endpoint| {
            (BOUND * load as f64 * f64::from(e.weight) / self.total_weight as f64).ceil() as u32
        };
        let start = self.points.partition_point(|&(at, _)| at < xxh3_64(key));
        let (head, tail) = self.points.split_at(start);
        let mut overloaded = None;
        for &(_, index) in tail.iter().chain(head) {
            let endpoint = &all[index as usize];
            if tried.contains(&endpoint.id) {
                continue;
            }
            if endpoint.in_flight() < share(endpoint) {
                return Some(endpoint);
            }
            overloaded.get_or_insert(endpoint);
        }
        overloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Candidate, InFlight};
    use forebay_config::HashKey;
    use std::collections::HashMap;

    fn cluster(weights: &[u32], balance: &Balance) -> ClusterState {
        let state = ClusterState::new("c");
        let candidates = weights.iter().enumerate().map(|(i, &weight)| Candidate {
            address: ([127, 0, 0, 1], 8000 + i as u16).into(),
            host: "127.0.0.1".into(),
            weight,
        });
        state.update(candidates.collect(), balance);
        state
    }

    fn choice<'a>(balance: &'a Balance, key: Option<&'a [u8]>, roll: u32) -> Choice<'a> {
        Choice {
            balance,
            key,
            roll,
            tried: &[],
        }
    }

    #[test]
    fn two_endpoints_with_two_concurrent_requests_get_one_each() {
        let state = cluster(&[1, 1], &Balance::LeastRequests);
        for roll in 0..100u32 {
            let set = state.endpoints();
            let first = state
                .choose(&set, &choice(&Balance::LeastRequests, None, roll))
                .unwrap();
            let _busy = InFlight::begin(Arc::clone(&first));
            let second = state
                .choose(&set, &choice(&Balance::LeastRequests, None, roll * 7))
                .unwrap();
            assert_ne!(first.id, second.id);
        }
    }

    #[test]
    fn round_robin_serves_each_exactly_its_weight() {
        let state = cluster(&[1, 2, 3], &Balance::RoundRobin);
        let mut served: HashMap<u32, u32> = HashMap::new();
        for _ in 0..600 {
            let picked = state
                .choose(&state.endpoints(), &choice(&Balance::RoundRobin, None, 0))
                .unwrap();
            *served.entry(picked.weight).or_default() += 1;
        }
        assert_eq!(served, HashMap::from([(1, 100), (2, 200), (3, 300)]));
    }

    #[test]
    fn a_key_keeps_its_endpoint_and_moves_only_when_that_goes() {
        let balance = Balance::Hash(HashKey::ClientIp);
        let state = cluster(&[1; 8], &balance);
        let keys: Vec<String> = (0..4000).map(|k| format!("user-{k}")).collect();
        let map = |state: &ClusterState| -> Vec<_> {
            let set = state.endpoints();
            keys.iter()
                .map(|k| {
                    state
                        .choose(&set, &choice(&balance, Some(k.as_bytes()), 0))
                        .unwrap()
                        .address
                })
                .collect()
        };
        let before = map(&state);
        assert_eq!(before, map(&state));
        let gone = before[0];
        let left: Vec<_> = state
            .endpoints()
            .endpoints
            .iter()
            .filter(|e| e.address != gone)
            .map(|e| Candidate {
                address: e.address,
                host: Arc::clone(&e.host),
                weight: e.weight,
            })
            .collect();
        state.update(left, &balance);
        for (was, is) in before.iter().zip(map(&state)) {
            assert!(*was == is || *was == gone);
        }
    }

    #[test]
    fn bounded_load_never_piles_one_hot_key_on_one_endpoint() {
        let balance = Balance::Hash(HashKey::ClientIp);
        let state = cluster(&[1; 4], &balance);
        let set = state.endpoints();
        let held: Vec<_> = (0..100)
            .map(|_| {
                InFlight::begin(
                    state
                        .choose(&set, &choice(&balance, Some(b"hot"), 0))
                        .unwrap(),
                )
            })
            .collect();
        let most = set.endpoints.iter().map(|e| e.in_flight()).max().unwrap();
        assert!(most <= 33, "{most} of {}", held.len());
    }

    #[test]
    fn what_was_tried_is_not_chosen_again() {
        for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::Random] {
            let state = cluster(&[1, 1], &balance);
            let set = state.endpoints();
            let first = state.choose(&set, &choice(&balance, None, 5)).unwrap();
            let tried = [first.id];
            let second = state
                .choose(
                    &set,
                    &Choice {
                        tried: &tried,
                        ..choice(&balance, None, 5)
                    },
                )
                .unwrap();
            let both = [first.id, second.id];
            assert!(
                state
                    .choose(
                        &set,
                        &Choice {
                            tried: &both,
                            ..choice(&balance, None, 5)
                        }
                    )
                    .is_none()
            );
        }
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_counters() {
        let state = cluster(&[1, 1], &Balance::Random);
        let kept = Arc::clone(&state.endpoints().endpoints[0]);
        let _held = InFlight::begin(Arc::clone(&kept));
        state.update(
            vec![Candidate {
                address: kept.address,
                host: Arc::clone(&kept.host),
                weight: 9,
            }],
            &Balance::Random,
        );
        assert_eq!(state.endpoints().endpoints[0].in_flight(), 1);
        assert_eq!(state.requests(), 1);
    }
}
