//! What the servers of a cluster print: the last lines, for people who look and for a start that failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

/// Lines that are kept.
pub const MAX_LINES: usize = 1000;
/// Bytes that are kept.
pub const MAX_BYTES: usize = 256 << 10;
/// Bytes of one line; the rest of it is cut.
pub const MAX_LINE: usize = 8 << 10;

/// A line a server printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counts all lines of the cluster from 0; a gap in what was read means that lines were lost.
    pub seq: u64,
    /// Which start of a replica printed it: the first of the cluster is 1.
    pub replica: u64,
    /// When it was read.
    pub at: SystemTime,
    /// Without its end, at most [`MAX_LINE`] bytes and a mark.
    pub text: Arc<str>,
}

/// The last lines of a cluster. Cheap to clone; all clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    ring: Arc<Mutex<Ring>>,
    news: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    next: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            ring: Arc::default(),
            news: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Log {
    /// Adds a line and forgets the oldest beyond the bounds.
    pub fn push(&self, replica: u64, text: &str) {
        let mut ring = self.lock();
        let seq = ring.next;
        ring.next += 1;
        ring.bytes += cost(text);
        ring.lines.push_back(Line {
            seq,
            replica,
            at: SystemTime::now(),
            text: text.into(),
        });
        while ring.lines.len() > MAX_LINES || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes -= cost(&oldest.text);
        }
        let next = ring.next;
        drop(ring);
        self.news.send_replace(next);
    }

    /// Returns what is kept of the lines from `seq` on, oldest first.
    pub fn since(&self, seq: u64) -> Vec<Line> {
        let ring = self.lock();
        let first = ring.lines.partition_point(|line| line.seq < seq);
        ring.lines.range(first..).cloned().collect()
    }

    /// Returns the last `count` lines, oldest first.
    pub fn last(&self, count: usize) -> Vec<Line> {
        let ring = self.lock();
        let first = ring.lines.len().saturating_sub(count);
        ring.lines.range(first..).cloned().collect()
    }

    /// Returns the last `count` lines one replica printed, oldest first.
    pub fn last_of(&self, replica: u64, count: usize) -> Vec<Line> {
        let ring = self.lock();
        let mine = ring.lines.iter().rev().filter(|l| l.replica == replica);
        let mut lines: Vec<Line> = mine.take(count).cloned().collect();
        lines.reverse();
        lines
    }

    /// Follows the log from line `seq` on.
    pub fn follow(&self, seq: u64) -> Follower {
        Follower {
            log: self.clone(),
            news: self.news.subscribe(),
            next: seq,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line and what it costs to keep it.
fn cost(text: &str) -> usize {
    text.len() + size_of::<Line>()
}

/// A reader of a log. It holds no lines: one that is too slow loses the oldest.
#[derive(Debug)]
pub struct Follower {
    log: Log,
    news: watch::Receiver<u64>,
    next: u64,
}

impl Follower {
    /// Waits for lines not returned yet and returns them, oldest first, never none. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Vec<Line> {
        loop {
            self.news.mark_unchanged();
            let lines = self.log.since(self.next);
            if let Some(last) = lines.last() {
                self.next = last.seq + 1;
                return lines;
            }
            // `log` keeps the sender alive, so this does not fail.
            if self.news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Makes lines of what is read: cut at [`MAX_LINE`], the last state of a progress bar instead of every one.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    line: Vec<u8>,
    cut: bool,
    returned: bool,
}

impl Splitter {
    /// Takes bytes as they come and hands on each line that is complete.
    pub(super) fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end(&mut line),
                b'\r' => self.returned = true,
                byte => {
                    if std::mem::take(&mut self.returned) {
                        self.line.clear();
                        self.cut = false;
                    }
                    if self.line.len() < MAX_LINE {
                        self.line.push(byte);
                    } else {
                        self.cut = true;
                    }
                }
            }
        }
    }

    /// Hands on what has no end of line.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.end(&mut line);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(&str)) {
        let mut text = String::from_utf8_lossy(&self.line).into_owned();
        if self.cut {
            text.push('…');
        }
        line(&text);
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| line.text.to_string()).collect()
    }

    #[test]
    fn only_the_last_lines_are_kept_and_their_numbers_go_on() {
        let log = Log::default();
        (0..MAX_LINES + 7).for_each(|n| log.push(1, &n.to_string()));
        let kept = log.since(0);
        assert_eq!(kept.len(), MAX_LINES);
        assert_eq!((kept[0].seq, kept[0].text.as_ref()), (7, "7"));
        assert_eq!(texts(&log.last(1)), ["1006"]);
        assert_eq!(log.since(1005).len(), 2);
        assert!(log.since(5000).is_empty());
    }

    #[test]
    fn long_lines_count_by_their_bytes() {
        let log = Log::default();
        let long = "x".repeat(MAX_LINE);
        (0..100).for_each(|_| log.push(1, &long));
        let kept = log.since(0);
        assert!(kept.iter().map(|line| line.text.len()).sum::<usize>() <= MAX_BYTES);
        assert!(kept.len() > 25, "{}", kept.len());
        assert_eq!(log.lock().bytes, kept.len() * cost(&long));
    }

    #[test]
    fn one_replica_can_be_told_from_another() {
        let log = Log::default();
        for n in 0..6 {
            log.push(n % 2, &n.to_string());
        }
        assert_eq!(texts(&log.last_of(1, 2)), ["3", "5"]);
    }

    #[tokio::test]
    async fn a_follower_sees_each_line_once() {
        let log = Log::default();
        log.push(1, "a");
        let mut follower = log.follow(0);
        assert_eq!(texts(&follower.next().await), ["a"]);
        let waiting = tokio::spawn(async move { texts(&follower.next().await) });
        tokio::task::yield_now().await;
        log.push(1, "b");
        assert_eq!(waiting.await.unwrap(), ["b"]);
    }

    #[test]
    fn lines_are_split_cut_and_overwritten_as_a_terminal_would() {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        let mut feed = |bytes: &[u8]| splitter.feed(bytes, |line| lines.push(line.to_owned()));
        feed(b"one\r\ntw");
        feed(b"o\n 10%\r 50%\r100%\n\n");
        feed(&vec![b'x'; MAX_LINE + 5]);
        feed(b"\nrest");
        splitter.finish(|line| lines.push(line.to_owned()));
        assert_eq!(lines[..4], ["one", "two", "100%", ""]);
        assert_eq!(lines[4].len(), MAX_LINE + '…'.len_utf8());
        assert_eq!(lines[5..], ["rest"]);
    }
}
