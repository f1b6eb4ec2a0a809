//! Consistent hashing with bounded load.

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Endpoint;
use super::vitals::FULL;

/// How far above its fair share consistent hashing loads an endpoint before it moves on.
const BOUND: f64 = 1.25;
/// Points on the ring per endpoint of weight 1.
const POINTS: u32 = 100;
/// Points of the whole ring, whatever the weights.
const MAX_POINTS: u64 = 200_000;

/// A consistent hash ring with bounded load: a key keeps its endpoint while that is not overloaded,
/// and a change of the set moves only the keys of what came or went.
pub struct Ring {
    /// Sorted hashes, each with the index of its endpoint.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    /// A ring over `endpoints`, deterministic in their addresses and weights: every replica agrees.
    pub fn new(endpoints: &[Arc<Endpoint>]) -> Self {
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
        }
    }

    /// The endpoint of a key.
    ///
    /// * `share`: of the endpoint with this index, in thousandths; 0: not that one. An endpoint with less than its
    ///   full share has as many of its keys, ever the same ones and more as it grows
    pub(super) fn pick(
        &self,
        all: &[Arc<Endpoint>],
        key: &[u8],
        share: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let mut load = 1;
        let mut total = 0;
        for (index, endpoint) in all.iter().enumerate() {
            if share(index) > 0 {
                load += u64::from(endpoint.in_flight());
                total += u64::from(endpoint.weight);
            }
        }
        let bound =
            |e: &Endpoint| (BOUND * load as f64 * f64::from(e.weight) / total as f64).ceil() as u32;
        let start = self.points.partition_point(|&(at, _)| at < xxh3_64(key));
        let (head, tail) = self.points.split_at(start);
        let mut overloaded = None;
        for &(_, index) in tail.iter().chain(head) {
            let index = index as usize;
            let part = share(index);
            if part == 0 {
                continue;
            }
            let endpoint = &all[index];
            let own = part == FULL || belongs(key, endpoint, part);
            if own && endpoint.in_flight() < bound(endpoint) {
                return Some(index);
            }
            overloaded.get_or_insert(index);
        }
        overloaded
    }
}

/// Whether a key is among those that an endpoint with this share has.
fn belongs(key: &[u8], endpoint: &Endpoint, share: u64) -> bool {
    let seed = xxh3_64(endpoint.label.as_bytes());
    xxh3_64_with_seed(key, seed) % FULL < share
}
