//! Attempts: an endpoint, a connection, a request, and another endpoint as far as the route allows.

mod attempt;
pub(crate) mod head;
mod spare;
mod turned_away;

use std::sync::Arc;

use forebay_config::HeaderEdits;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::admission::{Admitted, Place, Waits};
use crate::answer::Refusal;
use crate::cluster::{Choice, Endpoint};
use crate::connection::Connection;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::filter::Dressing;
use crate::flow::Flow;
use crate::mirror::{self, Sampled};
use crate::retry::{self, Allowance, Failure, Retrying};
use crate::room::{Seat as _, Slot, Ticket};
use crate::snapshot::MemberView;
use crate::upload::RequestBody;
use crate::upstream::Lease;

use attempt::{Lost, Missed};
use spare::{Spare, discard};

/// Attempts after which a request that no endpoint takes does not return to the room: they listen, but not for us.
const MOST_RETURNS: u32 = 50;

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
    /// What the route does to the fields of answers.
    pub response_headers: &'a HeaderEdits,
    /// What is added to its answer, whoever gives it.
    pub dressing: &'a Dressing<'a>,
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

/// The next attempt.
struct Next {
    admitted: Admitted,
    request: Box<Request<RequestBody>>,
    place: Retrying,
}

/// What became of a request so far.
struct Journey<'c> {
    /// How long it waited.
    waits: Waits<'c>,
    /// Times it was sent.
    sent: u32,
    /// Attempts, those not counted that an endpoint did not take on.
    made: u32,
    /// Ids of endpoints that failed it.
    tried: Vec<u64>,
    /// Where it stands in the line; `None`: the cluster has no room.
    ticket: Option<Ticket>,
}

impl Sending<'_> {
    /// Sends the request and returns the answer's head with the connection it came from.
    ///
    /// # Errors
    ///
    /// No endpoint took it, or it failed by itself.
    pub async fn run(
        &self,
        request: Box<Request<RequestBody>>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Box<Arrived>, Refusal> {
        let upload = request.body().upload().cloned();
        let journey = Journey {
            waits: Waits::new(&self.member.cluster.state),
            sent: 0,
            made: 0,
            tried: Vec::new(),
            ticket: None,
        };
        let arrived = self.attempts(request, journey, flow, exchange).await;
        if let Some(upload) = &upload {
            upload.settle();
        }
        arrived
    }

    async fn attempts(
        &self,
        mut request: Box<Request<RequestBody>>,
        mut journey: Journey<'_>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Box<Arrived>, Refusal> {
        let mut retrying = None;
        if self.is_full(0) {
            return Err(Reason::BreakerOpen.into()); // nobody waits for that
        }
        let Admitted {
            mut chosen,
            mut slot,
        } = if self.has_room() {
            self.admit(&mut request, Place::End, flow, exchange, &journey.waits)
                .await?
        } else {
            self.choose_untried(&[]).ok_or(Reason::NoEndpoint)?
        };
        if journey.waits.total().is_some() && self.is_full(0) {
            return Err(Reason::BreakerOpen.into());
        }
        loop {
            journey.made += 1;
            journey.sent += 1;
            self.log(exchange, &chosen.endpoint, journey.sent);
            if let (1, Some(copies)) = (journey.sent, &self.copies) {
                let worker = &self.connection.worker;
                exchange.watch = Some(mirror::begin(copies, worker, self.member, &request));
            }
            let mut spare = match slot.is_some() || self.allowance.spares(self.http2, journey.made)
            {
                true => Spare::of(&request),
                false => None,
            };
            let endpoint = Arc::clone(&chosen.endpoint);
            journey.ticket = slot.as_ref().map(Slot::ticket);
            let tried_here = self.attempt(chosen, slot, request, flow, exchange);
            let mut missed = match tried_here.await {
                Ok(arrived) => return Ok(arrived),
                Err(Lost::Failed(reason)) => return Err(reason.into()),
                Err(Lost::Missed(missed)) => missed,
            };
            drop(retrying.take());
            let back = self.back(&mut missed, &mut spare, &mut journey, &endpoint, flow);
            if let Some((ticket, unsent)) = back {
                if !matches!(missed.failure, Failure::Unsent(_)) {
                    exchange.retry(missed.failure.label());
                }
                request = unsent;
                let place = Place::Back(ticket);
                let again = self.admit(&mut request, place, flow, exchange, &journey.waits);
                Admitted { chosen, slot } = again.await?;
                continue;
            }
            if !matches!(missed.failure, Failure::Stale | Failure::Refused) {
                journey.tried.push(endpoint.id);
            }
            let next = match journey.ticket {
                Some(ticket) => {
                    let next =
                        self.next_in_line(&mut missed, spare, &mut journey, ticket, flow, exchange);
                    next.await?
                }
                None => {
                    let next = self.next(&mut missed, spare, &mut journey);
                    flow.unless_failed(next).await?
                }
            };
            match (next, missed.arrived) {
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
                (None, Some(arrived)) => return Ok(arrived),
                (None, None) => return Err(missed.failure.reason().into()),
            }
        }
    }

    /// The request, when it goes back to where it stood in the line as if it had not been sent.
    fn back(
        &self,
        missed: &mut Missed,
        spare: &mut Option<Spare>,
        journey: &mut Journey<'_>,
        endpoint: &Arc<Endpoint>,
        flow: &Flow,
    ) -> Option<(Ticket, Box<Request<RequestBody>>)> {
        let state = &self.member.cluster.state;
        let ticket = journey.ticket.filter(|_| state.has_room())?;
        let unsent = match missed.failure {
            // Bounded by the clocks of the room alone: it says that it will take more.
            Failure::TurnedAway(_) => {
                let request = spare.take()?.request()?;
                journey.made -= 1;
                let arrived = missed.arrived.take()?;
                self.pause(endpoint, arrived.response.headers());
                discard(*arrived, flow);
                request
            }
            _ if journey.sent >= MOST_RETURNS => return None,
            Failure::Refused if self.allowance.again(missed.failure, journey.made) => {
                spare.take()?.request()?
            }
            _ => missed.returns_to_room()?,
        };
        if let Failure::Unsent(_) = missed.failure {
            state.mark_down(endpoint);
        }
        Some((ticket, unsent))
    }

    /// Where a request goes after an attempt that failed; `None`: nowhere, and nothing is changed.
    async fn next(
        &self,
        missed: &mut Missed,
        spare: Option<Spare>,
        journey: &mut Journey<'_>,
    ) -> Option<Next> {
        let place = self.may_go_on(missed, spare.as_ref(), journey)?;
        let admitted = self.choose(&mut journey.tried, journey.made).await?;
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

    /// The same where it needs a slot, for which it waits where it stood in the line. What the attempt holds is given
    /// back first: the slot that comes may be its own.
    async fn next_in_line(
        &self,
        missed: &mut Missed,
        spare: Option<Spare>,
        journey: &mut Journey<'_>,
        ticket: Ticket,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<Option<Next>, Refusal> {
        let state = &self.member.cluster.state;
        let place = self.may_go_on(missed, spare.as_ref(), journey);
        let exist = state.room().replicas().exist() || self.wakes();
        let full = self.is_full(u32::from(missed.arrived.is_some()));
        let another = || {
            let set = state.endpoints();
            let mut others = set
                .endpoints
                .iter()
                .filter(|e| !journey.tried.contains(&e.id));
            others.any(|other| other.may_serve())
        };
        let pauses = !journey.tried.is_empty() && !another();
        if !exist || full || pauses && !self.allowance.returns() {
            return Ok(None);
        }
        let Some(place) = place else { return Ok(None) };
        let unsent = missed.unsent.take();
        let Some(mut request) = unsent.or_else(|| spare?.request()) else {
            return Ok(None);
        };
        if let Some(arrived) = missed.arrived.take() {
            discard(*arrived, flow);
        }
        flow.recall();
        if pauses {
            journey.tried.clear();
            let pause = retry::pause(journey.made, self.connection.worker.roll());
            flow.unless_failed(tokio::time::sleep(pause)).await?;
        }
        let again = Place::Again(ticket, &journey.tried);
        let admitted = self
            .admit(&mut request, again, flow, exchange, &journey.waits)
            .await?;
        Ok(Some(Next {
            admitted,
            request,
            place,
        }))
    }

    /// A place among the retries of the cluster, if the request may be sent once more at all.
    fn may_go_on(
        &self,
        missed: &Missed,
        spare: Option<&Spare>,
        journey: &Journey<'_>,
    ) -> Option<Retrying> {
        let state = &self.member.cluster.state;
        let possible = missed.unsent.is_some() || spare.is_some_and(Spare::is_whole);
        if !possible || !self.allowance.again(missed.failure, journey.made) {
            return None;
        }
        self.allowance
            .retrying(missed.failure, state.retries(), state.requests())
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
        let chosen = cluster.state.choose(&set, &choice)?;
        Some(Admitted { chosen, slot: None })
    }
}
