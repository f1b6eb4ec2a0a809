//! The room: who takes a slot at once, who waits, and to whom a slot goes that is free again.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::clocks::Replicas;
use super::line::{Fate, Line, Ticket};
use super::slots::{Seat, Slot};
use super::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard};
use crate::capture::Budget;
use crate::error::Reason;

/// Requests of the line that an endpoint without a limit gets before its first response head.
const AT_FIRST: u32 = 8;
/// How many are told in one go that they wait for nothing, before others get at the line.
const AT_ONCE: usize = 256;
/// One that waits, in the room's `crowd`; a slot in use is 1 there.
const ONE_WAITS: u64 = 1 << 32;

/// The bounds of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slots of each endpoint, at least 1; `None`: any number.
    pub concurrency: Option<u32>,
    /// Requests that wait at once.
    pub max_requests: u32,
    /// Bytes that are held for them; see [`Room::bytes`].
    pub max_bytes: u64,
}

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What a cluster is asked for, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Slots in use on all endpoints.
    pub in_flight: u32,
    /// Requests that wait.
    pub waiting: u32,
}

/// A room in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// In flight and waiting.
    pub demand: Demand,
    /// Bytes held for those who wait.
    pub held: u64,
    /// Requests that ever waited.
    pub queued: u64,
    /// How long the first in the line has been waiting; `None`: nobody waits.
    pub oldest: Option<Duration>,
}

/// Where the requests of one cluster wait for a slot, first come first served over all workers.
#[derive(Debug)]
pub struct Room<S> {
    /// Those that wait << 32 | slots in use; only ever changed by read-modify-write. See the module's documentation.
    crowd: AtomicU64,
    /// Slots per endpoint; 0: no limit.
    concurrency: AtomicU32,
    max_requests: AtomicU32,
    /// Requests that ever waited.
    queued: AtomicU64,
    /// Held for a few instructions, and never while anybody is woken or a slot is dropped.
    line: Mutex<Line<S>>,
    replicas: Replicas,
    bytes: Arc<Budget>,
    came: Arc<Notify>,
}

impl<S: Seat> Room<S> {
    /// An empty room; no replica exists.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            crowd: AtomicU64::new(0),
            concurrency: AtomicU32::new(limits.concurrency.unwrap_or(0)),
            max_requests: AtomicU32::new(limits.max_requests),
            queued: AtomicU64::new(0),
            line: Mutex::new(Line::new()),
            replicas: Replicas::new(),
            bytes: Arc::new(Budget::new(limits.max_bytes)),
            came: Arc::default(),
        })
    }

    /// Changes the bounds; who waits goes on waiting, slots beyond a lower limit end as they would have.
    /// Afterwards [`opened`](Self::opened) is called with every endpoint that may serve.
    pub fn set_limits(&self, limits: Limits) {
        let concurrency = limits.concurrency.unwrap_or(0);
        let before = self.concurrency.swap(concurrency, Ordering::AcqRel);
        if (before == 0) != (concurrency == 0) {
            self.line().begin_episode(); // what was counted for the pace of an endpoint is not what it is now
        }
        self.max_requests
            .store(limits.max_requests, Ordering::Release);
        self.bytes.set(limits.max_bytes);
    }

    /// Slots of each endpoint; `None`: any number.
    pub fn concurrency(&self) -> Option<u32> {
        let limit = self.concurrency.load(Ordering::Acquire);
        (limit > 0).then_some(limit)
    }

    /// The budget of bytes held for those who wait; they charge it themselves.
    pub fn bytes(&self) -> &Arc<Budget> {
        &self.bytes
    }

    /// Whether replicas exist.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// What the cluster is asked for. One that is just being let in may be counted on both sides, never on neither.
    pub fn demand(&self) -> Demand {
        let crowd = self.crowd.load(Ordering::Acquire);
        Demand {
            in_flight: crowd as u32,
            waiting: (crowd >> 32) as u32,
        }
    }

    /// Is told when somebody begins to wait where nobody did.
    pub fn came(&self) -> &Arc<Notify> {
        &self.came
    }

    /// Resolves once somebody began to wait where nobody did, since the last call. For one caller at a time.
    pub async fn first_came(&self) {
        self.came.notified().await;
    }

    /// The room in numbers.
    pub fn report(&self) -> Report {
        let first = self.line().first();
        Report {
            demand: self.demand(),
            held: self.bytes.held(),
            queued: self.queued.load(Ordering::Relaxed),
            oldest: first.map(|(_, since)| since.elapsed()),
        }
    }

    /// True while the endpoint has a slot for whoever looks: what [`try_take`](Self::try_take) and
    /// [`join`](Self::join) pick from.
    pub fn has_free(&self, seat: &S) -> bool {
        let seating = seat.seating();
        match self.concurrency() {
            Some(limit) => seating.used() < limit,
            None if self.demand().waiting == 0 => true,
            None => seating.pace(self.line().episode()) != Some(0),
        }
    }

    /// Takes a slot at once, unless somebody waits or none is free. `pick` chooses among the endpoints that
    /// [`has_free`](Self::has_free) names and may say more about its choice; it is asked again when another
    /// worker was quicker.
    pub fn try_take<T>(
        self: &Arc<Self>,
        mut pick: impl FnMut() -> Option<(S, T)>,
    ) -> Option<(Slot<S>, T)> {
        while self.demand().waiting == 0 {
            let (seat, more) = pick()?;
            if self.take(&seat, self.concurrency()) {
                let ticket = Ticket {
                    order: self.queued.load(Ordering::Relaxed),
                    since: None,
                };
                return Some((Slot::new(self, seat, ticket), more));
            }
        }
        None
    }

    /// Joins the line at its end. `pick` is as for [`try_take`](Self::try_take), but what it names is given to the
    /// first of the line, which may be another request: it names any endpoint that may serve, also those that this
    /// request has tried.
    ///
    /// # Errors
    ///
    /// As many wait as may.
    pub fn join(self: &Arc<Self>, pick: impl FnMut() -> Option<S>) -> Result<Waiting<S>, Full> {
        let since = Instant::now();
        let mut line = self.line();
        if line.waiting() >= self.max_requests.load(Ordering::Acquire) {
            return Err(Full);
        }
        let order = self.queued.fetch_add(1, Ordering::AcqRel) + 1;
        let at = line.push_back(order, since);
        Ok(self.joined(line, at, order, since, pick))
    }

    /// Joins the line where it once was: before all that came later. For a request whose endpoint refused it before
    /// anything was sent; its slot must be gone, and the endpoint should not be named by `pick` for a while. The bound
    /// of the line does not count, it has been admitted before.
    pub fn join_front(
        self: &Arc<Self>,
        ticket: Ticket,
        pick: impl FnMut() -> Option<S>,
    ) -> Waiting<S> {
        let since = ticket.since.unwrap_or_else(Instant::now);
        let mut line = self.line();
        let at = line.push_front(ticket.order, since);
        self.joined(line, at, ticket.order, since, pick)
    }

    /// Counts one that stands in the line since just now, then looks for slots that were free already.
    fn joined(
        self: &Arc<Self>,
        line: MutexGuard<'_, Line<S>>,
        at: u32,
        order: u64,
        since: Instant,
        mut pick: impl FnMut() -> Option<S>,
    ) -> Waiting<S> {
        self.crowd.fetch_add(ONE_WAITS, Ordering::AcqRel);
        let is_first = line.waiting() == 1;
        drop(line);
        if is_first {
            self.came.notify_one();
        }
        let waiting = Waiting {
            room: Arc::clone(self),
            at: Some(at),
            ticket: Ticket {
                order,
                since: Some(since),
            },
        };
        // Each one does this once it is counted, until nothing is free: whatever it misses is freed later, and seen
        // by who frees it.
        while self.demand().waiting > 0
            && let Some(seat) = pick()
        {
            let limit = self.concurrency();
            if limit.is_none() {
                self.send_paced(&seat, 0, true);
                break;
            }
            if self.take(&seat, limit)
                && let Err(seat) = self.hand(seat)
            {
                self.free(seat, true);
            }
        }
        waiting
    }

    /// The endpoint may serve now, or more than before: those who wait get what is free there, in order.
    pub fn opened(&self, seat: &S) {
        // Ordered with the change of whoever frees a slot, see the module's documentation.
        let crowd = self.crowd.fetch_add(0, Ordering::AcqRel);
        if crowd < ONE_WAITS || !seat.may_serve() {
            return;
        }
        let limit = self.concurrency();
        if limit.is_none() {
            self.send_paced(seat, 0, true);
            return;
        }
        while self.demand().waiting > 0 && self.take(seat, limit) {
            if let Err(seat) = self.hand(seat.clone()) {
                self.free(seat, true);
            }
        }
    }

    /// Tells all who wait now that they wait for nothing.
    pub fn fail_all(&self, reason: Reason) {
        let end = self.queued.load(Ordering::Acquire);
        let mut wakers: Vec<Waker> = Vec::new();
        let mut is_over = false;
        while !is_over {
            let mut line = self.line();
            for _ in 0..AT_ONCE {
                is_over = line.first().is_none_or(|(order, _)| order > end);
                if is_over {
                    break;
                }
                if let Ok(waker) = line.call_first(Fate::Over(reason)) {
                    self.crowd.fetch_sub(ONE_WAITS, Ordering::AcqRel);
                    wakers.extend(waker);
                }
            }
            drop(line);
            wakers.drain(..).for_each(Waker::wake);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<S>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes and counts a slot.
    fn take(&self, seat: &S, limit: Option<u32>) -> bool {
        let taken = seat.seating().take(limit);
        if taken {
            self.crowd.fetch_add(1, Ordering::AcqRel);
        }
        taken
    }

    /// Gives a slot that is counted to the first of the line.
    ///
    /// # Errors
    ///
    /// Nobody waits.
    fn hand(&self, seat: S) -> Result<(), S> {
        let mut line = self.line();
        let waker = match line.call_first(Fate::Has(seat)) {
            Ok(waker) => waker,
            Err(Fate::Has(seat)) => return Err(seat),
            Err(_) => unreachable!("what could not be given comes back"),
        };
        self.crowd.fetch_sub(ONE_WAITS, Ordering::AcqRel);
        drop(line);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// A slot is no longer needed; `paced`: it has counted for the pace of its endpoint.
    pub(super) fn release(&self, mut seat: S, paced: bool) {
        let may_hand = |limit: u32| {
            self.demand().waiting > 0 && seat.seating().used() <= limit && seat.may_serve()
        };
        if self.concurrency().is_some_and(may_hand) {
            match self.hand(seat) {
                Ok(()) => return,
                Err(back) => seat = back,
            }
        }
        self.free(seat, paced);
    }

    /// Frees a slot. Who began to wait before it was free could not find it: then it is taken again, for the first.
    fn free(&self, mut seat: S, paced: bool) {
        loop {
            seat.seating().free();
            let crowd = self.crowd.fetch_sub(1, Ordering::AcqRel);
            if crowd < ONE_WAITS {
                return;
            }
            let Some(limit) = self.concurrency() else {
                if !paced {
                    self.send_paced(&seat, 1, seat.may_serve()); // it went without a response head
                }
                return;
            };
            if !seat.may_serve() || !self.take(&seat, Some(limit)) {
                return;
            }
            match self.hand(seat) {
                Ok(()) => return,
                Err(back) => seat = back,
            }
        }
    }

    /// A response head came from the endpoint.
    pub(super) fn head_came(&self, seat: &S) {
        if self.concurrency().is_none() && self.demand().waiting > 0 {
            self.send_paced(seat, 1, seat.may_serve());
        }
    }

    /// Without a limit: as many of the line as the endpoint's pace allows go there, and `more`.
    fn send_paced(&self, seat: &S, more: u32, may_serve: bool) {
        let seating = seat.seating();
        let mut wakers = Vec::new();
        let mut line = self.line();
        let episode = line.episode();
        let mut left = match seating.pace(episode) {
            Some(left) => left.saturating_add(more),
            None if may_serve => AT_FIRST + more,
            None => return, // it begins anew when it is opened
        };
        while may_serve && left > 0 && line.waiting() > 0 {
            seating.take(None);
            let Ok(waker) = line.call_first(Fate::Has(seat.clone())) else {
                unreachable!("somebody waits");
            };
            self.crowd.fetch_sub(ONE_WAITS - 1, Ordering::AcqRel);
            wakers.extend(waker);
            left -= 1;
        }
        seating.set_pace(episode, left); // of an episode that may be over: then it means nothing
        drop(line);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A request in the line. It resolves to its slot, or to why it waits for nothing. Dropping it gives up its place at
/// once, and a slot it was just given goes to the next one.
#[must_use]
pub struct Waiting<S: Seat> {
    room: Arc<Room<S>>,
    /// `None` once it has resolved.
    at: Option<u32>,
    ticket: Ticket,
}

impl<S: Seat> Waiting<S> {
    /// False once it has resolved.
    pub fn is_waiting(&self) -> bool {
        self.at.is_some()
    }

    /// When it began to wait.
    pub fn since(&self) -> Instant {
        self.ticket.since.unwrap_or_else(Instant::now)
    }

    /// Its place, for [`Room::join_front`].
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl<S: Seat> Future for Waiting<S> {
    type Output = Result<Slot<S>, Reason>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let at = self.at.expect("it is not polled once it has resolved");
        let Some(fate) = self.room.line().ask(at, context.waker()) else {
            return Poll::Pending;
        };
        self.at = None;
        Poll::Ready(match fate {
            Fate::Has(seat) => Ok(Slot::new(&self.room, seat, self.ticket)),
            Fate::Over(reason) => Err(reason),
            Fate::Waits(_) | Fate::Nobody => unreachable!("it has left the line"),
        })
    }
}

impl<S: Seat> Unpin for Waiting<S> {}

impl<S: Seat> Drop for Waiting<S> {
    fn drop(&mut self) {
        let Some(at) = self.at.take() else {
            return;
        };
        let mut line = self.room.line();
        let fate = line.leave(at);
        if matches!(fate, Fate::Waits(_)) {
            self.room.crowd.fetch_sub(ONE_WAITS, Ordering::AcqRel);
        }
        drop(line);
        if let Fate::Has(seat) = fate {
            self.room.release(seat, false);
        }
    }
}

impl<S: Seat> std::fmt::Debug for Waiting<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
