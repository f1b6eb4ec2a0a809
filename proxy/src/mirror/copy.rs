//! One copy of a request: sent like any other, its answer read and thrown away, or kept to be compared.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::observation::{Observation, Whose};
use super::state::{CANCELLED, Outcome, UnderWay};
use super::view::MirrorView;
use crate::admission::{Admitted, nothing_came};
use crate::capture::{Capture, Seen, SeenAnswer};
use crate::cluster::{Choice, Chosen, Endpoint, InFlight, Probe, Verdict, clocks};
use crate::error::Reason;
use crate::flow::Flow;
use crate::room::{Due, Slot, Waiting};
use crate::snapshot::ClusterView;
use crate::upload::{RequestBody, TeeReader, Watch};
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
    /// `None` once it is settled.
    pub under_way: Option<UnderWay>,
    /// Keeps its answer; `None`: nobody looks at it.
    pub keep: Option<Capture>,
    pub observation: Rc<Observation>,
    /// In the room of its cluster; that of the primary is over when its copies begin.
    pub waited: Duration,
}

/// No replica exists, and copies without demand bring none.
const ASLEEP: &str = "asleep";
/// Replicas exist, none has a free slot, and copies without demand wait for none.
const BUSY: &str = "busy";

/// An answer's head and trailers.
type Answer = (StatusCode, HeaderMap, Option<HeaderMap>);

impl Copy {
    /// Sends it and reads its answer; never fails.
    pub(super) async fn run(mut self) {
        let limit = self.mirror.config.timeout.unwrap_or(Duration::MAX);
        let watch = self.body.as_ref().map(TeeReader::watch);
        let cut = async {
            match &watch {
                Some(watch) => watch.failed().await,
                None => std::future::pending().await,
            }
        };
        // A copy that is cut ends at once, whatever its endpoint keeps us waiting for.
        let sent = tokio::time::timeout(limit, async {
            tokio::select! {
                biased;
                sent = self.send(watch.as_ref()) => sent,
                end = cut => Err(end.into()),
            }
        })
        .await;
        let (mut outcome, answer) = match sent {
            Err(_) => (Outcome::Timeout, None),
            Ok(Err(outcome)) => (outcome, None),
            Ok(Ok(answer)) => {
                let outcome = if answer.0.is_server_error() {
                    Outcome::Error("status")
                } else {
                    Outcome::Ok
                };
                (outcome, Some(answer))
            }
        };
        if answer.is_none()
            && let Some(end) = watch.as_ref().and_then(Watch::failure)
        {
            outcome = end.into();
        }
        self.settle(outcome, answer);
    }

    /// Counts and tells what came of it, once.
    fn settle(&mut self, outcome: Outcome, answer: Option<Answer>) {
        let Some(under_way) = self.under_way.take() else {
            return;
        };
        // Only the mirror's own copies are counted, not those of the twin.
        if matches!(self.whose, Whose::Mirror(..)) {
            self.mirror.state.count(outcome);
        }
        drop(under_way);
        let Some(mut keep) = self.keep.take() else {
            return;
        };
        let seconds = self.observation.started().elapsed();
        let seconds = seconds.saturating_sub(self.waited).as_secs_f64();
        let seen = match answer {
            Some((status, headers, trailers)) => Seen::Answer(Box::new(SeenAnswer {
                status,
                headers,
                body: keep.take(),
                trailers,
                seconds,
            })),
            None => Seen::Nothing(outcome.reason()),
        };
        let cluster = self.cluster.config.name.as_str().into();
        match outcome {
            Outcome::Dropped(CANCELLED) => self.observation.cancelled(&self.whose, &cluster),
            _ => self.observation.copied(&self.whose, &cluster, seen),
        }
    }

    async fn send(&mut self, watch: Option<&Watch>) -> Result<Answer, Outcome> {
        let flow = Rc::new(Flow::new(Instant::now(), None));
        let body = RequestBody::copy(self.body.take(), Rc::clone(&flow));
        let head = std::mem::take(&mut self.head);
        let mut request = head.map(|()| body);
        let mut tried = Vec::new();
        let mut last = Outcome::Dropped("no_endpoint");
        let has_room = self.cluster.config.has_room();
        if has_room && self.mirror.config.demand {
            self.cluster.state.arrived();
        }
        let mut in_vain = false; // a connection was opened for nothing, or none could be
        for _ in 0..ATTEMPTS {
            let admitted = if has_room {
                match self.admit(&tried).await {
                    Ok(admitted) => admitted,
                    Err(outcome) if tried.is_empty() => return Err(outcome),
                    Err(_) => break, // why the last attempt failed says more
                }
            } else {
                let Some(chosen) = self.choose(&tried) else {
                    break;
                };
                Admitted { chosen, slot: None }
            };
            let Chosen { endpoint, probe } = admitted.chosen;
            let cluster = &self.cluster;
            let most = cluster.config.breaker.requests;
            if most.is_some_and(|most| cluster.state.requests() >= most) {
                return Err(Outcome::Dropped("breaker_open"));
            }
            let aside = has_room && !self.mirror.config.demand;
            let _no_demand = aside.then(|| cluster.state.without_demand());
            let in_flight = InFlight::begin(Arc::clone(&endpoint), admitted.slot);
            let connector = cluster.connector_for(request.headers());
            let pools = &self.worker.pools;
            let (keepalive, most) = (
                &cluster.config.keepalive,
                cluster.state.room().concurrency(),
            );
            let pool = pools.of(&endpoint, connector, keepalive, most);
            let now = Instant::now();
            let taken = pool.checkout(connector, self.http2, true, now).await;
            let (connection, reused) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    last = match error.reason() {
                        Reason::BreakerOpen => Outcome::Dropped("breaker_open"),
                        reason => Outcome::Error(reason.label()),
                    };
                    if !error.is_ours() {
                        in_vain = true;
                        self.observe(&endpoint, probe, Verdict::Failed);
                        self.spare(&endpoint);
                    }
                    tried.push(endpoint.id);
                    continue;
                }
            };
            let mut lease = Lease::new(connection, pool, in_flight);
            flow.dispatch(now, request.body().is_empty());
            let sent = lease.send(request).await;
            match sent.map_err(|failed| lease.explain(failed)) {
                Ok(response) => {
                    let (ejects, head) = (cluster.config.outlier.is_some(), response.headers());
                    let verdict = Verdict::that_matters(ejects, response.status(), head);
                    self.observe(&endpoint, probe, verdict);
                    self.mirror.state.reach(&self.whose).answered();
                    return self.read(response, lease, &flow).await;
                }
                Err(failed) => {
                    last = Outcome::Error(failed.reason.label());
                    let Some(again) = failed.request else {
                        // A copy that is cut fails as well; its endpoint did not.
                        if watch.and_then(Watch::failure).is_none() {
                            in_vain |= !reused;
                            self.observe(&endpoint, probe, Verdict::Failed);
                        }
                        break;
                    };
                    request = *again;
                    if !reused {
                        self.spare(&endpoint);
                        in_vain = true;
                        tried.push(endpoint.id);
                    }
                }
            }
        }
        if in_vain {
            self.mirror.state.reach(&self.whose).failed(Instant::now());
        }
        Err(last)
    }

    fn choice<'a>(&'a self, tried: &'a [u64]) -> Choice<'a> {
        Choice {
            cluster: &self.cluster.config,
            key: None,
            roll: self.worker.roll(),
            tried,
            free: None,
        }
    }

    fn choose(&self, tried: &[u64]) -> Option<Chosen> {
        let state = &self.cluster.state;
        state.choose(&state.endpoints(), &self.choice(tried))
    }

    /// Takes a free slot of a cluster with a room, or waits for one where the copies are demand.
    async fn admit(&mut self, tried: &[u64]) -> Result<Admitted, Outcome> {
        let state = &self.cluster.state;
        let choice = self.choice(tried);
        if let Some((slot, probe)) = state.take_slot(&choice) {
            return Ok(Admitted::with_slot(slot, probe));
        }
        let exist = state.room().replicas().exist();
        if !self.mirror.config.demand {
            return Err(Outcome::Dropped(if exist { BUSY } else { ASLEEP }));
        }
        if !exist && let Some(reason) = state.outlook().refusal() {
            return Err(Outcome::Dropped(reason.label()));
        }
        let full = |_| Outcome::Dropped(Reason::QueueFull.label());
        let waiting = state.wait(&choice).map_err(full)?;
        let since = waiting.since();
        let slot = self.wait(waiting).await?;
        self.waited += since.elapsed();
        Ok(Admitted::with_slot(slot, None))
    }

    /// Waits as long as requests do; the copy's own clock, which ends the waiting as well, is that of the caller.
    async fn wait(
        &self,
        mut waiting: Waiting<Arc<Endpoint>>,
    ) -> Result<Slot<Arc<Endpoint>>, Outcome> {
        let replicas = self.cluster.state.room().replicas();
        let clocks = clocks(&self.cluster.config);
        let since = waiting.since();
        loop {
            let reason = match clocks.due(since, Instant::now(), replicas) {
                Due::Wait(until) => match tokio::time::timeout_at(until, &mut waiting).await {
                    Ok(Ok(slot)) => return Ok(slot),
                    Ok(Err(reason)) => reason,
                    Err(_) => continue,
                },
                Due::Saturated => Reason::QueueTimeout,
                Due::Empty => nothing_came(&self.cluster),
            };
            return Err(Outcome::Dropped(reason.label()));
        }
    }

    /// Nothing took a connection there: in a cluster with a room it gets no more until a probe passes.
    fn spare(&self, endpoint: &Endpoint) {
        if self.cluster.config.has_room() {
            self.cluster.state.mark_down(endpoint);
        }
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
    ) -> Result<Answer, Outcome> {
        if response.status().is_informational() {
            return Err(Outcome::Error(Reason::UpstreamProtocol.label())); // nobody asked to switch protocols
        }
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

impl Drop for Copy {
    fn drop(&mut self) {
        self.settle(Outcome::Dropped(CANCELLED), None);
    }
}
