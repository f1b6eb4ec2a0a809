//! The queue that workers fill without ever waiting, and the thread that empties it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use forebay_config::Recording;
use http::HeaderMap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use crate::capture::{Kept, Seen, SeenRequest};

use super::body::Rules;
use super::file::LineFile;
use super::line;
use super::post::{Outbox, Pace, Poster};

/// Entries that wait for the thread.
const MAX_ENTRIES: usize = 10_000;

/// What they hold, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// What an entry and each of its headers cost besides their text.
const ENTRY_COST: usize = 512;
const HEADER_COST: usize = 64;

/// How long the thread goes on after its recorder is dropped.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// After so many entries the posting gets its turn.
const TURN: usize = 32;

/// What the line's buffer keeps of its size.
const KEEP_CAPACITY: usize = 256 << 10;

/// Whose answer an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one the client got.
    Primary,
    /// A mirror's.
    Mirror,
    /// That of the second primary, which tells what differs anyway.
    Noise,
}

impl Role {
    /// Value of `role` in a line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Mirror => "mirror",
            Self::Noise => "noise",
        }
    }
}

/// A request and what came of it at one endpoint: one line.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When the request came.
    pub time: SystemTime,
    /// Whose answer this is.
    pub role: Role,
    /// Name of the mirror that it belongs to; `None` for the primary.
    pub mirror: Option<Arc<str>>,
    /// Name of the cluster that answered or should have.
    pub cluster: Arc<str>,
    /// Shared with the other entries of the same request.
    pub request: Arc<SeenRequest>,
    /// The answer, or why there is none.
    pub seen: Seen,
}

impl Entry {
    /// What it holds, in bytes; its request is counted for each entry that shares it.
    fn size(&self) -> usize {
        let request = &*self.request;
        let text = request.id.len() + request.authority.len() + request.target.len();
        let asked = headers_size(&request.headers) + body_size(&request.body);
        let answered = match &self.seen {
            Seen::Answer(answer) => {
                let trailers = answer.trailers.as_ref().map_or(0, headers_size);
                headers_size(&answer.headers) + body_size(&answer.body) + trailers
            }
            Seen::Nothing(_) => 0,
        };
        ENTRY_COST + text + asked + answered
    }
}

fn headers_size(headers: &HeaderMap) -> usize {
    let sizes = headers.iter();
    sizes
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_COST)
        .sum()
}

fn body_size(kept: &Kept) -> usize {
    kept.bytes.capacity()
}

/// What came of all entries so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines appended to the file.
    pub written: u64,
    /// Lines a server took.
    pub posted: u64,
    /// Entries that found the queue full, or of which no line could be made.
    pub dropped_queue: u64,
    /// Lines the file did not take.
    pub dropped_file: u64,
    /// Lines the server did not take, or that waited for it in vain.
    pub dropped_post: u64,
}

impl Counts {
    /// Lines and entries lost, whatever the reason; one that neither the file nor the server took counts twice.
    pub fn dropped(&self) -> u64 {
        self.dropped_queue + self.dropped_file + self.dropped_post
    }
}

/// [`Counts`] while they grow.
#[derive(Debug, Default)]
pub(super) struct Tally {
    written: AtomicU64,
    pub(super) posted: AtomicU64,
    dropped_queue: AtomicU64,
    dropped_file: AtomicU64,
    pub(super) dropped_post: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed); // a statistic: orders no other memory
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Inbox {
    entries: VecDeque<(usize, Entry)>,
    bytes: usize,
    reopen: bool,
    flush_wanted: u64,
    flush_done: u64,
    stop: Option<Instant>,
    finished: bool,
}

/// What workers and the thread share.
#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Notify,
    done: Condvar,
}

/// Bounds and doings that tests choose otherwise.
struct Parts {
    max_entries: usize,
    max_bytes: usize,
    pace: Pace,
    format: Format,
}

type Format = Box<dyn Fn(&mut Vec<u8>, &Entry, &Rules) + Send>;

impl Default for Parts {
    fn default() -> Self {
        Self {
            max_entries: MAX_ENTRIES,
            max_bytes: MAX_BYTES,
            pace: Pace::default(),
            format: Box::new(line::push),
        }
    }
}

/// Writes entries down, off the workers. Dropping it ends its thread, which goes on for at most 1 s to write and post
/// what is queued; the drop itself does not wait for that.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    max_entries: usize,
    max_bytes: usize,
}

impl Recorder {
    /// Opens the file and starts the thread; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// What opening the file says, with its path; `InvalidInput` for a URL that cannot be posted to, such as `https`
    /// on a system without trusted roots; what starting a thread says.
    pub fn start(config: &Recording) -> io::Result<Arc<Self>> {
        Self::start_with(config, Parts::default())
    }

    fn start_with(config: &Recording, parts: Parts) -> io::Result<Arc<Self>> {
        let tally = Arc::<Tally>::default();
        let file = config.path.as_deref();
        let file = file.map(|path| LineFile::open(path, config.max_file, config.keep));
        let url = config.url.as_ref();
        let poster = url.map(|url| Poster::new(url, Arc::clone(&tally), parts.pace));
        let poster = poster.transpose()?;
        let shared = Arc::<Shared>::default();
        let writer = Writer {
            shared: Arc::clone(&shared),
            tally: Arc::clone(&tally),
            rules: Rules {
                max_body: config.max_body,
                redact: config.redact.clone(),
            },
            format: parts.format,
            file: file.transpose()?,
            outbox: poster.as_ref().map(Poster::outbox),
            line: Vec::new(),
            flushes: VecDeque::new(),
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || run(runtime, writer, poster))?;
        Ok(Arc::new(Self {
            shared,
            tally,
            max_entries: parts.max_entries,
            max_bytes: parts.max_bytes,
        }))
    }

    /// Queues an entry. Never waits; false: there was no room, the entry is counted and lost.
    pub fn submit(&self, entry: Entry) -> bool {
        let size = entry.size();
        let mut inbox = lock(&self.shared.inbox);
        let is_room = inbox.entries.len() < self.max_entries
            && inbox.bytes.saturating_add(size) <= self.max_bytes;
        if inbox.finished || !is_room {
            drop(inbox);
            add(&self.tally.dropped_queue, 1);
            return false;
        }
        inbox.bytes += size;
        inbox.entries.push_back((size, entry));
        let is_first = inbox.entries.len() == 1; // the thread looks again before it sleeps
        drop(inbox);
        if is_first {
            self.shared.wake.notify_one();
        }
        true
    }

    /// What came of all entries so far.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            written: of(&self.tally.written),
            posted: of(&self.tally.posted),
            dropped_queue: of(&self.tally.dropped_queue),
            dropped_file: of(&self.tally.dropped_file),
            dropped_post: of(&self.tally.dropped_post),
        }
    }

    /// Opens the file again, after it was moved away: entries submitted later go to the new one. When it cannot be
    /// opened, the log says so and the old one stays.
    pub fn reopen(&self) {
        lock(&self.shared.inbox).reopen = true;
        self.shared.wake.notify_one();
    }

    /// Waits until what was submitted before is written and posted, or given up, at most `timeout`; false when it is
    /// not. Blocks the thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.await_flush(self.ask_flush(), timeout)
    }

    /// Begins a flush without waiting; returns what [`Recorder::await_flush`] waits for.
    pub fn ask_flush(&self) -> u64 {
        let mut inbox = lock(&self.shared.inbox);
        inbox.flush_wanted += 1;
        let wanted = inbox.flush_wanted;
        drop(inbox);
        self.shared.wake.notify_one();
        wanted
    }

    /// Waits as [`Recorder::flush`] for the flush that [`Recorder::ask_flush`] began.
    pub fn await_flush(&self, wanted: u64, timeout: Duration) -> bool {
        let inbox = lock(&self.shared.inbox);
        let is_over = |inbox: &Inbox| inbox.finished || inbox.flush_done >= wanted;
        let (inbox, _) = self
            .shared
            .done
            .wait_timeout_while(inbox, timeout, |inbox| !is_over(inbox))
            .unwrap_or_else(PoisonError::into_inner);
        inbox.flush_done >= wanted
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.shared.inbox).stop = Some(Instant::now() + LAST_FLUSH);
        self.shared.wake.notify_one();
    }
}

fn run(runtime: Runtime, mut writer: Writer, poster: Option<Poster>) {
    let shared = Arc::clone(&writer.shared);
    let work = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            if let Some(poster) = poster {
                tokio::spawn(poster.run());
            }
            writer.run().await;
        });
    }));
    if work.is_err() {
        tracing::error!(
            "a recorder has ended by a fault; nothing is recorded until the next reload"
        );
    }
    writer.give_up();
    let mut inbox = lock(&shared.inbox);
    inbox.finished = true;
    shared.done.notify_all();
    drop(inbox);
    runtime.shutdown_background(); // a name that is still being looked up is not waited for
}

/// The state of the thread.
struct Writer {
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    rules: Rules,
    format: Format,
    file: Option<LineFile>,
    outbox: Option<Arc<Outbox>>,
    line: Vec<u8>,
    /// Flushes that wait for the poster: their number and how many lines it must be done with.
    flushes: VecDeque<(u64, u64)>,
}

impl Writer {
    async fn run(&mut self) {
        loop {
            let (count, flush, stop) = self.orders();
            for done in 1..=count {
                self.take_one();
                if done % TURN == 0 {
                    tokio::task::yield_now().await;
                }
                if stop.is_some_and(|stop| Instant::now() >= stop) {
                    return;
                }
            }
            self.settle(flush);
            match stop {
                Some(deadline) => return self.post_last(deadline).await,
                None => self.sleep().await,
            }
        }
    }

    /// Reads what is asked for: how many entries were queued before, which flush, whether to end.
    fn orders(&mut self) -> (usize, u64, Option<Instant>) {
        let mut inbox = lock(&self.shared.inbox);
        let orders = (inbox.entries.len(), inbox.flush_wanted, inbox.stop);
        let reopen = std::mem::take(&mut inbox.reopen);
        drop(inbox);
        if let Some(file) = self.file.as_mut().filter(|_| reopen)
            && let Err(error) = file.reopen()
        {
            file.warn(&error);
        }
        orders
    }

    /// Makes and hands on the line of the first entry; a fault costs that line only.
    fn take_one(&mut self) {
        let mut inbox = lock(&self.shared.inbox);
        let Some((size, entry)) = inbox.entries.pop_front() else {
            return;
        };
        inbox.bytes -= size;
        drop(inbox);
        self.line.clear();
        let (format, line, rules) = (&self.format, &mut self.line, &self.rules);
        if catch_unwind(AssertUnwindSafe(|| format(line, &entry, rules))).is_err() {
            add(&self.tally.dropped_queue, 1);
            return;
        }
        if let Some(file) = &mut self.file {
            let taken = file.write(&self.line);
            let counter = if taken {
                &self.tally.written
            } else {
                &self.tally.dropped_file
            };
            add(counter, 1);
        }
        if let Some(outbox) = &self.outbox
            && !outbox.push(&self.line)
        {
            add(&self.tally.dropped_post, 1);
        }
        self.line.shrink_to(KEEP_CAPACITY);
    }

    /// Answers the flushes that are over, `flush` being the last whose entries have become lines.
    fn settle(&mut self, flush: u64) {
        let mut over = flush;
        if let Some(outbox) = &self.outbox {
            let last = self.flushes.back().map(|(number, _)| *number);
            let known = last.unwrap_or_else(|| lock(&self.shared.inbox).flush_done);
            if flush > known {
                self.flushes.push_back((flush, outbox.hurry()));
            }
            over = 0;
            let done = outbox.done();
            while let Some((number, _)) = self.flushes.pop_front_if(|(_, lines)| *lines <= done) {
                over = number;
            }
        }
        let mut inbox = lock(&self.shared.inbox);
        if over > inbox.flush_done {
            inbox.flush_done = over;
            self.shared.done.notify_all();
        }
    }

    /// Waits until there may be something to do.
    async fn sleep(&self) {
        if !lock(&self.shared.inbox).entries.is_empty() {
            return tokio::task::yield_now().await;
        }
        match self.outbox.as_ref().filter(|_| !self.flushes.is_empty()) {
            Some(outbox) => tokio::select! {
                () = self.shared.wake.notified() => {}
                () = outbox.progress() => {}
            },
            None => self.shared.wake.notified().await,
        }
    }

    /// Waits for the poster until the deadline.
    async fn post_last(&mut self, deadline: Instant) {
        let Some(outbox) = self.outbox.clone() else {
            return;
        };
        let lines = outbox.hurry();
        let all = async {
            while outbox.done() < lines {
                outbox.progress().await;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), all).await; // what is left is counted
        self.settle(0);
    }

    /// Counts what is neither written nor posted.
    fn give_up(&mut self) {
        let mut inbox = lock(&self.shared.inbox);
        inbox.finished = true;
        let left = std::mem::take(&mut inbox.entries);
        inbox.bytes = 0;
        drop(inbox);
        add(&self.tally.dropped_queue, left.len() as u64);
        if let Some(outbox) = &self.outbox {
            add(&self.tally.dropped_post, outbox.left());
        }
    }
}

#[cfg(test)]
mod tests;
