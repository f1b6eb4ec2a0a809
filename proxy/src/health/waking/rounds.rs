//! Probes of one cluster's endpoints, with as much patience as each of them needs.
//!
//! A server that loads may take a connection and never answer, and one that is ready may take seconds to say so. So each
//! endpoint has one probe with all the patience its kind asks for, and, while somebody waits, short ones beside it:
//! their patience doubles from 100 ms up to an eighth of the whole.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use forebay_config::Health;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::super::{Subject, check};
use crate::cluster::Endpoint;
use crate::server_kind::readiness;

/// Endpoints of a cluster that are probed at once.
const AT_ONCE: usize = 64;
/// The patience of the first short probe.
const FIRST: Duration = Duration::from_millis(100);
/// The part of the whole patience that a short probe has at most.
const PART: u32 = 8;

/// Probes under way: one that answers nothing delays no other.
#[derive(Default)]
pub(super) struct Rounds {
    probes: JoinSet<Done>,
    under_way: HashMap<SocketAddr, Trial>,
    /// Which endpoint is first when not all can be probed at once.
    turn: usize,
}

/// The probes of one endpoint.
struct Trial {
    long: AbortHandle,
    short: Option<AbortHandle>,
    /// When the last one of them began.
    began: Instant,
    /// Of the next short one.
    patience: Duration,
}

/// A probe that is over.
struct Done {
    address: SocketAddr,
    short: bool,
    passed: bool,
    /// It had no answer in its time.
    hung: bool,
}

impl Rounds {
    /// Resolves when a probe is over; never while there is none.
    pub(super) async fn one_done(&mut self) {
        match self.probes.join_next().await {
            Some(done) => self.settle(done.ok()),
            None => std::future::pending().await,
        }
    }

    fn settle(&mut self, done: Option<Done>) {
        // `None`: it was ended here, or it panicked; then its endpoint is not probed any more.
        let Some(done) = done else { return };
        let Some(trial) = self.under_way.get_mut(&done.address) else {
            return;
        };
        if done.passed || !done.short {
            if let Some(short) = trial.short.take() {
                short.abort();
            }
            trial.long.abort();
            self.under_way.remove(&done.address);
            return;
        }
        trial.short = None;
        if done.hung {
            trial.patience *= 2;
        }
    }

    /// Probes each of them once, unless it is being probed with the patience it needs.
    ///
    /// * `waits`: somebody waits for them
    pub(super) fn probe(
        &mut self,
        subject: &Subject,
        mut endpoints: Vec<Arc<Endpoint>>,
        waits: bool,
    ) {
        while let Some(done) = self.probes.try_join_next() {
            self.settle(done.ok());
        }
        if endpoints.is_empty() {
            return;
        }
        let health = Arc::new(readiness(&subject.config));
        if waits {
            self.probe_beside(subject, &health, &endpoints);
        }
        endpoints.retain(|endpoint| !self.under_way.contains_key(&endpoint.address));
        let free = AT_ONCE.saturating_sub(self.under_way.len());
        if endpoints.is_empty() || free == 0 {
            return;
        }
        let first = self.turn % endpoints.len();
        endpoints.rotate_left(first);
        self.turn = self.turn.wrapping_add(free);
        for endpoint in endpoints.into_iter().take(free) {
            let address = endpoint.address;
            let one = probe(subject.clone(), Arc::clone(&health), endpoint, false);
            let trial = Trial {
                long: self.probes.spawn(one),
                short: None,
                began: Instant::now(),
                patience: FIRST,
            };
            self.under_way.insert(address, trial);
        }
    }

    /// Short probes of those that have been silent for so long already.
    fn probe_beside(
        &mut self,
        subject: &Subject,
        health: &Arc<Health>,
        endpoints: &[Arc<Endpoint>],
    ) {
        let most = health.timeout / PART;
        for endpoint in endpoints {
            let Some(trial) = self.under_way.get_mut(&endpoint.address) else {
                continue;
            };
            trial.patience = trial.patience.min(most.max(FIRST));
            let silent = trial.began.elapsed() >= trial.patience;
            if trial.short.is_some() || !silent || trial.patience >= health.timeout {
                continue;
            }
            let shorter = Arc::new(Health {
                timeout: trial.patience,
                ..Health::clone(health)
            });
            let one = probe(subject.clone(), shorter, Arc::clone(endpoint), true);
            trial.short = Some(self.probes.spawn(one));
        }
    }
}

/// One probe.
async fn probe(
    subject: Subject,
    health: Arc<Health>,
    endpoint: Arc<Endpoint>,
    short: bool,
) -> Done {
    let began = Instant::now();
    let passed = check(&subject, &health, &endpoint).await.is_ok();
    if passed {
        // Its checks decide themselves where one that passes is not enough.
        let decides =
            health.healthy == NonZeroU32::MIN || subject.state.checked(&endpoint).is_none();
        if subject.config.health.is_some() && decides {
            subject.state.enter_check(&endpoint, Some(true), None);
        }
        subject.state.mark_up(&endpoint);
    }
    Done {
        address: endpoint.address,
        short,
        passed,
        hung: !passed && began.elapsed() >= health.timeout,
    }
}
