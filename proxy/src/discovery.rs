//! Keeps each cluster's endpoints up to date: written addresses at once, names as DNS answers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use forebay_config as config;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::cluster::{Candidate, ClusterState};
use crate::dns::{self, Resolution, Resolver};
use crate::snapshot::Snapshot;

/// How often a host name of `endpoints` is asked again at the latest; its TTL is kept when shorter.
const REFRESH: Duration = Duration::from_secs(30);
/// How long the first answers for a new configuration are waited for.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// A name, the port of its addresses, and how often it is asked for at the latest.
type Key = (String, u16, Duration);

/// The names that clusters are made of, and the tasks that follow them.
pub struct Discovery {
    resolver: Resolver,
    names: HashMap<Key, Follower>,
    clusters: Vec<Task>,
}

/// Ends its task when dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Follower {
    known: watch::Receiver<Resolution>,
    _task: Task,
}

impl Follower {
    fn start(resolver: Resolver, (name, port, refresh): Key) -> Self {
        let (tx, known) = watch::channel(Resolution::default());
        let task = tokio::spawn(dns::follow(resolver, name, port, refresh, tx));
        Self {
            known,
            _task: Task(task.abort_handle()),
        }
    }
}

/// One part of a cluster's endpoint set.
struct Part {
    origin: Origin,
    host: Arc<str>,
    weight: u32,
}

enum Origin {
    Fixed(SocketAddr),
    Name(watch::Receiver<Resolution>),
}

impl Discovery {
    /// Follows nothing yet. `pinned`: names that are not asked for.
    pub fn new(resolver: Resolver, pinned: HashMap<(String, u16), SocketAddr>) -> Self {
        Self {
            resolver: resolver.with_overrides(pinned),
            names: HashMap::new(),
            clusters: Vec::new(),
        }
    }

    /// Follows the names of a snapshot that is about to go live from now on, and those of the one before no longer.
    /// Returns when every name was answered once, or after a second; until then nothing changes for the snapshot
    /// before. Must run on the control runtime.
    pub async fn follow(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.names);
        let mut clusters = Vec::new();
        for cluster in snapshot.clusters.values() {
            clusters.push((cluster, self.parts(&cluster.config, &mut before)));
        }
        let named = clusters.iter().flat_map(|(_, parts)| parts);
        let first: Vec<_> = named.filter_map(Part::name).collect();
        let answered = async {
            for mut name in first {
                let _ = name.wait_for(|known| known.answered).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_ANSWERS, answered).await;
        let mut tasks = Vec::new();
        for (cluster, parts) in clusters {
            let balance = cluster.config.balance.clone();
            if !Snapshot::is_driven(cluster) {
                apply(&cluster.state, &parts, &balance);
            }
            let named: Vec<_> = parts.iter().filter_map(Part::name).collect();
            if !named.is_empty() {
                let state = Arc::clone(&cluster.state);
                let task = tokio::spawn(keep_updated(state, parts, named, balance));
                tasks.push(Task(task.abort_handle()));
            }
        }
        self.clusters = tasks;
        drop(before); // until here the snapshot before was kept up to date
    }

    /// What a cluster is made of. Names that nobody follows yet are taken over from `before`, or followed anew.
    fn parts(
        &mut self,
        cluster: &config::Cluster,
        before: &mut HashMap<Key, Follower>,
    ) -> Vec<Part> {
        let in_subset = |endpoint: &&config::EndpointConfig| {
            let mut wanted = cluster.subset.iter();
            wanted.all(|(key, value)| endpoint.labels.get(key) == Some(value))
        };
        let written = cluster.endpoints.iter().filter(in_subset);
        let mut parts: Vec<Part> = written
            .map(|endpoint| Part {
                origin: self.origin((endpoint.host.clone(), endpoint.port, REFRESH), before),
                host: endpoint.host.as_str().into(),
                weight: endpoint.weight,
            })
            .collect();
        if let Some(config::Discover::Dns {
            name,
            port,
            refresh,
        }) = &cluster.discover
        {
            parts.push(Part {
                origin: self.origin((name.clone(), *port, *refresh), before),
                host: name.as_str().into(),
                weight: 1,
            });
        }
        parts
    }

    fn origin(&mut self, key: Key, before: &mut HashMap<Key, Follower>) -> Origin {
        if let Ok(ip) = key.0.parse::<IpAddr>() {
            return Origin::Fixed((ip, key.1).into());
        }
        let old = before.remove(&key);
        let resolver = &self.resolver;
        let entry = self.names.entry(key.clone());
        let follower =
            entry.or_insert_with(|| old.unwrap_or_else(|| Follower::start(resolver.clone(), key)));
        Origin::Name(follower.known.clone())
    }
}

impl Part {
    fn name(&self) -> Option<watch::Receiver<Resolution>> {
        match &self.origin {
            Origin::Name(known) => Some(known.clone()),
            Origin::Fixed(_) => None,
        }
    }
}

fn candidates(parts: &[Part]) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for part in parts {
        let addresses = match &part.origin {
            Origin::Fixed(address) => vec![*address],
            Origin::Name(known) => known.borrow().addresses.clone(),
        };
        candidates.extend(addresses.into_iter().map(|address| Candidate {
            address,
            host: Arc::clone(&part.host),
            weight: part.weight,
        }));
    }
    candidates
}

/// Gives a cluster its endpoints. One with a name that has no answer yet keeps those it had, if it had any.
fn apply(state: &ClusterState, parts: &[Part], balance: &config::Balance) {
    let waits = |part: &Part| part.name().is_some_and(|known| !known.borrow().answered);
    if state.endpoints().endpoints.is_empty() || !parts.iter().any(waits) {
        state.update(candidates(parts), balance);
    }
}

async fn keep_updated(
    state: Arc<ClusterState>,
    parts: Vec<Part>,
    mut names: Vec<watch::Receiver<Resolution>>,
    balance: config::Balance,
) {
    loop {
        for name in &mut names {
            name.mark_unchanged();
        }
        apply(&state, &parts, &balance);
        let changes = names.iter_mut().map(|name| Box::pin(name.changed()));
        if any(changes.collect()).await.is_err() {
            return;
        }
    }
}

/// The first of several futures that is ready.
async fn any<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    std::future::poll_fn(|cx| {
        let polls = futures
            .iter_mut()
            .map(|future| std::pin::Pin::new(future).poll(cx));
        polls
            .into_iter()
            .find(std::task::Poll::is_ready)
            .unwrap_or(std::task::Poll::Pending)
    })
    .await
}
