//! One client's connection: its phase, its one timer, and the hyper machinery between socket and gateway.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::{Flow, LazyTimer};
use crate::io::{Departure, Wire};
use crate::listener::ListenerHandle;
use crate::snapshot::{ListenerView, WorkerSnapshot};
use crate::tls::Loaded;
use crate::tunnel::Tunnel;
use crate::worker::{Stage, Worker};

/// Bytes a slow reader must take in each `write_stall` period.
const STALL_BYTES: u64 = 16 << 10;

/// After GOAWAY, how long an HTTP/2 connection without streams may still take for its last bytes.
const GOODBYE: Duration = Duration::from_secs(5);

/// What every request of a connection shares.
pub struct Connection {
    /// The thread it lives on.
    pub worker: Rc<Worker>,
    /// The bound socket it came from.
    pub listener: Arc<ListenerHandle>,
    /// The other end, or what the PROXY header says it is.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's address as text.
    pub peer_value: HeaderValue,
    /// TLS: the certificates it was opened with, and the name asked for.
    pub tls: Option<(Arc<Loaded>, Option<String>)>,
    /// The protocol.
    pub http2: bool,
    /// The socket.
    pub wire: Rc<Wire>,
    /// Deadlines, as they were when the connection was accepted.
    pub limits: forebay_config::Limits,
    /// HTTP/1.1: the request in progress. HTTP/2: the request whose task is about to be spawned.
    flow: RefCell<Option<Rc<Flow>>>,
    /// Requests in progress.
    active: Cell<u32>,
    /// When the connection, or its last answer, was complete.
    quiet_since: Cell<Instant>,
    /// Bytes read when the connection became quiet.
    quiet_read: Cell<u64>,
    /// When the first byte of a head came.
    head_since: Cell<Option<Instant>>,
    /// Requests so far.
    served: Cell<u64>,
    /// Generation and index of the listener in it.
    view: Cell<(u64, usize)>,
    /// A tunnel waits to take the socket over.
    tunnel: RefCell<Option<Tunnel>>,
    /// The last host as it was written, and its canonical form.
    host: RefCell<Option<(Box<str>, Rc<str>)>>,
    /// Only the close of the connection ends the present answer.
    close_delimited: Cell<bool>,
}

/// Why a connection ends by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No complete head in time.
    HeaderTimeout,
    /// Nothing to do for too long.
    Idle,
    /// The client takes too little of what is sent.
    WriteStall,
    /// A request's clock ran out after its answer began.
    Cut,
}

impl Cause {
    /// Label of `connection_errors_total`.
    pub fn label(self) -> &'static str {
        match self {
            Self::HeaderTimeout => "header_timeout",
            Self::Idle => "idle",
            Self::WriteStall => "write_stall",
            Self::Cut => "cut",
        }
    }
}

impl Connection {
    /// A connection that has just begun to speak.
    pub fn new(parts: NewConnection) -> Rc<Self> {
        let peer_value = HeaderValue::from_str(&parts.peer.ip().to_canonical().to_string())
            .expect("an address is a legal header value");
        Rc::new(Self {
            worker: parts.worker,
            listener: parts.listener,
            peer: parts.peer,
            local: parts.local,
            peer_value,
            tls: parts.tls,
            http2: parts.http2,
            quiet_read: Cell::new(0),
            wire: parts.wire,
            limits: parts.limits,
            flow: RefCell::default(),
            active: Cell::new(0),
            quiet_since: Cell::new(parts.since),
            head_since: Cell::new(Some(parts.since)),
            served: Cell::new(0),
            view: Cell::new((0, 0)),
            tunnel: RefCell::default(),
            host: RefCell::default(),
            close_delimited: Cell::new(false),
        })
    }

    /// This listener as the given snapshot sees it; `None`: it is gone.
    pub fn view<'s>(&self, snapshot: &'s WorkerSnapshot) -> Option<&'s Arc<ListenerView>> {
        let shared = &snapshot.shared;
        let (generation, index) = self.view.get();
        if generation == shared.generation {
            return shared.listeners.get(index);
        }
        let index = shared
            .listeners
            .iter()
            .position(|l| l.config.name == self.listener.name)?;
        self.view.set((shared.generation, index));
        shared.listeners.get(index)
    }

    /// A request's head is complete.
    pub fn request_began(&self) -> Rc<Flow> {
        let flow = Rc::new(Flow::new(Instant::now()));
        self.active.set(self.active.get() + 1);
        self.served.set(self.served.get() + 1);
        self.head_since.set(None);
        *self.flow.borrow_mut() = Some(Rc::clone(&flow));
        flow
    }

    /// The last byte of an answer was handed over, or the request was aborted.
    pub fn request_ended(&self, now: Instant) {
        self.active.set(self.active.get().saturating_sub(1));
        self.quiet_since.set(now);
        self.quiet_read.set(self.wire.read.get());
        if !self.http2 {
            *self.flow.borrow_mut() = None;
        }
    }

    /// Tells this connection from the worker's others while it lives.
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Requests in progress.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// The peer's address, IPv4 as IPv4.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// The canonical form of `written`, which most connections send with every request again.
    ///
    /// # Errors
    ///
    /// What `canonical` says.
    pub fn canonical_host<E>(
        &self,
        written: &str,
        canonical: impl FnOnce() -> Result<Rc<str>, E>,
    ) -> Result<Rc<str>, E> {
        if let Some((last, host)) = &*self.host.borrow()
            && **last == *written
        {
            return Ok(Rc::clone(host));
        }
        let host = canonical()?;
        *self.host.borrow_mut() = Some((written.into(), Rc::clone(&host)));
        Ok(host)
    }

    /// Says whether only the close of the connection ends the present answer.
    pub fn set_close_delimited(&self, only_close: bool) {
        self.close_delimited.set(only_close);
    }

    /// Whether only the close of the connection ends the present answer.
    pub fn is_close_delimited(&self) -> bool {
        self.close_delimited.get()
    }

    /// Once the 101 is sent, the socket belongs to `tunnel`.
    pub fn switch_to(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(tunnel);
    }

    /// The exchange lasts as long as the tunnel.
    pub fn tunnel_counts(&self, exchange: Exchange) {
        if let Some(tunnel) = &mut *self.tunnel.borrow_mut() {
            tunnel.count(exchange);
        }
    }

    /// The tunnel that takes the socket over.
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.borrow_mut().take()
    }

    /// How far the stop of the process, or of this listener, has come.
    pub fn stage(&self) -> Stage {
        self.worker.stage().max(self.listener.stage())
    }

    /// For the HTTP/2 stream task that is spawned right after its request began.
    fn take_flow(&self) -> Option<Rc<Flow>> {
        self.flow.borrow_mut().take()
    }

    /// When this connection has to be looked at next.
    fn deadline(&self, stalled: Option<(Instant, u64)>) -> Option<Instant> {
        let stall = match (stalled, self.limits.write_stall) {
            (Some((since, _)), Some(limit)) => Some(since + limit),
            _ => None,
        };
        let phase = match &*self.flow.borrow() {
            Some(flow) if flow.failure().is_some() => None,
            Some(flow) => flow.deadline().map(|(at, _)| at),
            None if self.active.get() > 0 => None, // HTTP/2: each stream has its own
            None => self.quiet_deadline(),
        };
        match (stall, phase) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn quiet_deadline(&self) -> Option<Instant> {
        if !self.http2
            && self.head_since.get().is_none()
            && self.wire.read.get() > self.quiet_read.get()
        {
            self.head_since.set(Some(Instant::now()));
        }
        match self.head_since.get() {
            Some(since) => Some(since + self.limits.header_timeout),
            // A client that never answers our last PING would hold the stop of the process up.
            None if self.http2 && self.stage() >= Stage::Idle => {
                Some(self.quiet_since.get() + GOODBYE)
            }
            None => self.limits.idle.map(|idle| self.quiet_since.get() + idle),
        }
    }

    /// A deadline passed: records what follows. `None`: poll on, the request answers for itself.
    fn expire(&self, now: Instant) -> Option<Cause> {
        if let (Some((since, written)), Some(limit)) =
            (self.wire.stalled(), self.limits.write_stall)
            && since + limit <= now
        {
            if self.wire.written.get() - written < STALL_BYTES {
                if let Some(flow) = &*self.flow.borrow() {
                    flow.fail(Reason::ClientClosed);
                }
                return Some(Cause::WriteStall);
            }
            self.wire.stall_again(now);
            return None;
        }
        if let Some(flow) = &*self.flow.borrow() {
            if let Some((at, reason)) = flow.deadline()
                && at <= now
            {
                flow.fail(reason);
            }
            return None;
        }
        match self.head_since.get() {
            Some(_) => Some(Cause::HeaderTimeout),
            None => Some(Cause::Idle),
        }
    }

    /// Whether the request in progress failed after its answer began, so that only the close can say so.
    fn is_cut(&self) -> bool {
        self.flow
            .borrow()
            .as_ref()
            .is_some_and(|flow| flow.failure().is_some() && flow.head().is_some())
    }

    /// True while a request waits for its answer and nobody would notice the client leaving.
    fn needs_watch(&self) -> bool {
        self.wire.unwatched()
            && self
                .flow
                .borrow()
                .as_ref()
                .is_some_and(|flow| flow.head().is_none() && flow.failure().is_none())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.forget(self.key());
    }
}

/// What a [`Connection`] begins with.
#[expect(missing_docs, reason = "the fields are those of `Connection`")]
pub struct NewConnection {
    pub worker: Rc<Worker>,
    pub listener: Arc<ListenerHandle>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub tls: Option<(Arc<Loaded>, Option<String>)>,
    pub http2: bool,
    pub wire: Rc<Wire>,
    pub limits: forebay_config::Limits,
    /// When the first byte, or the socket, came.
    pub since: Instant,
}

/// A hyper connection that can be told to finish.
pub trait Graceful: Future + Unpin {
    /// Finishes what is in progress and takes no more.
    fn finish(&mut self);
}

impl<I, S, B> Graceful for hyper::server::conn::http1::Connection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

impl<I, S, B> Graceful for hyper::server::conn::http2::Connection<I, S, StreamExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future + Unpin,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

/// Drives a connection to its end under its deadlines.
pub struct Drive<'a, C> {
    machine: &'a mut C,
    connection: Rc<Connection>,
    timer: LazyTimer,
    registered: bool,
    finishing: bool,
    departure: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// How a connection ended.
pub enum Ended<T> {
    /// By itself: hyper's result.
    Done(T),
    /// By us.
    Closed(Cause),
    /// The client left before its answer began.
    Left,
}

impl<'a, C: Graceful> Drive<'a, C> {
    /// Drives `machine`, which must not be polled by anybody else.
    pub fn new(machine: &'a mut C, connection: &Rc<Connection>) -> Self {
        Self {
            machine,
            connection: Rc::clone(connection),
            timer: LazyTimer::default(),
            registered: false,
            finishing: false,
            departure: None,
        }
    }

    /// Follows the stop of the process: HTTP/2 says GOAWAY as soon as it begins, HTTP/1.1 has said
    /// `Connection: close` in its answers and ends idle connections a moment later.
    fn follow_stage(&mut self) {
        let stage = self.connection.stage();
        let due = if self.connection.http2 {
            Stage::Closing
        } else {
            Stage::Idle
        };
        if stage >= due && !self.finishing {
            self.finishing = true;
            self.machine.finish();
        }
    }

    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.connection.needs_watch() {
            self.departure = None;
            return Poll::Pending;
        }
        if self.departure.is_none() {
            // Without a descriptor to spare the request's clocks still bound it.
            let Ok(departure) = self.connection.wire.watch() else {
                return Poll::Pending;
            };
            self.departure = Some(Box::pin(wait(departure)));
        }
        self.departure
            .as_mut()
            .map_or(Poll::Pending, |departure| departure.as_mut().poll(cx))
    }
}

async fn wait(departure: Departure) {
    departure.wait().await;
}

impl<C: Graceful> Future for Drive<'_, C> {
    type Output = Ended<C::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.registered {
            this.registered = true;
            this.connection
                .worker
                .register(this.connection.key(), cx.waker());
        }
        if this.connection.stage() == Stage::Ended {
            return Poll::Ready(Ended::Closed(Cause::Cut));
        }
        loop {
            this.follow_stage();
            if let Poll::Ready(done) = Pin::new(&mut *this.machine).poll(cx) {
                return Poll::Ready(Ended::Done(done));
            }
            if this.connection.is_cut() {
                return Poll::Ready(Ended::Closed(Cause::Cut));
            }
            if this.watch(cx).is_ready() {
                return Poll::Ready(Ended::Left);
            }
            let deadline = this.connection.deadline(this.connection.wire.stalled());
            if this.timer.poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            if let Some(cause) = this.connection.expire(Instant::now()) {
                return Poll::Ready(Ended::Closed(cause));
            }
        }
    }
}

/// Spawns HTTP/2 streams on the worker, each under its own request's deadlines.
#[derive(Clone)]
pub struct StreamExecutor(pub Rc<Connection>);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let flow = self.0.take_flow();
        tokio::task::spawn_local(StreamTask {
            future: Some(Box::pin(future)),
            flow,
            timer: LazyTimer::default(),
        });
    }
}

/// One HTTP/2 stream. Dropping the future inside resets the stream.
struct StreamTask<F> {
    future: Option<Pin<Box<F>>>,
    flow: Option<Rc<Flow>>,
    timer: LazyTimer,
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let Some(future) = &mut this.future else {
                return Poll::Ready(());
            };
            if future.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(flow) = &this.flow else {
                return Poll::Pending;
            };
            if flow.failure().is_some() && flow.head().is_some() {
                // The answer has begun and its body did not end the stream by itself: the window is closed.
                this.future = None;
                return Poll::Ready(());
            }
            let due = if flow.failure().is_some() {
                None
            } else {
                flow.deadline()
            };
            if this.timer.poll(cx, due.map(|(at, _)| at)).is_pending() {
                return Poll::Pending;
            }
            if let Some((_, reason)) = due {
                flow.fail(reason);
            }
        }
    }
}

/// How long a connection with unread bytes is listened to after its last answer, and how many bytes.
pub const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 << 10);
