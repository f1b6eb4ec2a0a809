//! A key, string or number as far as it has come.

use super::LONGEST;

/// Collects a key or value if anybody wants it; at most [`LONGEST`] bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    kept: Vec<u8>,
    keep: bool,        // false: not wanted, too long, or no text at all
    high: Option<u16>, // first half of a surrogate pair
}

impl Text {
    /// Begins another text, kept only if wanted.
    pub(super) fn begin(&mut self, keep: bool) {
        self.kept.clear();
        self.keep = keep;
        self.high = None;
    }

    /// Adds bytes as they are written.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.keep || bytes.is_empty() {
            return;
        }
        if self.high.is_some() || self.kept.len() + bytes.len() > LONGEST {
            self.begin(false);
            return;
        }
        self.kept.extend_from_slice(bytes);
    }

    /// Adds what `\uXXXX` stands for; half a surrogate pair without the other makes the text invalid.
    pub(super) fn push_unit(&mut self, unit: u16) {
        let unit = u32::from(unit);
        let character = match (self.high.take().map(u32::from), unit) {
            (None, 0xd800..=0xdbff) => {
                self.high = u16::try_from(unit).ok();
                return;
            }
            (Some(high), 0xdc00..=0xdfff) => {
                char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00))
            }
            (None, _) => char::from_u32(unit),
            (Some(_), _) => None,
        };
        match character {
            Some(character) => self.push(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => self.begin(false),
        }
    }

    /// The whole text; `None`: it was not wanted, is too long, or is not valid.
    pub(super) fn whole(&self) -> Option<&str> {
        let valid = self.keep && self.high.is_none();
        valid.then(|| std::str::from_utf8(&self.kept).ok())?
    }
}
