//! One copy of a request: sent like any other, its answer read and thrown away, or kept to be compared.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::observation::{Observation, Whose};
use super::state::{Outcome, UnderWay};
use super::view::MirrorView;
use crate::capture::{Capture, Seen, SeenAnswer};
use crate::cluster::{Choice, Chosen, Endpoint, InFlight, Probe, Verdict};
use crate::error::Reason;
use crate::flow::Flow;
use crate::snapshot::ClusterView;
use crate::upload::{RequestBody, TeeEnd, TeeReader};
use crate::upstream::Lease;
use crate::worker::Worker;

/// Endpoints a copy is tried on while nothing of it was written.
const ATTEMPTS: usize = 3;

/// A copy on its way.
pub(super) struct Copy {
    pub worker: Rc<Worker>,
    pub mirror: Arc<MirrorView>,
    /// The mirror's, or that of its noise twin.
    pub cluster: Arc<ClusterView>,
    pub whose: Whose,
    pub head: Request<()>,
    pub http2: bool,
    pub body: Option<TeeReader>,
    pub under_way: UnderWay,
    /// Keeps its answer; `None`: nobody looks at it.
    pub keep: Option<Capture>,
    pub observation: Rc<Observation>,
}

/// Counts what came of a copy, also when it is cancelled.
struct Ledger {
    mirror: Arc<MirrorView>,
    counted: bool,
}

impl Ledger {
    fn count(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.counted, true) {
            self.mirror.state.count(outcome);
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.count(Outcome::Dropped("cancelled"));
    }
}

impl Copy {
    /// Sends it and reads its answer; never fails.
    pub(super) async fn run(mut self) {
        let cut: Option<Box<dyn Fn() -> Option<TeeEnd>>> = match &self.body {
            Some(reader) => Some(Box::new(reader.watch())),
            None => None,
        };
        let mut ledger = Ledger {
            mirror: Arc::clone(&self.mirror),
            // Only the mirror's own copies are counted, not those of the twin.
            counted: matches!(self.whose, Whose::Noise(..)),
        };
        let limit = self.mirror.config.timeout.unwrap_or(Duration::MAX);
        let sent = tokio::time::timeout(limit, self.send()).await;
        let (mut outcome, answer) = match sent {
            Err(_) => (Outcome::Timeout, None),
            Ok(Err(outcome)) => (outcome, None),
            Ok(Ok(head)) => {
                let outcome = if head.0.is_server_error() {
                    Outcome::Error("status")
                } else {
                    Outcome::Ok
                };
                (outcome, Some(head))
            }
        };
        if answer.is_none()
            && let Some(end) = cut.and_then(|cut| cut())
        {
            outcome = end.into();
        }
        ledger.count(outcome);
        drop(self.under_way);
        if let Some(mut keep) = self.keep.take() {
            let seen = match answer {
                Some((status, headers, trailers)) => Seen::Answer(Box::new(SeenAnswer {
                    status,
                    headers,
                    body: keep.take(),
                    trailers,
                    seconds: self.observation.started().elapsed().as_secs_f64(),
                })),
                None => Seen::Nothing(outcome.reason()),
            };
            let cluster = self.cluster.config.name.as_str().into();
            self.observation.copied(&self.whose, &cluster, seen);
        }
    }

    async fn send(&mut self) -> Result<(StatusCode, HeaderMap, Option<HeaderMap>), Outcome> {
        let flow = Rc::new(Flow::new(Instant::now(), None));
        let body = RequestBody::copy(self.body.take(), Rc::clone(&flow));
        let head = std::mem::take(&mut self.head);
        let mut request = head.map(|()| body);
        let mut tried = Vec::new();
        let mut last = Outcome::Dropped("no_endpoint");
        for _ in 0..ATTEMPTS {
            let Some(Chosen { endpoint, probe }) = self.choose(&tried) else {
                break;
            };
            let in_flight = InFlight::begin(Arc::clone(&endpoint));
            let cluster = &self.cluster;
            let connector = &cluster.connector;
            let pools = &self.worker.pools;
            let pool = pools.of(&endpoint, connector, &cluster.config.keepalive);
            let now = Instant::now();
            let taken = pool.checkout(connector, self.http2, true, now).await;
            let (connection, reused) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    last = match error.reason() {
                        Reason::BreakerOpen => Outcome::Dropped("breaker_open"),
                        reason => Outcome::Error(reason.label()),
                    };
                    if last != Outcome::Dropped("breaker_open") {
                        self.observe(&endpoint, probe, Verdict::Failed);
                    }
                    tried.push(endpoint.id);
                    continue;
                }
            };
            let mut lease = Lease::new(connection, pool, in_flight);
            flow.dispatch(now, request.body().is_empty());
            match lease.send(request).await {
                Ok(response) => {
                    let verdict = Verdict::of_head(response.status(), response.headers());
                    self.observe(&endpoint, probe, verdict);
                    return self.read(response, lease, &flow).await;
                }
                Err(failed) => {
                    last = Outcome::Error(failed.reason.label());
                    let Some(again) = failed.request else {
                        self.observe(&endpoint, probe, Verdict::Failed);
                        break;
                    };
                    request = *again;
                    if !reused {
                        tried.push(endpoint.id);
                    }
                }
            }
        }
        Err(last)
    }

    fn choose(&self, tried: &[u64]) -> Option<Chosen> {
        let cluster = &self.cluster;
        let choice = Choice {
            cluster: &cluster.config,
            key: None,
            roll: self.worker.roll(),
            tried,
        };
        cluster.state.choose(&cluster.state.endpoints(), &choice)
    }

    fn observe(&self, endpoint: &Arc<Endpoint>, probe: Option<Probe>, verdict: Verdict) {
        let outlier = self.cluster.config.outlier.as_ref();
        self.cluster
            .state
            .observe(endpoint, probe, verdict, outlier);
    }

    /// Reads the answer to its end, keeping of it what is wanted.
    async fn read(
        &mut self,
        response: http::Response<hyper::body::Incoming>,
        lease: Lease,
        flow: &Flow,
    ) -> Result<(StatusCode, HeaderMap, Option<HeaderMap>), Outcome> {
        let http2 = lease.is_http2();
        let (head, mut body) = response.into_parts();
        let mut trailers = None;
        let mut ended = http_body::Body::is_end_stream(&body);
        while !ended {
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(keep) = &mut self.keep {
                            keep.push(&data);
                        }
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
                // hyper shows RST_STREAM(NO_ERROR) as a clean end.
                None if !http2 || http_body::Body::is_end_stream(&body) => break,
                None | Some(Err(_)) => return Err(Outcome::Error(Reason::UpstreamReset.label())),
            }
            ended = http_body::Body::is_end_stream(&body);
        }
        if let Some(keep) = &mut self.keep {
            keep.end();
        }
        if flow.sent().is_some() {
            lease.release(Instant::now());
        }
        Ok((head.status, head.headers, trailers))
    }
}
