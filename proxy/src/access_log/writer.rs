//! One thread that writes, and the bounded buffers that workers fill for it without ever waiting for it.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use forebay_config::LogTarget;

use crate::append;

/// Bytes of lines that wait for the writer, over all lanes.
const MAX_PENDING: usize = 8 << 20;

/// How long the writer lets lines gather after the first one woke it.
const LINGER: Duration = Duration::from_millis(5);

/// What a buffer keeps of its size once it is empty.
const KEEP_CAPACITY: usize = 256 << 10;

/// How often a target that is not ready is tried again, 1 ms apart, before lines are lost.
const NOT_READY_TRIES: u32 = 500;

/// Of a new file, before the umask.
const MODE: u32 = 0o666;

pub(super) type Sink = Box<dyn Write + Send>;

/// Opens where lines go.
pub(super) fn open(target: &LogTarget) -> io::Result<Sink> {
    let file = match target {
        LogTarget::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        LogTarget::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
        LogTarget::File(path) => append::open(path, MODE)?,
    };
    Ok(Box::new(file))
}

/// Lines of some workers, each whole and ended. Alone in its cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Lane(Mutex<Vec<u8>>);

#[derive(Default)]
struct Signal {
    stop: bool,
    finished: bool,
    flush_wanted: u64,
    flush_done: u64,
    next_sink: Option<Sink>,
}

/// What workers and the writer share.
pub(super) struct Queue {
    lanes: Box<[Lane]>,
    lane_bytes: usize,
    asleep: AtomicBool,
    signal: Mutex<Signal>,
    wake: Condvar,
    done: Condvar,
    dropped: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lane of this thread: its number, given on first use.
fn lane_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<Option<usize>> = const { Cell::new(None) });
    MINE.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        MINE.set(Some(number));
        number
    })
}

impl Queue {
    /// Starts the thread.
    pub(super) fn start(sink: Sink, dropped: Arc<AtomicU64>) -> io::Result<Arc<Self>> {
        let lanes = thread::available_parallelism()
            .map_or(1, usize::from)
            .clamp(1, 64);
        Self::with_bound(sink, dropped, lanes, MAX_PENDING / lanes)
    }

    fn with_bound(
        sink: Sink,
        dropped: Arc<AtomicU64>,
        lanes: usize,
        lane_bytes: usize,
    ) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            lane_bytes,
            asleep: AtomicBool::new(false),
            signal: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
            dropped,
        });
        let shared = Arc::clone(&queue);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || Writer::new(sink).run(&shared))?;
        Ok(queue)
    }

    /// Appends one line made by `format`, and its line end; when there is no room the line is counted and lost.
    pub(super) fn push(&self, format: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = lock(&self.lanes[lane_number() % self.lanes.len()].0);
        let before = pending.len();
        if before < self.lane_bytes {
            format(&mut pending);
            pending.push(b'\n');
        }
        if before >= self.lane_bytes || pending.len() > self.lane_bytes {
            pending.truncate(before);
            drop(pending);
            self.dropped.fetch_add(1, Ordering::Relaxed); // a statistic: orders no other memory
            return;
        }
        drop(pending);
        // The writer says so before its last look at the lanes, and the lane's lock orders that look and our push.
        if self.asleep.load(Ordering::Relaxed) {
            let _signal = lock(&self.signal);
            self.asleep.store(false, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// Makes the writer go on with another target.
    pub(super) fn replace_sink(&self, sink: Sink) {
        lock(&self.signal).next_sink = Some(sink);
        self.wake.notify_one();
    }

    /// Waits until all lines pushed before are written, at most `timeout`; false when they are not.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut signal = lock(&self.signal);
        signal.flush_wanted += 1;
        let wanted = signal.flush_wanted;
        self.wake.notify_one();
        self.wait(signal, timeout, |signal| {
            signal.finished || signal.flush_done >= wanted
        })
    }

    /// Tells the writer to write what there is and end.
    pub(super) fn stop(&self) {
        lock(&self.signal).stop = true;
        self.wake.notify_one();
    }

    /// Waits for the writer's end after [`stop`](Self::stop), at most `timeout`; false when it has not ended.
    pub(super) fn join(&self, timeout: Duration) -> bool {
        self.wait(lock(&self.signal), timeout, |signal| signal.finished)
    }

    fn wait(
        &self,
        signal: MutexGuard<'_, Signal>,
        timeout: Duration,
        over: impl Fn(&Signal) -> bool,
    ) -> bool {
        let (signal, _) = self
            .done
            .wait_timeout_while(signal, timeout, |signal| !over(signal))
            .unwrap_or_else(PoisonError::into_inner);
        over(&signal)
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lock(&lane.0).is_empty())
    }
}

impl Signal {
    fn is_urgent(&self) -> bool {
        self.stop || self.flush_wanted > self.flush_done || self.next_sink.is_some()
    }
}

/// The state of the thread.
struct Writer {
    sink: Sink,
    batch: Vec<u8>,
    failing: bool,
    mid_line: bool,
}

impl Writer {
    fn new(sink: Sink) -> Self {
        Self {
            sink,
            batch: Vec::new(),
            failing: false,
            mid_line: false,
        }
    }

    fn run(mut self, queue: &Queue) {
        loop {
            let (stop, flush) = self.wait(queue);
            for lane in &queue.lanes {
                std::mem::swap(&mut *lock(&lane.0), &mut self.batch);
                self.write_batch(&queue.dropped);
            }
            let mut signal = lock(&queue.signal);
            signal.flush_done = flush;
            signal.finished = stop;
            queue.done.notify_all();
            if stop {
                return;
            }
        }
    }

    /// Sleeps until there is something to do; returns whether to end and which flush will be done.
    fn wait(&mut self, queue: &Queue) -> (bool, u64) {
        let mut signal = lock(&queue.signal);
        queue.asleep.store(true, Ordering::Relaxed);
        if !signal.is_urgent() && queue.is_empty() {
            signal = queue
                .wake
                .wait_while(signal, |signal| {
                    !signal.is_urgent() && queue.asleep.load(Ordering::Relaxed)
                })
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.asleep.store(false, Ordering::Relaxed);
        (signal, _) = queue
            .wake
            .wait_timeout_while(signal, LINGER, |signal| !signal.is_urgent())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = signal.next_sink.take() {
            self.sink = sink;
            self.mid_line = false;
        }
        (signal.stop, signal.flush_wanted)
    }

    /// Writes and empties the batch; lines that cannot be written are counted and lost.
    fn write_batch(&mut self, dropped: &AtomicU64) {
        if self.batch.is_empty() {
            return;
        }
        if self.mid_line {
            self.batch.insert(0, b'\n'); // rare: only after a failed write
        }
        let (written, result) = write_all(&mut self.sink, &self.batch);
        if written > 0 {
            self.mid_line = self.batch[written - 1] != b'\n';
        }
        match result {
            Ok(()) => self.failing = false,
            Err(error) => {
                let lost = self.batch[written..]
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count();
                dropped.fetch_add(lost as u64, Ordering::Relaxed); // a statistic: orders no other memory
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the access log cannot be written; lines are lost until it can");
                }
            }
        }
        self.batch.clear();
        self.batch.shrink_to(KEEP_CAPACITY);
    }
}

/// Writes all it can; returns how many bytes that was.
fn write_all(sink: &mut Sink, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    let mut tries = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => {
                written += count;
                tries = 0;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && tries < NOT_READY_TRIES => {
                tries += 1;
                thread::sleep(Duration::from_millis(1)); // a terminal that somebody else made non-blocking
            }
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Collects what is written and waits for a permit before each write.
    struct Slow {
        permits: mpsc::Receiver<()>,
        entered: mpsc::Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.permits.recv(); // a dropped sender permits everything
            lock(&self.written).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Fails whenever it is told to, after half of what it is given.
    struct Failing {
        failures: u32,
        written: Arc<Mutex<Vec<u8>>>,
        half: bool,
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.failures > 0 && self.half {
                self.failures -= 1;
                self.half = false;
                return Err(io::Error::other("no space"));
            }
            self.half = self.failures > 0;
            let taken = if self.half {
                bytes.len() / 2
            } else {
                bytes.len()
            };
            lock(&self.written).extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(queue: &Queue, text: &str) {
        queue.push(|out| out.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn lines_of_many_threads_are_all_written_whole() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = Box::new(Failing {
            failures: 0,
            written: Arc::clone(&written),
            half: false,
        });
        let queue = Queue::with_bound(sink, Arc::clone(&dropped), 2, 1 << 20).unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    (0..1000).for_each(|number| line(queue, &format!("{thread} {number}")))
                });
            }
        });
        assert!(queue.flush(LONG));
        let text = String::from_utf8(lock(&written).clone()).unwrap();
        for thread in 0..4 {
            let mine = text
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("{thread} ")));
            assert!(
                mine.map(|number| number.parse::<u32>().unwrap())
                    .eq(0..1000)
            );
        }
        assert_eq!(
            (text.lines().count(), dropped.load(Ordering::Relaxed)),
            (4000, 0)
        );
    }

    #[test]
    fn a_target_that_hangs_costs_lines_but_no_time() {
        let (permit, permits) = mpsc::channel();
        let (entered, writing) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = Box::new(Slow {
            permits,
            entered,
            written: Arc::clone(&written),
        });
        let queue = Queue::with_bound(sink, Arc::clone(&dropped), 1, 100).unwrap();
        line(&queue, "first");
        writing.recv().unwrap(); // now the writer hangs in the target
        (0..50).for_each(|_| line(&queue, "123456789"));
        assert_eq!(dropped.load(Ordering::Relaxed), 40);
        assert!(!queue.flush(Duration::from_millis(1)));
        queue.stop();
        assert!(!queue.join(Duration::from_millis(1)));
        drop(permit);
        assert!(queue.join(LONG));
        assert_eq!(lock(&written).len(), "first\n".len() + 100);
    }

    #[test]
    fn a_failed_write_counts_its_lines_and_leaves_no_half_line_behind() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = Box::new(Failing {
            failures: 1,
            written: Arc::clone(&written),
            half: false,
        });
        let queue = Queue::with_bound(sink, Arc::clone(&dropped), 1, 1000).unwrap();
        line(&queue, "lost and gone");
        assert!(queue.flush(LONG));
        line(&queue, "kept");
        assert!(queue.flush(LONG));
        assert_eq!(*lock(&written), b"lost an\nkept\n");
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_line_that_alone_is_too_long_is_lost() {
        let dropped = Arc::new(AtomicU64::new(0));
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Failing {
            failures: 0,
            written: Arc::clone(&written),
            half: false,
        });
        let queue = Queue::with_bound(sink, Arc::clone(&dropped), 1, 10).unwrap();
        line(&queue, "0123456789");
        line(&queue, "012345678");
        assert!(queue.flush(LONG));
        assert_eq!(
            (&**lock(&written), dropped.load(Ordering::Relaxed)),
            (&b"012345678\n"[..], 1)
        );
    }

    #[test]
    fn no_line_stays_behind_while_the_writer_sleeps() {
        let (permit, permits) = mpsc::channel();
        drop(permit);
        let (entered, writing) = mpsc::channel();
        let sink = Box::new(Slow {
            permits,
            entered,
            written: Arc::default(),
        });
        let queue = Queue::with_bound(sink, Arc::default(), 2, 1000).unwrap();
        for _ in 0..100 {
            line(&queue, "alone");
            writing.recv_timeout(LONG).unwrap(); // nobody flushes
        }
    }
}
