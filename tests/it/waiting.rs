//! Clusters with a waiting room: nobody is lost, nobody overtakes, nothing is exceeded, and everything is given back.

mod bounds;
mod cold;
mod connections;
mod crowds;
mod demand;
mod departures;
mod heartbeat;
mod leaving;
mod page;
mod ports;
mod probes;
mod reloads;
mod sidecars;
mod signals;
mod slots;
mod tcp;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::support::client::Answer;
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, proxy, respond, until};

/// One route to one cluster with these endpoints and keys.
fn leading_to(endpoints: &[SocketAddr], keys: &str) -> String {
    with_route(endpoints, "", keys)
}

/// The same with keys of the route.
fn with_route(endpoints: &[SocketAddr], route: &str, keys: &str) -> String {
    let list: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    let list = list.join(", ");
    proxy::config(&format!(
        "routes: [{{name: r, cluster: a{route}}}]\n\
         clusters: [{{name: a, endpoints: [{list}], {keys}}}]\n"
    ))
}

/// What a [`Server`] saw.
#[derive(Default)]
struct Seen {
    now: AtomicUsize,
    most: AtomicUsize,
    /// Path of each request, in the order they came.
    paths: Mutex<Vec<String>>,
    /// Requests whose body was not what its client sent.
    wrong: AtomicUsize,
}

impl Seen {
    fn begin(self: &Arc<Self>, path: &str) -> Inside {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.paths.lock().unwrap().push(path.to_owned());
        Inside(Arc::clone(self), now)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn count(&self) -> usize {
        self.paths.lock().unwrap().len()
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

/// A request that is being served.
struct Inside(Arc<Seen>, usize);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An endpoint that counts who is there at once and answers with the path, each request for one permit.
struct Server {
    upstream: Upstream,
    seen: Arc<Seen>,
    permits: Arc<Semaphore>,
}

/// More than any test asks for.
const ALL: usize = 1 << 20;

impl Server {
    async fn start(permits: usize) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), permits)
    }

    fn on(listener: TcpListener, permits: usize) -> Self {
        let seen: Arc<Seen> = Arc::default();
        let permits = Arc::new(Semaphore::new(permits));
        let (all, gate) = (Arc::clone(&seen), Arc::clone(&permits));
        let upstream = Upstream::on(listener, move |peer| {
            serve(peer, Arc::clone(&all), Arc::clone(&gate))
        });
        Self {
            upstream,
            seen,
            permits,
        }
    }

    fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    async fn holds(&self, requests: usize) {
        let holds = async || self.seen.now.load(Ordering::SeqCst) == requests;
        until(&format!("{requests} requests are served"), holds).await;
    }
}

/// `/stream…` sends a first piece at once and the rest for its permit; a body must be the path over and over.
async fn serve(mut peer: Peer, seen: Arc<Seen>, permits: Arc<Semaphore>) {
    while let Some((head, body)) = peer.request().await {
        let path = head.split(' ').nth(1).unwrap();
        let inside = seen.begin(path);
        if !body
            .iter()
            .eq(path.as_bytes().iter().cycle().take(body.len()))
        {
            seen.wrong.fetch_add(1, Ordering::SeqCst);
        }
        let streams = path.starts_with("/stream");
        let first = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        if streams && !peer.write(first).await {
            return;
        }
        permits.acquire().await.unwrap().forget();
        drop(inside);
        let sent = match streams {
            true => peer.write("4\r\nlast\r\n0\r\n\r\n").await,
            false => peer.write(respond(200, path)).await,
        };
        if !sent {
            return;
        }
    }
}

/// An address where connections are refused until somebody listens there.
fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A GET on a connection of its own.
fn get(at: SocketAddr, path: impl Into<String>) -> JoinHandle<Answer> {
    let path = path.into();
    tokio::spawn(async move { Client::get(at, &path).await })
}

/// A POST whose body is its path over and over.
fn post(path: &str, length: usize) -> Vec<u8> {
    let body = path.as_bytes().iter().cycle().take(length);
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    request.extend(body);
    request
}

/// An answer that came from the server.
fn assert_served(answer: &Answer, path: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text(), path);
}

fn waiting(proxy: &Proxy) -> f64 {
    proxy.metric("forebay_waiting", &["cluster=\"a\""])
}

fn held(proxy: &Proxy) -> f64 {
    proxy.metric("forebay_waiting_bytes", &["cluster=\"a\""])
}

async fn waits(proxy: &Proxy, requests: usize) {
    let wanted = async || waiting(proxy) == requests as f64;
    until(&format!("{requests} requests wait"), wanted).await;
}

/// Nobody waits, nothing is held and no slot is in use.
async fn is_empty(proxy: &Proxy) {
    until("the room is empty", async || {
        let endpoints = proxy.metric("forebay_endpoint_in_flight", &["cluster=\"a\""]);
        waiting(proxy) == 0.0 && held(proxy) == 0.0 && endpoints == 0.0
    })
    .await;
    let snapshot = proxy.control().snapshot();
    let demand = snapshot.clusters["a"].state.room().demand();
    assert_eq!((demand.in_flight, demand.waiting), (0, 0));
}

/// Short, where a test must give something time to happen that should not.
const MOMENT: Duration = Duration::from_millis(100);
