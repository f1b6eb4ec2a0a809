//! The tasks that drive connections and HTTP/2 streams, each under one timer.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::connection::{Cause, Connection};
use crate::flow::{Flow, LazyTimer};
use crate::io::Departure;
use crate::worker::Stage;

/// A hyper connection that can be told to finish.
pub trait Graceful: Future + Unpin {
    /// Finishes what is in progress and takes no more.
    fn finish(&mut self);
}

impl<I, S, B> Graceful for hyper::server::conn::http1::Connection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

impl<I, S, B> Graceful for hyper::server::conn::http2::Connection<I, S, StreamExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future + Unpin,
{
    fn finish(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

/// Drives a connection to its end under its deadlines.
pub struct Drive<'a, C> {
    machine: &'a mut C,
    connection: Rc<Connection>,
    timer: LazyTimer,
    registered: bool,
    finishing: bool,
    departure: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// How a connection ended.
pub enum Ended<T> {
    /// By itself: hyper's result.
    Done(T),
    /// By us.
    Closed(Cause),
    /// The client left before its answer began.
    Left,
}

impl<'a, C: Graceful> Drive<'a, C> {
    /// Drives `machine`, which must not be polled by anybody else.
    pub fn new(machine: &'a mut C, connection: &Rc<Connection>) -> Self {
        Self {
            machine,
            connection: Rc::clone(connection),
            timer: LazyTimer::default(),
            registered: false,
            finishing: false,
            departure: None,
        }
    }

    /// Follows the stop of the process: HTTP/2 says GOAWAY as soon as it begins, HTTP/1.1 has said
    /// `Connection: close` in its answers and ends idle connections a moment later.
    fn follow_stage(&mut self) {
        let stage = self.connection.stage();
        let due = if self.connection.http2 {
            Stage::Closing
        } else {
            Stage::Idle
        };
        if stage >= due && !self.finishing {
            self.finishing = true;
            self.machine.finish();
        }
    }

    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.connection.needs_watch() {
            self.departure = None;
            return Poll::Pending;
        }
        if self.departure.is_none() {
            // Without a descriptor to spare the request's clocks still bound it.
            let Ok(departure) = self.connection.wire.watch() else {
                return Poll::Pending;
            };
            self.departure = Some(Box::pin(wait(departure)));
        }
        self.departure
            .as_mut()
            .map_or(Poll::Pending, |departure| departure.as_mut().poll(cx))
    }
}

async fn wait(departure: Departure) {
    departure.wait().await;
}

impl<C: Graceful> Future for Drive<'_, C> {
    type Output = Ended<C::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.registered {
            this.registered = true;
            this.connection
                .worker
                .register(this.connection.key(), cx.waker());
        }
        if this.connection.stage() == Stage::Ended {
            return Poll::Ready(Ended::Closed(Cause::Cut));
        }
        loop {
            this.follow_stage();
            if let Poll::Ready(done) = Pin::new(&mut *this.machine).poll(cx) {
                return Poll::Ready(Ended::Done(done));
            }
            if this.connection.is_cut() {
                return Poll::Ready(Ended::Closed(Cause::Cut));
            }
            if this.watch(cx).is_ready() {
                return Poll::Ready(Ended::Left);
            }
            let deadline = this.connection.deadline(this.connection.wire.stalled());
            if this.timer.poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            if let Some(cause) = this.connection.expire(Instant::now()) {
                return Poll::Ready(Ended::Closed(cause));
            }
        }
    }
}

/// Spawns HTTP/2 streams on the worker, each under its own request's deadlines.
#[derive(Clone)]
pub struct StreamExecutor(pub Rc<Connection>);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let flow = self.0.take_flow();
        tokio::task::spawn_local(StreamTask {
            future: Some(Box::pin(future)),
            flow,
            timer: LazyTimer::default(),
        });
    }
}

/// One HTTP/2 stream. Dropping the future inside resets the stream.
struct StreamTask<F> {
    future: Option<Pin<Box<F>>>,
    flow: Option<Rc<Flow>>,
    timer: LazyTimer,
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let Some(future) = &mut this.future else {
                return Poll::Ready(());
            };
            if future.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(flow) = &this.flow else {
                return Poll::Pending;
            };
            if flow.must_be_cut() {
                // The answer has begun and its body did not end the stream by itself: the window is closed.
                this.future = None;
                return Poll::Ready(());
            }
            let failed = flow.failure().is_some();
            let due = if failed {
                flow.reader_deadline()
            } else {
                flow.deadline().map(|(at, _)| at)
            };
            if this.timer.poll(cx, due).is_pending() {
                return Poll::Pending;
            }
            if failed {
                this.future = None; // our own answer is not taken either
                return Poll::Ready(());
            }
            if let Some((_, reason)) = flow.deadline() {
                flow.fail(reason);
            }
        }
    }
}
