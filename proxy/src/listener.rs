//! Bound sockets and what happens from accept to the first request: PROXY header, TLS, protocol.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use forebay_config::ListenerProtocol;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::connection::{Cause, Connection, LINGER, NewConnection};
use crate::drive::{Drive, Ended, StreamExecutor};
use crate::establish::{Established, establish};
use crate::gateway::Gateway;
use crate::io::Io;
use crate::metrics::ListenerCells;
use crate::snapshot::ListenerView;
use crate::sniff::Protocol;
use crate::worker::{Accepted, Order, Stage, Worker};
use crate::{tcp, tunnel};

/// Bytes hyper reads ahead, and holds back for a slow reader, on an HTTP/1.1 connection.
const BUFFER: usize = 128 << 10;
/// Upload bytes on their way in one HTTP/2 stream.
const STREAM_WINDOW: u32 = 128 << 10;
/// The same for a connection: wide enough that dozens of uploads that wait do not hold up the others.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How long an accept loop waits when the process has no file descriptor left and no connection closes.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(250);
/// Bytes of an HTTP/2 request's fields at most, whatever is configured: each of many streams may send as many at once.
const HTTP2_HEAD: u32 = 16 << 10;

/// A bound address, shared by the sockets of all workers. Survives reloads as long as its name and address stay.
pub struct ListenerHandle {
    /// The listener's name.
    pub name: String,
    /// Where it is really bound.
    pub address: SocketAddr,
    /// Counts its connections and their failures.
    pub cells: Arc<ListenerCells>,
    stage: AtomicU8,
    open: AtomicU32,
    /// Accept loops that run.
    accepting: AtomicU32,
    cap: AtomicU32,
    room: Notify,
    stop: watch::Sender<bool>,
}

impl ListenerHandle {
    /// A listener that is about to be served.
    pub fn new(name: &str, address: SocketAddr, cells: Arc<ListenerCells>, cap: u32) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            address,
            cells,
            stage: AtomicU8::new(Stage::Running as u8),
            open: AtomicU32::new(0),
            accepting: AtomicU32::new(0),
            cap: AtomicU32::new(cap),
            room: Notify::new(),
            stop: watch::Sender::new(false),
        })
    }

    /// The place among `listeners` of the one this socket belongs to: by its name, else by its address, when it was
    /// renamed.
    pub fn position(&self, listeners: &[Arc<ListenerView>]) -> Option<usize> {
        let named = listeners.iter().position(|l| l.config.name == self.name);
        named.or_else(|| {
            listeners
                .iter()
                .position(|l| l.config.address == self.address)
        })
    }

    /// How far the listener's own stop has come.
    pub fn stage(&self) -> Stage {
        Stage::from_u8(self.stage.load(Ordering::Relaxed))
    }

    /// Its connections finish what they have; follow with [`Order::Wake`].
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
        if stage >= Stage::Closing {
            self.stop.send_replace(true);
        }
    }

    /// Changes how many connections may be open.
    pub fn set_cap(&self, cap: u32) {
        self.cap.store(cap, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// Whether any worker still accepts.
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Relaxed) > 0
    }

    fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.cap.load(Ordering::Relaxed)
    }

    /// Waits until one more connection may be open.
    async fn has_room(&self) {
        while self.is_full() {
            let room = self.room.notified(); // from here on no close is missed
            if self.is_full() {
                room.await;
            }
        }
    }
}

/// One open connection in every count it belongs to.
pub struct Open {
    handle: Arc<ListenerHandle>,
    shared: Arc<crate::worker::Shared>,
    worker: usize,
}

impl Open {
    fn new(
        handle: &Arc<ListenerHandle>,
        shared: &Arc<crate::worker::Shared>,
        worker: usize,
    ) -> Self {
        handle.open.fetch_add(1, Ordering::Relaxed);
        handle.cells.opened();
        shared.loads[worker].fetch_add(1, Ordering::Relaxed);
        Self {
            handle: Arc::clone(handle),
            shared: Arc::clone(shared),
            worker,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.handle.open.fetch_sub(1, Ordering::Relaxed);
        self.handle.cells.closed();
        self.shared.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
        self.handle.room.notify_waiters();
        self.shared.closed.notify_one();
    }
}

/// Accepts from `socket` until the listener or the process stops.
pub fn accept_from(
    worker: &Rc<Worker>,
    handle: Arc<ListenerHandle>,
    socket: std::net::TcpListener,
) {
    let worker = Rc::clone(worker);
    match TcpListener::from_std(socket) {
        Ok(listener) => {
            handle.accepting.fetch_add(1, Ordering::Relaxed);
            tokio::task::spawn_local(accept_loop(worker, handle, listener));
        }
        Err(error) => tracing::error!(%error, listener = handle.name, "cannot accept"),
    }
}

async fn accept_loop(worker: Rc<Worker>, handle: Arc<ListenerHandle>, listener: TcpListener) {
    let mut stop = handle.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&handle, &listener) => accepted,
        };
        if let Some((socket, peer)) = accepted {
            // The other workers may have filled the listener while this one waited.
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = handle.has_room() => {}
            }
            place(&worker, &handle, socket, peer);
        }
    }
    // Whoever the kernel has already accepted for this socket is served: closing it now would reset them.
    while let Some(Ok((socket, peer))) = now_or_never(listener.accept()) {
        place(&worker, &handle, socket, peer);
    }
    handle.accepting.fetch_sub(1, Ordering::Relaxed);
    worker.shared.closed.notify_one();
}

fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

async fn accept(
    handle: &ListenerHandle,
    listener: &TcpListener,
) -> Option<(TcpStream, SocketAddr)> {
    handle.has_room().await;
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            let exhausted = [
                libc_errno::EMFILE,
                libc_errno::ENFILE,
                libc_errno::ENOBUFS,
                libc_errno::ENOMEM,
            ];
            if error
                .raw_os_error()
                .is_some_and(|code| exhausted.contains(&code))
            {
                handle.cells.failed("descriptors");
                let _ = tokio::time::timeout(DESCRIPTOR_PAUSE, handle.room.notified()).await;
            } else {
                handle.cells.failed("accept");
            }
            None
        }
    }
}

/// Error numbers that mean the process or the machine is out of something.
mod libc_errno {
    use rustix::io::Errno;
    pub(super) const EMFILE: i32 = Errno::MFILE.raw_os_error();
    pub(super) const ENFILE: i32 = Errno::NFILE.raw_os_error();
    pub(super) const ENOBUFS: i32 = Errno::NOBUFS.raw_os_error();
    pub(super) const ENOMEM: i32 = Errno::NOMEM.raw_os_error();
}

/// The kernel's hashing splits few connections badly: they are handed to the least loaded worker.
fn place(worker: &Rc<Worker>, handle: &Arc<ListenerHandle>, socket: TcpStream, peer: SocketAddr) {
    let target = worker.shared.least_loaded(worker.index);
    let open = Open::new(handle, &worker.shared, target);
    if target == worker.index {
        return begin(worker, socket, peer, open);
    }
    match socket.into_std() {
        Ok(socket) => {
            let _ =
                worker.shared.mailboxes[target].send(Order::Adopt(Accepted { socket, peer, open }));
        }
        Err(error) => tracing::warn!(%error, "a connection could not be handed over"),
    }
}

/// Serves a connection on this worker.
pub fn begin(worker: &Rc<Worker>, socket: TcpStream, peer: SocketAddr, open: Open) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let handle = Arc::clone(&open.handle);
        serve(worker, &handle, socket, peer).await;
        drop(open);
    });
}

/// Resolves when connections that have nothing to do are to close. Must not move once it was polled.
struct Farewell<'a> {
    worker: &'a Worker,
    handle: &'a ListenerHandle,
    registered: bool,
}

impl Farewell<'_> {
    /// Tells this connection from the worker's others, like those of [`Connection`].
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Future for Farewell<'_> {
    type Output = ();

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        if self.worker.stage().max(self.handle.stage()) >= Stage::Idle {
            return std::task::Poll::Ready(());
        }
        if !std::mem::replace(&mut self.registered, true) {
            self.worker.register(self.key(), cx.waker());
        }
        std::task::Poll::Pending
    }
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        if self.registered {
            self.worker.forget(self.key());
        }
    }
}

async fn serve(
    worker: Rc<Worker>,
    handle: &Arc<ListenerHandle>,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let since = Instant::now();
    let snapshot = worker.snapshot();
    let listeners = &snapshot.shared.listeners;
    let Some(view) = handle
        .position(listeners)
        .map(|index| Arc::clone(&listeners[index]))
    else {
        return; // removed while the connection waited
    };
    let local = match handle.address {
        bound if !bound.ip().is_unspecified() => bound,
        bound => socket.local_addr().unwrap_or(bound),
    };
    let establishing = tokio::time::timeout(view.header_timeout(), establish(&view, socket, peer));
    let established = tokio::select! {
        biased;
        established = establishing => established,
        // Who has asked for nothing a moment after the stop began is idle.
        () = (Farewell { worker: &worker, handle, registered: false }) => return,
    };
    let established = match established {
        Ok(Ok(established)) => established,
        Ok(Err(reason)) => return handle.cells.failed(reason),
        Err(_) => return handle.cells.failed(Cause::HeaderTimeout.label()),
    };
    let Established {
        stream,
        peer,
        tls,
        protocol,
        prefix,
    } = established;
    if view.config.protocol == ListenerProtocol::Tcp {
        return tcp::serve(&worker, snapshot, &view, stream, peer).await;
    }
    drop(snapshot);
    let (io, wire) = Io::new(stream, prefix);
    let connection = Connection::new(NewConnection {
        worker,
        listener: Arc::clone(handle),
        peer,
        local,
        tls,
        http2: protocol == Protocol::Http2,
        wire,
        limits: view.config.limits.clone(),
        since,
    });
    drop(view);
    match protocol {
        Protocol::Http2 => serve_http2(connection, io).await,
        Protocol::Http1 => serve_http1(connection, io).await,
        Protocol::Tls | Protocol::Undecided => handle.cells.failed("tls_on_plain"),
    }
}

async fn serve_http1(connection: Rc<Connection>, io: Io) {
    let limits = &connection.limits;
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .max_buf_size(BUFFER.max(limits.header_bytes as usize + 1024))
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes as usize);
    if limits.headers != 100 {
        builder.max_headers(limits.headers as usize);
    }
    let gateway = Gateway::new(&connection);
    let mut machine = builder.serve_connection(TokioIo::new(io), gateway.service());
    let ended = Drive::new(&mut machine, &connection).await;
    // Taken however it ended: it holds the connection that holds it.
    let upgrade = connection.take_tunnel();
    let wire = Rc::clone(&connection.wire);
    match ended {
        Ended::Done(result) => {
            if let (Ok(()), Some(tunnel)) = (&result, upgrade) {
                let parts = machine.into_parts();
                return tunnel::run(&connection, tunnel, parts.io.into_inner(), parts.read_buf)
                    .await;
            }
            note_hyper(&connection, result.as_ref().err());
            if result.is_ok() && wire.stalled().is_some() {
                return wire.reset_on_close(); // bytes of the answer are still on our side
            }
            if result.is_err() && connection.is_close_delimited() {
                return wire.reset_on_close();
            }
            if result.is_err() {
                wire.shutdown_write(); // otherwise hyper did
            }
            if !wire.is_finished() {
                linger(machine.into_parts().io.into_inner()).await;
            }
        }
        Ended::Closed(cause) => close(&connection, cause),
        Ended::Left => connection.listener.cells.failed("client_left"),
    }
}

/// Counts what hyper answered or closed by itself.
fn note_hyper(connection: &Connection, error: Option<&hyper::Error>) {
    let Some(error) = error else { return };
    let reason = if error.is_parse_too_large() {
        "head_too_large"
    } else if error.is_parse() {
        "bad_request"
    } else if error.is_incomplete_message() {
        "closed_early"
    } else {
        "io"
    };
    connection.listener.cells.failed(reason);
}

fn close(connection: &Connection, cause: Cause) {
    connection.listener.cells.failed(cause.label());
    match cause {
        Cause::HeaderTimeout
            if !connection.http2
                && connection.wire.read.get() > 0
                && connection.wire.stalled().is_none() =>
        {
            connection.wire.last_words(
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            );
        }
        // A cut answer must not look complete, even when only the close of the connection ends it.
        Cause::Cut | Cause::WriteStall => connection.wire.reset_on_close(),
        Cause::HeaderTimeout | Cause::Idle => {}
    }
}

/// The client may still be sending: a close now would reset the connection and eat the answer on its way.
async fn linger(mut io: Io) {
    let (time, bytes) = LINGER;
    let mut discarded = 0;
    let mut buffer = [0u8; 4 << 10];
    let _ = tokio::time::timeout(time, async {
        while discarded < bytes {
            match io.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => discarded += n,
            }
        }
    })
    .await;
}

async fn serve_http2(connection: Rc<Connection>, io: Io) {
    let mut builder =
        hyper::server::conn::http2::Builder::new(StreamExecutor(Rc::clone(&connection)));
    builder
        .max_concurrent_streams(connection.limits.h2_streams)
        .max_header_list_size(connection.limits.header_bytes.min(HTTP2_HEAD))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(64 << 10);
    let gateway = Gateway::new(&connection);
    let mut machine = builder.serve_connection(TokioIo::new(io), gateway.service());
    match Drive::new(&mut machine, &connection).await {
        Ended::Done(result) => note_hyper(&connection, result.as_ref().err()),
        Ended::Closed(cause) => close(&connection, cause),
        Ended::Left => connection.listener.cells.failed("client_left"),
    }
}
