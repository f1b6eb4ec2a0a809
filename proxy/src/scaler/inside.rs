//! What servers tell of themselves, over time, and how many replicas that asks for.

use std::time::Duration;

use super::step::{Policy, Sample};
use super::window::Window;

/// One thing that the servers of a cluster tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Told {
    /// Nobody is asked, or nobody is ready.
    #[default]
    Nothing,
    /// The sum over all replicas that are ready.
    Known(f64),
    /// Nobody who is asked has answered for too long.
    Stale,
}

/// What the servers of a cluster tell of themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inside {
    /// Requests that wait inside them.
    pub queue: Told,
    /// The parts of their KV caches that are in use, each 0 … 1.
    pub kv_cache: Told,
}

/// What was told.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Inside the servers.
    queue: Window,
    /// Inside them and in front of them.
    queue_all: Window,
    kv_cache: Window,
    /// The most in flight that one replica carried over a stable window while its signals asked for no other.
    usual: f64,
}

/// Replicas that the signals ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Asked {
    /// For all requests.
    pub(super) all: u32,
    /// For those inside the servers.
    pub(super) served: u32,
}

impl Record {
    /// Nothing was told before `now`.
    pub(super) fn new(now: Duration) -> Self {
        let window = Window::new(1, now);
        Self {
            queue: window.clone(),
            queue_all: window.clone(),
            kv_cache: window,
            usual: 0.0,
        }
    }

    /// Until `now` it was as the last sample had it.
    ///
    /// * `keep`: seconds that are remembered
    pub(super) fn observe(&mut self, before: &Sample, keep: usize, now: Duration) {
        let waiting = f64::from(before.waiting);
        enter(&mut self.queue, before.inside.queue, 0.0, keep, now);
        enter(&mut self.queue_all, before.inside.queue, waiting, keep, now);
        enter(&mut self.kv_cache, before.inside.kv_cache, 0.0, keep, now);
    }

    /// Replicas by the signals that are known, averaged over `window`.
    pub(super) fn asked(&self, window: Duration, policy: &Policy, sample: &Sample) -> Asked {
        let by = |of: &Window, told: Told, more: u32, target: Option<f64>| match (told, target) {
            (_, None) | (Told::Stale, _) => 0,
            (Told::Nothing | Told::Known(_), Some(target)) => {
                let now = match told {
                    Told::Known(value) => value + f64::from(more),
                    _ => f64::from(more),
                };
                let value = match of.is_young() {
                    true => of.average(window).max(now),
                    false => of.average(window),
                };
                super::step::replicas(value, target)
            }
        };
        let Inside { queue, kv_cache } = sample.inside;
        let cache = by(&self.kv_cache, kv_cache, 0, policy.kv_cache);
        let all = by(&self.queue_all, queue, sample.waiting, policy.queue);
        let served = by(&self.queue, queue, 0, policy.queue);
        Asked {
            all: all.max(cache),
            served: served.max(cache),
        }
    }

    /// Remembers what a replica carries well.
    ///
    /// * `served`: in flight, averaged over the stable window
    pub(super) fn learn(&mut self, policy: &Policy, sample: &Sample, served: f64) {
        let known = |told, target: Option<f64>| target.is_none() || matches!(told, Told::Known(_));
        let Inside { queue, kv_cache } = sample.inside;
        let all_known = known(queue, policy.queue) && known(kv_cache, policy.kv_cache);
        if policy.has_signals() && all_known && sample.ready > 0 {
            let asked = self.asked(policy.stable, policy, sample);
            if asked.all <= sample.ready {
                self.usual = self.usual.max(served / f64::from(sample.ready));
            }
        }
    }

    /// In flight per replica, to go by while a signal is stale; `None`: none is, or the policy has counts of its own.
    pub(super) fn instead(&self, policy: &Policy, sample: &Sample) -> Option<f64> {
        let stale = |told, target: Option<f64>| target.is_some() && told == Told::Stale;
        let Inside { queue, kv_cache } = sample.inside;
        let any = stale(queue, policy.queue) || stale(kv_cache, policy.kv_cache);
        let own = policy.in_flight.is_some() || policy.rate.is_some();
        (any && !own).then(|| policy.concurrency.unwrap_or(self.usual.max(1.0)))
    }
}

/// Remembers what was told until `now`; what was not told leaves nothing behind.
fn enter(window: &mut Window, told: Told, more: f64, keep: usize, now: Duration) {
    window.keep(keep);
    match told {
        Told::Stale => *window = Window::new(keep, now),
        Told::Nothing => window.hold(more, now),
        Told::Known(value) => window.hold(value + more, now),
    }
}
