//! Keeps each cluster's endpoints up to date: written addresses at once, names as DNS answers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use forebay_config as config;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::cluster::{Candidate, ClusterState};
use crate::dns::Resolver;
use crate::snapshot::Snapshot;

/// How often a host name of `endpoints` is asked again at the latest; its TTL is kept when shorter.
const REFRESH: Duration = Duration::from_secs(30);
/// First pause after a name could not be resolved; doubled for each failure in a row.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// How long the first answers for a new configuration are waited for.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// The names that clusters are made of, and the tasks that follow them.
pub struct Discovery {
    resolver: Arc<Resolver>,
    /// `--resolve NAME:PORT=ADDR`.
    pinned: HashMap<(String, u16), SocketAddr>,
    names: HashMap<(String, Duration), Follower>,
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
    /// `None` until the first answer.
    addresses: watch::Receiver<Option<Vec<IpAddr>>>,
    _task: Task,
}

/// One part of a cluster's endpoint set.
struct Part {
    origin: Origin,
    host: Arc<str>,
    weight: u32,
}

enum Origin {
    Fixed(SocketAddr),
    Name(watch::Receiver<Option<Vec<IpAddr>>>, u16),
}

impl Discovery {
    /// Follows nothing yet. `pinned`: names that are not asked for.
    pub fn new(resolver: Arc<Resolver>, pinned: HashMap<(String, u16), SocketAddr>) -> Self {
        Self {
            resolver,
            pinned,
            names: HashMap::new(),
            clusters: Vec::new(),
        }
    }

    /// Follows the names of a snapshot from now on and those of the one before no longer. Returns when every name
    /// was answered once, or after a second. Must run on the control runtime.
    pub async fn follow(&mut self, snapshot: &Snapshot) {
        let mut wanted: HashMap<(String, Duration), Follower> = HashMap::new();
        let mut tasks = Vec::new();
        let mut first = Vec::new();
        for cluster in snapshot.clusters.values() {
            let parts = self.parts(&cluster.config, &mut wanted);
            let balance = cluster.config.balance.clone();
            cluster.state.update(candidates(&parts), &balance);
            let named: Vec<_> = parts
                .iter()
                .filter_map(|part| match &part.origin {
                    Origin::Name(addresses, _) => Some(addresses.clone()),
                    Origin::Fixed(_) => None,
                })
                .collect();
            if !named.is_empty() {
                first.extend(named.iter().cloned());
                let state = Arc::clone(&cluster.state);
                tasks.push(Task(
                    tokio::spawn(keep_updated(state, parts, named, balance)).abort_handle(),
                ));
            }
        }
        self.names = wanted;
        self.clusters = tasks;
        let answered = async {
            for mut name in first {
                let _ = name.wait_for(Option::is_some).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_ANSWERS, answered).await;
        // The tasks may not have run yet; the answers are there.
        for cluster in snapshot.clusters.values() {
            let parts = self.known_parts(&cluster.config);
            cluster
                .state
                .update(candidates(&parts), &cluster.config.balance);
        }
    }

    fn parts(
        &mut self,
        cluster: &config::Cluster,
        wanted: &mut HashMap<(String, Duration), Follower>,
    ) -> Vec<Part> {
        for (name, port, refresh) in names_of(cluster) {
            if self.pinned.contains_key(&(name.clone(), port)) {
                continue;
            }
            let key = (name, refresh);
            if !wanted.contains_key(&key) {
                let follower = self.names.remove(&key).unwrap_or_else(|| {
                    Follower::start(Arc::clone(&self.resolver), key.0.clone(), refresh)
                });
                wanted.insert(key, follower);
            }
        }
        parts_of(cluster, &self.pinned, wanted)
    }

    fn known_parts(&self, cluster: &config::Cluster) -> Vec<Part> {
        parts_of(cluster, &self.pinned, &self.names)
    }
}

/// Names, ports and refresh times of a cluster's endpoints that are no addresses.
fn names_of(cluster: &config::Cluster) -> Vec<(String, u16, Duration)> {
    let mut names: Vec<_> = served(cluster)
        .filter(|endpoint| endpoint.host.parse::<IpAddr>().is_err())
        .map(|endpoint| (endpoint.host.clone(), endpoint.port, REFRESH))
        .collect();
    if let Some(config::Discover::Dns {
        name,
        port,
        refresh,
    }) = &cluster.discover
    {
        names.push((name.clone(), *port, *refresh));
    }
    names
}

/// The written endpoints that are in the cluster's subset.
fn served(cluster: &config::Cluster) -> impl Iterator<Item = &config::EndpointConfig> {
    cluster.endpoints.iter().filter(|endpoint| {
        cluster
            .subset
            .iter()
            .all(|(key, value)| endpoint.labels.get(key) == Some(value))
    })
}

fn parts_of(
    cluster: &config::Cluster,
    pinned: &HashMap<(String, u16), SocketAddr>,
    names: &HashMap<(String, Duration), Follower>,
) -> Vec<Part> {
    let origin = |host: &str, port: u16, refresh: Duration| {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Origin::Fixed((ip, port).into()));
        }
        if let Some(address) = pinned.get(&(host.to_owned(), port)) {
            return Some(Origin::Fixed(*address));
        }
        let follower = names.get(&(host.to_owned(), refresh))?;
        Some(Origin::Name(follower.addresses.clone(), port))
    };
    let mut parts: Vec<Part> = served(cluster)
        .filter_map(|endpoint| {
            let origin = origin(&endpoint.host, endpoint.port, REFRESH)?;
            Some(Part {
                origin,
                host: endpoint.host.as_str().into(),
                weight: endpoint.weight,
            })
        })
        .collect();
    if let Some(config::Discover::Dns {
        name,
        port,
        refresh,
    }) = &cluster.discover
        && let Some(origin) = origin(name, *port, *refresh)
    {
        parts.push(Part {
            origin,
            host: name.as_str().into(),
            weight: 1,
        });
    }
    parts
}

fn candidates(parts: &[Part]) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for part in parts {
        let mut add = |address| {
            candidates.push(Candidate {
                address,
                host: Arc::clone(&part.host),
                weight: part.weight,
            });
        };
        match &part.origin {
            Origin::Fixed(address) => add(*address),
            Origin::Name(addresses, port) => {
                for ip in addresses.borrow().iter().flatten() {
                    add((*ip, *port).into());
                }
            }
        }
    }
    candidates
}

async fn keep_updated(
    state: Arc<ClusterState>,
    parts: Vec<Part>,
    mut names: Vec<watch::Receiver<Option<Vec<IpAddr>>>>,
    balance: config::Balance,
) {
    loop {
        for name in &mut names {
            name.mark_unchanged();
        }
        state.update(candidates(&parts), &balance);
        let changes = names.iter_mut().map(|name| Box::pin(name.changed()));
        if any(changes.collect()).await.is_err() {
            return;
        }
    }
}

/// The first of several futures that is ready.
async fn any<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    std::future::poll_fn(|cx| {
        for future in &mut futures {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(cx) {
                return std::task::Poll::Ready(output);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

impl Follower {
    fn start(resolver: Arc<Resolver>, name: String, refresh: Duration) -> Self {
        let (tx, addresses) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut failures = 0u32;
            while !tx.is_closed() {
                let pause = match resolver.lookup(&name).await {
                    Ok(answer) => {
                        failures = 0;
                        tx.send_if_modified(|known| {
                            let changed = known.as_ref() != Some(&answer.addresses);
                            if changed {
                                *known = Some(answer.addresses.clone());
                            }
                            changed
                        });
                        answer.valid_for.min(refresh)
                    }
                    // The last good answer stays.
                    Err(error) => {
                        tracing::warn!(name, %error, "name not resolved");
                        failures += 1;
                        FIRST_RETRY
                            .saturating_mul(1 << failures.min(10))
                            .min(refresh)
                    }
                };
                tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            }
        });
        Self {
            addresses,
            _task: Task(task.abort_handle()),
        }
    }
}
