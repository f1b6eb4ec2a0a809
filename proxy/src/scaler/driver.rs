//! Who brings a cluster's replicas up and down, as the scaler sees it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Starts and stops replicas of one cluster. Called from the control runtime; must return at once.
pub trait Driver: Send + Sync {
    /// So many replicas are wanted from now on; the driver gets there by itself. A number that is no higher than what
    /// is ready or starting also means that no failed start is tried again.
    fn want(&self, replicas: u32);

    /// What there is now.
    fn status(&self) -> Replicas;

    /// Rings after every change of the status.
    fn changed(&self) -> watch::Receiver<()>;
}

/// The replicas of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// They were asked for and cannot serve yet.
    pub starting: u32,
    /// Those of them that wait for a place on a device.
    pub placing: u32,
    /// They can serve.
    pub ready: u32,
    /// They finish what they have, or are being ended.
    pub stopping: u32,
    /// How many starts failed since the last one that did not.
    pub failed_in_a_row: u32,
    /// What was wrong with the last start that failed, in a few words.
    pub last_failure: Option<Arc<str>>,
    /// How long the last successful start took, until the replica could serve.
    pub last_start: Option<Duration>,
    /// How long that one waited for its place on a device before; zero when it needed none.
    pub last_place: Option<Duration>,
    /// Replicas so far that were asked to make room for those of others.
    pub evictions: u64,
    /// Starts so far, failed ones included.
    pub starts: u64,
}
