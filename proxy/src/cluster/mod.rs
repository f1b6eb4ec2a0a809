//! Who can serve: the endpoints of a cluster, their live counters and health, and the choice among them.
//!
//! What a [`ClusterState`] counts is keyed by the cluster's name and outlives generations of the configuration; its
//! endpoints are those of one generation. An [`Endpoint`] is keyed by its address and outlives changes of the set it
//! is in.

mod balance;
mod berths;
mod endpoint;
mod flags;
mod outlier;
mod pause;
mod ring;
mod seats;
mod starts;
mod suspicion;
#[cfg(test)]
pub(crate) mod tests;
mod verdict;
mod vitals;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::metrics::{Histogram, family};
use crate::room::Room;
use crate::scaler::Outlook;
use arc_swap::{ArcSwap, Guard};
use forebay_config as config;
use tokio::sync::{Notify, watch};

use flags::{Changes, Wellness};

pub use balance::{Choice, Chosen, IsFree};
pub use berths::{Berth, Wanting};
pub use endpoint::{ConnectionCount, Endpoint, EndpointReport, InFlight};
pub use outlier::Probe;
pub use pause::Pause;
pub use ring::Ring;
pub use seats::{ClusterRoom, Patient, Progress, Undemanding, clocks};
pub use starts::StartPhase;
pub use verdict::Verdict;
pub use vitals::EndpointState;

/// The endpoints that serve now, in a stable order.
pub struct EndpointSet {
    /// Sorted by address.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Only for clusters balanced by a hash.
    pub ring: Option<Ring>,
    wellness: Wellness,
}

impl EndpointSet {
    /// The endpoint at this address.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        let found = self.endpoints.binary_search_by_key(&address, |e| e.address);
        found.ok().map(|index| &self.endpoints[index])
    }
}

/// What a cluster's endpoints share.
#[derive(Default)]
struct Common {
    /// Open connections to all endpoints by all workers.
    connections: AtomicU32,
    /// Requests in flight on all endpoints by all workers.
    requests: AtomicU32,
    /// The newest configuration has active checks.
    checked: AtomicBool,
    /// Of all endpoints' flags.
    changes: Arc<Changes>,
    /// The cluster; of none where an endpoint is in no set.
    roots: Weak<Roots>,
}

impl Common {
    fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Acquire)
    }
}

/// What a cluster is made of while the process lives, whatever the configuration says of it.
struct Roots {
    name: String,
    common: Arc<Common>,
    /// Told when somebody begins to wait while nobody serves.
    hurry: Notify,
    /// An endpoint that is new has to pass a probe before it gets anything.
    wary: AtomicBool,
    /// The newest configuration has a room.
    has_room: AtomicBool,
    /// The servers are processes of ours, by the newest configuration, and requests can wait for another one.
    local: AtomicBool,
    /// Where requests wait, in clusters that have such a room.
    room: Arc<Room<Arc<Endpoint>>>,
    /// Held while those who wait are told of a change.
    announcing: Mutex<()>,
    /// Slots in use by copies that are no demand.
    undemanding: AtomicU32,
    /// Those that wait and are no demand.
    patient: AtomicU32,
    /// How long requests waited that waited.
    waits: Mutex<Histogram>,
    /// How long starts of replicas took.
    starts: Mutex<starts::Times>,
    /// What those who wait need to know of starts.
    outlook: Mutex<Outlook>,
    /// What a browser is shown of them.
    progress: Mutex<Progress>,
    /// Requests that came to a cluster with a room.
    arrivals: AtomicU64,
    /// Retries under way of all workers.
    retries: Arc<AtomicU32>,
    /// Round robin position, shared so that few requests over many workers still alternate.
    turn: AtomicU32,
    /// Every endpoint that anybody still holds, so that an address has one set of counters.
    known: Mutex<HashMap<SocketAddr, Weak<Endpoint>>>,
    /// The last set of the newest generation; written while `known` is held.
    newest: ArcSwap<EndpointSet>,
    /// Which one that is.
    generation: AtomicU64,
    /// Held while endpoints are counted before one goes; what is in it: endpoints that are left whatever they answer,
    /// by the newest configuration. `None`: it ejects nobody.
    keep: Mutex<Option<u32>>,
    /// Told of every change of the set or of an endpoint's health.
    changed: watch::Sender<()>,
}

/// A cluster's endpoints as one generation of the configuration sees them. What counts is shared by all generations.
pub struct ClusterState {
    roots: Arc<Roots>,
    generation: u64,
    set: ArcSwap<EndpointSet>,
}

/// An endpoint as configuration or discovery names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it listens.
    pub address: SocketAddr,
    /// The name it was found by, for SNI.
    pub host: Arc<str>,
    /// ≥ 1.
    pub weight: u32,
}

impl ClusterState {
    /// A cluster without endpoints.
    pub fn new(name: &str) -> Self {
        let empty = Arc::new(EndpointSet {
            endpoints: Vec::new(),
            ring: None,
            wellness: Wellness::default(),
        });
        Self {
            roots: Arc::new_cyclic(|roots| Roots {
                name: name.to_owned(),
                common: Arc::new(Common {
                    roots: Weak::clone(roots),
                    ..Common::default()
                }),
                hurry: Notify::new(),
                wary: AtomicBool::new(false),
                has_room: AtomicBool::new(true),
                local: AtomicBool::new(false),
                room: seats::new_room(),
                announcing: Mutex::default(),
                undemanding: AtomicU32::new(0),
                patient: AtomicU32::new(0),
                waits: Mutex::new(Histogram::new(family::DURATION_BOUNDS)),
                starts: Mutex::default(),
                outlook: Mutex::default(),
                progress: Mutex::default(),
                arrivals: AtomicU64::new(0),
                retries: Arc::default(),
                turn: AtomicU32::new(0),
                known: Mutex::default(),
                newest: ArcSwap::new(Arc::clone(&empty)),
                generation: AtomicU64::new(0),
                keep: Mutex::new(None),
                changed: watch::Sender::new(()),
            }),
            generation: 0,
            set: ArcSwap::new(empty),
        }
    }

    /// The same cluster for the next generation, with the endpoints of this one until it is updated.
    pub fn next_generation(&self) -> Self {
        Self {
            roots: Arc::clone(&self.roots),
            generation: self.generation + 1,
            set: ArcSwap::new(self.set.load_full()),
        }
    }

    /// Counts retries under way.
    pub fn retries(&self) -> &Arc<AtomicU32> {
        &self.roots.retries
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.roots.name
    }

    /// The endpoints that serve now.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// Replaces the set; endpoints whose address stays keep their counters, health and connections. One that is new
    /// among others that serve already begins slowly. When an address is named twice the first one counts.
    pub fn update(&self, candidates: Vec<Candidate>, balance: &config::Balance) {
        let mut known = self
            .roots
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, endpoint| endpoint.strong_count() > 0);
        let serving = !self.set.load().endpoints.is_empty();
        let mut sorted = candidates;
        sorted.sort_by_key(|c| c.address);
        sorted.dedup_by_key(|c| c.address);
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(sorted.len());
        for candidate in sorted {
            let address = candidate.address;
            let before = known.get(&address).and_then(Weak::upgrade);
            let same = |e: &Arc<Endpoint>| e.weight == candidate.weight && e.host == candidate.host;
            let endpoint = match before {
                Some(endpoint) if same(&endpoint) => endpoint,
                before => {
                    let common = Arc::clone(&self.roots.common);
                    let endpoint = Endpoint::new(candidate, before.as_ref(), common);
                    if before.is_none() && self.roots.wary.load(Ordering::Acquire) {
                        endpoint.vitals().set_down(true);
                    }
                    if before.is_none() && serving {
                        endpoint.vitals().begin_slow(vitals::now());
                    }
                    Arc::new(endpoint)
                }
            };
            known.insert(address, Arc::downgrade(&endpoint));
            endpoints.push(endpoint);
        }
        let ring = matches!(balance, config::Balance::Hash(_)).then(|| Ring::new(&endpoints));
        let set = Arc::new(EndpointSet {
            endpoints,
            ring,
            wellness: Wellness::default(),
        });
        self.set.store(Arc::clone(&set));
        let newest = &self.roots.generation;
        if newest.fetch_max(self.generation, Ordering::Relaxed) <= self.generation {
            let before = self.roots.newest.swap(Arc::clone(&set));
            seats::mark_gone(&before, &set);
        }
        drop(known);
        self.endpoints_went();
    }

    /// Open connections to all endpoints.
    pub fn connections(&self) -> u32 {
        self.roots.common.connections.load(Ordering::Relaxed)
    }

    /// Requests in flight on all endpoints.
    pub fn requests(&self) -> u32 {
        self.roots.common.requests.load(Ordering::Relaxed)
    }

    /// The next round robin position.
    fn next_turn(&self) -> u32 {
        self.roots.turn.fetch_add(1, Ordering::Relaxed)
    }
}
