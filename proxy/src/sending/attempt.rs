//! One attempt on one endpoint.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use tokio::time::Instant;

use super::{Arrived, Sending, turned_away};
use crate::cluster::{Chosen, Endpoint, InFlight, Probe, Verdict};
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::retry::Failure;
use crate::room::Slot;
use crate::upload::RequestBody;
use crate::upstream::{ConnectError, Connection, Connector, Lease, Pool};

/// An attempt that brought nothing to pass on.
pub(super) struct Missed {
    /// How it failed.
    pub(super) failure: Failure,
    /// The request, when nothing of it was written.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
    /// An answer that is passed on when no further attempt is made.
    pub(super) arrived: Option<Box<Arrived>>,
    /// It failed because of us, such as for want of sockets.
    ours: bool,
}

impl Missed {
    fn new(failure: Failure, unsent: Option<Box<Request<RequestBody>>>) -> Self {
        Self {
            failure,
            unsent,
            arrived: None,
            ours: false,
        }
    }
}

impl Missed {
    /// The request, when it can wait for another endpoint as if it had not been sent.
    pub(super) fn returns_to_room(&mut self) -> Option<Box<Request<RequestBody>>> {
        let harmless = match self.failure {
            Failure::Stale => true,
            Failure::Unsent(_) => !self.ours,
            _ => false,
        };
        self.unsent.take_if(|_| harmless)
    }
}

/// An attempt that is not the last word, or is.
pub(super) enum Lost {
    /// Another one may follow.
    Missed(Missed),
    /// The request itself failed.
    Failed(Reason),
}

impl From<Reason> for Lost {
    fn from(reason: Reason) -> Self {
        Self::Failed(reason)
    }
}

impl Sending<'_> {
    /// One attempt on one endpoint.
    pub(super) async fn attempt(
        &self,
        chosen: Chosen,
        slot: Option<Slot<Arc<Endpoint>>>,
        request: Box<Request<RequestBody>>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Box<Arrived>, Lost> {
        let Chosen { endpoint, probe } = chosen;
        let cluster = &self.member.cluster;
        let connector = cluster.connector_for(request.headers());
        let wary = !request.method().is_idempotent();
        let in_flight = InFlight::begin(Arc::clone(&endpoint), slot);
        let now = exchange.leave();
        let pools = &self.connection.worker.pools;
        // The newest bound: it is what the slot was given by.
        let (keepalive, most) = (
            &cluster.config.keepalive,
            cluster.state.room().concurrency(),
        );
        let pool = pools.of(&endpoint, connector, keepalive, most);
        if let Some(reason) = flow.failure() {
            return Err(reason.into());
        }
        let aside = pool.is_bounded() && !in_flight.has_slot() && !self.http2;
        let ready = match aside {
            true => None,
            false => pool.ready(self.http2, wary, now),
        };
        let connected = match ready {
            Some(connection) => Some(Ok((connection, true))),
            None => {
                let connect = self.connect(&pool, connector, aside);
                let connected = pin!(self.within(now, connect));
                flow.unless_failed(connected).await?
            }
        };
        let (connection, reused) = match connected {
            Some(Ok(taken)) => taken,
            failed => {
                let error = failed.and_then(Result::err);
                tracing::debug!(endpoint = %endpoint.label, ?error, "no connection");
                let ours = error.as_ref().is_some_and(ConnectError::is_ours);
                if !ours {
                    self.observe(&endpoint, probe, Verdict::Failed);
                }
                let reason = error.map_or(Reason::ConnectTimeout, |error| error.reason());
                let missed = Missed::new(Failure::Unsent(reason), Some(request));
                return Err(Lost::Missed(Missed { ours, ..missed }));
            }
        };
        let mut lease = Lease::new(connection, pool, in_flight);
        let switched = if self.upgrade {
            lease.on_switch()
        } else {
            None
        };
        let whole = request.body().is_empty();
        flow.dispatch(if reused { now } else { Instant::now() }, whole);
        let answer = pin!(lease.send(*request));
        let answer = pin!(self.in_time(answer, whole, now, flow));
        let failed = match flow.unless_failed(answer).await {
            Ok(Some(Ok(response))) => {
                let arrived = Arrived {
                    response,
                    lease,
                    switched,
                };
                return self.judge(arrived, &endpoint, probe);
            }
            Ok(Some(Err(failed))) => lease.explain(failed),
            Ok(None) => {
                self.observe(&endpoint, probe, Verdict::Failed);
                return Err(Lost::Missed(Missed::new(Failure::TooLong, None)));
            }
            Err(reason) => {
                // Where the request is not whole the client may be the silent one.
                let silent = reason == Reason::FirstByteTimeout
                    || reason == Reason::IdleTimeout && flow.sent().is_some();
                if silent {
                    self.observe(&endpoint, probe, Verdict::Failed);
                }
                return Err(reason.into());
            }
        };
        let failure = match (failed.request.is_some(), failed.refused, reused) {
            (true, _, true) => Failure::Stale,
            (true, _, false) => Failure::Unsent(failed.reason),
            (false, true, _) => Failure::Refused,
            (false, false, _) => Failure::Broken(failed.reason),
        };
        if failed.cut && matches!(failure, Failure::Broken(_)) {
            endpoint.suspect();
        }
        if flow.failure().is_none() && !matches!(failure, Failure::Stale | Failure::Refused) {
            self.observe(&endpoint, probe, Verdict::Failed);
        }
        Err(Lost::Missed(Missed::new(failure, failed.request)))
    }

    async fn connect(
        &self,
        pool: &Rc<Pool>,
        connector: &Connector,
        aside: bool,
    ) -> Result<(Connection, bool), ConnectError> {
        match aside {
            true => pool.connect_aside(connector).await,
            false => pool.connect(connector, self.http2).await,
        }
    }

    /// Whether the answer is for the client.
    fn judge(
        &self,
        arrived: Arrived,
        endpoint: &Arc<Endpoint>,
        probe: Option<Probe>,
    ) -> Result<Box<Arrived>, Lost> {
        let (status, headers) = (arrived.response.status(), arrived.response.headers());
        let ejects = self.member.cluster.config.outlier.is_some();
        let mut verdict = Verdict::that_matters(ejects, status, headers);
        let mut away = None;
        if arrived.lease.has_slot() {
            away = turned_away::reason(status, headers, self.http2);
            if away.is_some() && verdict == Verdict::Failed {
                verdict = Verdict::Unknown; // it does what it should
            }
        }
        self.observe(endpoint, probe, verdict);
        let failure = match away {
            Some(reason) => Failure::TurnedAway(reason),
            None => {
                endpoint.took_on();
                if !self.allowance.wants(status) {
                    return Ok(Box::new(arrived));
                }
                Failure::Status(status)
            }
        };
        Err(Lost::Missed(Missed {
            arrived: Some(Box::new(arrived)),
            ..Missed::new(failure, None)
        }))
    }

    /// `None`: it took longer than one attempt may, from `since` on.
    async fn within<F: Future>(&self, since: Instant, future: F) -> Option<F::Output> {
        match self.allowance.per_try() {
            None => Some(future.await),
            Some(limit) => tokio::time::timeout_at(since + limit, future).await.ok(),
        }
    }

    /// `None`: it took longer than one attempt may, from `since` on, or from the last byte of a body on: the endpoint
    /// answers for itself, not for a client that is slow. `whole`: there is no body.
    async fn in_time<F: Future>(
        &self,
        mut answer: Pin<&mut F>,
        whole: bool,
        since: Instant,
        flow: &Flow,
    ) -> Option<F::Output> {
        let limit = match self.allowance.per_try() {
            None => return Some(answer.await),
            Some(_) if whole => return self.within(since, answer).await,
            Some(limit) => limit,
        };
        let mut until = since + limit;
        loop {
            if let Ok(sent) = tokio::time::timeout_at(until, answer.as_mut()).await {
                return Some(sent);
            }
            until = flow.sent().unwrap_or_else(Instant::now) + limit;
            if until <= Instant::now() {
                return None;
            }
        }
    }

    fn observe(&self, endpoint: &Arc<Endpoint>, probe: Option<Probe>, verdict: Verdict) {
        let cluster = &self.member.cluster;
        let outlier = cluster.config.outlier.as_ref();
        cluster.state.observe(endpoint, probe, verdict, outlier);
    }
}
