//! Further attempts: what is tried again, with what, how often, and what never is.

mod answers;
mod bodies;
mod bounds;
mod refusals;
mod rooms;
mod soak;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::proxy::config;
use crate::support::upstream::{Peer, Upstream};
use crate::support::{Proxy, respond};

/// A configuration with one route to a cluster of these endpoints.
///
/// * `route`: its keys, `retry` among them
/// * `cluster`: further keys of the cluster, each with its comma
fn retrying(endpoints: &[SocketAddr], route: &str, cluster: &str) -> String {
    let list: Vec<_> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    config(&format!(
        "routes: [{{name: r, cluster: a, {route}}}]\nclusters: [{{name: a, {cluster} endpoints: [{}]}}]\n",
        list.join(", ")
    ))
}

fn retries(proxy: &Proxy, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    proxy.metric("forebay_retries_total", &["cluster=\"a\"", &reason])
}

/// An endpoint that counts requests and answers the nth, from 1 on, as told, keeping connections open.
async fn counting<A>(answer: A) -> (Upstream, Arc<AtomicUsize>)
where
    A: Fn(usize) -> Vec<u8> + Clone + Send + Sync + 'static,
{
    let count: Arc<AtomicUsize> = Arc::default();
    let seen = Arc::clone(&count);
    let upstream = Upstream::start(move |mut peer: Peer| {
        let (seen, answer) = (Arc::clone(&seen), answer.clone());
        async move {
            while peer.request().await.is_some() {
                let nth = seen.fetch_add(1, Ordering::SeqCst) + 1;
                if !peer.write(answer(nth)).await {
                    break;
                }
            }
        }
    })
    .await;
    (upstream, count)
}

/// As [`counting`], with the same answer always.
async fn always(status: u16, body: &'static str) -> (Upstream, Arc<AtomicUsize>) {
    counting(move |_| respond(status, body)).await
}

fn seen(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
