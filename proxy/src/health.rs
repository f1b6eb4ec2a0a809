//! Active checks of endpoints: one task per endpoint of a cluster with `health`, on the control runtime.
//!
//! A check is no request: nothing counts it and no bound of the cluster holds it up. An unchanged cluster keeps its
//! endpoints' states and schedule over a reload.

pub(crate) mod dial;
mod grpc;
mod http;
#[cfg(test)]
mod tests;
mod waking;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_config as config;
use forebay_config::{Health, HealthKind};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cluster::{ClusterState, Endpoint};
use crate::server_kind;
use crate::snapshot::ClusterView;
use crate::upstream::Connector;

pub use waking::Waking;

/// Value of `user-agent`.
const USER_AGENT: &str = concat!("forebay-health/", env!("CARGO_PKG_VERSION"));
/// The most of an answer that is read, bytes.
const MAX_BODY: usize = 64 << 10;
/// Checks of one cluster under way at once: thousands of endpoints must not take every file descriptor there is.
const AT_ONCE: usize = 128;
/// Checks of one endpoint come no faster, whatever is configured.
const SHORTEST: Duration = Duration::from_millis(10);
/// And no slower than this: a clock has an end.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// The longest text of an error that is kept, characters.
const MAX_ERROR: usize = 200;

/// A cluster as its checks see it.
#[derive(Clone)]
pub struct Subject {
    /// As configured.
    pub config: Arc<config::Cluster>,
    /// Whose endpoints are checked.
    pub state: Arc<ClusterState>,
    /// TLS towards them.
    pub connector: Connector,
}

impl From<&Arc<ClusterView>> for Subject {
    fn from(view: &Arc<ClusterView>) -> Self {
        Self {
            config: Arc::clone(&view.config),
            state: Arc::clone(&view.state),
            connector: view.connector.clone(),
        }
    }
}

/// Checks the endpoints of all clusters with `health`.
#[derive(Default)]
pub struct Checker {
    clusters: Mutex<HashMap<String, Followed>>,
}

/// Ends its task when dropped.
pub(crate) struct Task(AbortHandle);

impl Task {
    pub(crate) fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Followed {
    subject: watch::Sender<Subject>,
    _task: Task,
}

impl Checker {
    /// Checks nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the endpoints of these clusters from now on, and of no others. Belongs between the discovery's `follow`
    /// and the publication of a snapshot, so that no endpoint serves that should be checked first. Must be called
    /// on a runtime.
    pub fn follow(&self, clusters: impl IntoIterator<Item = impl Into<Subject>>) {
        let mut live = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *live);
        for subject in clusters {
            let subject: Subject = subject.into();
            subject.state.settle(&subject.config);
            let name = subject.config.name.clone();
            let followed = before.remove(&name);
            if subject.config.health.is_none() {
                continue;
            }
            let followed = match followed {
                Some(followed) => {
                    followed.subject.send_replace(subject);
                    followed
                }
                None => {
                    let (sender, receiver) = watch::channel(subject);
                    let task = tokio::spawn(check_cluster(receiver));
                    Followed {
                        subject: sender,
                        _task: Task(task.abort_handle()),
                    }
                }
            };
            live.insert(name, followed);
        }
    }
}

/// Keeps a task for each endpoint of the cluster, for as long as the endpoint is in it.
async fn check_cluster(mut subject: watch::Receiver<Subject>) {
    let mut tasks: HashMap<SocketAddr, Task> = HashMap::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut changes = subject.borrow().state.changes();
    loop {
        changes.mark_unchanged();
        let set = subject.borrow_and_update().state.endpoints().clone();
        tasks.retain(|address, _| set.at(*address).is_some());
        for endpoint in &set.endpoints {
            let address = endpoint.address;
            tasks.entry(address).or_insert_with(|| {
                let checking = check_endpoint(subject.clone(), address, Arc::clone(&places));
                Task(tokio::spawn(checking).abort_handle())
            });
        }
        drop(set);
        // All generations of a cluster's state tell the same of changes.
        tokio::select! {
            _ = changes.changed() => {}
            changed = subject.changed() => if changed.is_err() { return },
        }
    }
}

/// Checks of one endpoint in a row with the same result.
#[derive(Default)]
struct Streak {
    passed: u32,
    failed: u32,
}

impl Streak {
    /// Counts one check. Returns what the endpoint is from now on, when that is decided.
    ///
    /// * `now`: what it is; `None`: this is the first check, which alone decides
    fn count(&mut self, passed: bool, now: Option<bool>, health: &Health) -> Option<bool> {
        let (same, other, needed) = match passed {
            true => (&mut self.passed, &mut self.failed, health.healthy),
            false => (&mut self.failed, &mut self.passed, health.unhealthy),
        };
        *same = same.saturating_add(1);
        *other = 0;
        let decided = now.is_none() || *same >= needed.get();
        decided.then_some(passed)
    }
}

async fn check_endpoint(
    mut subject: watch::Receiver<Subject>,
    address: SocketAddr,
    places: Arc<Semaphore>,
) {
    let mut streak = Streak::default();
    loop {
        let place = places.acquire().await;
        let now = subject.borrow_and_update().clone();
        let Some(health) = &now.config.health else {
            return; // ended by whoever follows
        };
        let Some(endpoint) = now.state.endpoints().at(address).cloned() else {
            return;
        };
        let began = Instant::now();
        let asked = server_kind::readiness(&now.config);
        let result = check(&now, &asked, &endpoint).await;
        drop(place);
        if let Err(Fault { text: error, .. }) = &result {
            tracing::debug!(cluster = now.state.name(), endpoint = %endpoint.label, error, "check failed");
        }
        let decided = match &result {
            Err(fault) if fault.is_ours => None,
            _ => streak.count(result.is_ok(), now.state.checked(&endpoint), health),
        };
        let error = result.as_ref().err().map(|fault| &*fault.text);
        now.state.enter_check(&endpoint, decided, error);
        let next = began + jittered(health.interval);
        drop(endpoint);
        if wait_until(next, &mut subject, &now).await {
            streak = Streak::default();
        }
    }
}

/// Waits for the time of the next check. True when it came early because other checks are wanted.
async fn wait_until(
    time: Instant,
    subject: &mut watch::Receiver<Subject>,
    before: &Subject,
) -> bool {
    let sleep = tokio::time::sleep_until(time);
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            () = &mut sleep => return false,
            changed = subject.changed() => {
                if changed.is_err() {
                    return std::future::pending().await; // whoever follows is about to end this
                }
                if subject.borrow_and_update().config.health != before.config.health {
                    return true;
                }
            }
        }
    }
}

/// The interval ± 10 %, so that many proxies do not check in step.
pub(crate) fn jittered(interval: Duration) -> Duration {
    let interval = interval.clamp(SHORTEST, LONGEST);
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Whether a server that starts at `address` is ready, as its cluster's checks or its kind say.
pub async fn is_ready(subject: &Subject, address: SocketAddr) -> bool {
    let health = server_kind::readiness(&subject.config);
    let endpoint = Endpoint::unlisted(address);
    check(subject, &health, &endpoint).await.is_ok()
}

/// Why a check did not pass.
struct Fault {
    /// A few words.
    text: String,
    /// There was no socket for it: that says nothing of the endpoint.
    is_ours: bool,
}

/// One check, within its timeout. Where the cluster has `models` and its `health` does not say what is asked, its
/// first model is asked for.
///
/// # Errors
///
/// What is wrong.
async fn check(subject: &Subject, health: &Health, endpoint: &Endpoint) -> Result<(), Fault> {
    let question = server_kind::question(&subject.config, endpoint.address.port());
    let target = match &question {
        Some(question) => dial::Target::asked(subject, question, endpoint),
        None => dial::Target::of(subject, health, endpoint),
    };
    let checked = async {
        match (&question, &health.kind) {
            (Some(question), _) => http::ask(&target, question).await,
            // Whoever asks has put the servers' own check in its place.
            (None, HealthKind::Server | HealthKind::Tcp) => target.connect().await.map(drop),
            (None, HealthKind::Http { path, status }) => http::check(&target, path, status).await,
            (None, HealthKind::Grpc { service }) => grpc::check(&target, service).await,
        }
    };
    // Boxed: a connection's state is large and most of the time there is none.
    let mut text = match tokio::time::timeout(health.timeout, Box::pin(checked)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => format!("no answer within {:?}", health.timeout),
    };
    if let Some((end, _)) = text.char_indices().nth(MAX_ERROR) {
        text.truncate(end);
    }
    Err(Fault {
        text,
        is_ours: target.is_out_of_sockets(),
    })
}
