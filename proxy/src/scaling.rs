//! The scaler, its drivers and the probes of a running proxy, as they follow each configuration.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_config as config;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cluster::{Candidate, ClusterState, Progress, clocks};
use crate::driver::log::Log;
use crate::driver::process::{Ender, ProcessDriver, Surroundings};
use crate::driver::{Endpoints, Readiness};
use crate::error::Reason;
use crate::health::{self, Waking};
use crate::metrics::{Samples, family};
use crate::scaler::{Demand, Driver, Inside, Observe, Outlook, Scaler, Subject, Webhook};
use crate::signals::{Board, Scraper};
use crate::snapshot::{ClusterView, Snapshot};

mod starts;
#[cfg(test)]
mod tests;

use starts::{StartWatch, collect_info};

/// How often it is looked whether somebody waits for a server that starts, or still waits in a cluster that is gone.
const LOOK: Duration = Duration::from_millis(50);
/// And how often what is expected is looked at while nothing starts.
const SELDOM: Duration = Duration::from_secs(1);

/// Everything that brings endpoints up and down.
pub struct Scaling {
    scaler: Scaler,
    waking: Waking,
    scraper: Scraper,
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

/// A cluster of the newest generation, as drivers see it.
struct Live {
    view: ArcSwap<ClusterView>,
    /// Who serves, by the driver's last word; held while a generation is told of it.
    serving: Mutex<Vec<SocketAddr>>,
    came: Arc<Notify>,
    /// What its servers tell of themselves.
    signals: Arc<Board>,
}

impl Live {
    fn new(view: &Arc<ClusterView>, signals: Arc<Board>) -> Arc<Self> {
        Arc::new(Self {
            view: ArcSwap::new(Arc::clone(view)),
            serving: Mutex::default(),
            came: Arc::clone(view.state.room().came()),
            signals,
        })
    }

    fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.view.load().state)
    }

    /// Drivers see the next generation from now on. What a driver said while that was built is said to it too.
    fn renew(&self, view: &Arc<ClusterView>) {
        let serving = self.serving();
        self.view.store(Arc::clone(view));
        if Snapshot::is_driven(view) {
            self.tell(&serving);
        }
    }

    fn serving(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, addresses: &[SocketAddr]) {
        let view = self.view.load();
        let candidates = addresses.iter().map(|&address| Candidate {
            address,
            host: address.ip().to_string().into(),
            weight: 1,
        });
        view.state
            .update(candidates.collect(), &view.config.balance);
    }

    fn ready(&self) -> u32 {
        let state = self.state();
        let endpoints = state.endpoints();
        let ready = endpoints.endpoints.iter().filter(|e| e.is_healthy());
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }
}

impl Endpoints for Live {
    fn serve(&self, addresses: &[SocketAddr]) {
        let mut serving = self.serving();
        let before = std::mem::replace(&mut *serving, addresses.to_vec());
        for address in addresses.iter().filter(|address| !before.contains(address)) {
            self.state().begin_anew(*address);
        }
        self.tell(&serving);
    }

    fn in_flight(&self, address: SocketAddr) -> u64 {
        self.state().in_flight_at(address).into()
    }
}

impl Readiness for Live {
    fn probe(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let view = self.view.load_full();
        Box::pin(async move { health::is_ready(&(&view).into(), address).await })
    }
}

impl Demand for Live {
    fn in_flight(&self) -> u32 {
        self.state().demanding()
    }

    fn waiting(&self) -> u32 {
        self.state().demanding_waiters()
    }

    fn arrivals(&self) -> u64 {
        self.state().arrivals()
    }

    fn inside(&self) -> Inside {
        self.signals.inside()
    }

    fn wake(&self) -> &Notify {
        &self.came
    }
}

impl Scaling {
    /// Brings nothing up yet.
    pub fn new() -> Self {
        Self {
            scaler: Scaler::new(),
            waking: Waking::new(),
            scraper: Scraper::new(),
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
                    let Some(kind) = start(name, scale, &live) else {
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
        self.scaler.pin(cluster, replicas)
    }

    /// What `/api/clusters` shows of scaling, by cluster.
    pub fn report(&self) -> Value {
        let mut report = self.scaler.report();
        for (cluster, signals) in self.scraper.report() {
            if let Some(scaled) = report.get_mut(&cluster).and_then(Value::as_object_mut) {
                scaled.insert("signals".to_owned(), signals);
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

/// The driver of a cluster that had none.
fn start(name: &str, scale: &config::Scale, live: &Arc<Live>) -> Option<Kind> {
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

/// Tells those who wait that they wait for nothing, those who come how long it may take, and servers that start
/// whether somebody waits for them.
async fn watch_outlook(
    mut outlook: tokio::sync::watch::Receiver<Outlook>,
    live: Arc<Live>,
    any: Weak<dyn Driver>,
    process: Option<Weak<ProcessDriver>>,
) {
    let driver = || process.as_ref().and_then(Weak::upgrade);
    let mut changed = any.upgrade().map(|driver| driver.changed());
    let mut starts = StartWatch::default();
    let mut missing = None;
    loop {
        let now = *outlook.borrow_and_update();
        let state = live.state();
        state.set_outlook(now);
        if now.start_failed {
            state.room().fail_all(Reason::StartFailed);
        }
        if let Some(driver) = any.upgrade() {
            let status = driver.status();
            starts.look(now.asked, &status, &state);
            let is_missing = status.starting > 0 || now.asked && status.ready == 0;
            missing = is_missing.then(|| missing.unwrap_or_else(Instant::now));
            state.set_progress(Progress {
                since: missing,
                failure: status.last_failure,
            });
        }
        let mut pause = SELDOM;
        if let Some(driver) = driver() {
            driver.hurry(state.room().demand().waiting > 0);
            if driver.status().starting > 0 {
                pause = LOOK;
            }
        }
        let rings = async {
            let rang = match &mut changed {
                Some(changed) => changed.changed().await.is_ok(),
                None => false,
            };
            if !rang {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = outlook.changed() => if changed.is_err() { return },
            () = rings => {}
            () = tokio::time::sleep(pause) => {} // nobody tells who waits, nor when something is expected
        }
    }
}

impl Snapshot {
    /// True for clusters whose endpoints a driver of ours names.
    pub fn is_driven(view: &ClusterView) -> bool {
        let scale = view.config.scale.as_ref();
        scale.is_some_and(|scale| matches!(scale.driver, config::Driver::Process(_)))
    }
}
