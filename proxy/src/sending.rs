//! Attempts: an endpoint, a connection, a request, and another endpoint while nothing of it was written.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::body::RequestBody;
use crate::cluster::{Choice, Endpoint, InFlight};
use crate::connection::Connection;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::snapshot::MemberView;
use crate::upstream::Lease;

/// Attempts of one request, the first included, while no byte of it was written.
const ATTEMPTS: usize = 3;

/// A request that goes to an endpoint, and to another one while nothing of it was written.
pub struct Sending<'a> {
    /// The client's connection.
    pub connection: &'a Connection,
    /// Where the split led.
    pub member: &'a MemberView,
    /// Key of a consistent hash.
    pub key: Option<&'a [u8]>,
    /// The protocol to speak.
    pub http2: bool,
    /// The socket itself is wanted if the endpoint switches protocols.
    pub upgrade: bool,
}

/// Resolves to the endpoint's socket after a 101.
pub type Switched = tokio::sync::oneshot::Receiver<crate::upstream::Switched>;

impl Sending<'_> {
    /// Sends the request and returns the answer's head with the connection it came from.
    ///
    /// # Errors
    ///
    /// No endpoint took it, or it failed by itself.
    pub async fn run(
        &self,
        mut request: Request<RequestBody>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<(Response<Incoming>, Lease, Option<Switched>), Refusal> {
        let cluster = &self.member.cluster;
        let connector = &cluster.connector;
        let worker = &self.connection.worker;
        let wary = !request.method().is_idempotent();
        let mut tried: Vec<u64> = Vec::new();
        let mut last = Reason::NoEndpoint;
        for attempt in 1..=ATTEMPTS {
            let Some(endpoint) = self.choose(&tried) else {
                break;
            };
            if attempt > 1 {
                exchange.retry(last);
            }
            if let Some(log) = &mut exchange.log {
                log.endpoint = Some(Arc::clone(&endpoint.label));
                log.attempts = attempt as u32;
            }
            if cluster
                .config
                .breaker
                .requests
                .is_some_and(|most| cluster.state.requests() >= most)
            {
                return Err(Reason::BreakerOpen.into());
            }
            let in_flight = InFlight::begin(Arc::clone(&endpoint));
            let now = exchange.leave();
            let pool = worker
                .pools
                .of(&endpoint, connector, &cluster.config.keepalive);
            let taken = flow
                .unless_failed(pool.checkout(connector, self.http2, wary, now))
                .await?;
            let (connection, reused) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::debug!(endpoint = %endpoint.label, ?error, "no connection");
                    last = error.reason();
                    tried.push(endpoint.id);
                    continue;
                }
            };
            let mut lease = Lease::new(connection, pool, in_flight);
            let switched = if self.upgrade {
                lease.on_switch()
            } else {
                None
            };
            flow.dispatch(
                if reused { now } else { Instant::now() },
                request.body().is_empty(),
            );
            // Only HTTP/2 endpoints can refuse what was sent.
            let spare = self.http2.then(|| copy_of(&request)).flatten();
            match flow.unless_failed(lease.send(request)).await? {
                Ok(response) => return Ok((response, lease, switched)),
                Err(failed) => {
                    last = flow.failure().unwrap_or(failed.reason);
                    let unsent = failed.request.map(|unsent| *unsent);
                    let Some(again) = unsent.or(spare.filter(|_| failed.refused)) else {
                        break;
                    };
                    request = again;
                    if !reused && !failed.refused {
                        tried.push(endpoint.id);
                    }
                }
            }
        }
        Err(last.into())
    }

    fn choose(&self, tried: &[u64]) -> Option<Arc<Endpoint>> {
        let cluster = &self.member.cluster;
        let set = cluster.state.endpoints();
        let roll = if set.endpoints.len() > 1 {
            self.connection.worker.roll()
        } else {
            0
        };
        let choice = Choice {
            balance: &cluster.config.balance,
            key: self.key,
            roll,
            tried,
        };
        cluster.state.choose(&set, &choice)
    }
}

/// The request once more, when it has no body.
fn copy_of(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut copy = Request::new(request.body().again()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}
