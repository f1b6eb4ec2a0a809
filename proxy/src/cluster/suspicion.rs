//! Endpoints that may be ending: a connection to them broke under a request.
//!
//! The system takes connections for a server until the last thread of its process is gone, also after it has reset
//! those that were open. What is sent to it then is lost, and nobody knows whether it was acted on. So whoever was cut
//! off and asks again must not get there: servers of ours get nothing after a break until a probe passes. It comes at
//! once, or the driver is quicker and says that the process is gone.

use std::sync::atomic::Ordering;

use super::Endpoint;

impl Endpoint {
    /// A connection to it broke under a request. It gets no more until a probe passes, where requests can wait for
    /// that; nothing is changed elsewhere.
    pub fn suspect(&self) {
        let Some(roots) = self.common().roots.upgrade() else {
            return;
        };
        if roots.local.load(Ordering::Acquire) && self.vitals().set_suspect(true) {
            tracing::debug!(cluster = roots.name, endpoint = %self.label, "a connection broke");
            roots.changed.send_replace(()); // it is probed
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::plain_cluster;
    use super::super::{Candidate, Choice, ClusterState, Endpoint};
    use crate::room::Seat as _;
    use forebay_config as config;

    const KEYS: &str = "clusters: [{name: c, scale: {process: {command: 'serve ${PORT}'}}}]";

    fn local_cluster() -> config::Cluster {
        let file = config::load::SourceFile {
            name: "test.yaml".into(),
            directory: ".".into(),
            text: KEYS.to_owned(),
        };
        let loaded = config::load::load(&[file], &|_| None).unwrap();
        (*loaded.config.clusters[0]).clone()
    }

    /// A cluster with one endpoint.
    fn one(cluster: &config::Cluster) -> (ClusterState, Arc<Endpoint>) {
        let state = ClusterState::new("c");
        state.settle(cluster);
        let candidate = Candidate {
            address: ([127, 0, 0, 1], 1).into(),
            host: "127.0.0.1".into(),
            weight: 1,
        };
        state.update(vec![candidate], &cluster.balance);
        let endpoint = Arc::clone(&state.endpoints().endpoints[0]);
        (state, endpoint)
    }

    fn gets_requests(state: &ClusterState, cluster: &config::Cluster) -> bool {
        let choice = Choice {
            cluster,
            key: None,
            roll: 0,
            tried: &[],
            free: None,
        };
        state.take_slot(&choice).is_some()
    }

    #[tokio::test]
    async fn a_server_of_ours_that_broke_a_connection_gets_nothing_until_a_probe_passes() {
        let cluster = local_cluster();
        let (state, endpoint) = one(&cluster);
        assert!(gets_requests(&state, &cluster));
        let mut changes = state.changes();
        changes.mark_unchanged();
        endpoint.suspect();
        assert!(changes.has_changed().unwrap(), "nobody is told to probe it");
        assert!(!gets_requests(&state, &cluster) && !endpoint.may_serve());
        assert!(
            state.room().replicas().exist(),
            "it exists until its driver says otherwise"
        );
        assert_eq!(state.unready(false).len(), 1);
        state.mark_up(&endpoint);
        assert!(gets_requests(&state, &cluster) && endpoint.may_serve());
        assert!(state.unready(false).is_empty());
        endpoint.suspect();
        state.begin_anew(endpoint.address); // another process listens there
        assert!(gets_requests(&state, &cluster));
    }

    #[tokio::test]
    async fn a_server_that_is_not_ours_is_not_suspected() {
        let cluster = plain_cluster();
        let (state, endpoint) = one(&cluster);
        endpoint.suspect();
        assert!(endpoint.may_serve() && state.unready(false).is_empty());
        Endpoint::unlisted(endpoint.address).suspect();
    }
}
