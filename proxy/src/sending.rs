//! Attempts: an endpoint, a connection, a request, and another endpoint as far as the route allows.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::cluster::{Choice, Chosen, Endpoint, InFlight, Probe, Verdict};
use crate::connection::Connection;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::mirror::{self, Sampled};
use crate::retry::{self, Allowance, Failure};
use crate::snapshot::MemberView;
use crate::upload::{Replay, RequestBody};
use crate::upstream::Lease;

/// Of an answer that is not passed on, read so that its connection can serve again.
const DISCARD: usize = 64 << 10;

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
}

/// Resolves to the endpoint's socket after a 101.
pub type Switched = tokio::sync::oneshot::Receiver<crate::upstream::Switched>;

/// What an endpoint gave.
pub type Arrived = (Response<Incoming>, Lease, Option<Switched>);

/// An attempt that brought nothing to pass on.
struct Missed {
    failure: Failure,
    /// The request, when nothing of it was written.
    unsent: Option<Box<Request<RequestBody>>>,
    /// An answer that is passed on when no further attempt is made.
    arrived: Option<Arrived>,
}

impl Missed {
    fn new(failure: Failure, unsent: Request<RequestBody>) -> Self {
        Self {
            failure,
            unsent: Some(Box::new(unsent)),
            arrived: None,
        }
    }
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
    fn request(self) -> Option<Request<RequestBody>> {
        let body = self.body.start()?;
        Some(self.head.map(|()| body))
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
        mut request: Request<RequestBody>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Arrived, Refusal> {
        let cluster = &self.member.cluster;
        let upload = request.body().upload().cloned();
        let settle = |arrived| {
            if let Some(upload) = &upload {
                upload.settle();
            }
            arrived
        };
        let mut tried: Vec<u64> = Vec::new();
        let mut retrying = None;
        let mut last = Reason::NoEndpoint;
        let mut made = 0;
        while let Some(chosen) = flow.unless_failed(self.choose(&mut tried, made)).await? {
            made += 1;
            self.log(exchange, &chosen.endpoint, made);
            if let (1, Some(copies)) = (made, &self.copies) {
                let worker = &self.connection.worker;
                exchange.watch = Some(mirror::begin(copies, worker, self.member, &request));
            }
            let most = cluster.config.breaker.requests;
            if most.is_some_and(|most| cluster.state.requests() >= most) {
                return Err(Reason::BreakerOpen.into());
            }
            // Only HTTP/2 endpoints can refuse what was sent.
            let spare = if self.http2 || self.allowance.keeps().is_some() {
                Spare::of(&request)
            } else {
                None
            };
            let id = chosen.endpoint.id;
            let missed = match self.attempt(chosen, request, flow, exchange).await? {
                Ok(arrived) => return Ok(settle(arrived)),
                Err(missed) => missed,
            };
            drop(retrying.take());
            last = flow.failure().unwrap_or(match missed.failure {
                Failure::Unsent(reason) | Failure::Broken(reason) => reason,
                Failure::Stale | Failure::Refused | Failure::Status(_) => Reason::UpstreamReset,
                Failure::TooLong => Reason::FirstByteTimeout,
            });
            if !matches!(missed.failure, Failure::Stale | Failure::Refused) {
                tried.push(id);
            }
            let again = if flow.failure().is_none() && self.allowance.again(missed.failure, made) {
                retrying = self
                    .allowance
                    .retrying(cluster.state.retries(), cluster.state.requests());
                let unsent = missed.unsent.map(|unsent| *unsent);
                retrying
                    .as_ref()
                    .and_then(|_| unsent.or_else(|| spare?.request()))
            } else {
                None
            };
            match (again, missed.arrived) {
                (Some(again), arrived) => {
                    request = again;
                    exchange.retry(missed.failure.label());
                    if let Some((response, lease, _)) = arrived {
                        discard(response, lease, flow);
                    }
                }
                (None, Some(arrived)) => return Ok(settle(arrived)),
                (None, None) => break,
            }
        }
        Err(last.into())
    }

    /// One attempt on one endpoint.
    async fn attempt(
        &self,
        chosen: Chosen,
        request: Request<RequestBody>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Result<Arrived, Missed>, Refusal> {
        let Chosen { endpoint, probe } = chosen;
        let cluster = &self.member.cluster;
        let connector = &cluster.connector;
        let wary = !request.method().is_idempotent();
        let in_flight = InFlight::begin(Arc::clone(&endpoint));
        let now = exchange.leave();
        let pools = &self.connection.worker.pools;
        let pool = pools.of(&endpoint, connector, &cluster.config.keepalive);
        let taken = flow
            .unless_failed(pool.checkout(connector, self.http2, wary, now))
            .await?;
        let (connection, reused) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.label, ?error, "no connection");
                let reason = error.reason();
                if reason != Reason::BreakerOpen {
                    self.observe(&endpoint, probe, Verdict::Failed);
                }
                return Ok(Err(Missed::new(Failure::Unsent(reason), request)));
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
        let sent = flow.unless_failed(self.send(&mut lease, request)).await;
        let failed = match sent {
            Ok(Some(Ok(response))) => {
                let verdict = Verdict::of_head(response.status(), response.headers());
                self.observe(&endpoint, probe, verdict);
                let status = response.status();
                let arrived = (response, lease, switched);
                if !self.allowance.wants(status) {
                    return Ok(Ok(arrived));
                }
                return Ok(Err(Missed {
                    failure: Failure::Status(status),
                    unsent: None,
                    arrived: Some(arrived),
                }));
            }
            Ok(Some(Err(failed))) => failed,
            Ok(None) => {
                self.observe(&endpoint, probe, Verdict::Failed);
                return Ok(Err(Missed {
                    failure: Failure::TooLong,
                    unsent: None,
                    arrived: None,
                }));
            }
            Err(reason) => {
                let silent = matches!(reason, Reason::FirstByteTimeout | Reason::IdleTimeout);
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
        Ok(Err(Missed {
            failure,
            unsent: failed.request,
            arrived: None,
        }))
    }

    /// `None`: it took longer than one attempt may.
    async fn send(
        &self,
        lease: &mut Lease,
        request: Request<RequestBody>,
    ) -> Option<Result<Response<Incoming>, crate::upstream::AttemptError>> {
        match self.allowance.per_try() {
            None => Some(lease.send(request).await),
            Some(limit) => tokio::time::timeout(limit, lease.send(request)).await.ok(),
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
    async fn choose(&self, tried: &mut Vec<u64>, made: u32) -> Option<Chosen> {
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

    fn choose_untried(&self, tried: &[u64]) -> Option<Chosen> {
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
        };
        cluster.state.choose(&set, &choice)
    }
}

/// Reads an answer that nobody gets, as far as that is cheaper than another connection.
fn discard(response: Response<Incoming>, lease: Lease, flow: &Flow) {
    let mut body = response.into_body();
    let short = http_body::Body::size_hint(&body).upper();
    if flow.sent().is_none() || short.is_none_or(|length| length > DISCARD as u64) {
        return; // dropped: the connection is reset
    }
    if http_body::Body::is_end_stream(&body) {
        lease.release(Instant::now());
        return;
    }
    tokio::task::spawn_local(async move {
        let read = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
        let limit = std::time::Duration::from_secs(1);
        if tokio::time::timeout(limit, read).await.is_ok() && http_body::Body::is_end_stream(&body)
        {
            lease.release(Instant::now());
        }
    });
}
