//! The file as written: maps, lists and scalars, each with its place.

mod brackets;
mod convert;

use std::sync::Arc;

use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

use self::convert::{Converter, Raw};
use crate::diagnostic::{Code, Diagnostic, quoted};
use crate::load::SourceFile;
use crate::model::Position;

/// Levels of nesting; the deepest key of the model is at ten.
const MAX_DEPTH: usize = 48;
/// Documents of one file.
const MAX_DOCUMENTS: usize = 100_000;
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
            Value::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.value),
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
        self.scalar()
            .is_some_and(|scalar| scalar.kind == Kind::Null)
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

/// Reads one file that holds one document; see [`parse_documents`]. An empty file is an empty map.
pub fn parse(source: &SourceFile) -> (Option<Node>, Vec<Diagnostic>) {
    let (documents, mut problems) = parse_documents(source);
    let mut documents = documents.into_iter().flatten();
    let first = documents.next();
    if let Some(second) = documents.next() {
        problems.push(several(&second.position));
        return (None, problems);
    }
    (first, problems)
}

/// Reports a native document that is not the only one of its file.
pub(crate) fn several(position: &Position) -> Diagnostic {
    Diagnostic::new(
        Code::Document,
        position,
        "the file holds more than one YAML document",
    )
    .help("remove the `---`, or put each document into a file of its own")
}

/// Reads the documents of one file, in their order; empty ones are left out, and a file without any holds an empty
/// map. `None`: the text is no YAML, or too deep or too large. On problems that leave trees, such as a key that is
/// written twice, the findings come along with the trees.
pub fn parse_documents(source: &SourceFile) -> (Option<Vec<Node>>, Vec<Diagnostic>) {
    let at = |line, column| Position {
        file: Arc::clone(&source.name),
        line,
        column,
    };
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    if source.name.ends_with(".json")
        && !text.trim().is_empty()
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
    {
        let position = at(narrow(error.line() as u64), narrow(error.column() as u64));
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        return (
            None,
            vec![Diagnostic::new(
                Code::Syntax,
                &position,
                format!("this is not JSON: {message}"),
            )],
        );
    }
    match serde_saphyr::from_multiple_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => {
            let mut converter = Converter {
                file: &source.name,
                text,
                problems: Vec::new(),
            };
            let mut documents: Vec<Node> = raw.into_iter().map(|raw| converter.node(raw)).collect();
            documents.retain(|node| !node.is_null());
            if documents.is_empty() {
                documents.push(Node {
                    position: at(1, 1),
                    value: Value::Map(Vec::new()),
                });
            }
            (Some(documents), converter.problems)
        }
        Err(error) => (None, vec![unreadable(&error, text, &at)]),
    }
}

/// Says why a text is no YAML, and where the cause probably is.
fn unreadable(
    error: &serde_saphyr::Error,
    text: &str,
    at: &dyn Fn(u32, u32) -> Position,
) -> Diagnostic {
    let finding = syntax_error(error, at);
    let cause = brackets::unbalanced(text).filter(|_| finding.code == Code::Syntax);
    let cause = cause.filter(|(line, ..)| *line <= finding.position.line);
    let finding = if opens_variable(text, &finding.position) {
        finding.help("inside brackets a value with `${` needs quotes: `\"${PORT}\"`")
    } else {
        finding
    };
    cause.map_or(finding, |(line, column, message)| {
        Diagnostic::new(
            Code::Syntax,
            &at(line, column),
            format!("this is not YAML: {message}"),
        )
    })
}

/// True for the brace of a `${`, which ends a plain value inside brackets.
fn opens_variable(text: &str, position: &Position) -> bool {
    let line = text.lines().nth((position.line as usize).saturating_sub(1));
    let mut before = line
        .into_iter()
        .flat_map(str::chars)
        .skip((position.column as usize).saturating_sub(2));
    before.next() == Some('$') && before.next() == Some('{')
}

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_events: MAX_NODES * 2,
        max_nodes: MAX_NODES,
        max_depth: MAX_DEPTH,
        max_documents: MAX_DOCUMENTS,
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
    let place = error
        .location()
        .filter(|location| *location != Location::UNKNOWN);
    let position = place.map_or_else(
        || at(1, 1),
        |place| at(narrow(place.line()), narrow(place.column())),
    );
    let text = error.to_string();
    let message = text
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    let mut cause = error;
    while let serde_saphyr::Error::AliasError { error, .. } = cause {
        cause = error;
    }
    match cause {
        serde_saphyr::Error::Budget { .. }
        | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
        | serde_saphyr::Error::AliasReplayStackDepthExceeded { .. }
        | serde_saphyr::Error::AliasExpansionLimitExceeded { .. } => Diagnostic::new(
            Code::Document,
            &position,
            format!("the file is too deep or too large: {message}"),
        ),
        _ => {
            let finding = Diagnostic::new(
                Code::Syntax,
                &position,
                format!("this is not YAML: {message}"),
            );
            match message.as_str() {
                text if text.contains("tab") => finding.help("indent with spaces"),
                text if text.contains("expected ':'") => {
                    finding.help("a key is followed by `:` and a space")
                }
                text if text.contains("mapping values are not allowed") => {
                    finding.help("check the indentation, and that the line above ends its value")
                }
                _ => finding,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
        parse(&SourceFile {
            name: Arc::from("a.yaml"),
            directory: ".".into(),
            text: text.to_owned(),
        })
    }

    fn tree(text: &str) -> Node {
        let (tree, problems) = read(text);
        assert_eq!(problems, []);
        tree.unwrap()
    }

    fn place(node: &Node) -> (u32, u32) {
        (node.position.line, node.position.column)
    }

    #[test]
    fn keys_and_values_have_places() {
        let tree = tree("é: ü\nb:\n- c: {d: 1}\n");
        let Value::Map(entries) = &tree.value else {
            panic!()
        };
        assert_eq!(
            (entries[1].position.line, entries[1].position.column),
            (2, 1)
        );
        assert_eq!(place(&entries[0].value), (1, 4));
        let Value::List(items) = &entries[1].value.value else {
            panic!()
        };
        assert_eq!(place(&items[0]), (3, 3));
        assert_eq!(place(items[0].get("c").unwrap().get("d").unwrap()), (3, 10));
    }

    #[test]
    fn scalars_keep_what_was_written() {
        let tree = tree(
            "a: 1.10\nb: '5'\nc: true\nd: yes\ne:\nf: \"x\\ty\"\ng: |\n  [ {\n  y\nh: >-\n  p\n  q\n",
        );
        let scalar = |key: &str| {
            tree.get(key)
                .and_then(Node::scalar)
                .map(|one| (one.kind, one.text.as_str()))
                .unwrap()
        };
        assert_eq!(scalar("a"), (Kind::Float, "1.10"));
        assert_eq!(scalar("b"), (Kind::Text, "5"));
        assert_eq!(scalar("c"), (Kind::Bool, "true"));
        assert_eq!(scalar("d"), (Kind::Text, "yes"));
        assert_eq!(scalar("e"), (Kind::Null, ""));
        assert_eq!(scalar("f"), (Kind::Text, "x\ty"));
        assert_eq!(scalar("g"), (Kind::Text, "[ {\ny\n"));
        assert_eq!(scalar("h"), (Kind::Text, "p q"));
    }

    #[test]
    fn aliases_and_merge_keys_point_to_where_it_is_written() {
        let tree = tree("a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\n");
        assert_eq!(place(tree.get("b").unwrap().get("x").unwrap()), (1, 11));
        assert_eq!(place(tree.get("c").unwrap().get("x").unwrap()), (1, 11));
    }

    #[test]
    fn a_key_twice_and_a_forgotten_colon_leave_a_tree() {
        let (tree, problems) = read("a: 1\nb: x\n  c d\na: 2\ne: f\"\n");
        assert!(tree.is_some());
        let found: Vec<_> = problems
            .iter()
            .map(|one| (one.code.as_str(), one.position.line, one.position.column))
            .collect();
        assert_eq!(found, [("E006", 3, 3), ("E002", 4, 1), ("E007", 5, 4)]);
    }

    #[test]
    fn a_forgotten_bracket_is_found() {
        let (_, problems) = read("a:\n- {b: 1\n- {c: 2}\nd: 3\n");
        assert_eq!(
            problems[0].to_string(),
            "a.yaml:2:3: error[E001]: this is not YAML: this `{` is not closed"
        );
    }

    #[test]
    fn one_document_in_a_file() {
        assert_eq!(read("a: 1\n---\nb: 2\n").1[0].code, Code::Document);
        assert_eq!(tree("---\na: 1\n...\n").get("a").map(place), Some((2, 4)));
        assert_eq!(tree("\u{feff}a: 1\n").get("a").map(place), Some((1, 4)));
    }
}
