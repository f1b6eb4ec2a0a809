//! Replacing bytes of a stream while it passes.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

/// Bytes of a stream and what stands in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// In bytes from the beginning of the stream.
    pub at: Range<u64>,
    /// What is written instead.
    pub with: Vec<u8>,
}

/// By how many bytes a stream grows.
pub fn growth(edits: &[Edit]) -> i64 {
    let grown = |edit: &Edit| edit.with.len() as i64 - (edit.at.end - edit.at.start) as i64;
    edits.iter().map(grown).sum()
}

/// The edits that make `wanted` of what `made` made of the same stream.
///
/// * `wanted`, `made`: in order; whatever both replace, they replace whole
pub fn after(made: &[Edit], wanted: Vec<Edit>) -> Vec<Edit> {
    let mut before = made.iter().peekable();
    let mut shift = 0;
    let moved = wanted.into_iter().map(|edit| {
        while let Some(earlier) = before.next_if(|earlier| earlier.at.end <= edit.at.start) {
            shift += growth(std::slice::from_ref(earlier));
        }
        let length = match before.peek() {
            Some(same) if same.at == edit.at => same.with.len() as u64,
            _ => edit.at.end - edit.at.start,
        };
        let start = edit.at.start.saturating_add_signed(shift);
        Edit {
            at: start..start + length,
            with: edit.with,
        }
    });
    moved
        .filter(|edit| edit.at.start != edit.at.end || !edit.with.is_empty())
        .collect()
}

/// A stream that is edited piece by piece.
#[derive(Debug)]
pub struct Editing {
    edits: VecDeque<Edit>,
    at: u64,
}

impl Editing {
    /// * `edits`: in order, none within another
    pub fn new(edits: Vec<Edit>) -> Self {
        Self {
            edits: edits.into(),
            at: 0,
        }
    }

    /// What becomes of the next piece; `None`: it stays as it is.
    pub fn pass(&mut self, piece: &[u8]) -> Option<Bytes> {
        let start = self.at;
        self.at += piece.len() as u64;
        if self
            .edits
            .front()
            .is_none_or(|edit| edit.at.start >= self.at)
        {
            return None;
        }
        let mut out = Vec::with_capacity(piece.len() + 64);
        let mut kept = start; // up to here the piece is dealt with
        while let Some(edit) = self
            .edits
            .front_mut()
            .filter(|edit| edit.at.start < self.at)
        {
            if edit.at.start >= kept {
                out.extend_from_slice(
                    &piece[(kept - start) as usize..(edit.at.start - start) as usize],
                );
                out.append(&mut edit.with);
            }
            kept = edit.at.end.min(self.at);
            if edit.at.end > self.at {
                // The rest of it is in the next piece.
                edit.at.start = self.at;
                break;
            }
            self.edits.pop_front();
        }
        out.extend_from_slice(&piece[(kept - start) as usize..]);
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edit(at: Range<u64>, with: &str) -> Edit {
        Edit {
            at,
            with: with.into(),
        }
    }

    fn edited(text: &[u8], edits: &[Edit], size: usize) -> Vec<u8> {
        let mut editing = Editing::new(edits.to_vec());
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            match editing.pass(piece) {
                Some(changed) => out.extend_from_slice(&changed),
                None => out.extend_from_slice(piece),
            }
        }
        out
    }

    #[test]
    fn bytes_are_replaced_whatever_the_pieces() {
        let edits = [
            edit(0..1, "AA"),
            edit(3..6, ""),
            edit(6..8, "x"),
            edit(9..10, "end"),
        ];
        for size in 1..12 {
            assert_eq!(edited(b"0123456789", &edits, size), b"AA12x8end", "{size}");
        }
        assert_eq!(growth(&edits), -1);
        assert_eq!(edited(b"0123", &[], 2), b"0123");
    }

    proptest! {
        #[test]
        fn one_edit_after_another_gives_what_the_other_alone_gives(
            lengths in proptest::collection::vec((0u64..4, 1u64..5, "[a-z]{0,4}", "[A-Z]{0,4}"), 0..5),
            size in 1usize..9, untouched in any::<bool>(),
        ) {
            let text: Vec<u8> = (0..40).map(|n| b'0' + n % 10).collect();
            let (mut made, mut wanted, mut at) = (Vec::new(), Vec::new(), 0);
            for (gap, length, one, other) in lengths {
                at += gap;
                // What is removed whole by one cannot be found again by the other.
                made.push(edit(at..at + length, &format!("<{one}")));
                wanted.push(edit(at..at + length, &other));
                at += length;
            }
            if untouched {
                made.clear();
            }
            let first = edited(&text, &made, size);
            let both = edited(&first, &after(&made, wanted.clone()), size);
            prop_assert_eq!(both, edited(&text, &wanted, size));
            prop_assert_eq!(first.len() as i64, text.len() as i64 + growth(&made));
        }
    }
}
