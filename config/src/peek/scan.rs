//! The scanner: one state, one stack of open objects and arrays, one byte after the other.

use std::ops::Range;
use std::sync::Arc;

use super::places::Places;
use super::text::Text;
use super::{DEEPEST, Found};
use crate::pointer::Pointer;

/// Whether further bytes can change what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// They can.
    More,
    /// They cannot: the document ended, nothing wanted can still come, or it is not JSON. An object ends with its last
    /// brace only, as each of its members may come again.
    Done,
}

/// Looks for the values at some places of a JSON document that comes in pieces.
///
/// It is as strict as RFC 8259, but passes over `NaN` and `Infinity`, which Python's `json` reads, over bytes that are
/// not UTF-8, and over half surrogate pairs, so that none of them hides the values around it. A byte order mark in
/// front is skipped, and what follows the document is not looked at. Memory: a key or value of up to
/// [`LONGEST`](super::LONGEST) bytes, a found value for each place, and a few bytes for each of up to [`DEEPEST`]
/// levels.
#[derive(Clone, Debug)]
pub struct Peek {
    places: Arc<Places>,
    values: Vec<Option<String>>,
    state: State,
    open: Vec<Open>,
    target: Option<usize>, // node in `places` of the value that is coming or being read
    text: Text,
    at: u64,    // bytes fed before the one that is looked at
    began: u64, // where the last string began
    named: u32, // keys of wanted places
    string: Option<(usize, Range<u64>)>,
    #[cfg(test)]
    pub(super) looked_at: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Mark(usize),  // so many bytes of a byte order mark were read
    Value,        // a value must come
    FirstElement, // a value or `]`
    FirstKey,     // a key or `}`
    Key,
    Colon,
    After, // a comma or the end of what is open
    Text(Role),
    Escape(Role),
    Hex(Role, u8, u16), // digits to come, what the others make
    Number(Part),
    Literal(&'static [u8], Option<&'static str>), // what must follow, what it is worth
    Ended,
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum Role {
    Key,
    Value,
}

/// What was read of a number last.
#[derive(Clone, Copy, Debug)]
enum Part {
    Minus,
    Zero,
    Whole,
    Dot,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// An open object or array and its node in `Places`, if anything in it is wanted.
#[derive(Clone, Copy, Debug)]
enum Open {
    Object(Option<usize>),
    Array(Option<usize>, u64), // which element is being read
}

const MARK: &[u8] = b"\xef\xbb\xbf";

impl Peek {
    /// Starts a search; who searches often compiles the places once and uses [`of`](Self::of).
    pub fn new(wanted: &[Pointer]) -> Self {
        Self::of(Arc::new(Places::new(wanted)))
    }

    /// Starts a search for compiled places.
    pub fn of(places: Arc<Places>) -> Self {
        Self {
            values: vec![None; places.len()],
            state: match places.is_empty() {
                true => State::Ended,
                false => State::Mark(0),
            },
            open: Vec::new(),
            target: Some(0),
            text: Text::default(),
            at: 0,
            began: 0,
            named: 0,
            string: None,
            places,
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// Looks at the next bytes; the result does not depend on how the document is cut into pieces.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        let mut rest = bytes;
        let end = self.at + bytes.len() as u64;
        while let Some((&byte, after)) = rest.split_first() {
            self.at = end - rest.len() as u64;
            rest = match self.state {
                State::Ended | State::Broken => break,
                State::Text(role) => self.text(role, rest),
                _ => {
                    self.count(1);
                    self.step(byte);
                    after
                }
            };
        }
        self.at = end;
        match self.state {
            State::Ended | State::Broken => Progress::Done,
            _ => Progress::More,
        }
    }

    /// How many keys of wanted places there were, those that came again included. The first place in the list counts
    /// by its key, the others once they have a value that is neither `null` nor an empty string.
    pub(super) fn named(&self) -> u32 {
        self.named
    }

    /// True when what came is not JSON.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// True when a wanted member of the document's object came and is over.
    pub(super) fn passed(&self) -> bool {
        self.named > 0 && self.open.len() < 2 && self.target.is_none()
    }

    /// The last string at a wanted place: what it says, `None` when it is not valid, and where it is, its quotes
    /// included.
    pub(super) fn string(&self) -> Option<(Option<&str>, Range<u64>)> {
        let (slot, range) = self.string.as_ref()?;
        Some((self.values[*slot].as_deref(), range.clone()))
    }

    /// What was found. Of a document that stopped early it is what came so far; of something that is not JSON,
    /// nothing.
    pub fn finish(mut self) -> Found {
        if let State::Number(part) = self.state
            && self.open.is_empty()
            && part.may_end()
        {
            self.take_text();
        }
        let broken = matches!(self.state, State::Broken);
        if broken {
            self.values.fill(None);
        }
        Found {
            places: Some(self.places),
            values: self.values,
            broken,
        }
    }

    /// Reads the rest of a piece up to the next quote or backslash, and that one too; returns what follows.
    fn text<'a>(&mut self, role: Role, rest: &'a [u8]) -> &'a [u8] {
        let plain = plain_length(rest);
        self.text.push(&rest[..plain]);
        let Some((&byte, after)) = rest[plain..].split_first() else {
            self.count(plain);
            return &[];
        };
        self.count(plain + 1);
        match (byte, role) {
            (b'"', Role::Key) => self.key_ended(),
            (b'"', Role::Value) => {
                if let Some(slot) = self.target.and_then(|node| self.places.wanted_at(node)) {
                    let end = self.at + plain as u64 + 1;
                    let is_empty = end - self.began == 2;
                    if slot == 0 || !is_empty {
                        self.string = Some((slot, self.began..end));
                    }
                    self.named += u32::from(slot > 0 && !is_empty);
                }
                self.take_text();
                self.value_ended();
            }
            (b'\\', _) => self.state = State::Escape(role),
            _ => self.state = State::Broken, // a bare control character
        }
        after
    }

    fn step(&mut self, byte: u8) {
        match self.state {
            State::Mark(read) => self.mark(read, byte),
            State::Escape(role) => self.escape(role, byte),
            State::Hex(role, left, unit) => self.hex(role, left, unit, byte),
            State::Number(part) => self.number(part, byte),
            State::Literal(rest, worth) => self.literal(rest, worth, byte),
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {}
            State::Value => self.value(byte),
            State::FirstElement if byte == b']' => self.close(),
            State::FirstElement => self.value(byte),
            State::FirstKey if byte == b'}' => self.close(),
            State::FirstKey | State::Key => self.key(byte),
            State::Colon if byte == b':' => self.state = State::Value,
            State::Colon => self.state = State::Broken,
            State::After => self.after(byte),
            State::Text(_) | State::Ended | State::Broken => {}
        }
    }

    fn mark(&mut self, read: usize, byte: u8) {
        if byte == MARK[read] {
            self.state = match read + 1 {
                3 => State::Value,
                read => State::Mark(read),
            };
        } else if read == 0 {
            self.state = State::Value;
            self.step(byte);
        } else {
            self.state = State::Broken;
        }
    }

    fn value(&mut self, byte: u8) {
        self.began = self.at;
        let wanted = self.target.and_then(|node| self.places.wanted_at(node));
        if wanted.is_some_and(|slot| slot > 0) && !matches!(byte, b'"' | b'n') {
            self.named += 1;
        }
        self.state = match byte {
            b'"' => State::Text(Role::Value),
            b'{' => return self.open(Open::Object(self.target)),
            b'[' => return self.open(Open::Array(self.target, 0)),
            b'-' => State::Number(Part::Minus),
            b'0' => State::Number(Part::Zero),
            b'1'..=b'9' => State::Number(Part::Whole),
            b't' => State::Literal(b"rue", Some("true")),
            b'f' => State::Literal(b"alse", Some("false")),
            b'n' => State::Literal(b"ull", None),
            b'N' => State::Literal(b"aN", None),
            b'I' => State::Literal(b"nfinity", None),
            _ => State::Broken,
        };
        self.text.begin(wanted.is_some());
        if let State::Number(_) = self.state {
            self.text.push(&[byte]);
        }
    }

    fn open(&mut self, open: Open) {
        if self.open.len() == DEEPEST {
            self.state = State::Broken;
            return;
        }
        self.open.push(open);
        match open {
            Open::Object(node) => {
                self.target = None;
                self.state = State::FirstKey;
                if self.open.len() == 1 && !node.is_some_and(|node| self.places.has_children(node))
                {
                    self.state = State::Ended;
                }
            }
            Open::Array(node, index) => {
                self.target = node.and_then(|node| self.places.numbered(node, index));
                self.state = State::FirstElement;
                self.end_if_settled(None);
            }
        }
    }

    /// An element never comes again: a document that is an array is done with the last one in which anything is wanted.
    fn end_if_settled(&mut self, read: Option<u64>) {
        if let [Open::Array(node, _)] = self.open[..]
            && node.and_then(|node| self.places.last_numbered(node)) <= read
        {
            self.state = State::Ended;
        }
    }

    fn key(&mut self, byte: u8) {
        if byte != b'"' {
            self.state = State::Broken;
            return;
        }
        self.state = State::Text(Role::Key);
        let wanted = self.node_of_object();
        let wanted = wanted.is_some_and(|node| self.places.has_children(node));
        self.text.begin(wanted);
    }

    fn node_of_object(&self) -> Option<usize> {
        match self.open.last()? {
            Open::Object(node) => *node,
            Open::Array(..) => None,
        }
    }

    /// Whatever an earlier member of this name held is forgotten: the last one counts.
    fn key_ended(&mut self) {
        self.state = State::Colon;
        let named = self.node_of_object().zip(self.text.whole());
        self.target = named.and_then(|(node, key)| self.places.named(node, key));
        if let Some(node) = self.target {
            self.named += u32::from(self.places.wanted_at(node) == Some(0));
            for &slot in self.places.below(node) {
                self.values[slot] = None;
            }
        }
    }

    fn after(&mut self, byte: u8) {
        match (byte, self.open.last_mut()) {
            (b',', Some(Open::Object(_))) => self.state = State::Key,
            (b',', Some(Open::Array(node, index))) => {
                *index += 1;
                self.target = node.and_then(|node| self.places.numbered(node, *index));
                self.state = State::Value;
            }
            (b'}', Some(Open::Object(_))) | (b']', Some(Open::Array(..))) => self.close(),
            _ => self.state = State::Broken,
        }
    }

    fn close(&mut self) {
        self.open.pop();
        self.value_ended();
    }

    fn value_ended(&mut self) {
        self.target = None;
        match self.open.last() {
            None => self.state = State::Ended,
            Some(Open::Object(_)) => self.state = State::After,
            Some(&Open::Array(_, index)) => {
                self.state = State::After;
                self.end_if_settled(Some(index));
            }
        }
    }

    /// Keeps the text that ended, if its place is wanted.
    fn take_text(&mut self) {
        if let Some(text) = self.text.whole()
            && let Some(slot) = self.target.and_then(|node| self.places.wanted_at(node))
        {
            self.values[slot] = Some(text.to_owned());
        }
    }

    fn escape(&mut self, role: Role, byte: u8) {
        let meant = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.state = State::Hex(role, 4, 0);
                return;
            }
            _ => {
                self.state = State::Broken;
                return;
            }
        };
        self.text.push(&[meant]);
        self.state = State::Text(role);
    }

    fn hex(&mut self, role: Role, left: u8, unit: u16, byte: u8) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => {
                self.state = State::Broken;
                return;
            }
        };
        let unit = unit << 4 | u16::from(digit);
        self.state = State::Hex(role, left - 1, unit);
        if left == 1 {
            self.text.push_unit(unit);
            self.state = State::Text(role);
        }
    }

    fn literal(&mut self, rest: &'static [u8], worth: Option<&'static str>, byte: u8) {
        match rest.split_first() {
            Some((&want, rest)) if want == byte => {
                self.state = State::Literal(rest, worth);
                if rest.is_empty() {
                    if let Some(worth) = worth {
                        self.text.push(worth.as_bytes());
                        self.take_text();
                    }
                    self.value_ended();
                }
            }
            _ => self.state = State::Broken,
        }
    }

    fn number(&mut self, part: Part, byte: u8) {
        if let Part::Minus = part
            && byte == b'I'
        {
            self.state = State::Literal(b"nfinity", None);
        } else if let Some(part) = part.followed_by(byte) {
            self.text.push(&[byte]);
            self.state = State::Number(part);
        } else if part.may_end() {
            self.take_text();
            self.value_ended();
            self.step(byte); // a comma, a bracket or a space: no number again
        } else {
            self.state = State::Broken;
        }
    }

    #[cfg(test)]
    fn count(&mut self, bytes: usize) {
        self.looked_at += bytes;
    }

    #[cfg(not(test))]
    fn count(&mut self, _: usize) {}
}

impl Part {
    fn followed_by(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Zero | Self::Whole, b'.') => Self::Dot,
            (Self::Dot | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        match self {
            Self::Zero | Self::Whole | Self::Fraction | Self::Exponent => true,
            Self::Minus | Self::Dot | Self::E | Self::Sign => false,
        }
    }
}

/// Bytes before the first quote, backslash or control character.
fn plain_length(bytes: &[u8]) -> usize {
    let special = |&b: &u8| b == b'"' || b == b'\\' || b < 0x20;
    // A block is looked at as a whole, which compiles to a few wide instructions.
    let blocks = bytes.chunks_exact(32);
    let plain = |block: &&[u8]| !block.iter().fold(false, |any, byte| any | special(byte));
    let skipped = blocks.take_while(plain).count() * 32;
    let rest = &bytes[skipped..];
    skipped + rest.iter().position(special).unwrap_or(rest.len())
}
