//! Serves a router so that no client can hang it: few connections, short clocks, small buffers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::stall::Stalling;
use crate::tls::{ServerTlsState, client_is_current};

/// Open connections of one listener; further ones wait in the kernel.
const CONNECTIONS: usize = 256;
/// Open connections of one address: one peer must not be able to keep probes and operators out.
const CONNECTIONS_OF_ONE: usize = 64;
/// TLS handshake; head of a request, or quiet between two.
const HEAD: Duration = Duration::from_secs(10);
/// A reader must take 16 KiB, or all that is pending, in this time.
const STALL: Duration = Duration::from_secs(10);
/// Largest head of a request, and what is held of an answer that is not read, in bytes.
const BUFFER: usize = 64 << 10;
/// How long answers may take to be written once serving ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// The pause after an accept that failed because something ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<ServerTlsState>>) {
    serve_until(listener, router, tls, std::future::pending()).await;
}

/// Serves until `stop` completes, then takes no more connections, and returns when the answers under way are
/// written, at the latest a second later.
///
/// * `tls`: offers no ALPN but HTTP/1.1, which is all that is spoken here
pub async fn serve_until(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerTlsState>>,
    stop: impl Future<Output = ()> + Send,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Peers::default();
    let closing = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (socket, peer, place) = accept(&listener, &places) => {
                let Some(seat) = peers.seat(peer.ip()) else { continue };
                let (router, tls, closing) = (router.clone(), tls.clone(), closing.subscribe());
                connections.spawn(async move {
                    welcome(socket, router, tls, closing).await;
                    drop((seat, place));
                });
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, all).await;
}

/// Open connections by address.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Peers {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection of `peer`, unless it has all it may have.
    fn seat(&self, peer: IpAddr) -> Option<Seat> {
        let peer = peer.to_canonical();
        let mut open = self.open();
        let count = open.entry(peer).or_default();
        if *count >= CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Seat {
            peers: self.clone(),
            peer,
        })
    }
}

/// One connection of a peer.
struct Seat {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let place = Arc::clone(places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((socket, peer)) => return (socket, peer, place),
            Err(error) => {
                tracing::debug!(%error, "the admin listener cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn welcome(
    socket: TcpStream,
    router: Router,
    tls: Option<Arc<ServerTlsState>>,
    closing: watch::Receiver<bool>,
) {
    let _ = socket.set_nodelay(true); // a hint: without it answers are only later
    let Some(tls) = tls else {
        return converse(socket, router, closing).await;
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
    match tokio::time::timeout(HEAD, acceptor.accept(socket)).await {
        Ok(Ok(stream)) if client_is_current(stream.get_ref().1, SystemTime::now()) => {
            converse(stream, router, closing).await;
        }
        Ok(Ok(_)) => tracing::debug!("a client certificate of the admin API has expired"),
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the admin API failed"),
        Err(_) => tracing::debug!("a TLS handshake with the admin API took too long"),
    }
}

async fn converse<S>(stream: S, router: Router, mut closing: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let io = TokioIo::new(Box::pin(Stalling::new(stream, STALL)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(closing.wait_for(|closing| *closing).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the admin API failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn an_answer_under_way_is_written_before_serving_ends() {
        let (listener, address) = bind().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let (entered, in_handler) = oneshot::channel::<()>();
        let (go_on, told) = oneshot::channel::<()>();
        let hooks = Arc::new(Mutex::new(Some((entered, told))));
        let handler = move || async move {
            let (entered, told) = hooks.lock().unwrap().take().unwrap();
            entered.send(()).unwrap();
            told.await.unwrap();
            "done"
        };
        let router = Router::new().route("/", get(handler));
        let serving = tokio::spawn(serve_until(listener, router, None, async {
            drop(stopped.await)
        }));
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        in_handler.await.unwrap();
        stop.send(()).unwrap();
        go_on.send(()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("done"), "{text}");
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn one_address_cannot_take_every_place() {
        let peers = Peers::default();
        let greedy = IpAddr::from([10, 0, 0, 1]);
        let seats: Vec<_> = (0..CONNECTIONS_OF_ONE)
            .map(|_| peers.seat(greedy).unwrap())
            .collect();
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(peers.seat(mapped).is_none());
        assert!(peers.seat(IpAddr::from([10, 0, 0, 2])).is_some());
        drop(seats);
        assert!(peers.open().is_empty());
        assert!(peers.seat(greedy).is_some());
    }
}
