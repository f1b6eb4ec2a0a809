//! Keeps the addresses of one name current.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use super::{Answer, DnsError, Family, Resolver};

/// After a failed lookup the next one waits this long, then twice as long each time, up to the refresh time.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Sorted, without doubles. The last good ones while lookups fail.
    pub addresses: Vec<SocketAddr>,
    /// Whether there has been an answer at all; `addresses` may still be empty, by that answer.
    pub answered: bool,
    /// Why the last lookup failed, if it did.
    pub error: Option<String>,
}

/// Looks `name` up again and again, and sends what changes, until every receiver of `tx` is gone.
///
/// * `refresh`: asks again after this time (± 10 %), sooner when the records' time to live is shorter; at least 100 ms
///
/// A failed lookup keeps the last good addresses and is tried again after 100 ms, doubling up to `refresh`; if only one
/// family failed, the last good addresses of that one are kept. Dropping the future at any point loses nothing.
pub async fn follow(
    resolver: Resolver,
    name: String,
    port: u16,
    refresh: Duration,
    tx: watch::Sender<Resolution>,
) {
    let refresh = refresh.max(FIRST_RETRY);
    let mut retry = FIRST_RETRY;
    loop {
        let result = tokio::select! {
            () = tx.closed() => return,
            result = resolver.resolve(&name, port) => result,
        };
        let wait = match result {
            Ok((answer, addresses, forever)) => {
                publish(&name, &tx, &answer, addresses);
                if forever {
                    return tx.closed().await;
                }
                retry = FIRST_RETRY;
                answer.valid_for.min(refresh)
            }
            Err(error) => {
                fail(&tx, &error);
                let wait = retry.min(refresh);
                retry = retry.saturating_mul(2);
                wait
            }
        };
        let jitter = 0.9 + 0.2 * fastrand::f64();
        tokio::select! {
            () = tx.closed() => return,
            () = tokio::time::sleep(wait.mul_f64(jitter)) => {}
        }
    }
}

fn publish(
    name: &str,
    tx: &watch::Sender<Resolution>,
    answer: &Answer,
    mut addresses: Vec<SocketAddr>,
) {
    tx.send_if_modified(|known| {
        if let Some(failed) = answer.failed {
            let kept = known.addresses.iter().filter(|address| match failed {
                Family::V4 => address.is_ipv4(),
                Family::V6 => address.is_ipv6(),
            });
            addresses.extend(kept);
            addresses.sort_unstable();
            addresses.dedup();
        }
        let new = Resolution {
            addresses,
            answered: true,
            error: None,
        };
        let changed = *known != new;
        if known.addresses != new.addresses {
            tracing::info!(name, addresses = ?new.addresses, "addresses changed");
        }
        *known = new;
        changed
    });
}

fn fail(tx: &watch::Sender<Resolution>, error: &DnsError) {
    let error = error.to_string();
    tx.send_if_modified(|known| {
        let changed = known.error.as_ref() != Some(&error);
        if known.error.is_none() {
            tracing::warn!(%error, kept = known.addresses.len(), "lookup failed");
        }
        known.error = Some(error);
        changed
    });
}
