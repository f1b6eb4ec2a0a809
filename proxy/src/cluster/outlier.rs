//! Who is taken out and who comes back: what answers, checks and operators say of endpoints.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use forebay_config as config;
use tokio::sync::watch;

use super::endpoint::Counters;
use super::vitals::{self, Vitals};
use super::{ClusterState, Endpoint, EndpointReport, EndpointState, Verdict};

/// The place of the one request that tries a half-open endpoint. Dropped without a verdict, the next request may.
#[must_use]
pub struct Probe(Arc<Counters>);

impl Probe {
    /// Takes the place, unless it is taken or the endpoint is not ejected any more.
    pub(super) fn take(endpoint: &Endpoint) -> Option<Self> {
        let counters = endpoint.counters();
        counters
            .vitals
            .take_probe()
            .then(|| Self(Arc::clone(counters)))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.vitals.free_probe();
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probe")
    }
}

impl ClusterState {
    /// Learns from one attempt.
    ///
    /// * `probe`: what [`ClusterState::choose`] gave with the endpoint
    /// * `outlier`: as configured; `None`: nothing is ever ejected
    pub fn observe(
        &self,
        endpoint: &Arc<Endpoint>,
        probe: Option<Probe>,
        verdict: Verdict,
        outlier: Option<&config::Outlier>,
    ) {
        let vitals = endpoint.vitals();
        match (verdict, outlier) {
            (Verdict::Busy(Duration::ZERO) | Verdict::Unknown, _) => {}
            (Verdict::Busy(time), _) => {
                vitals.mark_busy(vitals::now() + vitals::millis(time));
            }
            (_, None) => {}
            (Verdict::Good, Some(_)) if probe.is_some() => {
                if vitals.readmit(true, vitals::now()) {
                    self.tell(endpoint, "it answered well", "endpoint is back");
                }
            }
            (Verdict::Good, Some(_)) => {
                vitals.answered_well();
            }
            (Verdict::Failed, Some(outlier)) if probe.is_some() => {
                let _counting = self.counting();
                if vitals.is_ejected() {
                    let time = vitals.eject(outlier, vitals::now());
                    self.log_ejection(endpoint, "it failed when it was tried again", time);
                }
            }
            (Verdict::Failed, Some(outlier)) => {
                if vitals.is_ejected() {
                    return; // an answer to what was sent before
                }
                let failures = vitals.failures.fetch_add(1, Ordering::Relaxed) + 1;
                if failures >= outlier.consecutive_5xx.get() {
                    self.eject(endpoint, failures, outlier);
                }
            }
        }
        drop(probe); // only now may the next one try
    }

    /// Ejects the endpoint, unless too few would be left.
    fn eject(&self, endpoint: &Arc<Endpoint>, failures: u32, outlier: &config::Outlier) {
        let keep = self.counting();
        let Some(keep_at_least) = *keep else {
            return; // the answer to a request of an older generation: nobody is ejected any more
        };
        let vitals = endpoint.vitals();
        let checked = self.roots.common.is_checked();
        let newest = self.roots.newest.load();
        let is_member = newest
            .at(endpoint.address)
            .is_some_and(|live| Arc::ptr_eq(live.counters(), endpoint.counters()));
        if vitals.is_ejected() || !is_member {
            return;
        }
        let others = newest
            .endpoints
            .iter()
            .filter(|e| e.address != endpoint.address);
        let left = others.filter(|e| e.vitals().is_usable(checked)).count();
        if vitals.is_usable(checked) && left < keep_at_least as usize {
            return; // the next failure asks again
        }
        let time = vitals.eject(outlier, vitals::now());
        let reason = format!("{failures} failures in a row");
        self.log_ejection(endpoint, &reason, time);
    }

    fn log_ejection(&self, endpoint: &Endpoint, reason: &str, milliseconds: u64) {
        let time = Duration::from_millis(milliseconds);
        tracing::info!(cluster = self.name(), endpoint = %endpoint.label, reason, ?time, "endpoint ejected");
        self.announce();
    }

    fn tell(&self, endpoint: &Endpoint, reason: &str, what: &str) {
        tracing::info!(cluster = self.name(), endpoint = %endpoint.label, reason, "{what}");
        self.announce();
    }

    fn counting(&self) -> MutexGuard<'_, Option<u32>> {
        self.roots
            .keep
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Endpoints went for other reasons than their answers: when too few are left, ejected ones come back early.
    pub(super) fn endpoints_went(&self) {
        let keep = self.counting();
        let checked = self.roots.common.is_checked();
        let newest = self.roots.newest.load();
        let usable = |e: &&Arc<Endpoint>| e.vitals().is_usable(checked);
        let mut left = newest.endpoints.iter().filter(usable).count();
        while left < keep.unwrap_or(0) as usize {
            let could_serve =
                |e: &&Arc<Endpoint>| e.vitals().is_ejected() && e.vitals().could_serve(checked);
            let out = newest.endpoints.iter().filter(could_serve);
            let Some(next) = out.min_by_key(|e| e.vitals().ejected_until()) else {
                break;
            };
            next.vitals().readmit(false, vitals::now());
            self.tell(next, "too few others are left", "endpoint is back");
            left += 1;
        }
        drop(keep);
        self.announce();
    }

    /// Takes over what the newest configuration says of health: endpoints of a cluster without checks are healthy,
    /// and nobody is ejected from one without `outlier`.
    pub fn settle(&self, cluster: &config::Cluster) {
        let checked = cluster.health.is_some();
        self.settle_room(cluster);
        self.roots.common.checked.store(checked, Ordering::Release);
        *self.counting() = cluster.outlier.as_ref().map(|o| o.keep_at_least);
        for endpoint in &self.known() {
            if !checked && endpoint.vitals().forget_checks() {
                self.tell(
                    endpoint,
                    "nothing checks it any more",
                    "endpoint is healthy",
                );
            }
            if cluster.outlier.is_none() && endpoint.vitals().forget_ejection() {
                self.tell(endpoint, "nothing is ejected any more", "endpoint is back");
            }
        }
        self.endpoints_went();
    }

    /// Those of the newest set, and those that have left and may come back as they were.
    fn known(&self) -> Vec<Arc<Endpoint>> {
        let known = &self.roots.known;
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(Weak::upgrade).collect()
    }

    /// What the checks of an endpoint say so far: `None` before the first one.
    pub fn checked(&self, endpoint: &Endpoint) -> Option<bool> {
        endpoint.vitals().check()
    }

    /// Enters what the active checks of an endpoint say.
    ///
    /// * `passed`: `None`: as before, but the last check said otherwise
    /// * `error`: what the last one found wrong
    pub fn enter_check(&self, endpoint: &Endpoint, passed: Option<bool>, error: Option<&str>) {
        let vitals = endpoint.vitals();
        vitals.set_check_error(error);
        let Some(passed) = passed else { return };
        let is_new = vitals.set_check(passed, vitals::now());
        if !self.roots.common.is_checked() {
            vitals.forget_checks(); // the last check of a cluster that has none any more came too late
            return;
        }
        if !is_new {
            return;
        }
        if passed {
            self.tell(endpoint, "its checks pass", "endpoint is healthy");
        } else {
            self.tell(endpoint, error.unwrap_or_default(), "endpoint is unhealthy");
            self.endpoints_went();
        }
    }

    /// Gives the endpoint at this address nothing new from now on, as long as it is in the cluster; what is under way
    /// finishes. Returns how it is then; `None`: there is no such endpoint.
    pub fn drain(&self, address: SocketAddr) -> Option<EndpointReport> {
        self.set_drained(address, true)
    }

    /// Ends a [`ClusterState::drain`].
    pub fn undrain(&self, address: SocketAddr) -> Option<EndpointReport> {
        self.set_drained(address, false)
    }

    fn set_drained(&self, address: SocketAddr, drained: bool) -> Option<EndpointReport> {
        let set = self.roots.newest.load();
        let endpoint = set.at(address)?;
        if endpoint.vitals().set_drained(drained) {
            let what = match drained {
                true => "endpoint drains",
                false => "endpoint gets requests again",
            };
            self.tell(endpoint, "somebody asked", what);
            self.endpoints_went();
        }
        Some(endpoint.report())
    }

    /// True when some endpoint is neither drained, unhealthy, ejected nor still to be checked for the first time. A
    /// half-open one counts: it gets well by requests only, which may be waiting for this. That an ejection is over is
    /// no change that [`ClusterState::changes`] tells.
    pub fn has_ready_endpoint(&self) -> bool {
        let checked = self.roots.common.is_checked();
        let now = vitals::now();
        let ready = |v: &Vitals| match v.state(checked, now) {
            EndpointState::Healthy => true,
            EndpointState::HalfOpen => !checked || v.check() == Some(true),
            _ => false,
        };
        self.set.load().endpoints.iter().any(|e| ready(e.vitals()))
    }

    /// Changes whenever the set, or the health of an endpoint in it, has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.roots.changed.subscribe()
    }
}
