//! How a request gets its endpoint: at once where one is free, else after waiting in the cluster's room.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use http::header::RETRY_AFTER;
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::cluster::{Choice, Chosen, ClusterState, Endpoint, Probe, clocks};
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::patience::{Vigil, page};
use crate::room::{Due, Slot, Ticket, Waiting};
use crate::sending::{Sending, head};
use crate::snapshot::ClusterView;
use crate::upload::RequestBody;

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
    /// * `place`: where it stands in the line if it has to wait
    ///
    /// # Errors
    ///
    /// As many wait as may, it waited too long, or it waits for nothing.
    pub(crate) async fn admit(
        &self,
        request: &mut Request<RequestBody>,
        place: Place<'_>,
        flow: &Flow,
        exchange: &mut Exchange,
        waits: &Waits<'_>,
    ) -> Result<Admitted, Refusal> {
        let admitted = self
            .admit_or_say(request, place, flow, exchange, waits)
            .await;
        exchange.waited = waits.total();
        admitted.map_err(|reason| self.refusal(reason, request))
    }

    /// True when a browser asks that gets a page rather than a place in the line while nothing runs.
    fn shows_page<B>(&self, request: &Request<B>) -> bool {
        let queue = self.member.cluster.config.queue.as_ref();
        queue.is_some_and(|queue| queue.waiting_page)
            && self.wakes()
            && !self.upgrade
            && page::is_browser(request.method(), request.headers())
    }

    /// A refusal says when a replica is expected.
    fn refusal<B>(&self, reason: Reason, request: &Request<B>) -> Refusal {
        let mut refusal = Refusal::from(reason);
        let cluster = &self.member.cluster;
        let nothing_runs = matches!(
            reason,
            Reason::Asleep
                | Reason::StartFailed
                | Reason::StartTimeout
                | Reason::NoCapacity
                | Reason::NoEndpoint
        );
        if nothing_runs && cluster.config.scale.is_some() {
            let seconds = cluster.state.outlook().retry_after(Instant::now());
            refusal.fields.push((RETRY_AFTER, seconds.into()));
        }
        if nothing_runs && self.shows_page(request) {
            page::put_on(&mut refusal, cluster);
        }
        refusal
    }

    async fn admit_or_say(
        &self,
        request: &mut Request<RequestBody>,
        place: Place<'_>,
        flow: &Flow,
        exchange: &mut Exchange,
        waits: &Waits<'_>,
    ) -> Result<Admitted, Reason> {
        let cluster = &self.member.cluster;
        let state = &cluster.state;
        let tried = match place {
            Place::Again(_, tried) => tried,
            Place::End | Place::Back(_) => &[],
        };
        let choice = Choice {
            cluster: &cluster.config,
            key: self.key,
            roll: self.connection.worker.roll(),
            tried,
            free: None,
        };
        if !matches!(place, Place::Back(_))
            && let Some((slot, probe)) = state.take_slot(&choice)
        {
            if matches!(place, Place::End) {
                state.arrived();
            }
            return Ok(Admitted::with_slot(slot, probe));
        }
        let exist = state.room().replicas().exist();
        if !exist && !self.wakes() {
            return Err(Reason::Asleep);
        }
        let _patient = (!self.wakes()).then(|| state.waits_without_demand());
        let waiting = match place {
            _ if !exist && self.shows_page(request) => {
                return Err(page::call(state, matches!(place, Place::End)));
            }
            Place::Back(ticket) | Place::Again(ticket, _) => state.wait_again(ticket, &choice),
            Place::End => enter(cluster, &choice)?,
        };
        flow.recall(); // what an attempt left behind counts for nothing here
        let slot = self.wait(waiting, request, flow, exchange, waits).await;
        Ok(Admitted::with_slot(slot?, None))
    }

    /// True when the cluster starts replicas for the request, or has no say in that.
    pub(crate) fn wakes(&self) -> bool {
        self.wake || self.member.cluster.config.scale.is_none()
    }

    /// Waits for a slot while the request's clocks run. What comes of its body is held, within the room's budget.
    async fn wait(
        &self,
        waiting: Waiting<Arc<Endpoint>>,
        request: &mut Request<RequestBody>,
        flow: &Flow,
        exchange: &mut Exchange,
        waits: &Waits<'_>,
    ) -> Result<Slot<Arc<Endpoint>>, Reason> {
        let cluster = &self.member.cluster;
        let budget = cluster.state.room().bytes();
        let upload = request.body_mut().share();
        let mut reads = upload.is_some();
        let mut vigil = Vigil::keep(self, request, exchange, waiting.since());
        let mut compact = false;
        let meanwhile = |cx: &mut Context<'_>| {
            if !std::mem::replace(&mut compact, true) {
                head::compact(request);
            }
            if let (true, Some(upload)) = (reads, &upload) {
                reads = upload.poll_ahead(budget, flow, cx).is_pending();
                if !reads {
                    flow.expect_nothing(); // the client cannot be late with what nobody reads
                }
            }
            if let Some(reason) = flow.failure() {
                return Poll::Ready(reason); // the body is broken or too large
            }
            if let Some(vigil) = &mut vigil {
                vigil.poll(self, request, upload.as_deref(), exchange, cx);
            }
            Poll::Pending
        };
        let slot = wait(cluster, waiting, self.wakes(), waits, meanwhile);
        let slot = flow.unless_failed(slot).await?;
        if let Some(upload) = &upload {
            upload.waited();
        }
        slot
    }
}

/// Where a request stands in the line.
#[derive(Clone, Copy)]
pub(crate) enum Place<'t> {
    /// It has just come.
    End,
    /// Where it stood before: an endpoint did not take it on.
    Back(Ticket),
    /// The same, for another attempt, preferably not on the endpoints with these ids.
    Again(Ticket, &'t [u64]),
}

/// How long one request waits, however often; told to its cluster once, when this is dropped.
pub(crate) struct Waits<'c> {
    state: &'c ClusterState,
    total: Cell<Option<Duration>>,
    since: Cell<Option<Instant>>,
}

impl<'c> Waits<'c> {
    /// It has not waited.
    pub(crate) fn new(state: &'c ClusterState) -> Self {
        Self {
            state,
            total: Cell::new(None),
            since: Cell::new(None),
        }
    }

    /// How long it waited until now, whatever came of it; `None`: not at all.
    pub(crate) fn total(&self) -> Option<Duration> {
        self.end();
        self.total.get()
    }

    fn begin(&self) {
        if self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
    }

    fn end(&self) {
        if let Some(since) = self.since.take() {
            let before = self.total.get().unwrap_or_default();
            self.total.set(Some(before + since.elapsed()));
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.end(); // of one that left
        if let Some(total) = self.total.get() {
            self.state.waited(total);
        }
    }
}

/// Joins the line at its end.
///
/// # Errors
///
/// As many wait as may, or nobody needs to.
pub(crate) fn enter(
    cluster: &ClusterView,
    choice: &Choice<'_>,
) -> Result<Waiting<Arc<Endpoint>>, Reason> {
    let state = &cluster.state;
    let exist = state.room().replicas().exist();
    state.arrived(); // only now: what is refused asleep is no demand
    if !exist && let Some(reason) = state.outlook().refusal() {
        return Err(reason);
    }
    let full = match exist {
        true => Reason::QueueFull,
        false => nothing_came(cluster),
    };
    state.wait(choice).map_err(|_| full)
}

/// Waits for a slot as long as the room's clocks allow, and as long as `meanwhile` has nothing against it.
///
/// * `wakes`: false: it does not wait for a replica that somebody would have to start
pub(crate) async fn wait(
    cluster: &ClusterView,
    mut waiting: Waiting<Arc<Endpoint>>,
    wakes: bool,
    waits: &Waits<'_>,
    mut meanwhile: impl FnMut(&mut Context<'_>) -> Poll<Reason>,
) -> Result<Slot<Arc<Endpoint>>, Reason> {
    let room = cluster.state.room();
    let clocks = clocks(&cluster.config);
    let since = waiting.since();
    let mut timer = None;
    let mut asleep = (!wakes).then(|| Box::pin(falls_asleep(&cluster.state)));
    let slot = std::future::poll_fn(|cx| {
        if let Poll::Ready(slot) = Pin::new(&mut waiting).poll(cx) {
            return Poll::Ready(slot);
        }
        waits.begin();
        if let Some(asleep) = &mut asleep
            && asleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Reason::Asleep));
        }
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since)));
        while timer.as_mut().poll(cx).is_ready() {
            match clocks.due(since, Instant::now(), room.replicas()) {
                Due::Wait(until) => timer.as_mut().reset(until),
                Due::Saturated => return Poll::Ready(Err(Reason::QueueTimeout)),
                Due::Empty => return Poll::Ready(Err(nothing_came(cluster))),
            }
        }
        meanwhile(cx).map(Err)
    })
    .await;
    waits.end();
    slot
}

/// Resolves when no replica exists any more.
async fn falls_asleep(state: &ClusterState) {
    let mut changes = state.changes();
    while state.room().replicas().exist() {
        if changes.changed().await.is_err() {
            return;
        }
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
