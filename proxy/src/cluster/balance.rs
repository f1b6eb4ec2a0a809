//! The choice of an endpoint.

use std::sync::Arc;

use forebay_config as config;
use forebay_config::Balance;

use super::vitals::{self, FULL, Policy, Standing};
use super::{ClusterState, Endpoint, EndpointSet, Probe};

/// Endpoints up to which `least_requests` looks at every one.
const FULL_SCAN: usize = 64;
/// How many it looks at else.
const LOOKED_AT: usize = 8;
/// Spreads consecutive numbers evenly over all 32-bit numbers.
const GOLDEN: u32 = 0x9e37_79b9;

/// Whether an endpoint has a free slot.
pub type IsFree<'a> = dyn Fn(&Arc<Endpoint>) -> bool + 'a;

/// What the choice depends on besides the endpoints' counters and health.
pub struct Choice<'a> {
    /// As configured: its policy, whether it has checks, and its slow start.
    pub cluster: &'a config::Cluster,
    /// Key of a consistent hash, when the request has one.
    pub key: Option<&'a [u8]>,
    /// Uniform.
    pub roll: u32,
    /// Ids of endpoints that already failed this request.
    pub tried: &'a [u64],
    /// Whether an endpoint has a free slot; `None`: every one has.
    pub free: Option<&'a IsFree<'a>>,
}

impl Choice<'_> {
    fn may_take(&self, endpoint: &Arc<Endpoint>) -> bool {
        !self.tried.contains(&endpoint.id) && self.free.is_none_or(|free| free(endpoint))
    }
}

/// Where a request goes.
#[derive(Debug)]
pub struct Chosen {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The request tries out a half-open endpoint; goes to [`ClusterState::observe`] with the verdict.
    pub probe: Option<Probe>,
}

impl ClusterState {
    /// Chooses an endpoint that has not been tried; `None` when there is none. Never one that is drained, unhealthy or
    /// ejected; a half-open one gets one request at a time. A busy one only when no other healthy one can serve, one
    /// whose first check has not come yet only when no healthy one can.
    pub fn choose(&self, set: &EndpointSet, choice: &Choice<'_>) -> Option<Chosen> {
        let all = set.endpoints.as_slice();
        let policy = Policy::of(choice.cluster);
        let changes = &self.roots.common.changes;
        let all_well = set
            .wellness
            .holds(set, changes, policy.all_well(), policy.checked);
        if !all_well {
            return self.choose_among_ailing(set, choice, policy);
        }
        if let [only] = all {
            return choice.may_take(only).then(|| Chosen::plain(only));
        }
        let share = |index: usize| match choice.may_take(&all[index]) {
            true => FULL,
            false => 0,
        };
        self.pick(set, choice, share)
            .map(|index| Chosen::plain(&all[index]))
    }

    /// The choice when something is wrong with some endpoint.
    #[cold]
    fn choose_among_ailing(
        &self,
        set: &EndpointSet,
        choice: &Choice<'_>,
        policy: Policy,
    ) -> Option<Chosen> {
        let all = set.endpoints.as_slice();
        let now = vitals::now();
        // Only what goes through the room minds a pause.
        let pauses = |e: &Arc<Endpoint>| choice.free.is_some() && e.vitals().is_paused();
        let standing = |e: &Arc<Endpoint>| match choice.may_take(e) && !pauses(e) {
            true => e.vitals().standing(policy, now),
            false => Standing::Out,
        };
        let mut few = [Standing::Out; FULL_SCAN];
        let mut many = Vec::new();
        let standings: &[Standing] = match few.get_mut(..all.len()) {
            Some(few) => {
                let places = few.iter_mut().zip(all);
                places.for_each(|(place, e)| *place = standing(e));
                few
            }
            None => {
                many.extend(all.iter().map(standing));
                &many
            }
        };
        let ranks = standings.iter().filter_map(|s| match s {
            Standing::Usable { rank, .. } => Some(*rank),
            Standing::HalfOpen { .. } | Standing::Out => None,
        });
        let best = ranks.min();
        let probe = |even_busy: bool| {
            let half_open = |s: &Standing| match s {
                Standing::HalfOpen { busy } => even_busy || !busy,
                Standing::Usable { .. } | Standing::Out => false,
            };
            let may = all.iter().zip(standings).filter(|(_, s)| half_open(s));
            may.filter_map(|(endpoint, _)| Some((endpoint, Probe::take(endpoint)?)))
                .map(|(endpoint, probe)| Chosen {
                    endpoint: Arc::clone(endpoint),
                    probe: Some(probe),
                })
                .next()
        };
        // A request that already failed once is no guinea pig while something better is left.
        if (choice.tried.is_empty() || best.is_none())
            && let Some(chosen) = probe(best.is_none())
        {
            return Some(chosen);
        }
        let best = best?;
        let share = |index: usize| match standings[index] {
            Standing::Usable { rank, share } if rank == best => share,
            _ => 0,
        };
        self.pick(set, choice, share)
            .map(|index| Chosen::plain(&all[index]))
    }

    /// The index of the choice among endpoints with a share, in thousandths of their weight.
    fn pick(
        &self,
        set: &EndpointSet,
        choice: &Choice<'_>,
        share: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let all = set.endpoints.as_slice();
        let weights = Weights { all, share };
        match (&choice.cluster.balance, choice.key, &set.ring) {
            (Balance::Hash(_), Some(key), Some(ring)) => ring.pick(all, key, weights.share),
            (Balance::RoundRobin, ..) => weights.in_turn(self.next_turn()),
            (Balance::Random, ..) => weights.by_chance(choice.roll),
            _ => weights.least_requests(choice.roll),
        }
    }
}

impl Chosen {
    fn plain(endpoint: &Arc<Endpoint>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            probe: None,
        }
    }
}

/// Endpoints and the share of its weight that each has, in thousandths; 0: it is no candidate.
struct Weights<'a, F> {
    all: &'a [Arc<Endpoint>],
    share: F,
}

impl<F: Fn(usize) -> u64> Weights<'_, F> {
    fn weight(&self, index: usize) -> u64 {
        u64::from(self.all[index].weight) * (self.share)(index)
    }

    fn total(&self) -> u64 {
        (0..self.all.len()).map(|index| self.weight(index)).sum()
    }

    fn at(&self, mut point: u64) -> Option<usize> {
        (0..self.all.len()).find(|&index| {
            let weight = self.weight(index);
            let here = point < weight;
            point = point.saturating_sub(weight);
            here
        })
    }

    /// In turn, each as often as its weight says.
    fn in_turn(&self, turn: u32) -> Option<usize> {
        if (0..self.all.len()).all(|index| matches!((self.share)(index), 0 | FULL)) {
            let turns = self.total() / FULL;
            return self.at(u64::from(turn).checked_rem(turns)? * FULL);
        }
        self.by_chance(turn.wrapping_mul(GOLDEN)) // as regular as parts of turns can be
    }

    /// By chance, each as often as its weight says.
    fn by_chance(&self, roll: u32) -> Option<usize> {
        let point = (u128::from(roll) * u128::from(self.total())) >> 32;
        self.at(point as u64)
    }

    /// The endpoint with the fewest requests per weight once this one is added; ties go to a random one. One that
    /// begins slowly has to be drawn by chance first: else an idle one got everything, or nothing.
    fn least_requests(&self, roll: u32) -> Option<usize> {
        let slow = (0..self.all.len()).any(|index| !matches!((self.share)(index), 0 | FULL));
        if !slow {
            return self.least_of(roll, |index| (self.share)(index) > 0);
        }
        let drawn = self.by_chance(roll)?;
        let roll = roll.wrapping_mul(GOLDEN);
        let Some(least) = self.least_of(roll, |index| (self.share)(index) == FULL) else {
            return self.least_of(roll, |index| (self.share)(index) > 0); // all begin
        };
        let takes_part = (self.share)(drawn) < FULL && self.load(drawn) <= self.load(least);
        Some(if takes_part { drawn } else { least })
    }

    fn load(&self, index: usize) -> f64 {
        let endpoint = &self.all[index];
        f64::from(endpoint.in_flight() + 1) / f64::from(endpoint.weight)
    }

    fn least_of(&self, roll: u32, of: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.all.len();
        let start = (roll as usize).checked_rem(count)?;
        let rotated = (start..count).chain(0..start).filter(|&index| of(index));
        // A full scan: a choice of two would pick the busier of two endpoints a quarter of the time.
        let looked_at = if count <= FULL_SCAN { count } else { LOOKED_AT };
        rotated
            .take(looked_at)
            .min_by(|&a, &b| self.load(a).total_cmp(&self.load(b)))
    }
}
