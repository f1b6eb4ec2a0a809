//! The scaler, its drivers and the probes of a running proxy, as they follow each configuration.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use forebay_config as config;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::cluster::clocks;
use crate::driver::log::Log;
use crate::driver::process::{Ender, ProcessDriver, Surroundings};
use crate::driver::{Endpoints, Readiness};
use crate::gpu::{Broker, Sight, nvml};
use crate::health::Waking;
use crate::metrics::{Samples, family};
use crate::scaler::{Demand, Driver, Observe, Outlook, Scaler, Subject, Webhook};
use crate::signals::Scraper;
use crate::snapshot::{ClusterView, Snapshot};

mod live;
mod outlook;
mod starts;
#[cfg(test)]
mod tests;

use live::Live;
use outlook::watch_outlook;
use starts::collect_info;

/// How often it is looked whether somebody still waits in a cluster that is gone.
const LOOK: Duration = Duration::from_millis(50);

/// Everything that brings endpoints up and down.
pub struct Scaling {
    scaler: Scaler,
    waking: Waking,
    scraper: Scraper,
    /// The devices that local processes share.
    gpus: Arc<Broker>,
    held: Mutex<HashMap<String, Held>>,
    /// Drivers that no configuration names any more and whose processes may still be ending.
    leaving: Mutex<Vec<Ender>>,
    /// Nothing is started any more; changed while `held` is locked.
    ended: AtomicBool,
}

/// What is kept for one cluster with `scale`.
struct Held {
    kind: Kind,
    live: Arc<Live>,
    /// Tells those who wait when nothing will come.
    _watch: Task,
}

enum Kind {
    Process(Arc<ProcessDriver>),
    Other(Arc<dyn Driver>, config::Driver),
}

/// Ends its task when dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Scaling {
    /// Brings nothing up yet.
    pub fn new() -> Self {
        Self {
            scaler: Scaler::new(),
            waking: Waking::new(),
            scraper: Scraper::new(),
            gpus: Broker::new(Box::new(nvml::open)),
            held: Mutex::default(),
            leaving: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the clusters of a snapshot that is about to go live. Processes whose command stays are kept. Must be
    /// called on the control runtime.
    pub fn follow(&self, snapshot: &Snapshot) {
        self.waking.follow(snapshot.clusters.values());
        let mut held = self.held();
        if self.ended.load(Ordering::Relaxed) {
            return; // a reload that was under way when the process stopped
        }
        self.scraper.follow(snapshot.clusters.values());
        self.follow_gpus(snapshot);
        let mut before = std::mem::take(&mut *held);
        let mut subjects = Vec::new();
        let mut fresh = Vec::new();
        for (name, view) in &snapshot.clusters {
            let Some(scale) = &view.config.scale else {
                continue;
            };
            let kept = match before.remove(name) {
                Some(known) if known.keeps(view, scale) => Some(known),
                Some(other) => {
                    self.retire(other, false);
                    None
                }
                None => None,
            };
            let (kind, live, watch) = match kept {
                Some(kept) => (kept.kind, kept.live, Some(kept._watch)),
                None => {
                    let live = Live::new(view, self.scraper.board(name).unwrap_or_default());
                    let Some(kind) = self.start(name, scale, &live) else {
                        continue;
                    };
                    (kind, live, None)
                }
            };
            subjects.push(Subject {
                config: Arc::clone(&view.config),
                demand: Arc::clone(&live) as Arc<dyn Demand>,
                driver: match &kind {
                    Kind::Process(driver) => Arc::clone(driver) as Arc<dyn Driver>,
                    Kind::Other(driver, _) => Arc::clone(driver),
                },
            });
            match watch {
                Some(_watch) => {
                    let again = Held { kind, live, _watch };
                    held.insert(name.clone(), again);
                }
                None => fresh.push((name.clone(), kind, live)),
            }
        }
        self.scaler.follow(subjects);
        for (name, kind, live) in fresh {
            let Some(outlook) = self.scaler.outlook(&name) else {
                continue;
            };
            let process = match &kind {
                Kind::Process(driver) => Some(Arc::downgrade(driver)),
                Kind::Other(..) => None,
            };
            let any: Weak<dyn Driver> = match &kind {
                Kind::Process(driver) => Arc::downgrade(driver) as Weak<dyn Driver>,
                Kind::Other(driver, _) => Arc::downgrade(driver),
            };
            let task = tokio::spawn(watch_outlook(outlook, Arc::clone(&live), any, process));
            let _watch = Task(task.abort_handle());
            held.insert(name, Held { kind, live, _watch });
        }
        for (name, old) in before {
            let is_gone = !snapshot.clusters.contains_key(&name);
            self.retire(old, is_gone);
        }
    }

    /// Shares the devices as the configuration says, once a cluster takes any.
    fn follow_gpus(&self, snapshot: &Snapshot) {
        let scale_of = |cluster: &str| snapshot.clusters.get(cluster)?.config.scale.as_ref();
        self.gpus
            .retain_overrides(|cluster| scale_of(cluster).is_some());
        let mut scales = snapshot.clusters.values();
        let takes = |view: &Arc<ClusterView>| {
            let scale = view.config.scale.as_ref();
            scale.is_some_and(|scale| scale.gpu.is_some())
        };
        if scales.any(takes) {
            self.gpus.follow(&snapshot.config.gpus);
        }
    }

    /// The driver of a cluster that had none.
    fn start(&self, name: &str, scale: &config::Scale, live: &Arc<Live>) -> Option<Kind> {
        let counted = Arc::clone(live);
        let ready = move || counted.ready();
        let changed = live.state().changes();
        Some(match &scale.driver {
            config::Driver::Process(_) => {
                let around = Surroundings {
                    cluster: name.into(),
                    readiness: Arc::clone(live) as Arc<dyn Readiness>,
                    endpoints: Arc::clone(live) as Arc<dyn Endpoints>,
                    supervisor: None,
                    budget: Some((Arc::clone(&self.gpus), Arc::clone(live) as Arc<dyn Sight>)),
                };
                let driver = ProcessDriver::new(scale, around)?;
                live.serve(&[]); // whoever served until now is not of this driver
                Kind::Process(Arc::new(driver))
            }
            config::Driver::Webhook { url } => match Webhook::new(name, url, ready, changed) {
                Ok(webhook) => Kind::Other(Arc::new(webhook), scale.driver.clone()),
                Err(error) => {
                    tracing::error!(cluster = name, %error, "nobody can be told how many replicas are wanted");
                    return None;
                }
            },
            config::Driver::Observe => {
                Kind::Other(Arc::new(Observe::new(ready, changed)), scale.driver.clone())
            }
        })
    }

    /// Lets a driver go, which drains and ends its processes.
    ///
    /// * `is_gone`: so is the cluster; who waits there is served first, as far as its clocks allow
    fn retire(&self, old: Held, is_gone: bool) {
        let state = old.live.state();
        state.set_outlook(Outlook::default()); // what it said of starts is over
        let Kind::Process(driver) = &old.kind else {
            return;
        };
        let mut leaving = self.leaving();
        leaving.retain(|ender| !ender.is_done());
        leaving.push(driver.ender());
        drop(leaving);
        let clocks = clocks(&old.live.view.load().config);
        let longest = clocks.empty.saturating_add(clocks.saturated);
        if is_gone && state.room().demand().waiting > 0 {
            tokio::spawn(async move {
                let served = async {
                    while state.room().demand().waiting > 0 {
                        tokio::time::sleep(LOOK).await;
                    }
                };
                let _ = tokio::time::timeout(longest, served).await;
                drop(old);
            });
        }
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Ender>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every process, also of drivers that were let go; returns when none is left.
    pub async fn shutdown(&self) {
        let enders = {
            let held = self.held();
            self.ended.store(true, Ordering::Relaxed);
            let mut enders = std::mem::take(&mut *self.leaving());
            enders.extend(held.values().filter_map(|held| match &held.kind {
                Kind::Process(driver) => Some(driver.ender()),
                Kind::Other(..) => None,
            }));
            enders
        };
        let ends = enders.iter().map(Ender::shutdown);
        futures_util::future::join_all(ends).await;
    }

    /// What the processes of a cluster print; `None`: it has none.
    pub fn log(&self, cluster: &str) -> Option<Log> {
        match &self.held().get(cluster)?.kind {
            Kind::Process(driver) => Some(driver.log().clone()),
            Kind::Other(..) => None,
        }
    }

    /// So many replicas whatever the demand is; `None`: by demand again. False: no such cluster is scaled.
    pub fn pin(&self, cluster: &str, replicas: Option<u32>) -> bool {
        let known = self.scaler.pin(cluster, replicas);
        if known {
            self.gpus.set_override(cluster, replicas);
        }
        known
    }

    /// The devices that local processes share, an object each; empty while none is known or none is needed.
    pub fn gpus(&self) -> Value {
        self.gpus.devices()
    }

    /// What `/api/clusters` shows of scaling, by cluster.
    pub fn report(&self) -> Value {
        let mut report = self.scaler.report();
        for (cluster, signals) in self.scraper.report() {
            if let Some(scaled) = report.get_mut(&cluster).and_then(Value::as_object_mut) {
                scaled.insert("signals".to_owned(), signals);
            }
        }
        for (cluster, scaled) in report.as_object_mut().into_iter().flatten() {
            if let (Some(scaled), Some(places)) =
                (scaled.as_object_mut(), self.gpus.report(cluster))
            {
                scaled.insert("gpu".to_owned(), places);
            }
        }
        report
    }

    /// Adds what the scaler knows to a scrape.
    pub fn collect(&self, samples: &mut Samples) {
        self.scraper.collect(samples);
        for (cluster, numbers) in self.scaler.numbers() {
            for (signal, value) in numbers.demand() {
                samples.add(&family::DEMAND, &[&cluster, signal], value);
            }
            for (state, count) in numbers.states() {
                samples.add(&family::REPLICAS, &[&cluster, state], f64::from(count));
            }
            let desired = f64::from(numbers.decision.desired);
            samples.add(&family::DESIRED_REPLICAS, &[&cluster], desired);
        }
        for held in self.held().values() {
            held.live.state().collect_starts(samples);
            collect_info(&held.live.view.load().config, samples);
        }
    }
}

impl Default for Scaling {
    fn default() -> Self {
        Self::new()
    }
}

impl Held {
    /// Goes on in the next generation. False, and nothing is changed, when that has another driver: one that goes must
    /// not touch what serves then.
    fn keeps(&self, view: &Arc<ClusterView>, scale: &config::Scale) -> bool {
        let same = match &self.kind {
            Kind::Process(driver) => driver.reconfigure(scale),
            Kind::Other(_, before) => *before == scale.driver,
        };
        if same {
            self.live.renew(view);
        }
        same
    }
}

impl Snapshot {
    /// True for clusters whose endpoints a driver of ours names.
    pub fn is_driven(view: &ClusterView) -> bool {
        let scale = view.config.scale.as_ref();
        scale.is_some_and(|scale| matches!(scale.driver, config::Driver::Process(_)))
    }
}
