//! The bound addresses of all listeners: one socket per worker, kept across reloads.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use socket2::{Domain, Protocol, Socket, Type};

use crate::control::{IDLE_GRACE, ReloadError};
use crate::listener::ListenerHandle;
use crate::snapshot::Snapshot;
use crate::worker::{Order, Shared, Stage};

/// Connections the kernel holds for a worker that is busy.
const BACKLOG: i32 = 4096;
/// Descriptors kept for files, admin and endpoints' bookkeeping.
const RESERVED: u64 = 64;

/// Raises the limit of open files as far as it goes and returns it.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        },
    );
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections a listener may hold: each may need a second one, to an endpoint.
fn connection_cap(configured: u32, descriptors: u64) -> u32 {
    let possible = descriptors.saturating_sub(RESERVED) / 2;
    configured
        .min(u32::try_from(possible).unwrap_or(u32::MAX))
        .max(1)
}

/// The listeners that are being served.
pub struct Sockets {
    served: Vec<Served>,
    descriptors: u64,
}

#[derive(Clone)]
struct Served {
    handle: Arc<ListenerHandle>,
    /// As configured: port 0 stays 0 here.
    asked: SocketAddr,
}

/// Sockets bound for a snapshot that is about to be published.
pub struct Bound {
    next: Vec<Served>,
    fresh: Vec<(Arc<ListenerHandle>, Vec<TcpListener>)>,
    /// Listeners that stay, with how many connections they may hold from now on.
    caps: Vec<(Arc<ListenerHandle>, u32)>,
}

impl Sockets {
    /// No listeners yet.
    pub fn new(descriptors: u64) -> Self {
        Self {
            served: Vec::new(),
            descriptors,
        }
    }

    /// Binds what the snapshot has and is not served yet. Changes nothing that is served.
    ///
    /// # Errors
    ///
    /// An address cannot be bound.
    pub fn bind(&self, snapshot: &Snapshot, shared: &Shared) -> Result<Bound, ReloadError> {
        let mut bound = Bound {
            next: Vec::new(),
            fresh: Vec::new(),
            caps: Vec::new(),
        };
        for view in &snapshot.listeners {
            let config = &view.config;
            let kept = self
                .served
                .iter()
                .find(|s| s.handle.name == config.name && s.asked == config.address);
            let cap = connection_cap(config.limits.connections, self.descriptors);
            if let Some(kept) = kept {
                bound.caps.push((Arc::clone(&kept.handle), cap));
                bound.next.push(kept.clone());
                continue;
            }
            let ours = self.served.iter().any(|s| overlap(s.asked, config.address));
            let failed = |error| ReloadError::Bind {
                name: config.name.clone(),
                address: config.address,
                error,
                position: config.position.clone(),
            };
            let (address, sockets) =
                bind_all(config.address, shared.mailboxes.len(), ours).map_err(failed)?;
            let cells = shared.metrics.listener(&config.name);
            let handle = ListenerHandle::new(&config.name, address, cells, cap);
            bound.next.push(Served {
                handle: Arc::clone(&handle),
                asked: config.address,
            });
            bound.fresh.push((handle, sockets));
        }
        Ok(bound)
    }

    /// Accepts on what was bound and stops accepting on what is gone; its connections finish what they have, and the
    /// idle ones end a moment later. Must run on the control runtime.
    pub fn switch(&mut self, bound: Bound, shared: &Arc<Shared>) {
        for (handle, cap) in bound.caps {
            handle.set_cap(cap);
        }
        for (handle, sockets) in bound.fresh {
            for (mailbox, socket) in shared.mailboxes.iter().zip(sockets) {
                let _ = mailbox.send(Order::Listen(Arc::clone(&handle), socket));
            }
        }
        let is_kept = |old: &Served| {
            bound
                .next
                .iter()
                .any(|new| Arc::ptr_eq(&new.handle, &old.handle))
        };
        let gone = self.served.iter().filter(|old| !is_kept(old));
        let gone: Vec<_> = gone.map(|old| Arc::clone(&old.handle)).collect();
        retire(gone, Stage::Closing, shared);
        self.served = bound.next;
    }

    /// Stops accepting everywhere.
    pub fn close(&mut self) {
        for served in &self.served {
            served.handle.enter(Stage::Closing);
        }
    }

    /// Whether any worker still accepts on any listener.
    pub fn are_accepting(&self) -> bool {
        self.served.iter().any(|s| s.handle.is_accepting())
    }

    /// Where the listeners are really bound, by name.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.served
            .iter()
            .map(|s| (s.handle.name.clone(), s.handle.address))
            .collect()
    }
}

/// Stops accepting on listeners that are gone, and ends their idle connections a moment later.
fn retire(gone: Vec<Arc<ListenerHandle>>, stage: Stage, shared: &Arc<Shared>) {
    if gone.is_empty() {
        return;
    }
    for handle in &gone {
        handle.enter(stage);
    }
    for mailbox in &shared.mailboxes {
        let _ = mailbox.send(Order::Wake);
    }
    if stage < Stage::Idle {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_GRACE).await;
            retire(gone, Stage::Idle, &shared);
        });
    }
}

/// Whether one socket on `a` keeps another from `b`.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// One socket per worker on the same address; `ours`: we already listen there under another name.
fn bind_all(
    address: SocketAddr,
    workers: usize,
    ours: bool,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if address.port() != 0 && !ours {
        // With SO_REUSEPORT a second proxy would silently share the port: ask without it first.
        drop(bind(address, false)?);
    }
    let first = bind(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind(address, true)?);
    }
    Ok((address, sockets))
}

/// Binds a listening socket.
///
/// # Errors
///
/// What the system says.
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.set_tcp_nodelay(true)?; // connections inherit it
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Shared {
    /// What the workers of a new process share.
    pub fn new(
        metrics: Arc<crate::metrics::Metrics>,
        mailboxes: Vec<tokio::sync::mpsc::UnboundedSender<Order>>,
    ) -> Arc<Self> {
        let loads = mailboxes
            .iter()
            .map(|_| std::sync::atomic::AtomicUsize::new(0))
            .collect();
        let shared = Self {
            metrics,
            loads,
            mailboxes: mailboxes.into(),
            closed: tokio::sync::Notify::new(),
            overloaded: std::sync::atomic::AtomicBool::new(false),
        };
        shared.overloaded.store(false, Ordering::Relaxed);
        Arc::new(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_is_the_most_that_clients_get() {
        assert_eq!(connection_cap(10_000, 1024), 480);
        assert_eq!(connection_cap(100, 1024), 100);
        assert_eq!(connection_cap(10_000, 10), 1);
    }

    #[test]
    fn a_port_that_somebody_has_is_refused_though_ours_are_shared() {
        let other = bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address = other.local_addr().unwrap();
        assert_eq!(
            bind_all(address, 2, false).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(bind_all(address, 2, true).unwrap().1.len(), 2);
    }
}
