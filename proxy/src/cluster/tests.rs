//! The choice among endpoints, well and ailing. Time is tokio's, paused.

mod ailing;
mod balance;
mod slow_start;
mod wellness;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use forebay_config as config;
use forebay_config::{Balance, Health, HealthKind, Outlier};

use super::{Candidate, Choice, Chosen, ClusterState, Endpoint, Verdict};

/// A cluster under test.
struct Pool {
    state: ClusterState,
    config: config::Cluster,
}

fn address(index: usize) -> SocketAddr {
    ([127, 0, 0, 1], 8000 + index as u16).into()
}

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let candidates = weights.iter().enumerate().map(|(i, &weight)| Candidate {
        address: address(i),
        host: "127.0.0.1".into(),
        weight,
    });
    candidates.collect()
}

/// A cluster as a file without anything special has it.
pub(crate) fn plain_cluster() -> config::Cluster {
    let file = config::load::SourceFile {
        name: "test.yaml".into(),
        directory: ".".into(),
        text: "clusters: [{name: c, endpoints: ['127.0.0.1:1']}]".to_owned(),
    };
    let loaded = config::load::load(&[file], &|_| None).unwrap();
    (*loaded.config.clusters[0]).clone()
}

pub(crate) fn health() -> Health {
    Health {
        kind: HealthKind::Tcp,
        port: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        unhealthy: NonZeroU32::new(3).unwrap(),
        healthy: NonZeroU32::MIN,
    }
}

impl Pool {
    fn new(weights: &[u32], balance: Balance) -> Self {
        let mut config = plain_cluster();
        config.balance = balance;
        let state = ClusterState::new("c");
        state.update(candidates(weights), &config.balance);
        let pool = Self { state, config };
        pool.settle();
        pool
    }

    fn with_outlier(mut self, change: impl FnOnce(&mut Outlier)) -> Self {
        let mut outlier = Outlier {
            consecutive_5xx: NonZeroU32::new(3).unwrap(),
            ..Outlier::default()
        };
        change(&mut outlier);
        self.config.outlier = Some(outlier);
        self.settle();
        self
    }

    fn with_health(mut self) -> Self {
        self.config.health = Some(health());
        self.settle();
        self
    }

    fn settle(&self) {
        self.state.settle(&self.config);
    }

    fn update(&self, weights: &[u32]) {
        self.state.update(candidates(weights), &self.config.balance);
    }

    fn endpoint(&self, index: usize) -> Arc<Endpoint> {
        let set = self.state.endpoints();
        Arc::clone(set.at(address(index)).unwrap())
    }

    fn choose_with(&self, key: Option<&[u8]>, roll: u32, tried: &[u64]) -> Option<Chosen> {
        let choice = Choice {
            cluster: &self.config,
            key,
            roll,
            tried,
            free: None,
        };
        self.state.choose(&self.state.endpoints(), &choice)
    }

    fn choose(&self, roll: u32) -> Option<Chosen> {
        self.choose_with(None, roll, &[])
    }

    /// Which endpoint, by its index; no probe expected.
    fn index(&self, roll: u32) -> usize {
        let chosen = self.choose(roll).unwrap();
        assert!(chosen.probe.is_none());
        usize::from(chosen.endpoint.address.port()) - 8000
    }

    fn observe(&self, index: usize, verdict: Verdict) {
        let outlier = self.config.outlier.as_ref();
        self.state
            .observe(&self.endpoint(index), None, verdict, outlier);
    }

    fn answer(&self, chosen: Chosen, verdict: Verdict) {
        let outlier = self.config.outlier.as_ref();
        self.state
            .observe(&chosen.endpoint, chosen.probe, verdict, outlier);
    }

    fn fail(&self, index: usize, times: u32) {
        (0..times).for_each(|_| self.observe(index, Verdict::Failed));
    }

    fn check(&self, index: usize, passed: bool) {
        let error = (!passed).then_some("status 500");
        self.state
            .enter_check(&self.endpoint(index), Some(passed), error);
    }
}

/// Evenly spread, always the same.
fn rolls(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| n.wrapping_mul(0x9e37_79b9))
}
