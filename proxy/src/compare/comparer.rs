//! The one thread that compares, and the bounded queue before it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use forebay_config::Compare;

use super::judge::judge;
use super::tally::{Tally, Verdict};
use crate::capture::Seen;

/// Jobs that wait.
pub const MOST_JOBS: usize = 256;
/// Bytes of bodies of jobs that wait or are being compared.
pub const MOST_BYTES: usize = 64 << 20;
/// What a job is charged besides its bodies.
const OVERHEAD: usize = 1024;
/// How long jobs are still compared once nobody wants more.
const LAST: Duration = Duration::from_secs(1);

/// A copy's answer that is to be held against the primary's.
#[derive(Debug)]
pub struct Job {
    /// Where the outcome is counted.
    pub tally: Arc<Tally>,
    /// What is compared.
    pub config: Arc<Compare>,
    /// What came of the request.
    pub primary: Seen,
    /// What came of its copy.
    pub mirror: Seen,
    /// What came of the copy to the noise cluster; `None`: there is no such cluster.
    pub noise: Option<Seen>,
}

impl Job {
    fn cost(&self) -> usize {
        let seen = [Some(&self.primary), Some(&self.mirror), self.noise.as_ref()];
        let bodies = seen.into_iter().flatten().map(|seen| match seen {
            Seen::Answer(answer) => answer.body.bytes.capacity(),
            Seen::Nothing(_) => 0,
        });
        bodies.fold(OVERHEAD, usize::saturating_add)
    }
}

type Work = Box<dyn Fn(&Job) + Send + Sync>;

/// Compares jobs on a thread of its own, which starts with the first one and ends, at most a second's work later, when
/// the comparer is dropped.
pub struct Comparer {
    shared: Arc<Shared>,
    /// `None`: the thread could not be started.
    jobs: OnceLock<Option<SyncSender<Job>>>,
}

struct Shared {
    work: Work,
    /// Charged for jobs in the queue and the one under way.
    bytes: AtomicUsize,
    dropped: OnceLock<Instant>,
}

impl Comparer {
    /// Returns a comparer without a thread, until the first job.
    pub fn start() -> Arc<Self> {
        Arc::new(Self::with(Box::new(judge)))
    }

    pub(super) fn with(work: Work) -> Self {
        let shared = Shared {
            work,
            bytes: AtomicUsize::new(0),
            dropped: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
            jobs: OnceLock::new(),
        }
    }

    /// Queues a job and returns at once. False: there is no room, which is counted as `busy` in the job's tally.
    pub fn submit(&self, job: Job) -> bool {
        let cost = job.cost();
        let tally = Arc::clone(&job.tally);
        let sent = self.shared.charge(cost) && {
            let jobs = self.jobs.get_or_init(|| spawn(&self.shared));
            let sent = jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
            if !sent {
                self.shared.refund(cost);
            }
            sent
        };
        if !sent {
            tally.count(Verdict::Busy);
        }
        sent
    }
}

#[cfg(test)]
impl Comparer {
    /// Drops it as if that had been some time ago.
    pub(super) fn drop_at(self, ago: Duration) {
        let past = Instant::now()
            .checked_sub(ago)
            .expect("the machine runs that long");
        let _ = self.shared.dropped.set(past);
    }

    pub(super) fn is_running(&self) -> bool {
        self.jobs.get().is_some()
    }
}

impl Drop for Comparer {
    fn drop(&mut self) {
        // Dropping the sender afterwards ends the thread once the queue is empty.
        let _ = self.shared.dropped.set(Instant::now());
    }
}

impl Shared {
    fn charge(&self, cost: usize) -> bool {
        let more = |bytes: usize| bytes.checked_add(cost).filter(|&bytes| bytes <= MOST_BYTES);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn refund(&self, cost: usize) {
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
    }

    fn run(&self, jobs: Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if self
                .dropped
                .get()
                .is_some_and(|dropped| dropped.elapsed() > LAST)
            {
                return;
            }
            let cost = job.cost();
            if catch_unwind(AssertUnwindSafe(|| (self.work)(&job))).is_err() {
                tracing::error!("a comparison of a mirror's answer panicked");
                job.tally.note("panicked");
            }
            drop(job);
            self.refund(cost);
        }
    }
}

fn spawn(shared: &Arc<Shared>) -> Option<SyncSender<Job>> {
    let (sender, jobs) = sync_channel(MOST_JOBS);
    let shared = Arc::clone(shared);
    let thread = thread::Builder::new().name("forebay-compare".to_owned());
    match thread.spawn(move || shared.run(jobs)) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::error!(%error, "mirrors are not compared: no thread");
            None
        }
    }
}
