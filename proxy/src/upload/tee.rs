//! A copy of a body for somebody who may be slower: bounded, and never waited for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::capture::Budget;
use crate::error::{Cut, Reason};
use crate::model_name::edit::{self, Edit, Editing};

/// What an entry of a queue costs besides its bytes.
const ENTRY: u64 = 256;

/// Why a copy ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeEnd {
    /// Its reader was further behind than it may be.
    Lag,
    /// All copies together held more than they may.
    Bytes,
    /// The original ended before it was whole.
    Source,
    /// Nobody wants the copy any more.
    Unwanted,
}

struct Queue {
    pieces: VecDeque<Frame<Bytes>>,
    /// Bytes of data in `pieces`.
    behind: u64,
    /// Taken from the budget for them.
    charged: u64,
    max_lag: u64,
    budget: Arc<Budget>,
    /// Makes it differ from the original; `None`: it does not.
    editing: Option<Editing>,
    /// Data bytes that are still to come from the original, when it said so.
    hint: Option<u64>,
    end: Option<Result<(), TeeEnd>>,
    /// Its reader asked for something.
    began: bool,
    reader: Option<Waker>,
    watch: Option<Waker>,
}

impl Queue {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn stop(&mut self, end: Result<(), TeeEnd>) {
        if self.end.is_none() {
            self.end = Some(end);
            if end.is_err() {
                self.clear();
                if let Some(watch) = self.watch.take() {
                    watch.wake();
                }
            }
            self.wake();
        }
    }

    fn failure(&self) -> Option<TeeEnd> {
        self.end.and_then(Result::err)
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.behind = 0;
        self.budget.give_back(std::mem::take(&mut self.charged));
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Where the original writes.
pub struct TeeWriter(Rc<RefCell<Queue>>);

/// Where the copy is read.
pub struct TeeReader(Rc<RefCell<Queue>>);

/// Tells that a copy ended early, also when its reader waits for something else. Dropped, it ends the copy.
pub struct Watch(Rc<RefCell<Queue>>);

/// A copy of a body.
///
/// * `max_lag`: how many bytes the reader may be behind
/// * `length`: of the whole original, when it is known
/// * `edits`: what is different in the copy
pub fn tee(
    max_lag: u64,
    length: Option<u64>,
    budget: Arc<Budget>,
    edits: Vec<Edit>,
) -> (TeeWriter, TeeReader) {
    let growth = edit::growth(&edits);
    let queue = Rc::new(RefCell::new(Queue {
        pieces: VecDeque::new(),
        behind: 0,
        charged: 0,
        max_lag,
        budget,
        editing: (!edits.is_empty()).then(|| Editing::new(edits)),
        hint: length.map(|length| length.saturating_add_signed(growth)),
        end: None,
        began: false,
        reader: None,
        watch: None,
    }));
    (TeeWriter(Rc::clone(&queue)), TeeReader(queue))
}

impl TeeWriter {
    /// Copies what goes to the primary. The bytes are copied indeed: a slice would pin the whole block they were read
    /// into.
    pub fn data(&self, data: &Bytes) {
        let mut queue = self.0.borrow_mut();
        if queue.end.is_some() {
            return;
        }
        let edited = queue.editing.as_mut().and_then(|e| e.pass(data));
        let data = edited.as_ref().unwrap_or(data);
        let bytes = data.len() as u64;
        if queue.behind + bytes > queue.max_lag {
            return queue.stop(Err(TeeEnd::Lag));
        }
        if !queue.budget.take(bytes + ENTRY) {
            return queue.stop(Err(TeeEnd::Bytes));
        }
        queue.behind += bytes;
        queue.charged += bytes + ENTRY;
        queue
            .pieces
            .push_back(Frame::data(Bytes::copy_from_slice(data)));
        queue.wake();
    }

    /// Copies the trailers, which end it.
    pub fn trailers(&self, trailers: &HeaderMap) {
        let mut queue = self.0.borrow_mut();
        if queue.end.is_none() {
            queue.pieces.push_back(Frame::trailers(trailers.clone()));
            queue.stop(Ok(()));
        }
    }

    /// The body is whole.
    pub fn end(&self) {
        self.0.borrow_mut().stop(Ok(()));
    }
}

impl Drop for TeeWriter {
    fn drop(&mut self) {
        self.0.borrow_mut().stop(Err(TeeEnd::Source));
    }
}

impl Drop for TeeReader {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.end.get_or_insert(Ok(())); // nobody reads it any more: nothing more is copied
        queue.clear();
    }
}

impl TeeReader {
    /// What tells that the copy ended early; at most one.
    pub fn watch(&self) -> Watch {
        Watch(Rc::clone(&self.0))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let mut queue = self.0.borrow_mut();
        queue.began = true;
        if let Some(piece) = queue.pieces.pop_front() {
            if let Some(data) = piece.data_ref() {
                let bytes = data.len() as u64;
                queue.behind -= bytes;
                queue.charged -= bytes + ENTRY;
                queue.budget.give_back(bytes + ENTRY);
                queue.hint = queue.hint.map(|left| left.saturating_sub(bytes));
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        match queue.end {
            None => {
                queue.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(_)) => Poll::Ready(Some(Err(Cut(Reason::ClientClosed)))),
        }
    }

    /// A body without a declared length is not over before it was asked for, though it is empty: hyper would send none.
    pub(super) fn is_over(&self) -> bool {
        let queue = self.0.borrow();
        let framed = queue.began || queue.hint.is_some();
        framed && queue.pieces.is_empty() && queue.end == Some(Ok(()))
    }

    pub(super) fn is_spent(&self) -> bool {
        self.is_over() || self.0.borrow().hint == Some(0)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.0.borrow().hint {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::new(),
        }
    }
}

impl Watch {
    /// Why the copy ended early, if it did.
    pub fn failure(&self) -> Option<TeeEnd> {
        self.0.borrow().failure()
    }

    /// Waits until the copy ends early, for ever if it does not.
    pub async fn failed(&self) -> TeeEnd {
        std::future::poll_fn(|cx| {
            let mut queue = self.0.borrow_mut();
            match queue.failure() {
                Some(end) => Poll::Ready(end),
                None => {
                    queue.watch = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.watch = None;
        if queue.end.is_none() || !queue.pieces.is_empty() {
            // Its reader may be where nobody polls it: a stream whose window is closed.
            queue.end = Some(Err(TeeEnd::Unwanted));
            queue.clear();
            queue.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(reader: &mut TeeReader) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        reader.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn text(polled: Poll<Option<Result<Frame<Bytes>, Cut>>>) -> String {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
            }
            Poll::Ready(Some(Err(_))) => "cut".into(),
            Poll::Ready(None) => "end".into(),
            Poll::Pending => "pending".into(),
        }
    }

    #[test]
    fn a_copy_is_read_as_it_was_written() {
        let budget = Arc::new(Budget::new(10_000));
        let (writer, mut reader) = tee(100, Some(6), Arc::clone(&budget), Vec::new());
        assert_eq!(text(poll(&mut reader)), "pending");
        writer.data(&Bytes::from_static(b"abc"));
        writer.data(&Bytes::from_static(b"def"));
        assert_eq!(budget.held(), 6 + 2 * ENTRY);
        assert_eq!(text(poll(&mut reader)), "abc");
        assert_eq!(reader.size_hint().exact(), Some(3));
        assert_eq!(text(poll(&mut reader)), "def");
        writer.end();
        drop(writer);
        assert_eq!(text(poll(&mut reader)), "end");
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_reader_that_is_too_far_behind_is_cut_and_holds_nothing() {
        let budget = Arc::new(Budget::new(10_000));
        let (writer, mut reader) = tee(5, None, Arc::clone(&budget), Vec::new());
        writer.data(&Bytes::from_static(b"abc"));
        writer.data(&Bytes::from_static(b"def"));
        assert_eq!(reader.watch().failure(), Some(TeeEnd::Lag));
        assert_eq!(budget.held(), 0);
        assert_eq!(text(poll(&mut reader)), "cut");
    }

    #[test]
    fn all_copies_share_a_budget() {
        let budget = Arc::new(Budget::new(ENTRY + 4));
        let (first, reader) = tee(100, None, Arc::clone(&budget), Vec::new());
        let (second, other) = tee(100, None, Arc::clone(&budget), Vec::new());
        first.data(&Bytes::from_static(b"abcd"));
        second.data(&Bytes::from_static(b"e"));
        assert_eq!(other.watch().failure(), Some(TeeEnd::Bytes));
        assert_eq!(budget.held(), ENTRY + 4);
        drop((first, reader));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_copy_of_a_body_that_is_cut_is_cut() {
        let (writer, mut reader) = tee(100, None, Arc::new(Budget::new(10_000)), Vec::new());
        writer.data(&Bytes::from_static(b"abc"));
        drop(writer);
        assert_eq!(reader.watch().failure(), Some(TeeEnd::Source));
        assert_eq!(text(poll(&mut reader)), "cut");
    }

    #[test]
    fn a_copy_that_nobody_wants_any_more_holds_nothing_though_its_reader_lives() {
        let budget = Arc::new(Budget::new(10_000));
        let (writer, mut reader) = tee(100, None, Arc::clone(&budget), Vec::new());
        let watch = reader.watch();
        writer.data(&Bytes::from_static(b"abc"));
        writer.end();
        drop(watch);
        assert_eq!(budget.held(), 0);
        assert_eq!(text(poll(&mut reader)), "cut");
        writer.data(&Bytes::from_static(b"def"));
        assert_eq!(budget.held(), 0);
    }
}
