//! The clocks and counts of one request, shared by the tasks and bodies that serve it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_config::Timeouts;
use tokio::time::{Instant, Sleep};

use crate::error::Reason;

/// Clocks that run out within this share of the shorter one, and within a second, do so at about the same time.
const ABOUT: u32 = 8;

/// One request's clocks. Bodies and the handler move the hands; the connection's one timer reads them.
pub struct Flow {
    /// When the head was complete.
    pub start: Instant,
    clocks: Cell<Clocks>,
    /// Last byte in either direction.
    last: Cell<Instant>,
    /// The request was handed to an endpoint.
    dispatched: Cell<bool>,
    /// The last request byte was handed upstream.
    sent: Cell<Option<Instant>>,
    /// The response's head came from upstream.
    head: Cell<Option<Instant>>,
    /// We wait for the client's next body byte since then.
    client_due: Cell<Option<Instant>>,
    /// Response bytes wait for the client to take them since then (HTTP/2: its window is closed).
    reader_due: Cell<Option<Instant>>,
    /// Whether its answer has a head that is not the endpoint's.
    early: Cell<Early>,
    /// Why it ends early.
    failure: Cell<Option<Reason>>,
    /// The answer is whole or cut: nobody wants the rest of the request.
    over: Cell<bool>,
    /// Wakes whoever waits for the client's next body byte.
    body_waker: Cell<Option<Waker>>,
    /// Body bytes from the client.
    pub request_bytes: Cell<u64>,
    /// Body bytes to the client.
    pub response_bytes: Cell<u64>,
}

/// An answer that begins before there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Early {
    /// It does not.
    #[default]
    No,
    /// Its head went to the client.
    Begun,
    /// And its last words, why there is none; the cut comes with the next poll.
    Parting,
}

#[derive(Clone, Copy, Default)]
struct Clocks {
    first_byte: Option<Duration>,
    idle: Option<Duration>,
    request_body: Option<Duration>,
    total: Option<Duration>,
    write_stall: Option<Duration>,
}

impl Flow {
    /// A request whose head is complete now. Only `write_stall` runs until [`Flow::bind`].
    pub fn new(now: Instant, write_stall: Option<Duration>) -> Self {
        Self {
            start: now,
            clocks: Cell::new(Clocks {
                write_stall,
                ..Clocks::default()
            }),
            last: Cell::new(now),
            dispatched: Cell::new(false),
            sent: Cell::new(None),
            head: Cell::new(None),
            client_due: Cell::new(None),
            reader_due: Cell::new(None),
            early: Cell::default(),
            failure: Cell::new(None),
            over: Cell::new(false),
            body_waker: Cell::new(None),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
        }
    }

    /// Starts the clocks of its route.
    pub fn bind(&self, timeouts: &Timeouts) {
        self.clocks.set(Clocks {
            first_byte: timeouts.first_byte,
            idle: timeouts.idle,
            request_body: timeouts.request_body,
            total: timeouts.total,
            write_stall: self.clocks.get().write_stall,
        });
    }

    /// When the last byte moved, or the head came.
    pub fn last(&self) -> Instant {
        self.last.get()
    }

    /// A byte moved.
    pub fn touch(&self) {
        self.last.set(Instant::now());
    }

    /// An attempt begins; `whole`: there is no body to come.
    pub fn dispatch(&self, now: Instant, whole: bool) {
        self.last.set(now);
        self.dispatched.set(true);
        self.sent.set(whole.then_some(now));
    }

    /// The attempt came to nothing and the next one may be far away: its clocks stop.
    pub fn recall(&self) {
        self.dispatched.set(false);
        self.sent.set(None);
    }

    /// Nobody is ready to read what the client sends.
    pub fn expect_nothing(&self) {
        self.client_due.set(None);
    }

    /// The last request byte was handed upstream.
    pub fn request_sent(&self) {
        let now = Instant::now();
        self.last.set(now);
        self.client_due.set(None);
        self.sent.set(Some(now));
    }

    /// The response's head came; returns when.
    pub fn head_came(&self) -> Instant {
        let now = Instant::now();
        self.last.set(now);
        self.head.set(Some(now));
        now
    }

    /// When the response's head came.
    pub fn head(&self) -> Option<Instant> {
        self.head.get()
    }

    /// When the attempt had handed over the last request byte.
    pub fn sent(&self) -> Option<Instant> {
        self.sent.get()
    }

    /// We are ready to read and the client has nothing for us; `waker` is woken when it need not come any more.
    pub fn await_client(&self, waker: &Waker) {
        self.body_waker.set(Some(waker.clone()));
        if self.client_due.get().is_none() {
            self.client_due.set(Some(Instant::now()));
        }
    }

    /// The client sent `bytes` of its body.
    pub fn client_sent(&self, bytes: u64) {
        self.client_due.set(None);
        self.request_bytes.set(self.request_bytes.get() + bytes);
        self.touch();
    }

    /// `bytes` of the response were handed to the connection, which takes the next when the client can.
    pub fn offered(&self, bytes: u64) {
        let now = Instant::now();
        self.last.set(now);
        self.reader_due.set(Some(now));
        self.response_bytes.set(self.response_bytes.get() + bytes);
    }

    /// `bytes` of our own were handed to the connection while the request goes on, which they say nothing about.
    pub fn said(&self, bytes: u64) {
        self.reader_due.set(Some(Instant::now()));
        self.response_bytes.set(self.response_bytes.get() + bytes);
    }

    /// The client gets the head of its answer before there is one.
    pub fn begin_early(&self) {
        self.early.set(Early::Begun);
    }

    /// Whether it did.
    pub fn is_early(&self) -> bool {
        self.early.get() != Early::No
    }

    /// The client is told why there is no answer, and cut right afterwards.
    pub fn part(&self) {
        self.early.set(Early::Parting);
    }

    /// True when the request failed after its answer began, and its body did not say so when it was polled.
    pub fn must_be_cut(&self) -> bool {
        let begun = match self.early.get() {
            Early::No => self.head.get().is_some(),
            Early::Begun => true,
            Early::Parting => false,
        };
        begun && self.failure.get().is_some()
    }

    /// The connection asks for more of the response.
    pub fn asked(&self) {
        self.reader_due.set(None);
    }

    /// Records why the request ends early; the first reason counts.
    pub fn fail(&self, reason: Reason) {
        if self.failure.get().is_none() {
            self.failure.set(Some(reason));
            self.wake_body();
        }
    }

    /// The answer is whole or cut: what is left of the request's body is not sent any more.
    pub fn end(&self) {
        self.over.set(true);
        self.wake_body();
    }

    /// Why the request's body is not wanted any more.
    pub fn body_refused(&self) -> Option<Reason> {
        let over = self.over.get().then_some(Reason::ClientClosed);
        self.failure.get().or(over)
    }

    /// Wakes whoever waits for the client's next body byte, to see that it is not wanted there any more.
    pub fn wake_body(&self) {
        if let Some(waker) = self.body_waker.take() {
            waker.wake();
        }
    }

    /// Why the request ends early.
    pub fn failure(&self) -> Option<Reason> {
        self.failure.get()
    }

    /// When a client that takes nothing of its answer is cut.
    pub fn reader_deadline(&self) -> Option<Instant> {
        Some(self.reader_due.get()? + self.clocks.get().write_stall?)
    }

    /// The clock that runs out next.
    pub fn deadline(&self) -> Option<(Instant, Reason)> {
        let clocks = self.clocks.get();
        let dispatched = self.dispatched.get();
        let first_byte = if self.head.get().is_none() {
            self.sent.get()
        } else {
            None
        };
        let candidates = [
            (first_byte, clocks.first_byte, Reason::FirstByteTimeout),
            (
                (dispatched && !self.is_clients_fault(clocks)).then(|| self.last.get()),
                clocks.idle,
                Reason::IdleTimeout,
            ),
            (
                self.client_due.get(),
                clocks.request_body,
                Reason::RequestTimeout,
            ),
            (Some(self.start), clocks.total, Reason::TotalTimeout),
            (
                self.reader_due.get(),
                clocks.write_stall,
                Reason::ClientClosed,
            ),
        ];
        let mut next: Option<(Instant, Reason)> = None;
        for (since, limit, reason) in candidates {
            if let (Some(since), Some(limit)) = (since, limit) {
                let at = since + limit;
                if next.is_none_or(|(earliest, _)| at < earliest) {
                    next = Some((at, reason));
                }
            }
        }
        next
    }

    /// True when we wait for the client and its clock runs out at about the same time as `idle`, which says less.
    fn is_clients_fault(&self, clocks: Clocks) -> bool {
        match (self.client_due.get(), clocks.request_body, clocks.idle) {
            (Some(due), Some(request_body), Some(idle)) => {
                let margin = (idle / ABOUT).min(Duration::from_secs(1));
                due + request_body <= self.last.get() + idle + margin
            }
            _ => false,
        }
    }

    /// Waits for `future`, unless the request fails first.
    ///
    /// # Errors
    ///
    /// The reason recorded by a clock or a body.
    pub async fn unless_failed<F: Future>(&self, future: F) -> Result<F::Output, Reason> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.failure.get() {
            Some(reason) => Poll::Ready(Err(reason)),
            None => future.as_mut().poll(cx).map(Ok),
        })
        .await
    }
}

/// A timer that follows a deadline which mostly moves away: it is armed once and re-armed when it rings early,
/// so that a request costs no work in the timer wheel.
#[derive(Default)]
pub struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl LazyTimer {
    /// Ready when `deadline` has passed. Must always be polled from the same task.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        loop {
            match &mut self.sleep {
                Some(sleep) if !sleep.is_elapsed() && sleep.deadline() <= deadline => {
                    return Poll::Pending;
                }
                Some(sleep) => {
                    if Instant::now() >= deadline {
                        return Poll::Ready(());
                    }
                    sleep.as_mut().reset(deadline);
                    if register(sleep, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                None => {
                    let mut sleep = Box::pin(tokio::time::sleep_until(deadline));
                    let polled = register(&mut sleep, cx);
                    self.sleep = Some(sleep);
                    if polled.is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// Polls outside the task's budget: a timer that is not registered when the budget is spent would never ring.
fn register(sleep: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    std::pin::pin!(tokio::task::coop::unconstrained(sleep.as_mut())).poll(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_clock_runs_from_its_own_moment() {
        let flow = Flow::new(Instant::now(), Some(2 * SECOND));
        flow.bind(&Timeouts {
            first_byte: Some(5 * SECOND),
            idle: Some(20 * SECOND),
            request_body: Some(3 * SECOND),
            total: Some(60 * SECOND),
            tunnel: None,
        });
        let start = Instant::now();
        assert_eq!(
            flow.deadline(),
            Some((start + 60 * SECOND, Reason::TotalTimeout))
        );
        flow.dispatch(start, false);
        assert_eq!(
            flow.deadline(),
            Some((start + 20 * SECOND, Reason::IdleTimeout))
        );
        flow.await_client(Waker::noop());
        assert_eq!(
            flow.deadline(),
            Some((start + 3 * SECOND, Reason::RequestTimeout))
        );
        tokio::time::advance(SECOND).await;
        flow.await_client(Waker::noop());
        assert_eq!(
            flow.deadline(),
            Some((start + 3 * SECOND, Reason::RequestTimeout))
        );
        flow.client_sent(10);
        flow.request_sent();
        assert_eq!(
            flow.deadline(),
            Some((start + 6 * SECOND, Reason::FirstByteTimeout))
        );
        flow.head_came();
        flow.offered(10);
        assert_eq!(
            flow.deadline(),
            Some((start + 3 * SECOND, Reason::ClientClosed))
        );
        flow.asked();
        assert_eq!(
            flow.deadline(),
            Some((start + 21 * SECOND, Reason::IdleTimeout))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_is_named_where_nothing_moves_either() {
        let flow = Flow::new(Instant::now(), None);
        let start = Instant::now();
        for (idle, later, at, reason) in [
            (300, 0, 300, Reason::RequestTimeout), // the defaults
            (300, 1, 301, Reason::RequestTimeout),
            (300, 200, 300, Reason::IdleTimeout), // the endpoint did not read for most of the time
            (30, 0, 30, Reason::IdleTimeout),
        ] {
            flow.bind(&Timeouts {
                first_byte: None,
                idle: Some(idle * SECOND),
                request_body: Some(300 * SECOND),
                total: None,
                tunnel: None,
            });
            flow.dispatch(start, false);
            flow.client_due.set(Some(start + later * SECOND));
            assert_eq!(flow.deadline(), Some((start + at * SECOND, reason)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lazy_timer_follows_a_moving_deadline() {
        let mut timer = LazyTimer::default();
        let start = Instant::now();
        let deadline = Cell::new(start + SECOND);
        let ring = std::future::poll_fn(|cx| timer.poll(cx, Some(deadline.get())));
        let mut ring = std::pin::pin!(ring);
        assert!(
            std::future::poll_fn(|cx| Poll::Ready(ring.as_mut().poll(cx)))
                .await
                .is_pending()
        );
        deadline.set(start + 10 * SECOND);
        ring.await;
        assert_eq!(Instant::now(), start + 10 * SECOND);
    }
}
