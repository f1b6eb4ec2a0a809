//! A tcp listener: a byte pump from a client to an endpoint of its one route.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use std::net::SocketAddr;

use crate::cluster::{Choice, InFlight};
use crate::io::{Io, Stream};
use crate::snapshot::ListenerView;
use crate::tunnel;
use crate::worker::Worker;

/// Endpoints tried for one connection.
const ATTEMPTS: usize = 3;

/// Serves one connection to its end. A client whose bytes nobody can take is closed.
pub async fn serve(worker: &Rc<Worker>, view: &ListenerView, stream: Stream, peer: SocketAddr) {
    let Some(route) = view.routes.first() else {
        return;
    };
    let Some(split) = &route.split else { return };
    let member = split.pick(worker.roll());
    let cluster = &member.cluster;
    let snapshot = worker.snapshot();
    let traffic = Rc::clone(snapshot.traffic(member.cell));
    drop(snapshot);
    let cells = traffic.cells();
    cells.arrived();
    cells.begin();
    let key = peer.ip().to_canonical().to_string();
    let mut tried = Vec::new();
    for _ in 0..ATTEMPTS {
        let set = cluster.state.endpoints();
        let choice = Choice {
            balance: &cluster.config.balance,
            key: Some(key.as_bytes()),
            roll: worker.roll(),
            tried: &tried,
        };
        let Some(endpoint) = cluster.state.choose(&set, &choice) else {
            break;
        };
        drop(set);
        match cluster.connector.stream(&endpoint, false).await {
            Ok((upstream, count)) => {
                let in_flight = InFlight::begin(Arc::clone(&endpoint));
                let (client, _) = Io::new(stream, Bytes::new());
                let (upstream, _) = Io::new(upstream, Bytes::new());
                let moved =
                    tunnel::pump(worker, client, upstream, route.config.timeouts.tunnel).await;
                cells.request_bytes(moved.to_upstream);
                cells.response_bytes(moved.to_client);
                cells.end();
                drop((in_flight, count));
                return;
            }
            Err(error) => {
                cells.retried(error.reason().label());
                tried.push(endpoint.id);
            }
        }
    }
    cells.refused(
        crate::error::Reason::NoEndpoint.code(),
        crate::error::Reason::NoEndpoint.label(),
    );
    cells.end();
}
