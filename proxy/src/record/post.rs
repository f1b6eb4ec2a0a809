//! Lines that wait to be posted, and the task that posts them batch by batch, one at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::file::Warned;
use super::recorder::{Tally, lock};
use super::target::{Outcome, Target};

/// A batch is not waited for any longer once it is this large, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Nor once it has so many lines.
const BATCH_LINES: usize = 1000;

/// Bytes of lines that wait for the server, without the batch it is being sent.
const MAX_WAITING: usize = 32 << 20;

/// What a waiting line costs besides its bytes.
const LINE_COST: usize = 64;

/// How often a batch is tried.
const ATTEMPTS: u32 = 3;

/// How patient the poster is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long a line waits for others to go with it.
    pub(super) linger: Duration,
    /// For one attempt.
    pub(super) timeout: Duration,
    /// After the first attempt when the server names no time; four times that after the second.
    pub(super) backoff: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            backoff: Duration::from_millis(250),
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    pushed: u64,
    done: u64,
    hurry: u64,
}

/// Lines on their way to the poster.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
    progress: Notify,
}

impl Outbox {
    /// Adds a line; false: there is no room.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut waiting = lock(&self.waiting);
        let cost = line.len() + LINE_COST;
        if waiting.bytes + cost > MAX_WAITING && !waiting.lines.is_empty() {
            return false;
        }
        waiting.bytes += cost;
        waiting.pushed += 1;
        waiting.lines.push_back((Instant::now(), line.to_vec()));
        self.wake.notify_one();
        true
    }

    /// Makes all lines there are go without waiting for others; returns what [`done`](Self::done) says when they are
    /// through.
    pub(super) fn hurry(&self) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.hurry = waiting.pushed;
        self.wake.notify_one();
        waiting.pushed
    }

    /// How many lines were posted or given up.
    pub(super) fn done(&self) -> u64 {
        lock(&self.waiting).done
    }

    /// Lines that are neither posted nor given up.
    pub(super) fn left(&self) -> u64 {
        let waiting = lock(&self.waiting);
        waiting.pushed - waiting.done
    }

    /// Waits until [`done`](Self::done) may have grown.
    pub(super) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Waits for a batch; returns it and how many lines it has.
    async fn batch(&self, linger: Duration) -> (Bytes, usize) {
        loop {
            let due = {
                let mut waiting = lock(&self.waiting);
                let due = waiting.lines.front().map(|(since, _)| *since + linger);
                if due.is_some_and(|due| waiting.is_ready(due)) {
                    return waiting.take();
                }
                due
            };
            let never = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or(never)) => {}
            }
        }
    }

    fn finish(&self, lines: usize) {
        lock(&self.waiting).done += lines as u64;
        self.progress.notify_one();
    }
}

impl Waiting {
    fn is_ready(&self, due: Instant) -> bool {
        self.bytes - self.lines.len() * LINE_COST >= BATCH_BYTES
            || self.lines.len() >= BATCH_LINES
            || self.hurry > self.done
            || Instant::now() >= due
    }

    /// Takes at least one line and no more than a batch.
    fn take(&mut self) -> (Bytes, usize) {
        let (mut count, mut bytes) = (0, 0);
        for (_, line) in self.lines.iter().take(BATCH_LINES) {
            if count > 0 && bytes + line.len() > BATCH_BYTES {
                break;
            }
            count += 1;
            bytes += line.len();
        }
        let mut batch = Vec::with_capacity(bytes);
        for (_, line) in self.lines.drain(..count) {
            batch.extend_from_slice(&line);
        }
        self.bytes -= bytes + count * LINE_COST;
        (Bytes::from(batch), count)
    }
}

/// Posts what the outbox holds.
pub(super) struct Poster {
    target: Target,
    outbox: Arc<Outbox>,
    tally: Arc<Tally>,
    pace: Pace,
    warned: Warned,
}

impl Poster {
    /// Reads the URL; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// Those of [`Target::new`].
    pub(super) fn new(url: &Uri, tally: Arc<Tally>, pace: Pace) -> io::Result<Self> {
        Ok(Self {
            target: Target::new(url)?,
            outbox: Arc::default(),
            tally,
            pace,
            warned: Warned::default(),
        })
    }

    /// Where lines are left for it.
    pub(super) fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }

    /// Posts forever.
    pub(super) async fn run(mut self) {
        loop {
            let (batch, lines) = self.outbox.batch(self.pace.linger).await;
            let counter = match self.deliver(batch).await {
                Ok(()) => &self.tally.posted,
                Err(why) => {
                    if self.warned.is_due(std::time::Instant::now()) {
                        let target = self.target.name();
                        tracing::warn!(%target, %why, "recordings cannot be posted; they are lost until they can");
                    }
                    &self.tally.dropped_post
                }
            };
            counter.fetch_add(lines as u64, Ordering::Relaxed); // a statistic: orders no other memory
            self.outbox.finish(lines);
        }
    }

    async fn deliver(&mut self, batch: Bytes) -> Result<(), String> {
        let mut backoff = self.pace.backoff;
        for attempt in 1.. {
            let (why, wait) = match self.target.post(&batch, self.pace.timeout).await {
                Outcome::Taken => return Ok(()),
                Outcome::Refused(why) => return Err(why),
                Outcome::Later(why, wait) => (why, wait),
            };
            if attempt >= ATTEMPTS {
                return Err(why);
            }
            tracing::debug!(%why, attempt, "a batch of recordings is tried again");
            let jittered = backoff.mul_f64(0.5 + fastrand::f64());
            tokio::time::sleep(wait.unwrap_or(jittered)).await;
            backoff *= 4;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_old() {
        let linger = Duration::from_secs(1);
        let outbox = Outbox::default();
        assert!(outbox.push(b"a\n"));
        tokio::time::advance(linger / 2).await;
        assert!(outbox.push(b"b\n"));
        let before = Instant::now();
        assert_eq!(outbox.batch(linger).await, (Bytes::from("a\nb\n"), 2));
        let waited = before.elapsed();
        assert!(waited >= linger / 2 && waited < linger, "{waited:?}");

        let before = Instant::now();
        (0..=BATCH_LINES).for_each(|_| assert!(outbox.push(b"\n")));
        assert_eq!(outbox.batch(linger).await.1, BATCH_LINES);
        assert_eq!(before.elapsed(), Duration::ZERO);
        outbox.finish(2 + BATCH_LINES);
        assert_eq!(outbox.left(), 1);
        assert_eq!(outbox.hurry(), 3 + BATCH_LINES as u64);
        assert_eq!(outbox.batch(linger).await.1, 1);
        assert_eq!(before.elapsed(), Duration::ZERO);
        outbox.finish(1);

        let large = vec![b'x'; BATCH_BYTES];
        assert!(outbox.push(&large) && outbox.push(&large));
        assert_eq!(outbox.batch(linger).await.0.len(), BATCH_BYTES);
        assert_eq!(outbox.batch(linger).await.0.len(), BATCH_BYTES);
        assert_eq!(lock(&outbox.waiting).bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let outbox = Outbox::default();
        assert!(outbox.push(&vec![b'x'; MAX_WAITING + 1]));
        assert!(!outbox.push(b"\n"));
        assert_eq!(lock(&outbox.waiting).take().1, 1);
        assert!(outbox.push(b"\n"));
    }
}
