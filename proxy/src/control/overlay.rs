//! Weights set by API: an overlay over the files, until they expire or that split changes on disk. Here too are the
//! weights that wait for endpoints, since both end in the same way: by a snapshot that differs in nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use forebay_config::{Cluster, Config};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::status::Status;
use super::weights::{Overlay, Overlays, Pending, Plan, written};
use super::{Control, Workshop, rfc3339, sync_metrics};
use crate::cluster::ClusterState;
use crate::snapshot::Snapshot;

/// The largest weight of a member, as in the configuration.
const WEIGHT_MAX: u32 = 1_000_000;
/// The longest time that weights can be set for.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// How often clusters that are waited for are looked at: nobody tells when an ejection is over.
const LOOK: Duration = Duration::from_secs(1);

/// Weights as the API gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenWeights {
    /// By cluster; a member that is not named keeps the weight of the files.
    ByName(BTreeMap<String, u32>),
    /// Of every member, in the order of the files.
    InOrder(Vec<u32>),
}

/// Why weights are not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// There is no such route.
    #[error("there is no route `{0}`")]
    UnknownRoute(String),
    /// The weights cannot be those of the route.
    #[error("{0}")]
    Illegal(String),
    /// The process is stopping.
    #[error("the proxy is draining")]
    Draining,
}

/// The weights of a route, as the API tells them.
#[derive(Clone, Debug, Serialize)]
pub struct RouteWeights {
    /// The route.
    pub route: String,
    /// Of the snapshot that serves by them.
    pub generation: u64,
    /// In file order, then those that only serve until others are ready.
    pub members: Vec<MemberWeights>,
    /// RFC 3339; `None`: they do not expire, or are those of the files.
    pub expires_at: Option<String>,
    /// True while weights set by API hold, or wait to.
    pub overridden: bool,
    /// Clusters without a ready endpoint that keep new weights waiting.
    pub waiting_for: Vec<String>,
}

/// A member of a split and its weights.
#[derive(Clone, Debug, Serialize)]
pub struct MemberWeights {
    /// Its cluster.
    pub cluster: String,
    /// In the files.
    pub configured: u32,
    /// By which it serves now.
    pub effective: u32,
}

/// What happens to weights later, by itself.
#[derive(Clone, Default)]
pub(super) struct Agenda {
    /// The next overlay ends.
    expires: Option<Instant>,
    /// By route: the clusters that must be ready, all of them.
    waiting: Vec<Vec<Arc<ClusterState>>>,
}

/// What the control knows of weights beyond the files. Only who holds the workshop changes it.
#[derive(Clone, Default)]
pub(super) struct Shares {
    overlays: Overlays,
    pending: Vec<Pending>,
    /// The overlays that the last such change on disk ended, by route, and why.
    dropped: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl Shares {
    /// * `notes`: warnings that have nothing to do with weights
    pub(super) fn new(notes: Vec<String>) -> Self {
        Self::default().with_notes(notes)
    }

    pub(super) fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// What of this outlives the files becoming `config`.
    pub(super) fn beside(&self, config: &Config) -> Self {
        let mut next = self.clone();
        next.expire();
        let mut dropped = BTreeMap::new();
        for (name, overlay) in std::mem::take(&mut next.overlays) {
            let route = config.routes.iter().find(|route| route.name == name);
            let why = match route.map(|route| written(route)) {
                None => "the route is gone",
                Some(Some(now)) if now == overlay.written => {
                    next.overlays.insert(name, overlay);
                    continue;
                }
                Some(_) => "its split changed on disk",
            };
            let note = format!("the weights set by API for route `{name}` were dropped: {why}");
            dropped.insert(name, note);
        }
        if !dropped.is_empty() {
            next.dropped = dropped;
        }
        next
    }

    /// Logs the overlays that ended since `before`.
    pub(super) fn log_dropped(&self, before: &Self) {
        if self.dropped != before.dropped {
            for note in self.dropped.values() {
                tracing::warn!("{note}");
            }
        }
    }

    /// What a reload begins with. Its endpoints are not known yet: a cluster is taken for ready when that is plain from
    /// its configuration, or when it is as it was before and ready there.
    pub(super) fn plan_for(&self, config: &Config, old: &Snapshot) -> Plan {
        let ready = |name: &str| {
            let cluster = config.clusters.iter().find(|c| c.name == name);
            cluster.is_some_and(|cluster| match old.clusters.get(name) {
                Some(before) if serves_alike(&before.config, cluster) => is_ready(&before.state),
                _ => is_plainly_ready(cluster),
            })
        };
        Plan::new(config, &self.overlays, Some(old), &ready)
    }

    /// Adds what it knows to what is shown.
    pub(super) fn shown_in(&self, mut status: Status) -> Status {
        let overlays = self.overlays.iter();
        status.overrides = overlays.map(|(route, o)| o.shown(route)).collect();
        status.pending.clone_from(&self.pending);
        status.warnings.clone_from(&self.notes);
        status.warnings.extend(self.dropped.values().cloned());
        status
    }

    fn expire(&mut self) {
        let now = Instant::now();
        self.overlays.retain(|route, overlay| {
            let over = overlay.until.is_some_and(|(end, _)| end <= now);
            if over {
                tracing::info!(route, "the weights set by API have expired");
            }
            !over
        });
    }

    fn agenda(&self, snapshot: &Snapshot) -> Agenda {
        let ends = self.overlays.values().filter_map(|o| o.until);
        let state = |name: &String| {
            let view = snapshot.clusters.get(name)?;
            Some(Arc::clone(&view.state))
        };
        let waiting = self.pending.iter();
        let waiting = waiting.map(|p| p.waiting_for.iter().filter_map(state).collect());
        Agenda {
            expires: ends.map(|(end, _)| end).min(),
            waiting: waiting.collect(),
        }
    }
}

impl Control {
    /// Sets the weights of a route until they expire or its split changes on disk. Returns once every worker serves by
    /// them, or with `cutover: ready` perhaps by those before.
    ///
    /// * `lasting`: how long they hold; `None`: no end
    ///
    /// # Errors
    ///
    /// See [`WeightsError`]; nothing has changed then.
    pub async fn set_weights(
        &self,
        route: &str,
        given: GivenWeights,
        lasting: Option<Duration>,
    ) -> Result<RouteWeights, WeightsError> {
        let mut workshop = self.workshop.lock().await;
        if self.is_draining() {
            return Err(WeightsError::Draining);
        }
        let snapshot = self.snapshot.load_full();
        let written = split_of(&snapshot, route)?;
        let weights = resolved(route, &written, given)?;
        let until = match lasting {
            None => None,
            Some(time) if time.is_zero() || time > LONGEST => {
                let message = "weights are set for more than no time and at most 366 days";
                return Err(WeightsError::Illegal(message.to_owned()));
            }
            Some(time) => Some((Instant::now() + time, SystemTime::now() + time)),
        };
        tracing::info!(route, ?weights, ?lasting, "weights are set by API");
        let overlay = Overlay {
            weights,
            written,
            until,
        };
        let shares = &mut workshop.shares;
        shares.overlays.insert(route.to_owned(), overlay);
        shares.dropped.remove(route);
        self.settle(&mut workshop).await;
        self.weights_of(&workshop, route)
    }

    /// Returns a route to the weights of the files; nothing happens when these hold already.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`]; nothing has changed then.
    pub async fn clear_weights(&self, route: &str) -> Result<RouteWeights, WeightsError> {
        let mut workshop = self.workshop.lock().await;
        split_of(&self.snapshot.load(), route)?;
        let shares = &mut workshop.shares;
        if shares.overlays.remove(route).is_some() {
            tracing::info!(route, "the weights set by API are removed");
        }
        shares.dropped.remove(route);
        self.settle(&mut workshop).await;
        self.weights_of(&workshop, route)
    }

    fn weights_of(&self, workshop: &Workshop, route: &str) -> Result<RouteWeights, WeightsError> {
        let snapshot = self.snapshot.load_full();
        let configured = split_of(&snapshot, route)?;
        let view = snapshot.routes.iter().find(|r| r.config.name == route);
        let effective = view.and_then(|view| written(&view.config));
        let members = effective.unwrap_or_default().into_iter().enumerate();
        let members = members.map(|(index, (cluster, effective))| MemberWeights {
            cluster,
            configured: configured.get(index).map_or(0, |(_, weight)| *weight),
            effective,
        });
        let overlay = workshop.shares.overlays.get(route);
        let pending = workshop.shares.pending.iter().find(|p| p.route == route);
        Ok(RouteWeights {
            route: route.to_owned(),
            generation: snapshot.generation,
            members: members.collect(),
            expires_at: overlay.and_then(|o| o.until).map(|(_, time)| rfc3339(time)),
            overridden: overlay.is_some(),
            waiting_for: pending.map_or(Vec::new(), |p| p.waiting_for.clone()),
        })
    }

    /// Makes every route serve by the weights that are wanted now, as far as endpoints are ready. Returns once every
    /// worker does.
    pub(super) async fn settle(&self, workshop: &mut Workshop) {
        workshop.shares.expire();
        let mut snapshot = self.snapshot.load_full();
        let ready = |name: &str| {
            let view = snapshot.clusters.get(name);
            view.is_some_and(|view| is_ready(&view.state))
        };
        let overlays = &workshop.shares.overlays;
        let plan = Plan::new(&snapshot.config, overlays, Some(&snapshot), &ready);
        let changes = plan.changes(&snapshot);
        if !changes.is_empty() {
            snapshot = Arc::new(snapshot.reweighted(&changes));
            self.publish(&snapshot).await;
            sync_metrics(&self.shared.metrics, &snapshot);
            self.shared.metrics.republished(snapshot.generation);
            let routes: Vec<&String> = changes.keys().collect();
            tracing::info!(generation = snapshot.generation, ?routes, "weights applied");
        }
        workshop.shares.pending = plan.pending;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = workshop.shares.shown_in(status.clone());
        *status = Status {
            generation: snapshot.generation,
            applied_at: rfc3339(snapshot.applied_at),
            ..shown
        };
        drop(status);
        self.agenda.send_replace(workshop.shares.agenda(&snapshot));
    }
}

/// Settles the weights whenever some expire or clusters become ready, while the control lives.
pub(super) fn keep(control: &Arc<Control>, mut ahead: watch::Receiver<Agenda>) {
    let control = Arc::downgrade(control);
    tokio::spawn(async move {
        loop {
            let agenda = ahead.borrow_and_update().clone();
            tokio::select! {
                changed = ahead.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = expired(agenda.expires) => {}
                () = ready(&agenda.waiting) => {}
            }
            let Some(control) = control.upgrade() else {
                return;
            };
            let mut workshop = control.workshop.lock().await;
            control.settle(&mut workshop).await;
        }
    });
}

async fn expired(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Returns when all clusters of any one route are ready.
async fn ready(waiting: &[Vec<Arc<ClusterState>>]) {
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let mut changes = JoinSet::new();
        for state in waiting.iter().flatten() {
            let mut change = state.changes();
            changes.spawn(async move { change.changed().await.is_ok() });
        }
        let all = |clusters: &Vec<Arc<ClusterState>>| clusters.iter().all(|c| is_ready(c));
        if waiting.iter().any(all) {
            return;
        }
        let _ = tokio::time::timeout(LOOK, changes.join_next()).await;
    }
}

fn is_ready(state: &ClusterState) -> bool {
    state.has_ready_endpoint()
}

/// True when what was ready under one configuration is so under the other.
fn serves_alike(before: &Cluster, now: &Cluster) -> bool {
    before.endpoints == now.endpoints
        && before.discover == now.discover
        && before.subset == now.subset
        && before.health == now.health
}

/// True when nothing needs to be asked to know that there is a ready endpoint.
fn is_plainly_ready(cluster: &Cluster) -> bool {
    let serves = |endpoint: &forebay_config::EndpointConfig| {
        let mut wanted = cluster.subset.iter();
        wanted.all(|(key, value)| endpoint.labels.get(key) == Some(value))
            && endpoint.host.parse::<IpAddr>().is_ok()
    };
    cluster.health.is_none() && cluster.endpoints.iter().any(serves)
}

/// Cluster and weight of each member in the files.
fn split_of(snapshot: &Snapshot, route: &str) -> Result<Vec<(String, u32)>, WeightsError> {
    let found = snapshot.config.routes.iter().find(|r| r.name == route);
    let Some(found) = found else {
        return Err(WeightsError::UnknownRoute(route.to_owned()));
    };
    let no_split = || WeightsError::Illegal(format!("route `{route}` has no split"));
    written(found).ok_or_else(no_split)
}

/// The weight of every member, in file order.
fn resolved(
    route: &str,
    written: &[(String, u32)],
    given: GivenWeights,
) -> Result<Vec<u32>, WeightsError> {
    let illegal = |message: String| Err(WeightsError::Illegal(message));
    let weights = match given {
        GivenWeights::InOrder(weights) if weights.len() == written.len() => weights,
        GivenWeights::InOrder(weights) => {
            let (given, members) = (weights.len(), written.len());
            return illegal(format!(
                "a list holds the weight of each member: {given} are given, route `{route}` has {members}"
            ));
        }
        GivenWeights::ByName(named) => {
            let mut weights: Vec<u32> = written.iter().map(|(_, weight)| *weight).collect();
            for (name, weight) in named {
                let mut at = (0..written.len()).filter(|&index| written[index].0 == name);
                match (at.next(), at.next()) {
                    (Some(index), None) => weights[index] = weight,
                    (None, _) => {
                        let members: Vec<&str> = written.iter().map(|(n, _)| n.as_str()).collect();
                        return illegal(format!(
                            "`{name}` is no member of route `{route}`; its members are {}",
                            members.join(", ")
                        ));
                    }
                    (Some(_), Some(_)) => {
                        return illegal(format!(
                            "`{name}` is in the split of route `{route}` more than once: \
                             give a list with the weight of each member, in file order"
                        ));
                    }
                }
            }
            weights
        }
    };
    if let Some(weight) = weights.iter().find(|weight| **weight > WEIGHT_MAX) {
        return illegal(format!("a weight is 0 … {WEIGHT_MAX}, not {weight}"));
    }
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    if sum == 0 || sum > u64::from(u32::MAX) {
        return illegal("the weights of a split add up to 1 … 4294967295".to_owned());
    }
    Ok(weights)
}
