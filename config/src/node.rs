//! The file as written: maps, lists and scalars, each with its place.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

use crate::diagnostic::{Code, Diagnostic, quoted};
use crate::load::SourceFile;
use crate::model::Position;

/// Levels of nesting; the deepest key of the model is at ten.
const MAX_DEPTH: usize = 48;
/// Nodes of one file after aliases are expanded.
const MAX_NODES: usize = 16_000_000;
/// Nodes that aliases of one file may copy.
const MAX_COPIED: usize = 1_000_000;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it starts; for an alias where its anchor is.
    pub position: Position,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Keys in the order of the file, no key twice.
    Map(Vec<Entry>),
    /// Items in the order of the file.
    List(Vec<Node>),
    /// Anything else.
    Scalar(Scalar),
}

/// One key of a map and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as written, without quotes.
    pub key: String,
    /// Where the key starts.
    pub position: Position,
    /// Its value.
    pub value: Node,
}

/// A value without parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// What YAML takes it for.
    pub kind: Kind,
    /// What was written, without quotes and escapes; numbers with all their digits. Environment variables are
    /// expanded in it while loading.
    pub text: String,
    /// The text before environment variables were expanded in it; `None`: nothing was.
    pub unexpanded: Option<String>,
}

impl Scalar {
    /// Returns the text for a message: never the value of an environment variable.
    pub fn shown(&self) -> &str {
        self.unexpanded.as_deref().unwrap_or(&self.text)
    }
}

/// What YAML takes a scalar for, by the core schema of YAML 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number with a fraction or an exponent.
    Float,
    /// Everything else, and everything in quotes.
    Text,
}

impl Node {
    /// Returns the value of `key` when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            Value::List(_) | Value::Scalar(_) => None,
        }
    }

    /// Returns the scalar when this is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::Map(_) | Value::List(_) => None,
        }
    }

    /// True for `null`, `~` and nothing at all.
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.kind == Kind::Null)
    }

    /// Says what this is, for messages: `a map`, `a list`, `the number 5`, …
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Map(_) => "a map".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Null => "nothing".to_owned(),
                Kind::Bool => quoted(scalar.shown()),
                Kind::Integer | Kind::Float => format!("the number {}", quoted(scalar.shown())),
                Kind::Text => format!("the string {}", quoted(scalar.shown())),
            },
        }
    }
}

/// Reads one file. An empty file is an empty map. On problems that leave a tree, such as a key that is written twice,
/// the findings come along with the tree.
pub fn parse(source: &SourceFile) -> (Option<Node>, Vec<Diagnostic>) {
    let at = |line, column| Position { file: Arc::clone(&source.name), line, column };
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    if source.name.ends_with(".json")
        && !text.trim().is_empty()
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
    {
        let position = at(narrow(error.line() as u64), narrow(error.column() as u64));
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        return (None, vec![Diagnostic::new(Code::Syntax, &position, format!("this is not JSON: {message}"))]);
    }
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => {
            let mut converter = Converter { file: &source.name, text, problems: Vec::new() };
            let mut node = converter.node(raw);
            if node.is_null() {
                node.value = Value::Map(Vec::new());
            }
            (Some(node), converter.problems)
        }
        Err(error) => (None, vec![syntax_error(&error, &at)]),
    }
}

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_events: MAX_NODES * 2,
        max_nodes: MAX_NODES,
        max_depth: MAX_DEPTH,
        max_documents: 1,
        flow_nesting_limit: MAX_DEPTH,
        max_aliases: 100_000,
        max_anchors: 10_000,
        max_total_scalar_bytes: 128 << 20,
        enforce_alias_anchor_ratio: false,
    };
    let mut options = serde_saphyr::options! {
        budget: budget,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        ignore_binary_tag_for_string: true,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = MAX_COPIED;
    options
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).max(1)
}

fn syntax_error(error: &serde_saphyr::Error, at: &dyn Fn(u32, u32) -> Position) -> Diagnostic {
    let place = error.location().filter(|location| *location != Location::UNKNOWN);
    let position = place.map_or_else(|| at(1, 1), |place| at(narrow(place.line()), narrow(place.column())));
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or_default().trim().to_owned();
    match error {
        serde_saphyr::Error::MultipleDocuments { .. } => {
            Diagnostic::new(Code::Document, &position, "the file holds more than one YAML document")
                .help("remove the `---`, or put each document into a file of its own")
        }
        serde_saphyr::Error::Budget { .. }
        | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
        | serde_saphyr::Error::AliasReplayStackDepthExceeded { .. }
        | serde_saphyr::Error::AliasExpansionLimitExceeded { .. } => {
            Diagnostic::new(Code::Document, &position, format!("the file is too deep or too large: {message}"))
        }
        _ => {
            let finding = Diagnostic::new(Code::Syntax, &position, format!("this is not YAML: {message}"));
            match message.as_str() {
                text if text.contains("tab") => finding.help("indent with spaces"),
                text if text.contains("expected ':'") => finding.help("a key is followed by `:` and a space"),
                text if text.contains("mapping values are not allowed") => {
                    finding.help("check the indentation, and that the line above ends its value")
                }
                _ => finding,
            }
        }
    }
}

/// The tree as serde sees it.
enum Raw {
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

struct Converter<'a> {
    file: &'a Arc<str>,
    text: &'a str,
    problems: Vec<Diagnostic>,
}

impl Converter<'_> {
    fn position(&self, place: &Location) -> Position {
        Position { file: Arc::clone(self.file), line: narrow(place.line()), column: narrow(place.column()) }
    }

    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let position = self.position(&raw.defined);
        let value = match raw.value {
            Raw::Map(entries) => Value::Map(self.map(entries)),
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
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
                self.problems.push(Diagnostic::new(Code::WrongType, &position, "a key is a string"));
                continue;
            };
            let key = self.scalar(kind, text, &key.defined).text;
            let value = self.node(value);
            if let Some(line) = seen.insert(key.clone(), position.line) {
                let message = format!("the key {} is written twice", quoted(&key));
                let finding = Diagnostic::new(Code::DuplicateKey, &position, message);
                self.problems.push(finding.help(format!("it is in line {line} already")));
                continue;
            }
            entries.push(Entry { key, position, value });
        }
        entries
    }

    fn scalar(&mut self, kind: Kind, text: String, place: &Location) -> Scalar {
        let span = place.span();
        let written = span.byte_offset().zip(span.byte_len()).and_then(|(start, length)| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            Some((start, self.text.get(start..end)?))
        });
        let Some((start, written)) = written else { return Scalar { kind, text, unexpanded: None } };
        if kind == Kind::Text {
            self.refuse_run_on(start, written, &text, place);
        }
        // The number as written: `1.10` is a version label as often as it is a number.
        let text = if matches!(kind, Kind::Integer | Kind::Float) { written.to_owned() } else { text };
        Scalar { kind, text, unexpanded: None }
    }

    /// Finds plain values that go on in the next line: legal YAML, and nearly always a forgotten colon.
    fn refuse_run_on(&mut self, start: usize, written: &str, text: &str, place: &Location) {
        let Some(newline) = written.find('\n') else { return };
        let before = &self.text[..start];
        if written.starts_with(['"', '\'']) || text.ends_with('\n') || follows_block_header(before) {
            return;
        }
        let rest = written[newline..].trim_start();
        let skipped = &written[..written.len() - rest.len()];
        let line = narrow(place.line() + skipped.matches('\n').count() as u64);
        let column = narrow(skipped.chars().rev().take_while(|c| *c != '\n').count() as u64 + 1);
        let position = Position { file: Arc::clone(self.file), line, column };
        let word = rest.split_whitespace().next().unwrap_or_default();
        let finding = Diagnostic::new(Code::RunOn, &position, "this line continues the value of the line above");
        let help = format!("is a `:` missing after {}? a value of several lines needs quotes or `|`", quoted(word));
        self.problems.push(finding.help(help));
    }
}

/// True when what precedes a scalar ends with the header of a block scalar, such as `|` or `>-`.
fn follows_block_header(before: &str) -> bool {
    let Some((lines, indent)) = before.rsplit_once('\n') else { return false };
    let Some(header) = lines.lines().rev().find(|line| !line.trim().is_empty()) else { return false };
    let header = header.split(" #").next().unwrap_or_default().trim_end();
    indent.trim().is_empty() && header.trim_end_matches(|c: char| "+-".contains(c) || c.is_ascii_digit()).ends_with(['|', '>'])
}
