//! A name looked for in a body that is still coming, whatever the body's format.

use std::ops::Range;

use forebay_config::peek::{Member, Sight};

use super::edit::Edit;
use super::grammar::Format;
use super::grpc::{Call, Written};
use super::multipart::Form;

/// Looks for the name in a body.
#[derive(Debug)]
pub struct Scan(Kind);

#[derive(Debug)]
enum Kind {
    Json(Member),
    Form(Form),
    Grpc(Call, bool),
}

/// What is known of the name so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It may still come.
    Looking,
    /// It is there. Whoever goes on feeding learns of another one.
    Found,
    /// There is none.
    Absent,
    /// There are two, or one and something behind it that cannot be read.
    Twice,
}

/// A name in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As it is meant.
    pub text: String,
    place: Spot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Spot {
    /// A JSON string, its quotes included.
    Quoted(Range<u64>),
    /// The text itself.
    Plain(Range<u64>),
    /// In a message; true: more messages may follow.
    Message(Written, bool),
}

impl Scan {
    /// A body of this format.
    pub fn new(format: &Format) -> Self {
        Self(match format {
            Format::Json(names) => Kind::Json(Member::new(names)),
            Format::Form(boundary) => Kind::Form(Form::new(boundary, "model")),
            Format::Grpc { nested, stream } => Kind::Grpc(Call::new(*nested), *stream),
        })
    }

    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Seen {
        match &mut self.0 {
            Kind::Json(member) => member.feed(bytes),
            Kind::Form(form) => form.feed(bytes),
            Kind::Grpc(call, _) => call.feed(bytes),
        }
        self.seen()
    }

    /// What is known so far.
    pub fn seen(&self) -> Seen {
        let seen = |found: bool, absent: bool, ambiguous: bool| match (ambiguous, found, absent) {
            (true, ..) => Seen::Twice,
            (_, true, _) => Seen::Found,
            (.., true) => Seen::Absent,
            _ => Seen::Looking,
        };
        match &self.0 {
            Kind::Json(member) => match member.sight() {
                Sight::Looking => Seen::Looking,
                Sight::Found { .. } => Seen::Found,
                Sight::Absent => Seen::Absent,
                Sight::Twice => Seen::Twice,
            },
            Kind::Form(form) => seen(
                form.value().is_some(),
                form.is_absent(),
                form.is_ambiguous(),
            ),
            Kind::Grpc(call, _) => seen(
                call.written().is_some(),
                call.is_absent(),
                call.is_ambiguous(),
            ),
        }
    }

    /// The name, once it is found.
    pub fn named(&self) -> Option<Named> {
        match &self.0 {
            Kind::Json(member) => match member.sight() {
                Sight::Found { text, at } => Some(Named {
                    text: text.to_owned(),
                    place: Spot::Quoted(at),
                }),
                Sight::Looking | Sight::Absent | Sight::Twice => None,
            },
            Kind::Form(form) => form.value().map(|(text, at)| Named {
                text: text.to_owned(),
                place: Spot::Plain(at),
            }),
            Kind::Grpc(call, stream) => call.written().map(|written| Named {
                text: written.name.clone(),
                place: Spot::Message(written.clone(), *stream),
            }),
        }
    }
}

impl Named {
    /// What makes the body name `to`.
    pub fn edits(&self, to: &str) -> Vec<Edit> {
        match &self.place {
            Spot::Quoted(at) => vec![Edit {
                at: at.clone(),
                with: serde_json::Value::from(to).to_string().into(),
            }],
            Spot::Plain(at) => vec![Edit {
                at: at.clone(),
                with: to.into(),
            }],
            Spot::Message(written, _) => written.edits(to),
        }
    }

    /// True when further names may follow, each of which would have to be replaced as well.
    pub fn comes_again(&self) -> bool {
        matches!(self.place, Spot::Message(_, true))
    }
}
