//! One thread, one single-threaded runtime, its own accepts, upstream connections and timers.
//! A request lives and dies here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::cluster::Endpoint;
use crate::listener::{self, ListenerHandle, Open};
use crate::metrics::Metrics;
use crate::snapshot::{Snapshot, WorkerSnapshot};
use crate::upstream::Pools;

/// How far a stop has come. Later stages include the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Serving.
    Running = 0,
    /// Still accepting, but answers carry `Connection: close`.
    Announcing = 1,
    /// Accepting nothing; HTTP/2 connections say GOAWAY.
    Closing = 2,
    /// Idle HTTP/1.1 connections close.
    Idle = 3,
    /// Everything ends.
    Ended = 4,
}

impl Stage {
    /// The stage with this number; anything unknown is the last.
    pub fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Running,
            1 => Self::Announcing,
            2 => Self::Closing,
            3 => Self::Idle,
            _ => Self::Ended,
        }
    }
}

/// What the control thread asks of a worker.
pub enum Order {
    /// Serve by this snapshot from now on, and say when.
    Publish(Arc<Snapshot>, oneshot::Sender<()>),
    /// Accept from this socket.
    Listen(Arc<ListenerHandle>, std::net::TcpListener),
    /// Serve a connection that another worker accepted.
    Adopt(Accepted),
    /// The stop of the process has come this far.
    Enter(Stage),
    /// Close an idle connection to this endpoint: another request may have no other while it is open.
    Spare(Arc<Endpoint>),
    /// Connections look at their listener's stage again.
    Wake,
    /// End the thread.
    Stop,
}

/// A connection on its way between workers.
pub struct Accepted {
    /// The socket, taken out of the accepting worker's event loop.
    pub socket: std::net::TcpStream,
    /// Its other end.
    pub peer: std::net::SocketAddr,
    /// Counts it as open, already on the receiving worker.
    pub open: Open,
}

/// What all workers share.
pub struct Shared {
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Open connections of each worker.
    pub loads: Box<[AtomicUsize]>,
    /// Each worker's mailbox.
    pub mailboxes: Box<[mpsc::UnboundedSender<Order>]>,
    /// A connection closed; the stop of the process waits for the last.
    pub closed: Notify,
    /// New requests are refused while memory is short.
    pub overloaded: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// Open connections of all workers.
    pub fn connections(&self) -> usize {
        self.loads
            .iter()
            .map(|load| load.load(Ordering::Relaxed))
            .sum()
    }

    /// The worker that should serve a connection that worker `own` accepted.
    pub fn least_loaded(&self, own: usize) -> usize {
        let load = |index: usize| self.loads[index].load(Ordering::Relaxed);
        let least = (0..self.loads.len())
            .min_by_key(|&index| load(index))
            .unwrap_or(own);
        if load(own) > load(least) { least } else { own }
    }
}

/// The state of one worker thread.
pub struct Worker {
    /// 0-based.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Connections to endpoints.
    pub pools: Pools,
    rng: RefCell<fastrand::Rng>,
    snapshot: RefCell<Rc<WorkerSnapshot>>,
    stage: Cell<Stage>,
    /// Wakes every connection's task; keyed by [`Worker::register`]'s caller.
    wakers: RefCell<HashMap<usize, Waker, foldhash::fast::RandomState>>,
    /// Tunnels and lingering connections end with the last stage.
    pub ended: Notify,
}

impl Worker {
    /// The present snapshot. A request keeps the one it began with.
    pub fn snapshot(&self) -> Rc<WorkerSnapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// A uniform random number.
    pub fn roll(&self) -> u32 {
        self.rng.borrow_mut().u32(..)
    }

    /// The worker's source of randomness.
    pub fn rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// How far the stop of the process has come.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// A connection's task wants to be woken when a stage changes.
    pub fn register(&self, key: usize, waker: &Waker) {
        self.wakers.borrow_mut().insert(key, waker.clone());
    }

    /// The connection is over.
    pub fn forget(&self, key: usize) {
        self.wakers.borrow_mut().remove(&key);
    }

    fn wake_all(&self) {
        for waker in self.wakers.borrow().values() {
            waker.wake_by_ref();
        }
    }

    fn publish(&self, shared: Arc<Snapshot>) {
        let live: std::collections::HashSet<(u64, u64)> = shared
            .clusters
            .values()
            .flat_map(|cluster| {
                let set = cluster.state.endpoints();
                let of = |key| set.endpoints.iter().map(move |e| (e.id, key));
                cluster.connector_keys().flat_map(of).collect::<Vec<_>>()
            })
            .collect();
        *self.snapshot.borrow_mut() = WorkerSnapshot::new(shared, self.index);
        self.pools
            .retain(|endpoint, connector| live.contains(&(endpoint, connector)));
    }
}

/// Runs a worker on this thread until it is told to stop.
///
/// # Errors
///
/// When the runtime cannot be made.
pub fn run(
    index: usize,
    shared: Arc<Shared>,
    first: Arc<Snapshot>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(61)
        .build_local(tokio::runtime::LocalOptions::default())?;
    let worker = Rc::new(Worker {
        index,
        pools: Pools::new(&shared),
        shared,
        rng: RefCell::new(fastrand::Rng::new()),
        snapshot: RefCell::new(WorkerSnapshot::new(first, index)),
        stage: Cell::new(Stage::Running),
        wakers: RefCell::default(),
        ended: Notify::new(),
    });
    runtime.block_on(async move {
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    None | Some(Order::Stop) => break,
                    Some(order) => obey(&worker, order),
                },
                _ = sweep.tick() => worker.pools.sweep(),
            }
        }
    });
    // Tasks that are left end here, at the latest within the runtime's own bound.
    Ok(())
}

fn obey(worker: &Rc<Worker>, order: Order) {
    match order {
        Order::Publish(snapshot, applied) => {
            worker.publish(snapshot);
            let _ = applied.send(());
        }
        Order::Listen(handle, socket) => listener::accept_from(worker, handle, socket),
        Order::Adopt(accepted) => match TcpStream::from_std(accepted.socket) {
            Ok(socket) => listener::begin(worker, socket, accepted.peer, accepted.open),
            Err(error) => tracing::warn!(%error, "a connection could not be handed over"),
        },
        Order::Enter(stage) => {
            worker.stage.set(stage);
            worker.wake_all();
            if stage == Stage::Ended {
                worker.ended.notify_waiters();
            }
        }
        Order::Spare(endpoint) => worker.pools.spare(&endpoint),
        Order::Wake => worker.wake_all(),
        Order::Stop => {}
    }
}
