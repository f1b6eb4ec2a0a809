//! Single values on their way from an imported document to the native tree: each keeps its place.

use std::fmt;

use super::Asked;
use crate::model::Position;
use crate::node::{Kind, Node, Scalar, Value};

/// A string, a whole number or a boolean, and where it was written. It cannot hold a map or a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    text: String,
    kind: Kind,
    at: Position,
    expands: bool,
}

impl Leaf {
    /// Makes a string.
    pub fn text(at: &Position, text: impl Into<String>) -> Self {
        Self::new(at, text.into(), Kind::Text)
    }

    /// Makes a whole number.
    pub fn number(at: &Position, number: impl Into<i64>) -> Self {
        Self::new(at, number.into().to_string(), Kind::Integer)
    }

    /// Makes a boolean.
    pub fn flag(at: &Position, flag: bool) -> Self {
        Self::new(at, flag.to_string(), Kind::Bool)
    }

    fn new(at: &Position, text: String, kind: Kind) -> Self {
        Self {
            text,
            kind,
            at: at.clone(),
            expands: false,
        }
    }

    /// Takes over a scalar of a document as it is; `None`: it is a map, a list or `null`.
    pub(super) fn of(node: &Node) -> Option<Self> {
        let scalar = node.scalar().filter(|scalar| scalar.kind != Kind::Null)?;
        Some(Self::new(&node.position, scalar.text.clone(), scalar.kind))
    }

    /// Returns what was written, numbers with all their digits.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns where it was written.
    pub fn at(&self) -> &Position {
        &self.at
    }

    /// Makes another string of the same place.
    #[must_use]
    pub fn with(&self, text: impl Into<String>) -> Self {
        Self::text(&self.at, text)
    }

    /// Makes another string of the same place, in which `${env:NAME}` and `$${` mean what they mean in native files, once
    /// it is printed; `_` proves that the user asked for a format that may name variables.
    #[must_use]
    pub fn expanding(&self, _: Asked, text: impl Into<String>) -> Self {
        Self {
            expands: true,
            ..self.with(text)
        }
    }

    /// Returns the number when it is whole and fits; digits in quotes count.
    pub fn whole(&self) -> Option<i64> {
        self.text.parse().ok()
    }

    /// Returns the boolean when it is one, not in quotes.
    pub fn truth(&self) -> Option<bool> {
        match (self.kind, self.text.to_ascii_lowercase().as_str()) {
            (Kind::Bool, "true") => Some(true),
            (Kind::Bool, "false") => Some(false),
            _ => None,
        }
    }

    /// True for what YAML takes for a string.
    pub fn is_text(&self) -> bool {
        self.kind == Kind::Text
    }

    /// Makes the node of the native tree.
    pub(super) fn node(&self) -> Node {
        Node {
            position: self.at.clone(),
            value: Value::Scalar(Scalar {
                kind: self.kind,
                text: self.text.clone(),
                unexpanded: self.expands.then(|| self.text.clone()),
            }),
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
