//! Demand in, replicas out: one task per cluster with `scale`, on the control runtime.
//!
//! A task samples what requests want and what replicas there are, decides by [`step`] every two seconds and whenever
//! somebody begins to wait, and tells the cluster's [`Driver`]. What it remembers outlives reloads.

mod driver;
mod failures;
mod inside;
mod observe;
mod run;
mod starts;
mod step;
#[cfg(test)]
mod tests;
mod trend;
mod webhook;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::run::{Shared, run};

pub use driver::{Driver, Replicas};
pub use inside::{Inside, Told};
pub use observe::Observe;
pub use run::{Demand, Numbers, Outlook, Subject};
pub use starts::{Starts, hint};
pub use step::{Decision, Policy, Sample, State, TICK, step};
pub use webhook::Webhook;

/// Scales all clusters with `scale`.
#[derive(Default)]
pub struct Scaler {
    clusters: Mutex<HashMap<String, Followed>>,
}

struct Followed {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scaler {
    /// Scales nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Scales these clusters from now on, and no others; those without `scale` are passed over. A cluster that was
    /// there before keeps what is known of it. A driver that is no longer used is told nothing: whoever holds it ends
    /// it. Must be called on a runtime.
    pub fn follow(&self, clusters: impl IntoIterator<Item = Subject>) {
        let mut live = self.lock();
        let mut before = std::mem::take(&mut *live);
        for subject in clusters {
            if subject.config.scale.is_none() {
                continue;
            }
            let name = subject.config.name.clone();
            let followed = match before.remove(&name) {
                Some(followed) => {
                    followed.shared.subject.send_replace(subject);
                    followed
                }
                None => {
                    let shared = Arc::new(Shared::new(subject));
                    let task = tokio::spawn(run(Arc::clone(&shared))).abort_handle();
                    Followed { shared, task }
                }
            };
            live.insert(name, followed);
        }
    }

    /// Wants this many replicas of a cluster, at most its `max`, whatever the demand, until that is changed; `None`: by
    /// demand again. False: no such cluster is scaled.
    pub fn pin(&self, cluster: &str, replicas: Option<u32>) -> bool {
        let live = self.lock();
        let followed = live.get(cluster);
        followed.map(|followed| followed.shared.pinned.send_replace(replicas));
        followed.is_some()
    }

    /// The driver that a cluster has now; `None`: no such cluster is scaled.
    pub fn driver(&self, cluster: &str) -> Option<Arc<dyn Driver>> {
        let live = self.lock();
        let subject = live.get(cluster)?.shared.subject.borrow();
        Some(Arc::clone(&subject.driver))
    }

    /// What those who wait for a cluster need to know; rings when `asked` or `start_failed` changes. It outlives
    /// reloads, and is closed when the cluster is no longer scaled. `None`: it is not.
    pub fn outlook(&self, cluster: &str) -> Option<watch::Receiver<Outlook>> {
        Some(self.lock().get(cluster)?.shared.outlook.subscribe())
    }

    /// The numbers of every cluster that is scaled, by name.
    pub fn numbers(&self) -> BTreeMap<String, Numbers> {
        let live = self.lock();
        let each = live.iter();
        each.map(|(name, followed)| (name.clone(), followed.shared.numbers()))
            .collect()
    }

    /// The same for people: an object by cluster; durations in seconds.
    pub fn report(&self) -> Value {
        let numbers = self.numbers().into_iter();
        numbers
            .map(|(name, numbers)| (name, numbers.report()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Followed>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    /// `forebay_demand{signal}`: name and value of each signal; `rate` is per second, the others are requests.
    pub fn demand(&self) -> [(&'static str, f64); 3] {
        [
            ("in_flight", f64::from(self.sample.in_flight)),
            ("waiting", f64::from(self.sample.waiting)),
            ("rate", self.decision.rate),
        ]
    }

    /// `forebay_replicas{state}`: name and number of each state.
    pub fn states(&self) -> [(&'static str, u32); 3] {
        [
            ("ready", self.replicas.ready),
            ("starting", self.replicas.starting),
            ("stopping", self.replicas.stopping),
        ]
    }

    fn report(&self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        json!({
            "desired": self.decision.desired,
            "ready": self.replicas.ready,
            "starting": self.replicas.starting,
            "placing": self.replicas.placing,
            "stopping": self.replicas.stopping,
            "panic": self.decision.panic,
            "demand": {
                "in_flight": self.sample.in_flight,
                "waiting": self.sample.waiting,
                "rate": self.decision.rate,
                "average": self.decision.demand,
            },
            "idle_for": seconds(self.idle_for),
            "start_p95": seconds(self.start_p95),
            "starts": self.replicas.starts,
            "evictions": self.replicas.evictions,
            "start_failed": self.decision.start_failed,
            "failed_in_a_row": self.replicas.failed_in_a_row,
            "last_failure": self.replicas.last_failure.as_deref(),
            "override": self.pinned,
        })
    }
}
