//! Several needles in a text that comes in pieces.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Entries, STEP};

/// Replaces needles; see [`Stream`](super::Stream) for what wins.
///
/// Every needle has its own automaton, which knows how much of the needle the text ends with, and so how much must be
/// kept back. A whole match is only settled when no needle that would win over it can still be completed.
#[derive(Debug)]
pub(super) struct Search {
    entries: Arc<Entries>,
    live: Vec<Live>,   // in the order of the list; what was done once is gone
    best: Option<Hit>, // whole, but perhaps not settled
    held: Bytes,       // read, and perhaps the beginning of a match
    rest: Bytes,       // not read
    stopped: bool,
}

#[derive(Debug)]
struct Live {
    entry: usize,
    matched: usize,
}

/// A place where a whole needle stands, from the beginning of what is held.
#[derive(Clone, Copy, Debug)]
struct Hit {
    start: usize,
    entry: usize,
}

impl Search {
    pub(super) fn new(entries: Arc<Entries>, meant: Vec<usize>) -> Self {
        let live = meant.into_iter().map(|entry| Live { entry, matched: 0 });
        Self {
            live: live.collect(),
            entries,
            best: None,
            held: Bytes::new(),
            rest: Bytes::new(),
            stopped: false,
        }
    }

    /// Adds text to be read.
    pub(super) fn push(&mut self, text: Bytes) {
        self.rest = joined(std::mem::take(&mut self.rest), text);
    }

    /// True when the last step left text unread.
    pub(super) fn pending(&self) -> bool {
        self.stopped
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Reads what was pushed, until [`STEP`] bytes are out.
    ///
    /// * `last`: nothing follows, so nothing is kept back
    pub(super) fn step(&mut self, last: bool) -> Bytes {
        let mut at = self.held.len();
        let text = joined(
            std::mem::take(&mut self.held),
            std::mem::take(&mut self.rest),
        );
        let mut out = BytesMut::new();
        let mut written = 0;
        let mut leap_from = 0;
        self.stopped = false;
        loop {
            if let Some(hit) = self.settled(at, last && at == text.len()) {
                out.extend_from_slice(&text[written..hit.start]);
                let needle = &self.entries.needles[hit.entry];
                out.extend_from_slice(&needle.with);
                at = hit.start + needle.len();
                written = at;
                self.start_over(hit.entry);
                if out.len() >= STEP && at < text.len() {
                    self.stopped = true;
                    self.rest = text.slice(at..);
                    return out.freeze();
                }
                continue;
            }
            if at >= leap_from && self.is_idle() {
                (at, leap_from) = self.leap(&text, at);
            }
            let Some(&byte) = text.get(at) else { break };
            at += 1;
            self.read(byte, at);
        }
        let kept = match last {
            true => text.len(),
            false => self.earliest(at),
        };
        self.best = self.best.map(|hit| Hit {
            start: hit.start - kept,
            ..hit
        });
        self.held = Bytes::copy_from_slice(&text[kept..]); // a slice would keep all of it alive
        if out.is_empty() {
            return text.slice(written..kept);
        }
        out.extend_from_slice(&text[written..kept]);
        out.freeze()
    }

    /// Takes the byte before `at`.
    fn read(&mut self, byte: u8, at: usize) {
        for live in &mut self.live {
            let needle = &self.entries.needles[live.entry];
            live.matched = needle.read(live.matched, byte);
            if live.matched == needle.len() {
                let hit = Hit {
                    start: at - needle.len(),
                    entry: live.entry,
                };
                live.matched = 0; // whatever else it finds begins later and loses
                if self.best.is_none_or(|best| hit.wins_over(best)) {
                    self.best = Some(hit);
                }
            }
        }
    }

    /// The whole match that nothing can win over any more.
    ///
    /// * `at`: where reading stands
    /// * `last`: no byte follows
    fn settled(&self, at: usize, last: bool) -> Option<Hit> {
        let best = self.best?;
        let mut live = self.live.iter().filter(|live| live.matched > 0);
        let open = live.any(|live| {
            let hit = Hit {
                start: at - live.matched,
                entry: live.entry,
            };
            hit.wins_over(best)
        });
        (last || !open).then_some(best)
    }

    /// Where the first match that is whole or can still become it begins.
    fn earliest(&self, at: usize) -> usize {
        let live = self.live.iter().map(|live| at - live.matched);
        live.chain(self.best.map(|best| best.start))
            .min()
            .unwrap_or(at)
    }

    fn start_over(&mut self, replaced: usize) {
        self.best = None;
        if self.entries.needles[replaced].once {
            self.live.retain(|live| live.entry != replaced);
        }
        for live in &mut self.live {
            live.matched = 0;
        }
    }

    fn is_idle(&self) -> bool {
        self.best.is_none() && self.live.iter().all(|live| live.matched == 0)
    }

    /// Returns where the next match may begin, and where to leap from next. The index finds every needle, in any case
    /// if one of them is, so it may stop too often, never too late; no byte is leapt over twice.
    fn leap(&self, text: &[u8], at: usize) -> (usize, usize) {
        let longest = self.entries.longest;
        if self.live.is_empty() {
            return (text.len(), text.len());
        }
        match &self.entries.index {
            Some(index) if text.len() - at >= longest => {
                let cut_off = text.len() + 1 - longest; // from here on a beginning fits, perhaps no whole needle
                match index.find(&text[at..]) {
                    Some(hit) => (cut_off.min(at + hit.start()), at + hit.end()),
                    None => (cut_off, text.len()),
                }
            }
            _ => (at, text.len()),
        }
    }
}

impl Hit {
    /// True when it begins first, or stands earlier in the list.
    fn wins_over(self, other: Self) -> bool {
        (self.start, self.entry) < (other.start, other.entry)
    }
}

/// One text of two, copied only if there are two.
pub(super) fn joined(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        (false, false) => [first, second].concat().into(),
    }
}
