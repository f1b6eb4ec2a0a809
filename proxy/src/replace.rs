//! Literal edits of an answer's body, streaming.
//!
//! [`Replacer::applies`] looks at an answer's head, [`Stream`] edits its body, and [`edit_request_headers`] and
//! [`edit_response_headers`] keep both heads true.

mod decode;
mod headers;
mod needle;
mod replacing;
mod search;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aho_corasick::AhoCorasick;
use bytes::Bytes;
use forebay_config::Replace;
use http::{HeaderMap, StatusCode};

pub use decode::Broken;
use decode::Decoder;
use headers::{Coding, coding, is_of_type, media_type};
pub use headers::{edit_request_headers, edit_response_headers};
use needle::Needle;
pub use replacing::Replacing;
use search::Search;

/// Bytes that one call of [`Stream`] decodes at most, and after which it stops adding replacements.
pub const STEP: usize = 64 * 1024;

/// The replacements of a route, compiled when the configuration loads.
#[derive(Clone, Debug)]
pub struct Replacer(Arc<Entries>);

#[derive(Debug)]
struct Entries {
    needles: Vec<Needle>,
    types: Vec<Vec<String>>,    // of each needle
    index: Option<AhoCorasick>, // leaps to the next place where a needle may begin
    longest: usize,
}

/// What is to be done with an answer.
#[derive(Debug)]
pub enum Applies {
    /// Nothing: it has no body to edit or is of another type.
    No,
    /// It answers HEAD, and a GET would be edited: only [`edit_response_headers`].
    Head,
    /// It would be edited, but is encoded in a way that is not read here: it passes as it is. Counted and warned of by
    /// the caller, under this name (lower case, at most 32 printable characters).
    Skipped(Box<str>),
    /// Its head by [`edit_response_headers`], its body by this.
    Stream(Stream),
}

impl Replacer {
    /// Compiles `body.replace` of a route, in the order in which it is written.
    pub fn new(entries: &[Replace]) -> Self {
        let needles: Vec<_> = entries.iter().map(Needle::new).collect();
        let index = AhoCorasick::builder()
            .match_kind(aho_corasick::MatchKind::LeftmostFirst)
            .ascii_case_insensitive(entries.iter().any(|entry| entry.ignore_case))
            .build(entries.iter().map(|entry| &entry.find));
        Self(Arc::new(Entries {
            longest: needles.iter().map(Needle::len).max().unwrap_or(0),
            types: entries.iter().map(|entry| entry.types.clone()).collect(),
            needles,
            index: index.ok(), // without it every byte is looked at
        }))
    }

    /// True when there is nothing to replace.
    pub fn is_empty(&self) -> bool {
        self.0.needles.is_empty()
    }

    /// Decides by the head of an answer, as the endpoint sent it.
    ///
    /// * `headers`: a missing or unreadable `content-type` is covered by `*/*` only; gRPC, whose messages carry their
    ///   length, only by its own name
    /// * `is_head`: the request was a HEAD
    pub fn applies(&self, status: StatusCode, headers: &HeaderMap, is_head: bool) -> Applies {
        let bodiless = status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        // A part of a body may begin or end within what is looked for.
        if self.is_empty() || bodiless || status == StatusCode::PARTIAL_CONTENT {
            return Applies::No;
        }
        let media_type = media_type(headers);
        let types = self.0.types.iter().enumerate();
        let meant = types.filter(|(_, types)| is_of_type(media_type.as_deref(), types));
        let meant: Vec<_> = meant.map(|(entry, _)| entry).collect();
        if meant.is_empty() {
            return Applies::No;
        }
        let decoder = match coding(headers) {
            Coding::Identity => None,
            Coding::Gzip => Some(Box::new(Decoder::gzip())),
            Coding::Deflate => Some(Box::new(Decoder::deflate())),
            Coding::Other(name) => return Applies::Skipped(name),
        };
        if is_head {
            return Applies::Head;
        }
        Applies::Stream(Stream {
            decoder,
            search: Search::new(Arc::clone(&self.0), meant),
        })
    }
}

/// Edits one body as it comes.
///
/// It keeps back only what may be the beginning of a match, so events of a stream are not delayed. Where matches
/// overlap the one that begins first wins, and at one place the first in the list; what was put in is never searched.
/// Held: less than the longest needle and, while [`pending`](Self::pending), what was fed last.
#[derive(Debug)]
pub struct Stream {
    decoder: Option<Box<Decoder>>,
    search: Search,
}

impl Stream {
    /// Takes the next bytes of the body and returns the next ones of the edited body, perhaps none. While
    /// [`pending`](Self::pending), nothing but empty chunks should be fed.
    ///
    /// # Errors
    ///
    /// When the body's encoding is broken; the answer cannot go on.
    pub fn feed(&mut self, chunk: Bytes) -> Result<Bytes, Broken> {
        self.step(chunk, false)
    }

    /// True when the last call stopped at [`STEP`] and there is more: call `feed` with an empty chunk, or `finish`,
    /// again before anything else.
    pub fn pending(&self) -> bool {
        self.search.pending() || self.decoder.as_ref().is_some_and(|d| d.pending())
    }

    /// Returns what was kept back, once the body has ended; again while [`pending`](Self::pending).
    ///
    /// # Errors
    ///
    /// When the body's encoding is broken or ended too early.
    pub fn finish(&mut self) -> Result<Bytes, Broken> {
        self.step(Bytes::new(), true)
    }

    fn step(&mut self, chunk: Bytes, last: bool) -> Result<Bytes, Broken> {
        let mut last = last;
        match &mut self.decoder {
            None => self.search.push(chunk),
            Some(decoder) => {
                decoder.push(chunk);
                if !self.search.pending() {
                    self.search.push(decoder.step()?);
                }
                last &= !decoder.pending();
                if last {
                    decoder.check_end()?;
                }
            }
        }
        Ok(self.search.step(last))
    }
}
