//! Probes of endpoints that could not be reached or are not ready yet, in clusters where requests wait for them: often
//! while somebody waits, seldom otherwise.

mod rounds;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use rounds::Rounds;

use super::{Subject, Task, jittered};
use crate::cluster::ClusterState;

/// From one probe to the next while somebody waits.
const OFTEN: Duration = Duration::from_millis(20);
/// And while nobody does.
const SELDOM: Duration = Duration::from_secs(1);
/// How soon somebody who begins to wait beside replicas that serve is noticed between two seldom probes.
const LOOK: Duration = Duration::from_millis(50);

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
        rounds.probe(&now, unready, waits);
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
                () = rounds.one_done() => {}
                changed = subject.changed(), if !left => {
                    left = changed.is_err();
                    break;
                }
            }
        }
    }
}
