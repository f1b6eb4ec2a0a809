//! The waiting room of a cluster and its endpoints: who may be given to those who wait, and when.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use forebay_config as config;
use tokio::time::Instant;

use super::vitals;
use super::{Choice, ClusterState, Endpoint, EndpointSet, Probe};
use crate::metrics::{Distribution, Samples, family};
use crate::room::{Clocks, Full, Limits, Room, Seat as _, Slot, Ticket, Waiting};
use crate::scaler::Outlook;
use crate::server_kind;

/// The room of a cluster.
pub type ClusterRoom = Room<Arc<Endpoint>>;

/// A room before any configuration is known.
pub(super) fn new_room() -> Arc<ClusterRoom> {
    Room::new(limits(None, &config::Queue::default()))
}

fn limits(concurrency: Option<u32>, queue: &config::Queue) -> Limits {
    Limits {
        concurrency,
        max_requests: queue.max_requests,
        max_bytes: queue.max_bytes,
    }
}

/// Marks who left the newest set, and who is back.
pub(super) fn mark_gone(before: &EndpointSet, now: &EndpointSet) {
    for endpoint in &before.endpoints {
        if now.at(endpoint.address).is_none() {
            endpoint.vitals().set_gone(true);
        }
    }
    for endpoint in &now.endpoints {
        endpoint.vitals().set_gone(false);
    }
}

/// True when a server may listen long before it can serve, nobody else checks that, and requests can wait for it.
fn is_wary(cluster: &config::Cluster) -> bool {
    let says_so = server_kind::says_ready(cluster);
    // A process of ours is in the set once it is ready.
    cluster.has_room() && cluster.health.is_none() && says_so && !is_local(cluster)
}

/// True when the servers are processes of ours.
fn is_local(cluster: &config::Cluster) -> bool {
    let scale = cluster.scale.as_ref();
    scale.is_some_and(|s| matches!(s.driver, config::Driver::Process(_)))
}

/// How long requests of a cluster wait.
pub fn clocks(cluster: &config::Cluster) -> Clocks {
    let queue = cluster.queue.clone().unwrap_or_default();
    Clocks {
        saturated: queue.saturated,
        empty: queue.empty,
    }
}

/// How starts of replicas go, for those who are shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Since when a replica that is wanted is missing.
    pub since: Option<Instant>,
    /// What was wrong with the last start that failed.
    pub failure: Option<Arc<str>>,
}

/// A slot in use that is no demand, such as that of a mirror's copy.
#[must_use]
pub struct Undemanding(Arc<ClusterState>);

impl Drop for Undemanding {
    fn drop(&mut self) {
        self.0.roots.undemanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One that waits and is no demand: its route starts nothing.
#[must_use]
pub struct Patient(Arc<ClusterState>);

impl Drop for Patient {
    fn drop(&mut self) {
        self.0.roots.patient.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ClusterState {
    /// Where requests of this cluster wait.
    pub fn room(&self) -> &Arc<ClusterRoom> {
        &self.roots.room
    }

    /// Takes over what the scaler says of starts.
    pub fn set_outlook(&self, outlook: Outlook) {
        *self.lock_outlook() = outlook;
    }

    /// What those who wait need to know of starts.
    pub fn outlook(&self) -> Outlook {
        *self.lock_outlook()
    }

    /// Takes over what the driver says of starts.
    pub fn set_progress(&self, progress: Progress) {
        *self.lock_progress() = progress;
    }

    /// How starts go.
    pub fn progress(&self) -> Progress {
        self.lock_progress().clone()
    }

    fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.roots
            .progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody asked who does not wait but comes again: the scaler and the probes look at once, as for a first one
    /// that waits.
    pub fn called(&self) {
        self.room().came().notify_one();
        self.hurry();
    }

    fn lock_outlook(&self) -> MutexGuard<'_, Outlook> {
        self.roots
            .outlook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Another server listens at an address from now on: what is known of the one before means nothing.
    pub fn begin_anew(&self, address: std::net::SocketAddr) {
        let known = self
            .roots
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = known.get(&address).and_then(Weak::upgrade) {
            endpoint.vitals().readmit(true, vitals::now());
            endpoint.vitals().set_down(false);
            endpoint.vitals().set_suspect(false);
        }
    }

    /// Requests in flight at an address, whether it is still in the set or not.
    pub fn in_flight_at(&self, address: std::net::SocketAddr) -> u32 {
        let known = self
            .roots
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let endpoint = known.get(&address).and_then(Weak::upgrade);
        endpoint.map_or(0, |endpoint| endpoint.in_flight())
    }

    /// A request came to a cluster with a room.
    pub fn arrived(&self) {
        self.roots.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a slot that is in use and no demand.
    pub fn without_demand(self: &Arc<Self>) -> Undemanding {
        self.roots.undemanding.fetch_add(1, Ordering::Relaxed);
        Undemanding(Arc::clone(self))
    }

    /// Counts one that is about to wait and is no demand.
    pub fn waits_without_demand(self: &Arc<Self>) -> Patient {
        self.roots.patient.fetch_add(1, Ordering::Relaxed);
        Patient(Arc::clone(self))
    }

    /// Those that wait and are demand.
    pub fn demanding_waiters(&self) -> u32 {
        let waiting = self.room().demand().waiting;
        waiting.saturating_sub(self.roots.patient.load(Ordering::Relaxed))
    }

    /// Slots in use by what is demand.
    pub fn demanding(&self) -> u32 {
        let used = self.room().demand().in_flight;
        used.saturating_sub(self.roots.undemanding.load(Ordering::Relaxed))
    }

    /// Requests that ever came to a cluster with a room.
    pub fn arrivals(&self) -> u64 {
        self.roots.arrivals.load(Ordering::Relaxed)
    }

    /// Chooses an endpoint with a free slot and takes that, unless somebody waits already.
    pub fn take_slot(&self, choice: &Choice<'_>) -> Option<(Slot<Arc<Endpoint>>, Option<Probe>)> {
        let room = self.room();
        room.try_take(|| {
            let chosen = self.pick_free(choice)?;
            Some((chosen.endpoint, chosen.probe))
        })
    }

    /// Waits for a slot, behind all who wait already.
    ///
    /// # Errors
    ///
    /// As many wait as may.
    pub fn wait(&self, choice: &Choice<'_>) -> Result<Waiting<Arc<Endpoint>>, Full> {
        let waiting = self.room().join(|| self.pick_to_serve(choice));
        self.hurry();
        waiting
    }

    /// Waits for a slot where the request stood when it was let in.
    pub fn wait_again(&self, ticket: Ticket, choice: &Choice<'_>) -> Waiting<Arc<Endpoint>> {
        let room = self.room();
        let waiting = room.join_front(ticket, || self.pick_to_serve(choice));
        self.hurry();
        waiting
    }

    /// Somebody waits while nobody serves: probes come soon.
    fn hurry(&self) {
        if !self.room().replicas().exist() {
            self.roots.hurry.notify_one();
        }
    }

    /// Resolves once somebody began to wait while nobody served, since the last call. For one caller at a time.
    pub async fn hurried(&self) {
        self.roots.hurry.notified().await;
    }

    /// True of all generations of one cluster.
    pub fn is_generation_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.roots, &other.roots)
    }

    fn pick_free(&self, choice: &Choice<'_>) -> Option<super::Chosen> {
        // What is not checked yet may be loading still: who comes now can wait for that.
        let checked = self.roots.common.is_checked();
        let proven = |e: &Arc<Endpoint>| !checked || e.vitals().check() == Some(true);
        let free = |endpoint: &Arc<Endpoint>| proven(endpoint) && self.room().has_free(endpoint);
        let choice = Choice {
            free: Some(&free),
            ..*choice
        };
        self.choose(&self.endpoints(), &choice)
    }

    /// Any endpoint that those who wait may be given, whoever it is that asks.
    fn pick_to_serve(&self, choice: &Choice<'_>) -> Option<Arc<Endpoint>> {
        let free =
            |endpoint: &Arc<Endpoint>| endpoint.may_serve() && self.room().has_free(endpoint);
        let choice = Choice {
            tried: &[],
            free: Some(&free),
            ..*choice
        };
        // The newest, whatever generation asks: nobody would offer it what is new.
        let chosen = self.choose(&self.roots.newest.load(), &choice)?;
        Some(chosen.endpoint)
    }

    /// True when the newest configuration has a room: a request of an older one may know better.
    pub fn has_room(&self) -> bool {
        self.roots.has_room.load(Ordering::Acquire)
    }

    /// Nothing took a connection there: it gets no more until a probe passes. Only in clusters with a room: nobody
    /// probes for others.
    pub fn mark_down(&self, endpoint: &Endpoint) {
        if self.has_room() && endpoint.vitals().set_down(true) {
            tracing::debug!(cluster = self.name(), endpoint = %endpoint.label, "endpoint is down");
            self.announce();
        }
    }

    /// A probe passed: it is not down, and not ejected beyond its time.
    pub fn mark_up(&self, endpoint: &Endpoint) {
        let (vitals, now) = (endpoint.vitals(), vitals::now());
        let back = vitals.is_half_open(now) && vitals.readmit(false, now);
        let cleared = vitals.set_suspect(false);
        if vitals.set_down(false) || back {
            endpoint.vitals().begin_slow(vitals::now());
            tracing::debug!(cluster = self.name(), endpoint = %endpoint.label, "endpoint is up");
            self.announce();
        } else if cleared {
            self.announce();
        }
    }

    /// Endpoints of the newest set that are down, suspect or half-open.
    ///
    /// * `all`: also those that only their checks keep from serving
    pub fn unready(&self, all: bool) -> Vec<Arc<Endpoint>> {
        let newest = self.roots.newest.load();
        let checked = self.roots.common.is_checked();
        let now = vitals::now();
        let unready = |e: &&Arc<Endpoint>| {
            let vitals = e.vitals();
            vitals.is_down()
                || vitals.is_suspect()
                || vitals.is_half_open(now)
                || all && checked && vitals.check() != Some(true)
        };
        newest.endpoints.iter().filter(unready).cloned().collect()
    }

    /// Tells of a change of the set or of health, and gives those who wait what is free now.
    pub(super) fn announce(&self) {
        self.offer();
        self.roots.changed.send_replace(()); // who looks then sees all of it
    }

    fn offer(&self) {
        // One after the other: what is said last is what is true.
        let _turn = self
            .roots
            .announcing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let newest = self.roots.newest.load_full();
        let room = self.room();
        let exist = newest.endpoints.iter().any(|endpoint| endpoint.is_there());
        room.replicas().set(exist);
        for endpoint in &newest.endpoints {
            room.opened(endpoint);
        }
    }

    /// Takes over the bounds of the newest configuration.
    pub(super) fn settle_room(&self, cluster: &config::Cluster) {
        let queue = cluster.queue.clone().unwrap_or_default();
        let concurrency = cluster.concurrency.map(std::num::NonZeroU32::get);
        self.room().set_limits(limits(concurrency, &queue));
        let wary = is_wary(cluster);
        self.roots.wary.store(wary, Ordering::Release);
        if wary && self.generation == 0 {
            for endpoint in &self.roots.newest.load().endpoints {
                endpoint.vitals().set_down(true);
            }
        }
        let has_room = cluster.has_room();
        self.roots.has_room.store(has_room, Ordering::Release);
        let local = has_room && is_local(cluster);
        self.roots.local.store(local, Ordering::Release);
        if !has_room {
            for endpoint in &self.roots.newest.load().endpoints {
                endpoint.vitals().set_down(false);
                endpoint.vitals().set_suspect(false);
            }
        }
    }

    /// A request waited for so long, whatever came of it.
    pub fn waited(&self, wait: Duration) {
        let waits = self
            .roots
            .waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waits.observe(wait);
    }

    /// Adds what is known of the room to a scrape.
    pub fn collect_room(&self, cluster: &str, samples: &mut Samples) {
        let report = self.room().report();
        let waiting = f64::from(report.demand.waiting);
        samples.add(&family::WAITING, &[cluster], waiting);
        samples.add(&family::WAITING_BYTES, &[cluster], report.held as f64);
        let waits = self
            .roots
            .waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waits = Distribution::of([&*waits]);
        samples.add_distribution(&family::QUEUE_WAIT, &[cluster], &waits);
    }

    /// How long the first in the line has been waiting.
    pub fn oldest_wait(&self) -> Option<Duration> {
        self.room().report().oldest
    }
}
