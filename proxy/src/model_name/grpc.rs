//! The name of a model in the first message of a gRPC call, found while the message is still coming.
//!
//! Field 1 of the message is the name (Open Inference Protocol, TorchServe), or a message whose field 1 is the name
//! (TensorFlow Serving's `model_spec`). Fields are walked over by their lengths, so a tensor costs nothing.

use std::ops::Range;

use super::LONGEST;
use super::edit::Edit;

/// Looks for the name in a call.
#[derive(Debug)]
pub(super) struct Call {
    nested: bool,
    state: State,
    /// Bytes of the call so far.
    at: u64,
    message: Message,
    first: Option<Written>,
    ambiguous: bool,
    absent: bool,
}

/// The message that is being read.
#[derive(Debug, Default)]
struct Message {
    length: u64,
    /// Bytes still to come.
    left: u64,
    /// Bytes still to come of the inner message, while it is open.
    inner: Option<u64>,
    /// The length of the inner message, and where that is written.
    spec: Option<(u64, Range<u64>)>,
    /// Where the length of the name is written.
    size: Option<Range<u64>>,
    name: Vec<u8>,
}

/// Where the name of the first message is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: String,
    length: u64,
    spec: Option<(u64, Range<u64>)>,
    size: Range<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes of the five before a message, and the length so far.
    Prefix(u8, u64),
    Varint(Varint),
    /// So many bytes of a field that nobody wants.
    Skip(u64),
    /// So many bytes of the name.
    Name(u64),
    /// Nothing more is looked at.
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Varint {
    role: Role,
    value: u64,
    bits: u32,
    began: u64,
}

#[derive(Clone, Copy, Debug)]
enum Role {
    Key,
    /// The value of a field.
    Value,
    /// The length of a field that nobody wants.
    Length,
    /// The length of the field that is looked for.
    Wanted,
}

impl Call {
    pub(super) fn new(nested: bool) -> Self {
        Self {
            nested,
            state: State::Prefix(0, 0),
            at: 0,
            message: Message::default(),
            first: None,
            ambiguous: false,
            absent: false,
        }
    }

    /// The name of the first message.
    pub(super) fn written(&self) -> Option<&Written> {
        self.first.as_ref()
    }

    /// True when the first message has no name that can be read.
    pub(super) fn is_absent(&self) -> bool {
        self.absent
    }

    /// True when a message has the name twice, a later one has another, or what follows the name cannot be read.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Looks at the next bytes; the result does not depend on how the call is cut into pieces.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let wanted = match self.state {
                State::Over => return,
                State::Prefix(..) | State::Varint(_) => 1,
                State::Skip(more) | State::Name(more) => more,
            };
            let taken = wanted.min(rest.len() as u64);
            let (piece, after) = rest.split_at(taken as usize);
            rest = after;
            self.at += taken;
            if let State::Prefix(count, length) = self.state {
                self.prefix(count, length, byte);
                continue;
            }
            self.message.left -= taken;
            self.message.inner = self.message.inner.map(|inner| inner - taken);
            match self.state {
                State::Varint(varint) => self.varint(varint, byte),
                State::Skip(more) if more > taken => self.state = State::Skip(more - taken),
                State::Name(more) => {
                    self.message.name.extend_from_slice(piece);
                    match more > taken {
                        true => self.state = State::Name(more - taken),
                        false => self.name_ended(),
                    }
                }
                _ => self.field_ended(),
            }
        }
    }

    /// The five bytes before a message: whether it is compressed, and its length.
    fn prefix(&mut self, count: u8, length: u64, byte: u8) {
        if count == 0 && byte != 0 {
            return self.give_up();
        }
        let length = length << 8 | u64::from(byte);
        if count < 4 {
            self.state = State::Prefix(count + 1, length);
            return;
        }
        self.message = Message {
            length,
            left: length,
            ..Message::default()
        };
        self.field_ended();
    }

    fn varint(&mut self, varint: Varint, byte: u8) {
        let Varint {
            role, bits, began, ..
        } = varint;
        if bits > 63 {
            return self.give_up();
        }
        let value = varint.value | u64::from(byte & 0x7f) << bits;
        if byte & 0x80 != 0 {
            if self.scope() == 0 {
                return self.give_up();
            }
            let bits = bits + 7;
            self.state = State::Varint(Varint {
                value,
                bits,
                ..varint
            });
            return;
        }
        let written = began..self.at;
        match role {
            Role::Value => self.field_ended(),
            Role::Key => self.key(value),
            Role::Length => self.skip(value),
            Role::Wanted if value > self.scope() => self.give_up(),
            Role::Wanted if self.nested && self.message.inner.is_none() => {
                self.ambiguous |= self.message.spec.is_some();
                self.message.spec = Some((value, written));
                self.message.inner = Some(value);
                self.field_ended();
            }
            Role::Wanted => {
                self.ambiguous |= self.message.size.is_some();
                self.message.size = Some(written);
                self.message.name.clear();
                match value {
                    0 => self.name_ended(),
                    value if value > LONGEST as u64 => self.give_up(),
                    value => self.state = State::Name(value),
                }
            }
        }
    }

    fn key(&mut self, key: u64) {
        if key > u64::from(u32::MAX) {
            return self.give_up(); // some readers keep its lower half only and see another field
        }
        let wanted = key >> 3 == 1;
        match key & 7 {
            0 => self.begin(Role::Value),
            1 => self.skip(8),
            2 if wanted => self.begin(Role::Wanted),
            2 => self.begin(Role::Length),
            5 => self.skip(4),
            _ => self.give_up(),
        }
    }

    fn begin(&mut self, role: Role) {
        if self.scope() == 0 {
            return self.give_up();
        }
        self.state = State::Varint(Varint {
            role,
            value: 0,
            bits: 0,
            began: self.at,
        });
    }

    fn skip(&mut self, bytes: u64) {
        if bytes > self.scope() {
            return self.give_up();
        }
        match bytes {
            0 => self.field_ended(),
            bytes => self.state = State::Skip(bytes),
        }
    }

    /// Bytes still to come of what is open.
    fn scope(&self) -> u64 {
        self.message.inner.unwrap_or(self.message.left)
    }

    /// The next field, after the end of a message if it ended.
    fn field_ended(&mut self) {
        if self.message.inner == Some(0) {
            self.message.inner = None;
        }
        if self.message.left > 0 {
            return self.begin(Role::Key);
        }
        self.state = State::Prefix(0, 0);
        if self.first.is_none() {
            self.give_up();
        }
    }

    fn name_ended(&mut self) {
        let Some(size) = self.message.size.clone() else {
            return;
        };
        let name = String::from_utf8(self.message.name.clone());
        match (name, &self.first) {
            (Err(_), _) => return self.give_up(),
            (Ok(name), Some(first)) => self.ambiguous |= first.name != name,
            (Ok(name), None) => {
                self.first = Some(Written {
                    name,
                    length: self.message.length,
                    spec: self.message.spec.clone(),
                    size,
                });
            }
        }
        self.field_ended();
    }

    /// What follows cannot be read.
    fn give_up(&mut self) {
        self.state = State::Over;
        match self.first {
            Some(_) => self.ambiguous = true,
            None => self.absent = true,
        }
    }
}

impl Written {
    /// What makes the message name `to`: its length, and those of what the name is in, go with it.
    pub(super) fn edits(&self, to: &str) -> Vec<Edit> {
        let width = |range: &Range<u64>| range.end - range.start;
        let mut length = self.length - self.name.len() as u64 + to.len() as u64;
        let mut size = varint(to.len() as u64);
        length = length - width(&self.size) + size.len() as u64;
        let mut edits = Vec::new();
        if let Some((inner, at)) = &self.spec {
            let inner = inner - width(&self.size) - self.name.len() as u64;
            let inner = varint(inner + size.len() as u64 + to.len() as u64);
            length = length - width(at) + inner.len() as u64;
            edits.push(Edit {
                at: at.clone(),
                with: inner,
            });
        }
        let length = u32::try_from(length).unwrap_or(u32::MAX); // a message that long is refused by its server
        edits.insert(
            0,
            Edit {
                at: 1..5,
                with: length.to_be_bytes().into(),
            },
        );
        size.extend_from_slice(to.as_bytes());
        edits.push(Edit {
            at: self.size.start..self.size.end + self.name.len() as u64,
            with: size,
        });
        edits
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests;
