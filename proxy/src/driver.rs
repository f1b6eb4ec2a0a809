//! Who starts and stops replicas. [`process`] runs them here, each below a [`supervise`] child, and keeps their [`log`].

use std::net::SocketAddr;
use std::pin::Pin;

mod backoff;
mod crew;
mod launch;
pub mod log;
mod plan;
mod port;
pub mod process;
mod replica;
pub mod supervise;

/// Asks a server that starts whether it can serve.
pub trait Readiness: Send + Sync {
    /// Returns whether the server at this address is ready. It must end by itself, within seconds; it is dropped when
    /// the answer is no longer of interest.
    fn probe(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}

/// The cluster's side of its replicas. Called from the control runtime; must return at once.
pub trait Endpoints: Send + Sync {
    /// Exactly these serve from now on; once it has returned no request is sent to any other.
    fn serve(&self, addresses: &[SocketAddr]);

    /// Requests in flight at this address, listed or not.
    fn in_flight(&self, address: SocketAddr) -> u64;
}
