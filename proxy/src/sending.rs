//! Attempts: an endpoint, a connection, a request, and another endpoint as far as the route allows.

use std::pin::{Pin, pin};
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::admission::Admitted;
use crate::answer::Refusal;
use crate::cluster::{Choice, Chosen, Endpoint, InFlight, Probe, Verdict};
use crate::connection::Connection;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::mirror::{self, Sampled};
use crate::retry::{self, Allowance, Failure, Retrying};
use crate::room::Slot;
use crate::snapshot::MemberView;
use crate::upload::{Replay, RequestBody};
use crate::upstream::{ConnectError, Lease};

/// Attempts after which a request that no endpoint takes does not return to the room: they listen, but not for us.
const MOST_RETURNS: u32 = 50;
/// Of an answer that is not passed on, read so that its connection can serve again.
const DISCARD: u64 = 64 << 10;

/// A request that goes to an endpoint, and to another one as far as its route allows.
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
    /// What the route allows after a failure.
    pub allowance: Allowance<'a>,
    /// The copies it gets once it has an endpoint.
    pub copies: Option<Sampled<'a>>,
    /// The request may start replicas.
    pub wake: bool,
    /// The request counts as demand; a probe of the servers does not, and takes no slot.
    pub demand: bool,
}

/// Resolves to the endpoint's socket after a 101.
pub type Switched = tokio::sync::oneshot::Receiver<crate::upstream::Switched>;

/// What an endpoint gave; boxed, since it passes through many hands.
pub struct Arrived {
    /// Its answer.
    pub response: Response<Incoming>,
    /// The connection it comes from.
    pub lease: Lease,
    /// `None`: the request asked for no other protocol.
    pub switched: Option<Switched>,
}

/// An attempt that brought nothing to pass on.
struct Missed {
    failure: Failure,
    /// The request, when nothing of it was written.
    unsent: Option<Box<Request<RequestBody>>>,
    /// An answer that is passed on when no further attempt is made.
    arrived: Option<Box<Arrived>>,
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
    fn returns_to_room(&mut self) -> Option<Box<Request<RequestBody>>> {
        let harmless = match self.failure {
            Failure::Stale => true,
            Failure::Unsent(_) => !self.ours,
            _ => false,
        };
        self.unsent.take_if(|_| harmless)
    }
}

/// An attempt that is not the last word, or is.
enum Lost {
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

/// The next attempt.
struct Next {
    admitted: Admitted,
    request: Box<Request<RequestBody>>,
    place: Retrying,
}

/// What a request is made of once more.
struct Spare {
    head: Request<()>,
    body: Replay,
}

impl Spare {
    /// `None`: the body cannot be sent twice.
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let body = request.body().replay()?;
        let mut head = Request::new(());
        head.method_mut().clone_from(request.method());
        head.uri_mut().clone_from(request.uri());
        *head.version_mut() = request.version();
        head.headers_mut().clone_from(request.headers());
        Some(Self { head, body })
    }

    /// `None`: more of the body was sent than is kept.
    fn request(self) -> Option<Box<Request<RequestBody>>> {
        let body = self.body.start()?;
        Some(Box::new(self.head.map(|()| body)))
    }
}

impl Sending<'_> {
    /// Sends the request and returns the answer's head with the connection it came from.
    ///
    /// # Errors
    ///
    /// No endpoint took it, or it failed by itself.
    pub async fn run(
        &self,
        mut request: Box<Request<RequestBody>>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Box<Arrived>, Refusal> {
        let upload = request.body().upload().cloned();
        let settle = |arrived| {
            if let Some(upload) = &upload {
                upload.settle();
            }
            arrived
        };
        let mut tried: Vec<u64> = Vec::new();
        let mut retrying = None;
        let mut made = 0;
        let state = &self.member.cluster.state;
        let has_room = self.has_room();
        let Admitted {
            mut chosen,
            mut slot,
        } = if has_room {
            self.admit(&mut request, None, &tried, flow, exchange)
                .await?
        } else {
            self.choose_untried(&tried).ok_or(Reason::NoEndpoint)?
        };
        if self.is_full(0) {
            return Err(Reason::BreakerOpen.into());
        }
        loop {
            made += 1;
            self.log(exchange, &chosen.endpoint, made);
            if let (1, Some(copies)) = (made, &self.copies) {
                let worker = &self.connection.worker;
                exchange.watch = Some(mirror::begin(copies, worker, self.member, &request));
            }
            let mut spare = if self.allowance.spares(self.http2, made) {
                Spare::of(&request)
            } else {
                None
            };
            let endpoint = Arc::clone(&chosen.endpoint);
            let id = endpoint.id;
            let ticket = slot.as_ref().map(Slot::ticket);
            let tried_here = self.attempt(chosen, slot, request, flow, exchange);
            let mut missed = match tried_here.await {
                Ok(arrived) => return Ok(settle(arrived)),
                Err(Lost::Failed(reason)) => return Err(reason.into()),
                Err(Lost::Missed(missed)) => missed,
            };
            drop(retrying.take());
            let ticket = ticket.filter(|_| state.has_room());
            let ticket = ticket.filter(|_| made < MOST_RETURNS);
            let unsent = match missed.failure {
                _ if ticket.is_none() => None,
                Failure::Refused if self.allowance.again(missed.failure, made) => {
                    spare.take().and_then(Spare::request)
                }
                _ => missed.returns_to_room(),
            };
            if let (Some(ticket), Some(unsent)) = (ticket, unsent) {
                match missed.failure {
                    Failure::Unsent(_) => state.mark_down(&endpoint),
                    failure => exchange.retry(failure.label()),
                }
                request = unsent;
                let again = self.admit(&mut request, Some(ticket), &[], flow, exchange);
                Admitted { chosen, slot } = again.await?;
                continue;
            }
            if !matches!(missed.failure, Failure::Stale | Failure::Refused) {
                tried.push(id);
            }
            let next = self.next(&mut missed, spare, &mut tried, made);
            match (flow.unless_failed(next).await?, missed.arrived) {
                (Some(next), arrived) => {
                    exchange.retry(missed.failure.label());
                    if let Some(arrived) = arrived {
                        discard(*arrived, flow);
                    }
                    flow.dispatch(Instant::now(), false); // no clock runs on from the last attempt
                    (chosen, slot) = (next.admitted.chosen, next.admitted.slot);
                    request = next.request;
                    retrying = Some(next.place);
                }
                (None, Some(arrived)) => return Ok(settle(arrived)),
                (None, None) => return Err(missed.failure.reason().into()),
            }
        }
    }

    /// Where a request goes after an attempt that failed; `None`: nowhere, and nothing is changed.
    async fn next(
        &self,
        missed: &mut Missed,
        spare: Option<Spare>,
        tried: &mut Vec<u64>,
        made: u32,
    ) -> Option<Next> {
        let state = &self.member.cluster.state;
        let possible =
            missed.unsent.is_some() || spare.as_ref().is_some_and(|spare| spare.body.is_whole());
        if !possible || !self.allowance.again(missed.failure, made) {
            return None;
        }
        let place = self
            .allowance
            .retrying(missed.failure, state.retries(), state.requests())?;
        let admitted = self.choose(tried, made).await?;
        if self.is_full(u32::from(missed.arrived.is_some())) {
            return None;
        }
        let unsent = missed.unsent.take();
        let request = unsent.or_else(|| spare?.request())?;
        Some(Next {
            admitted,
            request,
            place,
        })
    }

    /// True when the request needs a slot.
    fn has_room(&self) -> bool {
        self.demand && self.member.cluster.config.has_room()
    }

    /// True when the cluster has as many requests in flight as it may have, without `own` ones of this request.
    fn is_full(&self, own: u32) -> bool {
        let cluster = &self.member.cluster;
        let most = cluster.config.breaker.requests;
        most.is_some_and(|most| cluster.state.requests().saturating_sub(own) >= most)
    }

    /// One attempt on one endpoint.
    async fn attempt(
        &self,
        chosen: Chosen,
        slot: Option<Slot<Arc<Endpoint>>>,
        request: Box<Request<RequestBody>>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Box<Arrived>, Lost> {
        let Chosen { endpoint, probe } = chosen;
        let cluster = &self.member.cluster;
        let connector = &cluster.connector;
        let wary = !request.method().is_idempotent();
        let in_flight = InFlight::begin(Arc::clone(&endpoint), slot);
        let now = exchange.leave();
        let pools = &self.connection.worker.pools;
        let pool = pools.of(&endpoint, connector, &cluster.config.keepalive);
        if let Some(reason) = flow.failure() {
            return Err(reason.into());
        }
        let connected = match pool.ready(self.http2, wary, now) {
            Some(connection) => Some(Ok((connection, true))),
            None => {
                let connected = pin!(self.within(now, pool.connect(connector, self.http2)));
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
                let status = response.status();
                let ejects = cluster.config.outlier.is_some();
                let verdict = Verdict::that_matters(ejects, status, response.headers());
                self.observe(&endpoint, probe, verdict);
                let arrived = Box::new(Arrived {
                    response,
                    lease,
                    switched,
                });
                if !self.allowance.wants(status) {
                    return Ok(arrived);
                }
                return Err(Lost::Missed(Missed {
                    failure: Failure::Status(status),
                    unsent: None,
                    arrived: Some(arrived),
                    ours: false,
                }));
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
        if flow.failure().is_none() && !matches!(failure, Failure::Stale | Failure::Refused) {
            self.observe(&endpoint, probe, Verdict::Failed);
        }
        Err(Lost::Missed(Missed::new(failure, failed.request)))
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

    fn log(&self, exchange: &mut Exchange, endpoint: &Arc<Endpoint>, made: u32) {
        if let Some(log) = &mut exchange.log {
            log.endpoint = Some(Arc::clone(&endpoint.label));
            log.attempts = made;
        }
    }

    /// The next endpoint. When each has failed the request already and its route allows it, one of them gets it again
    /// after a pause.
    async fn choose(&self, tried: &mut Vec<u64>, made: u32) -> Option<Admitted> {
        if let Some(chosen) = self.choose_untried(tried) {
            return Some(chosen);
        }
        if tried.is_empty() || !self.allowance.returns() {
            return None;
        }
        tried.clear();
        tokio::time::sleep(retry::pause(made, self.connection.worker.roll())).await;
        self.choose_untried(tried)
    }

    fn choose_untried(&self, tried: &[u64]) -> Option<Admitted> {
        let cluster = &self.member.cluster;
        let set = cluster.state.endpoints();
        let roll = if set.endpoints.len() > 1 {
            self.connection.worker.roll()
        } else {
            0
        };
        let choice = Choice {
            cluster: &cluster.config,
            key: self.key,
            roll,
            tried,
            free: None,
        };
        if self.has_room() {
            let (slot, probe) = cluster.state.take_slot(&choice)?;
            return Some(Admitted::with_slot(slot, probe));
        }
        let chosen = cluster.state.choose(&set, &choice)?;
        Some(Admitted { chosen, slot: None })
    }
}

/// Reads an answer that nobody gets, as far as that is cheaper than another connection.
fn discard(arrived: Arrived, flow: &Flow) {
    let Arrived {
        response, lease, ..
    } = arrived;
    let mut body = response.into_body();
    if flow.sent().is_none() || http_body::Body::size_hint(&body).lower() > DISCARD {
        return; // dropped: the connection is reset
    }
    if http_body::Body::is_end_stream(&body) {
        lease.release(Instant::now());
        return;
    }
    tokio::task::spawn_local(async move {
        let limit = std::time::Duration::from_secs(1);
        if let Ok(true) = tokio::time::timeout(limit, read_out(&mut body)).await {
            lease.release(Instant::now());
        }
    });
}

/// True when the body is whole and short enough.
async fn read_out(body: &mut Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > DISCARD {
            return false;
        }
    }
    http_body::Body::is_end_stream(body)
}
