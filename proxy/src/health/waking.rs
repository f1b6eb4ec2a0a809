//! Probes of endpoints that could not be reached or are not ready yet, in clusters where requests wait for them: often
//! while somebody waits, seldom otherwise.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_config::Health;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Subject, Task, check, jittered};
use crate::cluster::{ClusterState, Endpoint};
use crate::server_kind::readiness;

/// From one probe to the next while somebody waits.
const OFTEN: Duration = Duration::from_millis(20);
/// And while nobody does.
const SELDOM: Duration = Duration::from_secs(1);
/// How soon somebody who begins to wait beside replicas that serve is noticed between two seldom probes.
const LOOK: Duration = Duration::from_millis(50);
/// Endpoints of a cluster that are probed at once.
const AT_ONCE: usize = 64;

/// Probes the endpoints of all clusters with a waiting room that are not ready.
#[derive(Default)]
pub struct Waking {
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    clusters: HashMap<String, (watch::Sender<Subject>, Task)>,
    /// Clusters that went while somebody waited there.
    leaving: Vec<(Arc<ClusterState>, Task)>,
}

impl Waking {
    /// Probes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks after these clusters from now on, and after no others but those that go while somebody waits there. Must
    /// be called on a runtime.
    pub fn follow(&self, clusters: impl IntoIterator<Item = impl Into<Subject>>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut live.clusters);
        let mut gone = Vec::new();
        for subject in clusters {
            let subject: Subject = subject.into();
            if !subject.config.has_room() {
                continue;
            }
            let name = subject.config.name.clone();
            let known = before.remove(&name);
            let same = |sender: &watch::Sender<Subject>| {
                let known = Arc::clone(&sender.borrow().state);
                known.is_generation_of(&subject.state)
            };
            let followed = match known {
                Some((sender, task)) if same(&sender) => {
                    sender.send_replace(subject);
                    (sender, task)
                }
                known => {
                    gone.extend(known);
                    let (sender, receiver) = watch::channel(subject);
                    let task = Task(tokio::spawn(wake(receiver)).abort_handle());
                    (sender, task)
                }
            };
            live.clusters.insert(name, followed);
        }
        gone.extend(before.into_values());
        let left = gone
            .into_iter()
            .map(|(sender, task)| (Arc::clone(&sender.borrow().state), task));
        live.leaving.extend(left);
        live.leaving.retain(|(state, _)| somebody_waits(state));
    }
}

fn somebody_waits(state: &ClusterState) -> bool {
    state.room().demand().waiting > 0
}

async fn wake(mut subject: watch::Receiver<Subject>) {
    let mut changes = subject.borrow().state.changes();
    let mut rounds = Rounds::default();
    let mut left = false;
    loop {
        changes.mark_unchanged();
        let now = subject.borrow_and_update().clone();
        let waits = somebody_waits(&now.state);
        if left && !waits {
            return;
        }
        let unready = now.state.unready(waits);
        let all_well = unready.is_empty();
        rounds.probe(&now, unready);
        let next = Instant::now() + if waits { jittered(OFTEN) } else { SELDOM };
        loop {
            // Nothing tells that an ejection is over: that is looked for when the time comes.
            let look = match waits || all_well {
                true => next,
                false => next.min(Instant::now() + LOOK),
            };
            tokio::select! {
                () = tokio::time::sleep_until(look) => {
                    if look == next || somebody_waits(&now.state) {
                        break;
                    }
                }
                () = now.state.hurried(), if !waits => break,
                _ = changes.changed(), if !waits => break,
                Some(done) = rounds.probes.join_next(), if !rounds.probes.is_empty() => {
                    rounds.done(done.ok());
                }
                changed = subject.changed(), if !left => {
                    left = changed.is_err();
                    break;
                }
            }
        }
    }
}

/// Probes under way, at most one of each endpoint: one that answers nothing delays no other.
#[derive(Default)]
struct Rounds {
    probes: JoinSet<SocketAddr>,
    under_way: HashSet<SocketAddr>,
    /// Which one is first when not all can be probed at once.
    turn: usize,
}

impl Rounds {
    fn done(&mut self, address: Option<SocketAddr>) {
        match address {
            Some(address) => self.under_way.remove(&address),
            None => return, // it panicked: its endpoint is not probed any more
        };
    }

    /// Probes each of them once, unless it is being probed.
    fn probe(&mut self, subject: &Subject, mut endpoints: Vec<Arc<Endpoint>>) {
        while let Some(done) = self.probes.try_join_next() {
            self.done(done.ok());
        }
        endpoints.retain(|endpoint| !self.under_way.contains(&endpoint.address));
        let free = AT_ONCE.saturating_sub(self.under_way.len());
        if endpoints.is_empty() || free == 0 {
            return;
        }
        let first = self.turn % endpoints.len();
        endpoints.rotate_left(first);
        self.turn = self.turn.wrapping_add(free);
        let health = Arc::new(readiness(&subject.config));
        for endpoint in endpoints.into_iter().take(free) {
            self.under_way.insert(endpoint.address);
            let one = probe(subject.clone(), Arc::clone(&health), endpoint);
            self.probes.spawn(one);
        }
    }
}

/// One probe; returns of whom.
async fn probe(subject: Subject, health: Arc<Health>, endpoint: Arc<Endpoint>) -> SocketAddr {
    if check(&subject, &health, &endpoint).await.is_ok() {
        // Its checks decide themselves where one that passes is not enough.
        let decides =
            health.healthy == NonZeroU32::MIN || subject.state.checked(&endpoint).is_none();
        if subject.config.health.is_some() && decides {
            subject.state.enter_check(&endpoint, Some(true), None);
        }
        subject.state.mark_up(&endpoint);
    }
    endpoint.address
}
