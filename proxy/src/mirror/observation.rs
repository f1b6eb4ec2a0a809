//! What came of a request and of all its copies, gathered on the worker for comparing and recording.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use forebay_config as config;
use http::{HeaderMap, StatusCode};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::state::{CANCELLED, MirrorState};
use crate::capture::{Capture, Seen, SeenAnswer, SeenRequest};
use crate::compare::{Comparer, Job};
use crate::error::Reason;
use crate::record::{Entry, Recorder, Role};
use crate::upload::Upload;

/// One request whose copies are under way, or which is written down.
pub struct Observation {
    started: Instant,
    primary: RefCell<Primary>,
    pairs: RefCell<Vec<Pair>>,
    record: Option<RefCell<Record>>,
    copies: RefCell<Vec<AbortHandle>>,
}

/// The primary's answer as far as it came.
struct Primary {
    head: Option<(StatusCode, HeaderMap)>,
    /// `None`: nobody looks at the answer.
    body: Option<Capture>,
    trailers: Option<HeaderMap>,
    cluster: Option<Arc<str>>,
}

/// A mirror's answer that is held against the primary's.
pub(super) struct Pair {
    /// Index of its mirror.
    pub mirror: usize,
    pub config: Arc<config::Compare>,
    pub state: Arc<MirrorState>,
    pub comparer: Arc<Comparer>,
    pub primary: Option<Seen>,
    pub copy: Option<Seen>,
    /// `None`: there is no noise twin; `Some(None)`: its answer is still to come.
    pub noise: Option<Option<Seen>>,
}

/// What is written down.
pub(super) struct Record {
    pub recorder: Arc<Recorder>,
    pub time: SystemTime,
    pub most: u64,
    pub request: Arc<SeenRequest>,
    pub upload: Option<Rc<Upload>>,
}

/// Whose answer it is.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// The mirror's with this index and name.
    Mirror(usize, Arc<str>),
    /// Its noise twin's.
    Noise(usize, Arc<str>),
}

impl Whose {
    fn parts(&self) -> (usize, Role, &Arc<str>) {
        match self {
            Self::Mirror(index, name) => (*index, Role::Mirror, name),
            Self::Noise(index, name) => (*index, Role::Noise, name),
        }
    }
}

impl Observation {
    pub(super) fn new(
        cluster: Arc<str>,
        body: Option<Capture>,
        pairs: Vec<Pair>,
        record: Option<Record>,
    ) -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            primary: RefCell::new(Primary {
                head: None,
                body,
                trailers: None,
                cluster: Some(cluster),
            }),
            pairs: RefCell::new(pairs),
            record: record.map(RefCell::new),
            copies: RefCell::default(),
        })
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn follow(&self, copy: AbortHandle) {
        self.copies.borrow_mut().push(copy);
    }

    /// The primary's answer as its endpoint sent it.
    pub fn head(&self, status: StatusCode, headers: &HeaderMap) {
        let mut primary = self.primary.borrow_mut();
        if primary.body.is_some() {
            primary.head = Some((status, headers.clone()));
        }
    }

    /// What came of the primary's body next.
    pub fn data(&self, data: &Bytes) {
        if let Some(body) = &mut self.primary.borrow_mut().body {
            body.push(data);
        }
    }

    /// The primary's trailers.
    pub fn trailers(&self, trailers: &HeaderMap) {
        let mut primary = self.primary.borrow_mut();
        if primary.body.is_some() {
            primary.trailers = Some(trailers.clone());
        }
    }

    /// The primary is over.
    ///
    /// * `failed`: why it has no answer, or why that was cut
    pub fn finish(&self, failed: Option<Reason>) {
        if failed == Some(Reason::ClientClosed) {
            // A client that leaves leaves the copies as well.
            for copy in self.copies.borrow().iter() {
                copy.abort();
            }
        }
        let mut primary = self.primary.borrow_mut();
        let Some(mut body) = primary.body.take() else {
            return;
        };
        if failed.is_none() {
            body.end();
        }
        let seen = match primary.head.take() {
            Some((status, headers)) => Seen::Answer(Box::new(SeenAnswer {
                status,
                headers,
                body: body.take(),
                trailers: primary.trailers.take(),
                seconds: self.started.elapsed().as_secs_f64(),
            })),
            None => Seen::Nothing(failed.map_or("internal", Reason::label)),
        };
        let cluster = primary.cluster.take().unwrap_or_default();
        drop(primary);
        if let Some(upload) = self.record.as_ref().and_then(|r| r.borrow().upload.clone()) {
            upload.close(); // we hold it, and the copies hold us
        }
        self.write_down(Role::Primary, None, cluster, &seen);
        for pair in self.pairs.borrow_mut().iter_mut() {
            pair.primary = Some(seen.clone());
        }
        self.compare_whole();
    }

    /// A copy ended because its request did: there is nothing to compare.
    pub(super) fn cancelled(&self, whose: &Whose, cluster: &Arc<str>) {
        let (index, role, name) = whose.parts();
        let seen = Seen::Nothing(CANCELLED);
        self.write_down(role, Some(Arc::clone(name)), Arc::clone(cluster), &seen);
        self.pairs.borrow_mut().retain(|pair| pair.mirror != index);
    }

    /// A copy is over.
    pub(super) fn copied(&self, whose: &Whose, cluster: &Arc<str>, seen: Seen) {
        let (index, role, name) = whose.parts();
        self.write_down(role, Some(Arc::clone(name)), Arc::clone(cluster), &seen);
        for pair in self.pairs.borrow_mut().iter_mut() {
            if pair.mirror == index {
                match whose {
                    Whose::Mirror(..) => pair.copy = Some(seen),
                    Whose::Noise(..) => pair.noise = Some(Some(seen)),
                }
                break;
            }
        }
        self.compare_whole();
    }

    /// Hands over the pairs of which everything is here.
    fn compare_whole(&self) {
        let mut pairs = self.pairs.borrow_mut();
        let whole = |pair: &mut Pair| {
            pair.primary.is_some() && pair.copy.is_some() && !matches!(pair.noise, Some(None))
        };
        for pair in pairs.extract_if(.., whole) {
            let (Some(primary), Some(mirror)) = (pair.primary, pair.copy) else {
                continue;
            };
            pair.comparer.submit(Job {
                tally: Arc::clone(&pair.state.tally),
                config: pair.config,
                primary,
                mirror,
                noise: pair.noise.flatten(),
            });
        }
    }

    fn write_down(&self, role: Role, mirror: Option<Arc<str>>, cluster: Arc<str>, seen: &Seen) {
        let Some(record) = &self.record else { return };
        let mut record = record.borrow_mut();
        let body = record.upload.as_ref().and_then(|upload| upload.seen());
        if let Some(body) = body {
            let whole = body.whole;
            Arc::make_mut(&mut record.request).body = body;
            if whole {
                record.upload = None;
            }
        }
        let mut seen = seen.clone();
        if let Seen::Answer(answer) = &mut seen {
            let most = usize::try_from(record.most).unwrap_or(usize::MAX);
            answer.body.bytes.truncate(most);
        }
        record.recorder.submit(Entry {
            time: record.time,
            role,
            mirror,
            cluster,
            request: Arc::clone(&record.request),
            seen,
        });
    }
}
