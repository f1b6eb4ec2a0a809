//! A body that more than one reader wants: looked at before it is sent, kept for another attempt, copied, captured.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::client::Client;
use super::held::Held;
use super::tee::TeeWriter;
use super::{Kind, RequestBody};
use crate::capture::{Budget, Capture, Kept};
use crate::error::{Cut, Reason};
use crate::flow::Flow;

/// What came of a body before it was sent.
#[derive(Default)]
pub struct Ahead {
    pieces: VecDeque<Piece>,
}

impl Ahead {
    /// Reads on until `enough` says so, the body ends, or `most` bytes are here. The clocks of the request run meanwhile.
    ///
    /// * `enough`: is shown everything, what was read earlier included
    ///
    /// # Errors
    ///
    /// The body is too large or broken, or its client left.
    pub async fn read_on(
        &mut self,
        client: &mut Client,
        flow: &Flow,
        most: usize,
        mut enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Reason> {
        let mut bytes = 0;
        for data in self.data() {
            let room = most - bytes.min(most);
            bytes += data.len();
            if enough(&data[..data.len().min(room)]) {
                return Ok(());
            }
        }
        while bytes < most && !client.is_spent() {
            let next = std::future::poll_fn(|cx| match flow.failure() {
                Some(reason) => Poll::Ready(Some(Err(Cut(reason)))),
                None => client.poll(flow, cx),
            });
            let Some(frame) = next.await else { break };
            let piece = Piece::of(frame.map_err(|cut| cut.0)?);
            if matches!(&piece, Piece::Data(data) if data.is_empty()) {
                continue; // HTTP/2 has frames without data, any number of them
            }
            let done = match &piece {
                Piece::Data(data) => {
                    let room = most - bytes;
                    bytes += data.len();
                    enough(&data[..data.len().min(room)])
                }
                Piece::Trailers(_) => true,
            };
            self.pieces.push_back(piece);
            if done {
                break;
            }
        }
        flow.client_sent(0); // the body may have ended without a byte: nobody waits for the client any more
        Ok(())
    }

    /// The data that was read, in its pieces.
    pub fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Data(data) => Some(data),
            Piece::Trailers(_) => None,
        })
    }

    /// Replaces each piece of data by what `edit` makes of it; `None`: it stays.
    pub fn edit(&mut self, mut edit: impl FnMut(&Bytes) -> Option<Bytes>) {
        for piece in &mut self.pieces {
            if let Piece::Data(data) = piece
                && let Some(edited) = edit(data)
            {
                *data = edited;
            }
        }
        self.pieces
            .retain(|piece| !matches!(piece, Piece::Data(data) if data.is_empty()));
    }
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn of(frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => Self::Data(data),
            Err(frame) => Self::Trailers(frame.into_trailers().unwrap_or_default()),
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }

    /// Makes it hold its own bytes only: a slice would pin the whole block that it was read into.
    fn detach(&mut self) {
        if let Self::Data(data) = self {
            *data = Bytes::copy_from_slice(data);
        }
    }
}

/// How much of a body is kept for another attempt.
pub struct Keep {
    /// Bytes; of a longer body nothing is kept.
    pub most: u64,
    /// Where they are charged; `None`: nowhere.
    pub budget: Option<Arc<Budget>>,
}

/// A body with several readers, of which only the latest attempt reads on.
pub struct Upload(RefCell<Inner>);

struct Inner {
    client: Client,
    /// What was read: all of it while it is kept, else what the attempt has not taken yet.
    pieces: VecDeque<Piece>,
    /// Index in `pieces` of what the attempt takes next.
    next: usize,
    /// Index in `pieces` from which on nobody has copied anything.
    fresh: usize,
    /// Of data in `pieces` that the attempt has not taken.
    ready: u64,
    /// Of data in `pieces`.
    held: u64,
    /// Bytes that may be kept; `None`: not, or not any more.
    keep: Option<u64>,
    /// What is kept is charged.
    charges: bool,
    /// What is charged for `pieces`, while they are kept or wait.
    charge: Option<Held>,
    tees: Vec<TeeWriter>,
    seen: Option<Capture>,
    /// The attempt that may read.
    attempt: u32,
}

impl Upload {
    /// A body of which `ahead` was read already.
    ///
    /// * `keep`: what is kept for another attempt; `None`: there is none
    /// * `seen`: what keeps it for those who ask later
    pub fn new(
        client: Client,
        ahead: Ahead,
        keep: Option<Keep>,
        seen: Option<Capture>,
    ) -> Rc<Self> {
        let held = ahead.pieces.iter().map(Piece::len).sum();
        let (most, budget) = match keep {
            Some(keep) if held <= keep.most => (Some(keep.most), keep.budget),
            _ => (None, None),
        };
        let mut charge = budget.as_ref().map(Held::new);
        let fits = charge.as_mut().is_none_or(|charge| charge.add(held));
        Rc::new(Self(RefCell::new(Inner {
            client,
            pieces: ahead.pieces,
            next: 0,
            fresh: 0,
            ready: held,
            held,
            keep: most.filter(|_| fits),
            charges: budget.is_some(),
            charge,
            tees: Vec::new(),
            seen,
            attempt: 0,
        })))
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        let inner = self.0.borrow();
        inner.client.is_over() && inner.pieces.is_empty()
    }

    /// Adds a copy, before the first attempt reads.
    pub fn tee(&self, writer: TeeWriter) {
        self.0.borrow_mut().tees.push(writer);
    }

    /// The length of the whole body, when it is known.
    pub fn length(&self) -> Option<u64> {
        let inner = self.0.borrow();
        Some(inner.client.size_hint().exact()? + inner.ready)
    }

    /// Reads on while the body waits to be sent, as long as `budget` has room for it. Ready when nothing more is read.
    pub fn poll_ahead(&self, budget: &Arc<Budget>, flow: &Flow, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        let inner = &mut *inner;
        let charge = inner.charge.get_or_insert_with(|| Held::new(budget));
        while !inner.client.is_over() {
            if !charge.reserve() {
                return Poll::Ready(());
            }
            let polled = inner.client.poll(flow, cx);
            let Poll::Ready(read) = polled else {
                charge.unreserve();
                return Poll::Pending;
            };
            let Some(Ok(frame)) = read else {
                charge.unreserve();
                return Poll::Ready(()); // its end; a failure is in the flow
            };
            let mut piece = Piece::of(frame);
            piece.detach();
            charge.settle(piece.len());
            if inner
                .keep
                .is_some_and(|most| inner.held + piece.len() > most)
            {
                inner.keep = None;
            }
            inner.held += piece.len();
            inner.ready += piece.len();
            inner.pieces.push_back(piece);
        }
        Poll::Ready(())
    }

    /// Shows the data that is here and was not taken for good.
    pub fn look(&self, mut see: impl FnMut(&[u8])) {
        for piece in &self.0.borrow().pieces {
            if let Piece::Data(data) = piece {
                see(data);
            }
        }
    }

    /// It waits no more: what is charged is only what is kept for another attempt.
    pub fn waited(&self) {
        let mut inner = self.0.borrow_mut();
        if inner.keep.is_none() || !inner.charges {
            inner.charge = None;
        }
    }

    /// What was captured so far; `None`: nobody asked, or it was whole and is taken already.
    pub fn seen(&self) -> Option<Kept> {
        let mut inner = self.0.borrow_mut();
        match &inner.seen {
            Some(seen) if !seen.kept().whole => Some(seen.kept().clone()),
            _ => inner.seen.take().map(|mut seen| seen.take()),
        }
    }

    /// No further attempt is made: what was taken is forgotten.
    pub fn settle(&self) {
        self.0.borrow_mut().forget();
    }

    /// The request is over: whoever still copies its body gets nothing more.
    pub fn close(&self) {
        self.0.borrow_mut().leave();
    }

    pub(super) fn read(self: &Rc<Self>) -> Reader {
        Reader {
            upload: Rc::clone(self),
            attempt: self.0.borrow().attempt,
        }
    }
}

impl Inner {
    /// It cannot be sent again.
    fn forget(&mut self) {
        self.keep = None;
        self.charge = None;
        self.forget_taken();
    }

    fn forget_taken(&mut self) {
        let taken = std::mem::take(&mut self.next);
        let bytes: u64 = self.pieces.drain(..taken).map(|piece| piece.len()).sum();
        self.held -= bytes;
        self.fresh -= taken.min(self.fresh);
    }

    /// The attempt takes the next piece that is here; whoever copies gets it the first time.
    fn take(&mut self) -> Option<Frame<Bytes>> {
        let piece = self.pieces.get(self.next)?.clone();
        self.ready -= piece.len();
        if self.next == self.fresh {
            self.fresh += 1;
            self.copy(&piece);
        }
        self.next += 1;
        if self.keep.is_none() {
            self.forget_taken();
        }
        Some(piece.into_frame())
    }

    fn copy(&mut self, piece: &Piece) {
        for tee in &self.tees {
            match piece {
                Piece::Data(data) => tee.data(data),
                Piece::Trailers(trailers) => tee.trailers(trailers),
            }
        }
        if let (Some(seen), Piece::Data(data)) = (&mut self.seen, piece) {
            seen.push(data);
        }
        let last = self.fresh == self.pieces.len() && self.client.is_over();
        if last {
            self.end_copies();
        }
    }

    fn end_copies(&mut self) {
        for tee in self.tees.drain(..) {
            tee.end();
        }
        if let Some(seen) = &mut self.seen {
            seen.end();
        }
    }

    /// Nobody reads on. A body is whole once all of the length it declared is here, though its end was not seen: an
    /// attempt over HTTP/1.1 does not wait for that.
    fn leave(&mut self) {
        if self.fresh == self.pieces.len() && self.client.is_spent() {
            self.end_copies();
        } else {
            self.tees.clear();
        }
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        let mut piece = Piece::of(frame);
        if let Some(most) = self.keep {
            let charge = self.charge.as_mut().filter(|_| self.charges);
            let fits = self.held + piece.len() <= most
                && charge.is_none_or(|charge| charge.add(piece.len()));
            if fits {
                piece.detach();
            } else {
                self.forget();
            }
        }
        self.held += piece.len();
        self.ready += piece.len();
        self.pieces.push_back(piece);
    }

    fn is_over(&self) -> bool {
        self.client.is_over() && self.next == self.pieces.len()
    }
}

/// One attempt's view of an upload.
pub(super) struct Reader {
    upload: Rc<Upload>,
    attempt: u32,
}

impl Reader {
    pub(super) fn upload(&self) -> &Rc<Upload> {
        &self.upload
    }

    pub(super) fn replay(&self, flow: Rc<Flow>) -> Option<Replay> {
        let upload = Rc::clone(&self.upload);
        let kept = upload.0.borrow().keep.is_some();
        kept.then_some(Replay(Some((upload, flow))))
    }

    pub(super) fn is_over(&self) -> bool {
        self.upload.0.borrow().is_over()
    }

    /// The request is over: nobody reads on.
    pub(super) fn give_up(&mut self) {
        let mut inner = self.upload.0.borrow_mut();
        if inner.attempt == self.attempt {
            inner.leave();
            inner.client.end();
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let inner = self.upload.0.borrow();
        let mut hint = inner.client.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + inner.ready);
        }
        hint.set_lower(hint.lower() + inner.ready);
        hint
    }

    pub(super) fn poll(
        &mut self,
        flow: &Flow,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let mut inner = self.upload.0.borrow_mut();
        let inner = &mut *inner;
        if inner.attempt != self.attempt {
            // A later attempt reads the body now.
            return Poll::Ready(Some(Err(Cut(Reason::UpstreamReset))));
        }
        if inner.next == inner.pieces.len() && !inner.client.is_over() {
            match inner.client.poll(flow, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(cut))) => {
                    inner.tees.clear();
                    return Poll::Ready(Some(Err(cut)));
                }
                Poll::Ready(Some(Ok(frame))) => inner.push(frame),
                Poll::Ready(None) => inner.end_copies(),
            }
        }
        let taken = inner.take();
        if inner.ready == 0 && inner.client.is_spent() {
            flow.request_sent();
        }
        Poll::Ready(taken.map(Ok))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // An attempt that ends before the body did leaves it to the next; without one nobody copies any more.
        let mut inner = self.upload.0.borrow_mut();
        if inner.attempt == self.attempt && inner.keep.is_none() {
            inner.leave();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What a body is sent from once more.
pub struct Replay(Option<(Rc<Upload>, Rc<Flow>)>); // none: nothing

impl Replay {
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// True as long as the body can be sent from its beginning.
    pub fn is_whole(&self) -> bool {
        let kept = |upload: &Upload| upload.0.borrow().keep.is_some();
        self.0.as_ref().is_none_or(|(upload, _)| kept(upload))
    }

    /// The body from its beginning; `None`: it was longer than what is kept. An earlier attempt reads nothing more.
    pub fn start(&self) -> Option<RequestBody> {
        let Some((upload, flow)) = &self.0 else {
            return Some(RequestBody(None));
        };
        {
            let mut inner = upload.0.borrow_mut();
            inner.keep?;
            inner.next = 0;
            inner.ready = inner.held;
            inner.attempt += 1;
        }
        flow.wake_body(); // an HTTP/2 stream whose answer is dropped lives on until its body ends
        let kind = Kind::Shared(upload.read());
        Some(RequestBody::of(Some(kind), Rc::clone(flow)))
    }
}
