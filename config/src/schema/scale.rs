//! Shapes of processes and replicas: commands, variables, factors.

use serde_json::{Value as Json, json};

use super::leaf::typed;
use super::{Book, Key, List, Path, PlainText, Reader, Shape};
use crate::diagnostic::{Code, quoted};
use crate::node::{Kind, Node, Value};

/// A program and its arguments: a list, or one text that is split as a shell splits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandShape(pub Vec<String>);

impl Shape for CommandShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const HELP: &str = "for example `llama-server --port ${PORT} -m model.gguf`";
        let words = match &node.value {
            Value::List(_) => {
                let list: List<PlainText> = List::read(node, path, reader)?;
                if list.incomplete {
                    return None;
                }
                list.items.into_iter().map(|at| at.value.0).collect()
            }
            Value::Map(_) | Value::Scalar(_) => {
                let scalar = reader.scalar(node, path, "a command")?;
                let Some(words) = shlex::split(&scalar.text) else {
                    let help = "a quote is not closed, or a backslash is the last character";
                    reader.bad_value(node, path, "a command", help);
                    return None;
                };
                words
            }
        };
        let program = words.first().filter(|program| !program.is_empty());
        let (message, help) = if program.is_none() {
            ("this names no program", HELP)
        } else if words.iter().any(|word| word.contains('\0')) {
            (ZERO, "")
        } else {
            return Some(Self(words));
        };
        reader.refuse(Code::BadValue, &node.position, path, message, help);
        None
    }

    /// Quotes that are not closed, and texts that are only a comment, are beyond a schema.
    fn schema(book: &mut Book) -> Json {
        let word = PlainText::schema(book);
        json!({ "anyOf": [
            { "type": ["string", "number", "boolean"], "pattern": "[^ \\t\\r\\n]" },
            { "type": "array", "minItems": 1, "items": word },
        ] })
    }
}

/// What neither arguments nor variables can hold.
const ZERO: &str = "a zero byte cannot be given to a program";

/// The value of an environment variable, which no message shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableText(pub String);

impl Shape for VariableText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = PlainText::read(node, path, reader)?.0;
        if text.contains('\0') {
            reader.refuse(Code::BadValue, &node.position, path, ZERO, "");
            return None;
        }
        Some(Self(text))
    }

    fn schema(book: &mut Book) -> Json {
        PlainText::schema(book)
    }
}

/// The name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VariableName(pub String);

impl Key for VariableName {
    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        let illegal = |c: char| c == '=' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.contains(illegal) {
            let message = format!("{} is not the name of a variable", quoted(text));
            let help = "letters, digits and `_`, as in `CUDA_VISIBLE_DEVICES`";
            return Err((Code::BadValue, message, help.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A number above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Positive(pub f64);

/// A number above 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor(pub f64);

fn number(
    node: &Node,
    path: Path<'_>,
    reader: &mut Reader<'_>,
    above: f64,
    wanted: &str,
) -> Option<f64> {
    let scalar = reader.scalar(node, path, wanted)?;
    if !typed(scalar, &[Kind::Integer, Kind::Float]) {
        reader.wrong_type(node, path, wanted, "a plain number, as in `8` or `1.5`");
        return None;
    }
    let read = scalar.text.parse().ok();
    let read = read.filter(|number: &f64| number.is_finite() && *number > above && *number <= 1e9);
    if read.is_none() {
        reader.bad_value(node, path, wanted, "as in `8` or `1.5`, at most 1e9");
    }
    read
}

impl Shape for Positive {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        number(node, path, reader, 0.0, "a number above 0").map(Self)
    }

    fn schema(book: &mut Book) -> Json {
        book.or_environment(json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1e9 }))
    }
}

impl Shape for Factor {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        number(node, path, reader, 1.0, "a number above 1").map(Self)
    }

    fn schema(book: &mut Book) -> Json {
        book.or_environment(json!({ "type": "number", "exclusiveMinimum": 1, "maximum": 1e9 }))
    }
}

/// `{}`: the key itself says it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty;

impl Shape for Empty {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.map(node, path)?;
        for entry in entries {
            let message = format!("unknown key {}", quoted(&entry.key));
            let help = "there are no keys here: write `{}`";
            reader.refuse(Code::UnknownKey, &entry.position, path, message, help);
        }
        entries.is_empty().then_some(Self)
    }

    fn schema(_book: &mut Book) -> Json {
        json!({ "type": "object", "additionalProperties": false })
    }
}
