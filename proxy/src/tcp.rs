//! A tcp listener: a byte pump from a client to an endpoint of its one route.

mod waiting;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::{Choice, Chosen, ConnectionCount, Endpoint, InFlight, Probe, Verdict};
use crate::error::Reason;
use crate::io::{Io, Stream};
use crate::metrics::TrafficCells;
use crate::room::Slot;
use crate::snapshot::{ListenerView, MemberView, WorkerSnapshot};
use crate::tunnel;
use crate::upstream::ConnectError;
use crate::worker::Worker;

/// Endpoints tried for one connection.
const ATTEMPTS: usize = 3;

/// Serves one connection to its end. A client whose bytes nobody can take is closed, and reset where it might have
/// waited: the end of a stream that took so long would look like an answer.
///
/// * `snapshot`: the one that `view` is of
pub async fn serve(
    worker: &Rc<Worker>,
    snapshot: Rc<WorkerSnapshot>,
    view: &ListenerView,
    stream: Stream,
    peer: SocketAddr,
) {
    let Some(route) = view.routes.first() else {
        return;
    };
    let Some(split) = &route.split else { return };
    let member = split.pick(worker.roll());
    let traffic = Rc::clone(snapshot.traffic(member.cell));
    drop(snapshot); // a stream holds what counts it, not the generation
    let cells = traffic.cells();
    cells.arrived();
    cells.begin();
    let key = peer.ip().to_canonical().to_string();
    let call = Call {
        worker,
        member,
        key: key.as_bytes(),
        wake: route.config.wake,
        cells,
    };
    // A client that has only closed its sending side may still want an answer: it is not gone.
    let connected = match member.cluster.config.has_room() {
        true => call.in_turn(&stream).await,
        false => call.at_once().await,
    };
    match connected {
        Ok(Connected {
            upstream,
            count,
            in_flight,
        }) => {
            let (client, _) = Io::new(stream, Bytes::new());
            let (upstream, _) = Io::new(upstream, Bytes::new());
            let quiet = route.config.timeouts.tunnel;
            let moved = tunnel::pump(worker, client, upstream, quiet).await;
            cells.request_bytes(moved.to_upstream);
            cells.response_bytes(moved.to_client);
            drop((count, in_flight));
        }
        Err(Reason::ClientClosed) => cells.aborted(Reason::ClientClosed.label()),
        Err(reason) => {
            if member.cluster.config.has_room() {
                let _ = stream.tcp().set_zero_linger();
            }
            cells.refused(reason.code(), reason.label());
        }
    }
    cells.end();
}

/// A client's connection that wants an endpoint.
struct Call<'c> {
    worker: &'c Worker,
    member: &'c MemberView,
    /// Of a consistent hash.
    key: &'c [u8],
    /// It may start replicas.
    wake: bool,
    cells: &'c TrafficCells,
}

/// An endpoint's socket, and what counts it.
struct Connected {
    upstream: Stream,
    count: ConnectionCount,
    in_flight: InFlight,
}

impl Call<'_> {
    fn choice<'a>(&'a self, tried: &'a [u64]) -> Choice<'a> {
        Choice {
            cluster: &self.member.cluster.config,
            key: Some(self.key),
            roll: self.worker.roll(),
            tried,
            free: None,
        }
    }

    /// Connects where nobody waits for anything.
    async fn at_once(&self) -> Result<Connected, Reason> {
        let state = &self.member.cluster.state;
        let mut tried = Vec::new();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let chosen = state.choose(&state.endpoints(), &self.choice(&tried));
            let Some(Chosen { endpoint, probe }) = chosen else {
                break;
            };
            if self.is_full() {
                return Err(Reason::BreakerOpen);
            }
            if let Some(failed) = last {
                self.cells.retried(Reason::label(failed));
            }
            match self.connect(&endpoint, probe, None).await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    last = Some(error.reason());
                    tried.push(endpoint.id);
                }
            }
        }
        Err(last.unwrap_or(Reason::NoEndpoint))
    }

    /// True when the cluster has as many requests in flight as it may have.
    fn is_full(&self) -> bool {
        let cluster = &self.member.cluster;
        let most = cluster.config.breaker.requests;
        most.is_some_and(|most| cluster.state.requests() >= most)
    }

    /// One attempt on one endpoint.
    async fn connect(
        &self,
        endpoint: &Arc<Endpoint>,
        probe: Option<Probe>,
        slot: Option<Slot<Arc<Endpoint>>>,
    ) -> Result<Connected, ConnectError> {
        let cluster = &self.member.cluster;
        let connector = &cluster.connector;
        let has_slot = slot.is_some();
        let in_flight = InFlight::begin(Arc::clone(endpoint), slot);
        let pools = &self.worker.pools;
        // The newest bound: it is what the slot was given by.
        let (keepalive, most) = (
            &cluster.config.keepalive,
            cluster.state.room().concurrency(),
        );
        let pool = pools.of(endpoint, connector, keepalive, most);
        let connected = async {
            // Who has no slot takes nothing that others need for theirs.
            let berth = match has_slot || !pool.is_bounded() {
                true => Some(pool.berth(connector).await?),
                false => None,
            };
            connector.stream(endpoint, false, berth).await
        };
        let connected = connected.await;
        let verdict = match &connected {
            Ok(_) => Verdict::Good,
            Err(error) if error.is_ours() => Verdict::Unknown,
            Err(_) => Verdict::Failed,
        };
        let outlier = cluster.config.outlier.as_ref();
        cluster.state.observe(endpoint, probe, verdict, outlier);
        let (upstream, count) = connected?;
        Ok(Connected {
            upstream,
            count,
            in_flight,
        })
    }
}
