//! How a request gets its endpoint: at once where one is free, else after waiting in the cluster's room.

use std::sync::Arc;
use std::task::Poll;

use http::Request;
use http::header::RETRY_AFTER;
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::cluster::{Choice, Chosen, Endpoint, Probe, clocks};
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::room::{Due, Slot, Ticket, Waiting};
use crate::sending::Sending;
use crate::snapshot::ClusterView;
use crate::upload::{Held, RequestBody};

/// An endpoint, and the admission to it in clusters with a room.
pub struct Admitted {
    /// Where the request goes.
    pub chosen: Chosen,
    /// `None`: the cluster has no room.
    pub slot: Option<Slot<Arc<Endpoint>>>,
}

impl Admitted {
    /// Where the slot is.
    pub(crate) fn with_slot(slot: Slot<Arc<Endpoint>>, probe: Option<Probe>) -> Self {
        Self {
            chosen: Chosen {
                endpoint: Arc::clone(slot.seat()),
                probe,
            },
            slot: Some(slot),
        }
    }
}

impl Sending<'_> {
    /// Takes a free slot, or waits for one.
    ///
    /// * `ticket`: where the request stood when an endpoint refused it before anything was sent
    ///
    /// # Errors
    ///
    /// As many wait as may, it waited too long, or it waits for nothing.
    pub(crate) async fn admit(
        &self,
        request: &mut Request<RequestBody>,
        ticket: Option<Ticket>,
        tried: &[u64],
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Refusal> {
        let admitted = self.admit_or_say(request, ticket, tried, flow, exchange);
        admitted.await.map_err(|reason| self.refusal(reason))
    }

    /// A refusal says when a replica is expected.
    fn refusal(&self, reason: Reason) -> Refusal {
        let mut refusal = Refusal::from(reason);
        let cluster = &self.member.cluster;
        let nothing_runs = matches!(
            reason,
            Reason::Asleep | Reason::StartFailed | Reason::StartTimeout | Reason::NoEndpoint
        );
        if nothing_runs && cluster.config.scale.is_some() {
            let seconds = cluster.state.outlook().retry_after(Instant::now());
            refusal.fields.push((RETRY_AFTER, seconds.into()));
        }
        refusal
    }

    async fn admit_or_say(
        &self,
        request: &mut Request<RequestBody>,
        ticket: Option<Ticket>,
        tried: &[u64],
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Reason> {
        let cluster = &self.member.cluster;
        let state = &cluster.state;
        let choice = Choice {
            cluster: &cluster.config,
            key: self.key,
            roll: self.connection.worker.roll(),
            tried,
            free: None,
        };
        let is_asleep = |exist: bool| !exist && !self.wake && cluster.config.scale.is_some();
        let waiting = match ticket {
            Some(_) if is_asleep(state.room().replicas().exist()) => return Err(Reason::Asleep),
            Some(ticket) => state.wait_again(ticket, &choice),
            None => {
                if let Some((slot, probe)) = state.take_slot(&choice) {
                    state.arrived();
                    return Ok(Admitted::with_slot(slot, probe));
                }
                let exist = state.room().replicas().exist();
                if is_asleep(exist) {
                    return Err(Reason::Asleep);
                }
                state.arrived(); // only now: what is refused asleep is no demand
                if !exist && state.outlook().start_failed {
                    return Err(Reason::StartFailed);
                }
                let full = match exist {
                    true => Reason::QueueFull,
                    false => nothing_came(cluster),
                };
                state.wait(&choice).map_err(|_| full)?
            }
        };
        flow.recall(); // what an attempt left behind counts for nothing here
        let since = waiting.since();
        let mut waits = false;
        let slot = self.wait(waiting, &mut waits, request, flow).await;
        if waits {
            let waited = since.elapsed();
            state.waited(waited);
            exchange.waited = Some(waited);
        }
        Ok(Admitted::with_slot(slot?, None))
    }

    /// Waits for a slot while the request's clocks run. What comes of its body is held, within the room's budget.
    ///
    /// * `waits`: becomes true unless a slot is there at once
    async fn wait(
        &self,
        mut waiting: Waiting<Arc<Endpoint>>,
        waits: &mut bool,
        request: &mut Request<RequestBody>,
        flow: &Flow,
    ) -> Result<Slot<Arc<Endpoint>>, Reason> {
        let cluster = &self.member.cluster;
        let room = cluster.state.room();
        let clocks = clocks(&cluster.config);
        let since = waiting.since();
        let mut held = Held::new(room.bytes());
        let upload = request.body_mut().share();
        let mut reads = upload.is_some();
        let mut timer = Box::pin(tokio::time::sleep_until(since));
        let slot = std::future::poll_fn(|cx| {
            if let Poll::Ready(slot) = std::pin::Pin::new(&mut waiting).poll(cx) {
                return Poll::Ready(slot);
            }
            *waits = true;
            while timer.as_mut().poll(cx).is_ready() {
                match clocks.due(since, Instant::now(), room.replicas()) {
                    Due::Wait(until) => timer.as_mut().reset(until),
                    Due::Saturated => return Poll::Ready(Err(Reason::QueueTimeout)),
                    Due::Empty => return Poll::Ready(Err(nothing_came(cluster))),
                }
            }
            if let (true, Some(upload)) = (reads, &upload) {
                reads = upload.poll_ahead(&mut held, flow, cx).is_pending();
                if !reads {
                    flow.expect_nothing(); // the client cannot be late with what nobody reads
                }
                if let Some(reason) = flow.failure() {
                    return Poll::Ready(Err(reason)); // the body is broken or too large
                }
            }
            Poll::Pending
        });
        flow.unless_failed(slot).await?
    }
}

/// Why nobody served in time.
pub(crate) fn nothing_came(cluster: &ClusterView) -> Reason {
    if cluster.config.scale.is_some() && cluster.state.outlook().asked {
        Reason::StartTimeout
    } else {
        Reason::NoEndpoint
    }
}
