//! Idle connections of one worker, last in first out.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use forebay_config::Keepalive;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::berth::{Peers, linger};
use super::{ConnectError, Connection, Connector, Switched};
use crate::cluster::{ConnectionCount, Endpoint};
use crate::io::{Io, Wire};
use crate::local::UpstreamExecutor;
use crate::upload::{Hitch, RequestBody, Tether};

/// A connection idle for longer than this is looked at before it is used again, whatever the method.
const LOOK_AFTER: Duration = Duration::from_millis(1);
/// How long an answer's connection may take to become ready for the next request.
const SETTLE: Duration = Duration::from_secs(1);
/// Streams we open at most on one connection.
pub(super) const MAX_STREAMS: usize = 100;

/// An HTTP/1.1 connection and its task.
pub struct Http1 {
    /// Takes one request at a time.
    pub sender: http1::SendRequest<RequestBody>,
    /// The socket.
    pub wire: Rc<Wire>,
    switch: Rc<Cell<Option<oneshot::Sender<Switched>>>>,
    idle_since: Instant,
    /// It may be kept for further requests.
    pub(super) stays: bool,
    /// It has one of the places that its endpoint has for connections.
    bounded: bool,
}

impl Http1 {
    /// Runs the connection on this worker.
    pub fn spawn(
        sender: http1::SendRequest<RequestBody>,
        mut connection: http1::Connection<TokioIo<Io>, RequestBody>,
        wire: Rc<Wire>,
        count: ConnectionCount,
    ) -> Self {
        let switch: Rc<Cell<Option<oneshot::Sender<Switched>>>> = Rc::default();
        let asked = Rc::clone(&switch);
        let bounded = count.is_bounded();
        tokio::task::spawn_local(async move {
            let ended = std::future::poll_fn(|cx| Pin::new(&mut connection).poll(cx)).await;
            match (ended, asked.take()) {
                (Ok(()), Some(asked)) => {
                    let _ = asked.send((connection.into_parts(), count));
                    return;
                }
                (Ok(()), None) if count.is_bounded() => {
                    linger(connection.into_parts().io.into_inner()).await;
                }
                _ => drop(connection),
            }
            drop(count); // only now: the socket is closed
        });
        Self {
            sender,
            wire,
            switch,
            idle_since: Instant::now(),
            stays: true,
            bounded,
        }
    }

    /// Resolves to the socket when the endpoint switches protocols.
    pub fn on_switch(&self) -> oneshot::Receiver<Switched> {
        let (tx, rx) = oneshot::channel();
        self.switch.set(Some(tx));
        rx
    }
}

/// An HTTP/2 connection and its task.
pub struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    /// What spawns what sends uploads looks here.
    hitch: Hitch,
    streams: Cell<usize>,
    /// What the endpoint allows now.
    most: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
}

impl Http2 {
    /// Runs the connection on this worker.
    pub fn spawn(
        sender: http2::SendRequest<RequestBody>,
        mut connection: http2::Connection<TokioIo<Io>, RequestBody, UpstreamExecutor>,
        hitch: Hitch,
        count: ConnectionCount,
    ) -> Rc<Self> {
        let most = Rc::new(Cell::new(connection.current_max_send_streams()));
        let seen = Rc::clone(&most);
        tokio::task::spawn_local(async move {
            let ended = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                seen.set(connection.current_max_send_streams());
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "upstream connection ended");
            }
            drop(count);
        });
        Rc::new(Self {
            sender,
            hitch,
            streams: Cell::new(0),
            most,
            idle_since: Cell::new(Instant::now()),
        })
    }

    fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.streams.get() < MAX_STREAMS.min(self.most.get())
    }
}

/// A place among the streams of an HTTP/2 connection.
pub struct Stream {
    /// Opens the stream.
    pub sender: http2::SendRequest<RequestBody>,
    connection: Rc<Http2>,
    upload: Option<Tether>,
}

impl Stream {
    /// Ties the body of the request that the stream is for.
    pub fn tie(&mut self, body: &mut RequestBody) {
        self.upload = body.tie(&self.connection.hitch);
    }

    /// Nobody wants its answer: what is left of the request is not sent any more, though its window be closed.
    pub fn abort(&self) {
        if let Some(upload) = &self.upload {
            upload.cut();
        }
    }

    fn open(connection: Rc<Http2>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self {
            sender: connection.sender.clone(),
            connection,
            upload: None,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection
            .streams
            .set(self.connection.streams.get() - 1);
        self.connection.idle_since.set(Instant::now());
    }
}

/// One worker's connections to one endpoint.
pub struct Pool {
    /// Whom they lead to.
    pub endpoint: Arc<Endpoint>,
    http1: RefCell<Vec<Http1>>,
    http2: RefCell<Vec<Rc<Http2>>>,
    /// Held while an HTTP/2 connection is made.
    http2_turn: tokio::sync::Mutex<()>,
    /// The last one that could not be made, and when.
    http2_failed: RefCell<Option<(Instant, ConnectError)>>,
    idle: Cell<Duration>,
    max_idle: Cell<usize>,
    /// Open HTTP/1.1 connections to the endpoint, those of other workers included; `None`: any number.
    pub(super) most: Cell<Option<u32>>,
    pub(super) peers: Rc<Peers>,
    /// Set when the pool was replaced or its endpoint went: connections end with their request.
    closed: Cell<bool>,
}

impl Pool {
    pub(super) fn new(endpoint: &Arc<Endpoint>, peers: &Rc<Peers>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            http1: RefCell::default(),
            http2: RefCell::default(),
            http2_turn: tokio::sync::Mutex::default(),
            http2_failed: RefCell::default(),
            idle: Cell::default(),
            max_idle: Cell::default(),
            most: Cell::default(),
            peers: Rc::clone(peers),
            closed: Cell::new(false),
        }
    }

    /// Takes over what the cluster's configuration says.
    pub(super) fn adjust(&self, keepalive: &Keepalive, most: Option<u32>) {
        self.idle.set(keepalive.idle);
        self.max_idle.set(keepalive.max_idle as usize);
        if self.most.replace(most).is_none() && most.is_some() {
            self.http1.borrow_mut().retain(|c| c.bounded);
        }
    }

    /// A connection that can take a request at once, or a new one, and whether it was used before.
    /// `wary`: never risk a stale connection; `now`: the present.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn checkout(
        self: &Rc<Self>,
        connector: &Connector,
        http2: bool,
        wary: bool,
        now: Instant,
    ) -> Result<(Connection, bool), ConnectError> {
        match self.ready(http2, wary, now) {
            Some(connection) => Ok((connection, true)),
            None => self.connect(connector, http2).await,
        }
    }

    /// A connection that can take a request at once. `wary`: never risk a stale one; `now`: the present.
    pub fn ready(&self, http2: bool, wary: bool, now: Instant) -> Option<Connection> {
        if http2 {
            self.open_stream()
        } else {
            self.idle_http1(wary, now).map(Connection::Http1)
        }
    }

    /// A new connection, and whether it was used before: a stream may have become free meanwhile.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn connect(
        self: &Rc<Self>,
        connector: &Connector,
        http2: bool,
    ) -> Result<(Connection, bool), ConnectError> {
        if http2 {
            return Box::pin(self.connect_http2(connector)).await;
        }
        Box::pin(self.connect_http1(connector)).await
    }

    /// A new HTTP/1.1 connection beside all others, for a request without a slot: it waits for none, and is not kept.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn connect_aside(
        &self,
        connector: &Connector,
    ) -> Result<(Connection, bool), ConnectError> {
        let connection = Box::pin(connector.http1(&self.endpoint, None)).await?;
        Ok((Connection::Http1(connection), false))
    }

    /// True when requests without a slot must not use what others may need.
    pub fn is_bounded(&self) -> bool {
        self.most.get().is_some()
    }

    async fn connect_http2(
        self: &Rc<Self>,
        connector: &Connector,
    ) -> Result<(Connection, bool), ConnectError> {
        // One connects, the others wait for its streams, or for its failure.
        let began = Instant::now();
        let _turn = self.http2_turn.lock().await;
        if let Some(stream) = self.open_stream() {
            return Ok((stream, true));
        }
        if let Some((at, error)) = &*self.http2_failed.borrow()
            && *at >= began
        {
            return Err(error.again());
        }
        let connected = connector.http2(self).await;
        let connection = connected.inspect_err(|error| {
            *self.http2_failed.borrow_mut() = Some((Instant::now(), error.again()));
        })?;
        let mut all = self.http2.borrow_mut();
        all.retain(|c| !c.sender.is_closed());
        if !self.closed.get() {
            all.push(Rc::clone(&connection));
        }
        Ok((Connection::Http2(Stream::open(connection)), false))
    }

    fn open_stream(&self) -> Option<Connection> {
        let all = self.http2.borrow();
        let connection = all.iter().find(|c| c.has_room())?;
        Some(Connection::Http2(Stream::open(Rc::clone(connection))))
    }

    pub(super) fn idle_http1(&self, wary: bool, now: Instant) -> Option<Http1> {
        let mut idle = self.http1.borrow_mut();
        while let Some(connection) = idle.pop() {
            let age = now.saturating_duration_since(connection.idle_since);
            if age >= self.idle.get() {
                idle.clear(); // those below are older
                return None;
            }
            let look = wary || age >= LOOK_AFTER;
            if connection.sender.is_ready() && !(look && connection.wire.stale()) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer is whole for the next request.
    pub fn give_back(self: &Rc<Self>, mut connection: Http1, now: Instant) {
        if connection.sender.is_ready() {
            self.keep(connection, now);
        } else if !connection.sender.is_closed() {
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE, connection.sender.ready()).await {
                    pool.keep(connection, Instant::now());
                }
            });
        }
    }

    fn keep(&self, mut connection: Http1, now: Instant) {
        let most = self.most.get();
        let crowded = most.is_some_and(|most| self.endpoint.is_crowded(most));
        let counts = connection.bounded || most.is_none();
        let stays = connection.stays && !self.closed.get() && !crowded && counts;
        let mut idle = self.http1.borrow_mut();
        if stays && idle.len() < self.max_idle.get() {
            connection.idle_since = now;
            idle.push(connection);
        }
    }

    /// Closes the connection that has been idle for longest, of those with a berth; false: there is none.
    pub(super) fn spare(&self) -> bool {
        let mut idle = self.http1.borrow_mut();
        let longest = idle.iter().position(|c| c.bounded);
        longest.map(|index| idle.remove(index)).is_some()
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        let limit = self.idle.get();
        let mut idle = self.http1.borrow_mut();
        let expired = idle.partition_point(|c| now.duration_since(c.idle_since) >= limit);
        idle.drain(..expired);
        idle.retain(|c| !c.sender.is_closed());
        self.http2.borrow_mut().retain(|c| {
            let unused = c.streams.get() == 0 && now.duration_since(c.idle_since.get()) >= limit;
            !unused && !c.sender.is_closed()
        });
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.http1.borrow_mut().clear();
        self.http2.borrow_mut().clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.http1.borrow().is_empty() && self.http2.borrow().is_empty()
    }
}
