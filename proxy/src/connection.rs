//! One client's connection: its phase, its one timer, and the hyper machinery between socket and gateway.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::io::Wire;
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
        let index = self.listener.position(&shared.listeners)?;
        self.view.set((shared.generation, index));
        shared.listeners.get(index)
    }

    /// A request's head is complete.
    pub fn request_began(&self) -> Rc<Flow> {
        let flow = Rc::new(Flow::new(
            Instant::now(),
            self.limits.write_stall.filter(|_| self.http2),
        ));
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
    pub(crate) fn key(&self) -> usize {
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
    pub(crate) fn take_flow(&self) -> Option<Rc<Flow>> {
        self.flow.borrow_mut().take()
    }

    /// When this connection has to be looked at next.
    pub(crate) fn deadline(&self, stalled: Option<(Instant, u64)>) -> Option<Instant> {
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
            && self.wire.stalled().is_none()
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
    pub(crate) fn expire(&self, now: Instant) -> Option<Cause> {
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
    pub(crate) fn is_cut(&self) -> bool {
        self.flow
            .borrow()
            .as_ref()
            .is_some_and(|flow| flow.must_be_cut())
    }

    /// True while a request waits for its answer and nobody would notice the client leaving.
    pub(crate) fn needs_watch(&self) -> bool {
        self.wire.unwatched()
            && self
                .flow
                .borrow()
                .as_ref()
                .is_some_and(|flow| flow.failure().is_none())
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

/// How long a connection with unread bytes is listened to after its last answer, and how many bytes.
pub const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 << 10);
