//! Answers that may begin early: whoever polls a request's life, and the body that goes on with it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::pulse::{Early, Pulse};
use crate::body::Body;
use crate::error::Cut;
use crate::flow::Flow;

type Answered = Result<Response<Body>, Cut>;
type Life = Pin<Box<dyn Future<Output = Answered>>>;

/// The life of a request whose answer may begin early.
#[must_use]
pub struct Attended {
    /// `None` once it has resolved.
    life: Option<Life>,
    pulse: Rc<Pulse>,
    flow: Rc<Flow>,
}

impl Attended {
    /// Waits for `life`, which tells through `pulse` that its client should hear something.
    pub fn new(
        life: impl Future<Output = Answered> + 'static,
        pulse: Rc<Pulse>,
        flow: Rc<Flow>,
    ) -> Self {
        Self {
            life: Some(Box::pin(life)),
            pulse,
            flow,
        }
    }
}

impl Future for Attended {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut life) = self.life.take() else {
            return Poll::Pending; // it has resolved
        };
        let polled = life.as_mut().poll(cx);
        let Some(early) = self.pulse.take() else {
            if polled.is_pending() {
                self.life = Some(life);
            }
            return polled;
        };
        let next = match polled {
            Poll::Pending => Next::Life(life),
            Poll::Ready(answered) => Next::of(answered),
        };
        let Early {
            head,
            comment,
            period,
        } = *early;
        let beats = Beats {
            next,
            flow: Rc::clone(&self.flow),
            begun: false,
            timer: Box::pin(tokio::time::sleep(period)),
            comment,
            period,
        };
        Poll::Ready(Ok(head.map(|()| Body::beats(beats))))
    }
}

/// The body of an answer that began early: comments until there is one, then that.
pub struct Beats {
    next: Next,
    flow: Rc<Flow>,
    /// The first comment was handed over.
    begun: bool,
    timer: Pin<Box<Sleep>>,
    comment: Bytes,
    period: Duration,
}

enum Next {
    Life(Life),
    Answer(Box<Body>),
    Cut(Cut),
}

impl Next {
    fn of(answered: Answered) -> Self {
        match answered {
            Ok(response) => Self::Answer(Box::new(response.into_body())),
            Err(cut) => Self::Cut(cut),
        }
    }
}

impl Beats {
    /// What comes next for the client.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.flow.asked();
        if !std::mem::replace(&mut self.begun, true) {
            return self.beat();
        }
        if let Next::Life(life) = &mut self.next
            && let Poll::Ready(answered) = life.as_mut().poll(cx)
        {
            self.next = Next::of(answered);
        }
        match &mut self.next {
            Next::Answer(body) => Pin::new(&mut **body).poll_frame(cx),
            Next::Cut(cut) => Poll::Ready(Some(Err(*cut))),
            Next::Life(_) if self.timer.as_mut().poll(cx).is_ready() => {
                self.timer.as_mut().reset(Instant::now() + self.period);
                self.beat()
            }
            Next::Life(_) => Poll::Pending,
        }
    }

    fn beat(&self) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.flow.said(self.comment.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(self.comment.clone()))))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.next {
            Next::Answer(body) => self.begun && body.is_end_stream(),
            Next::Life(_) | Next::Cut(_) => false,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Reason;

    const PERIOD: Duration = Duration::from_secs(5);
    const COMMENT: &[u8] = b": wait\n\n";

    /// A life that begins the answer when it is polled first and is cut at that moment, if at all.
    fn attended(cut: Option<Instant>) -> Attended {
        let pulse = Rc::<Pulse>::default();
        let flow = Rc::new(Flow::new(Instant::now(), None));
        let (beats, begun) = (Rc::clone(&pulse), Cell::new(false));
        let mut end = cut.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let life = std::future::poll_fn(move |cx| {
            if !begun.replace(true) {
                beats.begin(Early {
                    head: Response::new(()),
                    comment: Bytes::from_static(COMMENT),
                    period: PERIOD,
                });
            }
            let end = end.as_mut().map(|end| end.as_mut().poll(cx));
            end.unwrap_or(Poll::Pending)
                .map(|()| Err(Cut(Reason::QueueTimeout)))
        });
        Attended::new(life, pulse, flow)
    }

    async fn next(body: &mut Body) -> Result<Bytes, Reason> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        let frame = frame.expect("it is not over").map_err(|cut| cut.0)?;
        Ok(frame.into_data().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn comments_come_at_once_and_in_each_period_until_there_is_an_answer() {
        let begin = Instant::now();
        let answer = attended(Some(begin + PERIOD * 5 / 2)).await.unwrap();
        let mut body = answer.into_body();
        for periods in 0..3 {
            assert_eq!(next(&mut body).await.unwrap(), COMMENT);
            assert_eq!(begin.elapsed().as_secs(), (PERIOD * periods).as_secs());
            assert!(!body.is_end_stream());
        }
        assert_eq!(next(&mut body).await.unwrap_err(), Reason::QueueTimeout);
        assert_eq!(begin.elapsed().as_secs(), (PERIOD * 5 / 2).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_the_head_goes_is_not_lost() {
        let answer = attended(Some(Instant::now())).await.unwrap();
        let mut body = answer.into_body();
        assert_eq!(next(&mut body).await.unwrap(), COMMENT);
        assert_eq!(next(&mut body).await.unwrap_err(), Reason::QueueTimeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_begins_nothing_is_passed_on() {
        let pulse = Rc::<Pulse>::default();
        let flow = Rc::new(Flow::new(Instant::now(), None));
        let life = async { Err(Cut(Reason::ClientClosed)) };
        let answered = Attended::new(life, pulse, flow).await;
        assert_eq!(answered.map(drop).unwrap_err().0, Reason::ClientClosed);
    }
}
