//! One text that is looked for: Knuth, Morris and Pratt's automaton.

use bytes::Bytes;
use forebay_config::Replace;

/// A compiled entry of `body.replace`.
#[derive(Debug)]
pub(super) struct Needle {
    find: Box<[u8]>,     // lower case when case does not matter; never empty
    falls: Box<[usize]>, // for each prefix but the empty one: its longest proper prefix that is its suffix
    pub(super) with: Bytes,
    pub(super) once: bool,
    ignore_case: bool,
}

impl Needle {
    pub(super) fn new(entry: &Replace) -> Self {
        let find = match entry.ignore_case {
            true => entry.find.to_ascii_lowercase(),
            false => entry.find.clone(),
        };
        let mut needle = Self {
            falls: vec![0; find.len()].into(),
            find: find.into_bytes().into(),
            with: Bytes::copy_from_slice(entry.with.as_bytes()),
            once: entry.once,
            ignore_case: entry.ignore_case,
        };
        let mut matched = 0;
        for at in 1..needle.find.len() {
            matched = needle.read(matched, needle.find[at]);
            needle.falls[at] = matched;
        }
        needle
    }

    pub(super) fn len(&self) -> usize {
        self.find.len()
    }

    /// How much of the needle the text ends with once `byte` follows.
    ///
    /// * `matched`: how much it ended with before
    pub(super) fn read(&self, matched: usize, byte: u8) -> usize {
        let byte = match self.ignore_case {
            true => byte.to_ascii_lowercase(),
            false => byte,
        };
        let mut matched = matched;
        loop {
            if self.find.get(matched) == Some(&byte) {
                return matched + 1;
            }
            match matched.checked_sub(1) {
                Some(last) => matched = self.falls[last],
                None => return 0,
            }
        }
    }
}
