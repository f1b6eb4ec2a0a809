//! What ends an upload where nobody polls its body any more: in a stream of HTTP/2 whose window is closed.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Ends one upload when it is cut.
#[derive(Clone, Default)]
pub struct Tether(Rc<State>);

#[derive(Default)]
struct State {
    cut: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Tether {
    /// Ends the upload.
    pub fn cut(&self) {
        self.0.cut.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }

    /// Runs what sends the upload, to its end or until it is cut.
    pub async fn hold<F: Future>(self, future: F) {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if self.0.cut.get() {
                return Poll::Ready(());
            }
            self.0.waker.set(Some(cx.waker().clone()));
            future.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}

/// Where the executor of a connection finds the tether of an upload: hyper polls a body once before it spawns what
/// sends the rest of it, and nothing else in between.
#[derive(Clone, Default)]
pub struct Hitch(Rc<Cell<Option<Tether>>>);

impl Hitch {
    /// The tether of what is spawned now; `None`: it sends no body.
    pub fn take(&self) -> Option<Tether> {
        self.0.take()
    }
}

/// Puts a tether where the executor finds it when the body is polled first, and removes it with a body that was over
/// at once.
pub(super) struct Knot {
    hitch: Hitch,
    tether: Option<Tether>,
}

impl Knot {
    pub(super) fn new(hitch: &Hitch, tether: &Tether) -> Self {
        Self {
            hitch: hitch.clone(),
            tether: Some(tether.clone()),
        }
    }

    pub(super) fn polled(&mut self) {
        if let Some(tether) = self.tether.take() {
            self.hitch.0.set(Some(tether));
        }
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        self.hitch.0.set(None);
    }
}
