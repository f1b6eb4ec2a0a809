//! A cluster that shares the devices, and what its requests want.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::books::Placed;
use super::{Notice, Sight, Terms};
use crate::scaler::Starts;

/// Demand of so long ago counts for a third.
const FADES: Duration = Duration::from_secs(600);
/// A request that came and did not wait, as a browser's for a waiting page, is somebody who waits for so long.
const CALLED: Duration = Duration::from_secs(10);
/// A cluster with its own process driver.
pub(super) struct Tenant {
    pub(super) cluster: Arc<str>,
    pub(super) terms: Terms,
    pub(super) sight: Weak<dyn Sight>,
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    /// Its first replica can never be placed.
    pub(super) hopeless: watch::Sender<bool>,
    /// Its driver is gone: it is forgotten with the last thing it holds.
    pub(super) left: bool,
    pub(super) starts: Starts,
    pub(super) was_ready: bool,
    demand: Demand,
}

/// What requests want of a tenant, as last seen.
struct Demand {
    seen: Instant,
    arrivals: u64,
    /// Requests per second, faded.
    rate: f64,
    used: Instant,
    /// When the first and the last came of those that found nothing that serves.
    called: Option<(Instant, Instant)>,
}

impl Tenant {
    pub(super) fn new(
        cluster: Arc<str>,
        terms: Terms,
        sight: Weak<dyn Sight>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Self {
        let now = Instant::now();
        let arrivals = sight.upgrade().map_or(0, |sight| sight.arrivals());
        Self {
            cluster,
            terms,
            sight,
            notices,
            hopeless: watch::Sender::new(false),
            left: false,
            starts: Starts::default(),
            was_ready: false,
            demand: Demand {
                seen: now,
                arrivals,
                rate: 0.0,
                used: now,
                called: None,
            },
        }
    }

    pub(super) fn waiting(&self) -> u32 {
        self.sight.upgrade().map_or(0, |sight| sight.waiting())
    }

    pub(super) fn in_flight(&self, placed: &Placed) -> bool {
        let sight = self.sight.upgrade();
        let at = placed.address.zip(sight);
        at.is_some_and(|(address, sight)| sight.in_flight(address) > 0)
    }

    /// Takes in what came since the last time.
    ///
    /// * `serves`: a replica can
    pub(super) fn observe(&mut self, serves: bool, now: Instant) {
        let Some(sight) = self.sight.upgrade() else {
            return;
        };
        let demand = &mut self.demand;
        let elapsed = now.saturating_duration_since(demand.seen).as_secs_f64();
        let arrivals = sight.arrivals();
        let more = arrivals.saturating_sub(demand.arrivals);
        let fades = FADES.as_secs_f64();
        demand.rate = demand.rate * (-elapsed / fades).exp() + more as f64 / fades;
        (demand.seen, demand.arrivals) = (now, arrivals);
        if more > 0 {
            demand.used = now;
        }
        demand.called = match (serves, demand.called, more > 0) {
            (true, ..) => None,
            (false, Some((first, _)), true) => Some((first, now)),
            (false, None, true) => Some((now, now)),
            (false, called, false) => called.filter(|(_, last)| now - *last < CALLED),
        };
    }

    /// How long somebody has waited; `None`: nobody waits.
    pub(super) fn waits(&self, now: Instant) -> Option<Duration> {
        let called = self.demand.called.map(|(first, _)| now - first);
        let sight = self.sight.upgrade()?;
        match sight.waiting() {
            0 => called,
            _ => sight.oldest_wait().or(Some(Duration::ZERO)).max(called),
        }
    }

    /// When somebody last came for it.
    pub(super) fn used(&self) -> Instant {
        self.demand.used
    }

    /// What it costs to load one replica again: seconds that takes × requests per second.
    pub(super) fn cost(&self) -> f64 {
        let load = self.starts.p95().unwrap_or_default();
        load.as_secs_f64() * self.demand.rate
    }
}
