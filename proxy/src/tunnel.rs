//! Bytes both ways after a 101, until either side is done or quiet for too long.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cluster::InFlight;
use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::io::Io;
use crate::upstream::Switched;
use crate::worker::Worker;

/// How long the endpoint may take to hand its socket over after its 101.
const SWITCH: Duration = Duration::from_secs(5);
/// Bytes on their way in each direction.
const BUFFER: usize = 16 << 10;

/// An endpoint that agreed to switch protocols.
pub struct Tunnel {
    switched: oneshot::Receiver<Switched>,
    _in_flight: Option<InFlight>,
    quiet: Option<Duration>,
    exchange: Option<Exchange>,
}

impl Tunnel {
    /// `quiet`: longest time without a byte in either direction.
    pub fn new(
        switched: oneshot::Receiver<Switched>,
        in_flight: Option<InFlight>,
        quiet: Option<Duration>,
    ) -> Self {
        Self {
            switched,
            _in_flight: in_flight,
            quiet,
            exchange: None,
        }
    }

    /// The exchange ends with the tunnel.
    pub fn count(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
    }
}

/// Pumps between a client whose 101 is sent and the endpoint; `early` is what the client sent too soon.
pub async fn run(connection: &Rc<Connection>, mut tunnel: Tunnel, client: Io, early: Bytes) {
    let Ok(Ok((parts, _open))) = tokio::time::timeout(SWITCH, &mut tunnel.switched).await else {
        return;
    };
    let mut upstream = parts.io.into_inner();
    let mut client = client;
    client.unread(early);
    upstream.unread(parts.read_buf);
    let exchange = tunnel.exchange.take();
    let counts = pump(&connection.worker, client, upstream, tunnel.quiet).await;
    if let Some(exchange) = exchange {
        let flow = exchange.flow();
        flow.request_bytes
            .set(flow.request_bytes.get() + counts.to_upstream);
        flow.response_bytes
            .set(flow.response_bytes.get() + counts.to_client);
        flow.touch();
        exchange.finish();
    }
}

/// Bytes that a pump moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// From the client.
    pub to_upstream: u64,
    /// To the client.
    pub to_client: u64,
}

/// Copies both ways, half-closes included, until both sides are done, one fails, nothing moves for `quiet`,
/// or the process ends.
pub async fn pump<A, B>(worker: &Worker, client: A, upstream: B, quiet: Option<Duration>) -> Counts
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let last = Rc::new(Cell::new(Instant::now()));
    let (to_upstream, to_client) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut client = Counted {
        inner: client,
        last: Rc::clone(&last),
        read: Rc::clone(&to_upstream),
    };
    let mut upstream = Counted {
        inner: upstream,
        last: Rc::clone(&last),
        read: Rc::clone(&to_client),
    };
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER);
    tokio::select! {
        _ = copied => {}
        () = silence(&last, quiet) => {}
        () = worker.ended.notified() => {}
    }
    Counts {
        to_upstream: to_upstream.get(),
        to_client: to_client.get(),
    }
}

/// Resolves when nothing moved for `quiet`.
async fn silence(last: &Cell<Instant>, quiet: Option<Duration>) {
    let Some(quiet) = quiet else {
        return std::future::pending().await;
    };
    loop {
        let due = last.get() + quiet;
        if Instant::now() >= due {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

/// Notes what is read and when.
struct Counted<T> {
    inner: T,
    last: Rc<Cell<Instant>>,
    read: Rc<Cell<u64>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.last.set(Instant::now());
            self.read.set(self.read.get() + bytes as u64);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(1..)) = polled {
            self.last.set(Instant::now());
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
