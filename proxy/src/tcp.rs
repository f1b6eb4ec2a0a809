//! A tcp listener: a byte pump from a client to an endpoint of its one route.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use std::net::SocketAddr;

use crate::cluster::{Choice, Chosen, ConnectionCount, InFlight, Verdict};
use crate::error::Reason;
use crate::io::{Io, Stream};
use crate::metrics::TrafficCells;
use crate::snapshot::{ListenerView, MemberView, WorkerSnapshot};
use crate::tunnel;
use crate::worker::Worker;

/// Endpoints tried for one connection.
const ATTEMPTS: usize = 3;

/// Serves one connection to its end. A client whose bytes nobody can take is closed.
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
    // A client that has only closed its sending side may still want an answer: it is not gone.
    match connect(worker, member, peer, cells).await {
        Ok((upstream, count, in_flight)) => {
            let (client, _) = Io::new(stream, Bytes::new());
            let (upstream, _) = Io::new(upstream, Bytes::new());
            let quiet = route.config.timeouts.tunnel;
            let moved = tunnel::pump(worker, client, upstream, quiet).await;
            cells.request_bytes(moved.to_upstream);
            cells.response_bytes(moved.to_client);
            drop((in_flight, count));
        }
        Err(reason) => cells.refused(reason.code(), reason.label()),
    }
    cells.end();
}

async fn connect(
    worker: &Worker,
    member: &MemberView,
    peer: SocketAddr,
    cells: &TrafficCells,
) -> Result<(Stream, ConnectionCount, InFlight), Reason> {
    let cluster = &member.cluster;
    let key = peer.ip().to_canonical().to_string();
    let mut tried = Vec::new();
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let set = cluster.state.endpoints();
        let choice = Choice {
            cluster: &cluster.config,
            key: Some(key.as_bytes()),
            roll: worker.roll(),
            tried: &tried,
            free: None,
        };
        let Some(Chosen { endpoint, probe }) = cluster.state.choose(&set, &choice) else {
            break;
        };
        drop(set);
        let most = cluster.config.breaker.requests;
        if most.is_some_and(|most| cluster.state.requests() >= most) {
            return Err(Reason::BreakerOpen);
        }
        if let Some(failed) = last {
            cells.retried(Reason::label(failed));
        }
        let in_flight = InFlight::begin(Arc::clone(&endpoint), None);
        let connected = cluster.connector.stream(&endpoint, false).await;
        let verdict = match &connected {
            Ok(_) => Verdict::Good,
            Err(error) if error.is_ours() => Verdict::Unknown,
            Err(_) => Verdict::Failed,
        };
        let outlier = cluster.config.outlier.as_ref();
        cluster.state.observe(&endpoint, probe, verdict, outlier);
        match connected {
            Ok((upstream, count)) => return Ok((upstream, count, in_flight)),
            Err(error) => {
                last = Some(error.reason());
                tried.push(endpoint.id);
            }
        }
    }
    Err(last.unwrap_or(Reason::NoEndpoint))
}
