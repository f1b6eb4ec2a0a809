//! The driver of clusters whose replicas somebody else starts and stops.

use tokio::sync::watch;

use super::driver::{Driver, Replicas};

/// Starts and stops nothing; what would be wanted is published as for any cluster.
pub struct Observe {
    current: Box<dyn Fn() -> u32 + Send + Sync>,
    changed: watch::Receiver<()>,
}

impl Observe {
    /// * `current`: endpoints that can serve
    /// * `changed`: rings when that may be another number
    pub fn new(
        current: impl Fn() -> u32 + Send + Sync + 'static,
        changed: watch::Receiver<()>,
    ) -> Self {
        Self {
            current: Box::new(current),
            changed,
        }
    }
}

impl Driver for Observe {
    fn want(&self, _replicas: u32) {}

    fn status(&self) -> Replicas {
        Replicas {
            ready: (self.current)(),
            ..Replicas::default()
        }
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }
}
