//! From serde's view of a file to nodes.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::{Entry, Kind, Node, Scalar, Value, narrow};
use crate::diagnostic::{Code, Diagnostic, quoted};
use crate::model::Position;

/// The tree as serde sees it.
pub(super) enum Raw {
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
    List(Vec<Spanned<Raw>>),
    Scalar(Kind, String),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list or a scalar")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Bool, value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Integer, value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Integer, value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Float, value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Text, value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Text, value))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Null, String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

/// Turns what serde saw into nodes, with their places and the text as it was written.
pub(super) struct Converter<'a> {
    pub(super) file: &'a Arc<str>,
    pub(super) text: &'a str,
    pub(super) problems: Vec<Diagnostic>,
}

impl Converter<'_> {
    fn position(&self, place: &Location) -> Position {
        Position {
            file: Arc::clone(self.file),
            line: narrow(place.line()),
            column: narrow(place.column()),
        }
    }

    /// Converts one value and all that is in it.
    pub(super) fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let position = self.position(&raw.defined);
        let value = match raw.value {
            Raw::Map(entries) => Value::Map(self.map(entries)),
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| self.node(item)).collect())
            }
            Raw::Scalar(kind, text) => Value::Scalar(self.scalar(kind, text, &raw.defined)),
        };
        Node { position, value }
    }

    fn map(&mut self, raw: Vec<(Spanned<Raw>, Spanned<Raw>)>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(raw.len());
        let mut seen = std::collections::HashMap::with_capacity(raw.len());
        for (key, value) in raw {
            let position = self.position(&key.defined);
            let Raw::Scalar(kind, text) = key.value else {
                self.problems.push(Diagnostic::new(
                    Code::WrongType,
                    &position,
                    "a key is a string",
                ));
                continue;
            };
            let key = self.scalar(kind, text, &key.defined).text;
            let value = self.node(value);
            if let Some(line) = seen.insert(key.clone(), position.line) {
                let message = format!("the key {} is written twice", quoted(&key));
                let finding = Diagnostic::new(Code::DuplicateKey, &position, message);
                self.problems
                    .push(finding.help(format!("it is in line {line} already")));
                continue;
            }
            entries.push(Entry {
                key,
                position,
                value,
            });
        }
        entries
    }

    fn scalar(&mut self, kind: Kind, text: String, place: &Location) -> Scalar {
        let span = place.span();
        let written = span
            .byte_offset()
            .zip(span.byte_len())
            .and_then(|(start, length)| {
                let start = usize::try_from(start).ok()?;
                let end = start.checked_add(usize::try_from(length).ok()?)?;
                Some((start, self.text.get(start..end)?))
            });
        let Some((start, written)) = written else {
            return Scalar {
                kind,
                text,
                unexpanded: None,
            };
        };
        if kind == Kind::Text {
            self.refuse_run_on(start, written, &text, place);
            self.refuse_stray_quote(written, &text, place);
        }
        // The number as written: `1.10` is a version label as often as it is a number.
        let text = if matches!(kind, Kind::Integer | Kind::Float) {
            written.to_owned()
        } else {
            text
        };
        Scalar {
            kind,
            text,
            unexpanded: None,
        }
    }

    /// Finds plain values that end with a quote, which belongs to the value then: its partner was forgotten.
    fn refuse_stray_quote(&mut self, written: &str, text: &str, place: &Location) {
        let stray =
            |quote: char| written.ends_with(quote) && written.matches(quote).count() % 2 == 1;
        if written == text && !written.starts_with(['"', '\'']) && (stray('"') || stray('\'')) {
            let message = format!("{} ends with a quote that is opened nowhere", quoted(text));
            let finding = Diagnostic::new(Code::StrayQuote, &self.position(place), message);
            self.problems
                .push(finding.help("put the whole value into quotes"));
        }
    }

    /// Finds plain values that go on in the next line: legal YAML, and nearly always a forgotten colon.
    fn refuse_run_on(&mut self, start: usize, written: &str, text: &str, place: &Location) {
        let Some(newline) = written.find('\n') else {
            return;
        };
        let before = &self.text[..start];
        if written.starts_with(['"', '\'']) || text.ends_with('\n') || follows_block_header(before)
        {
            return;
        }
        let rest = written[newline..].trim_start();
        let skipped = &written[..written.len() - rest.len()];
        let line = narrow(place.line() + skipped.matches('\n').count() as u64);
        let column = narrow(skipped.chars().rev().take_while(|c| *c != '\n').count() as u64 + 1);
        let position = Position {
            file: Arc::clone(self.file),
            line,
            column,
        };
        let word = rest.split_whitespace().next().unwrap_or_default();
        let finding = Diagnostic::new(
            Code::RunOn,
            &position,
            "this line continues the value of the line above",
        );
        let help = format!(
            "is a `:` missing after {}? a value of several lines needs quotes or `|`",
            quoted(word)
        );
        self.problems.push(finding.help(help));
    }
}

/// True when what precedes a scalar ends with the header of a block scalar, such as `|` or `>-`.
fn follows_block_header(before: &str) -> bool {
    let Some((lines, indent)) = before.rsplit_once('\n') else {
        return false;
    };
    let Some(header) = lines.lines().rev().find(|line| !line.trim().is_empty()) else {
        return false;
    };
    let header = header.split(" #").next().unwrap_or_default().trim_end();
    indent.trim().is_empty()
        && header
            .trim_end_matches(|c: char| "+-".contains(c) || c.is_ascii_digit())
            .ends_with(['|', '>'])
}
