//! The devices that local processes share: who gets which, and who goes for it.
//!
//! One [`Broker`] per proxy keeps the budget. The process driver of each cluster with `scale.gpu` joins it with its
//! [`Terms`] and asks for a place before each start, which is reserved from then on: two clusters can never both take
//! the last bytes. A place is given back when nothing of its process is left and, where the driver of the devices can
//! be asked ([`nvml`]), when their memory is free. Who gets what is decided by a pure function (`plan`), on every change
//! and, while somebody waits for a place, every 25 ms.
//!
//! Only waiting requests, `min`, `preload` and an operator bring a replica. Only waiting requests and operators have
//! others make room: a cluster of which nothing runs at once, one that runs already after [`TURN`]. What an operator
//! asked for by the API is not asked to make room, no more than what is pinned. A cluster that could only be placed
//! after those is answered `no_capacity`.

mod books;
mod broker;
pub mod nvml;
mod plan;
mod report;
mod tenancy;
mod tenant;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use forebay_config::{Driver, GpuShare, Scale};

pub use broker::{Broker, Cards, Memory, Opener};
pub use plan::{STUCK, TURN, Why};
pub use tenancy::{Claim, Notice, Tenancy};

/// The variable by which a process learns which device is its own.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The requests of a cluster, as the budget sees them. Called often; must return at once.
pub trait Sight: Send + Sync {
    /// Requests in the waiting room.
    fn waiting(&self) -> u32;

    /// How long the first of them has waited; `None`: nobody waits.
    fn oldest_wait(&self) -> Option<Duration>;

    /// Requests so far; never falls.
    fn arrivals(&self) -> u64;

    /// Requests in flight at an address.
    fn in_flight(&self, address: SocketAddr) -> u64;
}

/// What a cluster's replicas take, and when they make room.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// What one takes; `None`: nothing, and there is no budget for them.
    pub share: Option<GpuShare>,
    /// The only device it can use.
    pub only: Option<u32>,
    /// They never make room.
    pub pin: bool,
    /// Nor sooner than this after they became ready.
    pub min_residency: Duration,
    /// So many should be there.
    pub min: u32,
    /// And one until it has been ready once.
    pub preload: bool,
}

impl Terms {
    /// Reads the configuration of a cluster. Where the environment of its process names one device by its number, that
    /// is the only one.
    pub fn of(scale: &Scale) -> Self {
        let written = match &scale.driver {
            Driver::Process(process) => process.env.get(VISIBLE),
            Driver::Webhook { .. } | Driver::Observe => None,
        };
        Self {
            share: scale.gpu,
            only: written.and_then(|devices| devices.trim().parse().ok()),
            pin: scale.pin,
            min_residency: scale.min_residency,
            min: scale.min,
            preload: scale.preload,
        }
    }
}
