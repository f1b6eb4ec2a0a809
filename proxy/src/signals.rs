//! What servers tell of themselves: their metrics pages, read about once a second while they are ready, for clusters
//! that have `queue` or `kv_cache` as a target.
//!
//! Reading is no demand and starts nothing. A page of which nothing came for five seconds says nothing any more: the
//! scaler then goes by this proxy's own counts, `forebay_signal_stale` and the log say so.

mod board;
mod fetch;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_config as config;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::health::{Subject, Task};
use crate::metrics::{Samples, family};
use crate::server_kind::{Signal, of};

pub use board::{Board, Fault, STALE, State};
pub use scan::{Lack, Reading, Scanner};

/// From one page of an endpoint to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked whether signals became stale.
const LOOK: Duration = Duration::from_secs(1);
/// Pages of one cluster that are read at once.
const AT_ONCE: usize = 128;

/// Reads the pages of all clusters that scale by them.
#[derive(Default)]
pub struct Scraper {
    clusters: Mutex<HashMap<String, Followed>>,
}

struct Followed {
    board: Arc<Board>,
    wanted: Vec<Signal>,
    /// `None`: nothing is wanted of its pages.
    reading: Option<(watch::Sender<Subject>, Task)>,
}

/// The signals that a cluster has as targets.
fn wanted(cluster: &config::Cluster) -> Vec<Signal> {
    let Some(scale) = &cluster.scale else {
        return Vec::new();
    };
    let is_target = |signal: &Signal| match signal {
        Signal::Queue => scale.target.queue.is_some(),
        Signal::KvCache => scale.target.kv_cache.is_some(),
        Signal::Running => false,
    };
    board::TARGETS.into_iter().filter(is_target).collect()
}

impl Scraper {
    /// Reads nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Followed>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the pages of these clusters from now on, as far as they scale by them, and of no others. What is known
    /// of a cluster outlives reloads. Must be called on a runtime.
    pub fn follow(&self, clusters: impl IntoIterator<Item = impl Into<Subject>>) {
        let mut live = self.lock();
        let mut before = std::mem::take(&mut *live);
        for subject in clusters {
            let subject: Subject = subject.into();
            if subject.config.scale.is_none() {
                continue;
            }
            let name = subject.config.name.clone();
            let (board, reading) = match before.remove(&name) {
                Some(known) => (known.board, known.reading),
                None => (Arc::default(), None),
            };
            let wanted = wanted(&subject.config);
            let reading = match reading {
                _ if wanted.is_empty() => {
                    board.clear();
                    None
                }
                Some((sender, task)) if sender.borrow().state.is_generation_of(&subject.state) => {
                    sender.send_replace(subject);
                    Some((sender, task))
                }
                _ => {
                    board.clear();
                    let (sender, receiver) = watch::channel(subject);
                    let task = tokio::spawn(read_cluster(receiver, Arc::clone(&board)));
                    Some((sender, Task::new(task.abort_handle())))
                }
            };
            let followed = Followed {
                board,
                wanted,
                reading,
            };
            live.insert(name, followed);
        }
    }

    /// What the endpoints of a cluster tell; `None`: it is not scaled.
    pub fn board(&self, cluster: &str) -> Option<Arc<Board>> {
        Some(Arc::clone(&self.lock().get(cluster)?.board))
    }

    /// What `/api/clusters` shows of each cluster that scales by signals.
    pub fn report(&self) -> HashMap<String, Value> {
        let live = self.lock();
        let reading = live.iter().filter(|(_, one)| one.reading.is_some());
        reading
            .map(|(name, one)| (name.clone(), one.board.report(&one.wanted)))
            .collect()
    }

    /// Adds the signals to a scrape. One that is stale is left out: 0 would be a lie.
    pub fn collect(&self, samples: &mut Samples) {
        let now = Instant::now();
        for (name, one) in self.lock().iter() {
            for &signal in &one.wanted {
                let labels = [name.as_str(), signal.as_str()];
                let state = one.board.state(signal, now);
                let (reason, stale) = match state.fault() {
                    Some(fault) => (fault.label(), 1.0),
                    None => ("", 0.0),
                };
                let why = [labels[0], labels[1], reason];
                samples.add(&family::SIGNAL_STALE, &why, stale);
                match state {
                    State::Known(value) => samples.add(&family::DEMAND, &labels, value),
                    State::Nothing => samples.add(&family::DEMAND, &labels, 0.0),
                    State::Stale(_) => {}
                }
            }
        }
    }
}

/// Keeps a task for each endpoint of the cluster, for as long as the endpoint is in it.
async fn read_cluster(mut subject: watch::Receiver<Subject>, board: Arc<Board>) {
    let mut tasks: HashMap<SocketAddr, Task> = HashMap::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut changes = subject.borrow().state.changes();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Vec::new();
    loop {
        changes.mark_unchanged();
        let now = subject.borrow_and_update().clone();
        let set = now.state.endpoints().clone();
        tasks.retain(|address, _| {
            let stays = set.at(*address).is_some();
            if !stays {
                board.remove(*address);
            }
            stays
        });
        for endpoint in &set.endpoints {
            let address = endpoint.address;
            tasks.entry(address).or_insert_with(|| {
                let around = (Arc::clone(&board), Arc::clone(&places));
                let reading = read_endpoint(subject.clone(), address, around);
                Task::new(tokio::spawn(reading).abort_handle())
            });
        }
        drop(set);
        loop {
            tokio::select! {
                _ = changes.changed() => break,
                changed = subject.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                _ = looks.tick() => {
                    let set = now.state.endpoints().clone();
                    board.retain(|address| set.at(address).is_some()); // one may have been entered as it went
                    say(&now.config, &board, &mut told);
                }
            }
        }
    }
}

/// Logs each signal that became stale, or is known again.
fn say(cluster: &config::Cluster, board: &Board, told: &mut Vec<(Signal, Fault)>) {
    let now = Instant::now();
    for signal in wanted(cluster) {
        let fault = board.state(signal, now).fault();
        let before = told.iter().find(|(known, _)| *known == signal);
        let before = before.map(|(_, fault)| *fault);
        if before == fault {
            continue;
        }
        told.retain(|(known, _)| *known != signal);
        let (cluster_name, signal_name) = (cluster.name.as_str(), signal.as_str());
        let Some(fault) = fault else {
            tracing::info!(
                cluster = cluster_name,
                signal = signal_name,
                "the servers tell this signal again"
            );
            continue;
        };
        told.push((signal, fault));
        let server = of(cluster.server);
        let needs = server.flag.filter(|_| fault != Fault::TooLarge);
        tracing::warn!(
            cluster = cluster_name,
            signal = signal_name,
            reason = fault.label(),
            path = server.metrics,
            needs,
            "the servers do not tell this signal: replicas follow the proxy's own counts"
        );
    }
}

/// Reads the pages of one endpoint while it is ready.
async fn read_endpoint(
    mut subject: watch::Receiver<Subject>,
    address: SocketAddr,
    (board, places): (Arc<Board>, Arc<Semaphore>),
) {
    let mut link = fetch::Link::default();
    loop {
        let began = Instant::now();
        let now = subject.borrow_and_update().clone();
        let Some(endpoint) = now.state.endpoints().at(address).cloned() else {
            return; // ended by whoever follows
        };
        if endpoint.is_healthy() {
            board.begin(address, began);
            let place = places.acquire().await;
            let read = link.read(&now, &endpoint).await;
            drop(place);
            board.enter(address, read, Instant::now());
        } else {
            board.remove(address);
            link = fetch::Link::default();
        }
        drop((endpoint, now)); // neither keeps what is gone
        tokio::time::sleep_until(began + crate::health::jittered(PERIOD)).await;
    }
}
