//! What the tests drive the proxy with: a [`Proxy`] on ports of the kernel's choice, [`Upstream`]s that record what
//! they got byte for byte and answer as told, and a raw client.

pub mod client;
pub mod h2;
pub mod proxy;
pub mod tls;
pub mod upstream;

pub use client::Client;
pub use proxy::Proxy;
pub use upstream::{Upstream, respond};

use std::time::Duration;

/// Long enough for anything that should happen, short enough that a hang ends the test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls a condition until it holds.
///
/// # Panics
///
/// When it does not hold within [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never happened: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
