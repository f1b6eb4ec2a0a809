//! Shapes that hold other shapes.

use std::collections::HashSet;

use serde_json::{Value as Json, json};

use super::{Book, Path, Reader, Shape};
use crate::diagnostic::{Code, quoted};
use crate::model::Position;
use crate::node::{Kind, Node, Value};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub position: Position,
}

impl<T: Shape> At<T> {
    /// Reads the value of a key that may be left out, which is what `null` means as well.
    pub fn optional(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.is_null() && !T::READS_NULL {
            return None;
        }
        Self::read(node, path, reader)
    }

    /// Reads a value.
    pub fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(node, path, reader).map(|value| Self {
            value,
            position: node.position.clone(),
        })
    }
}

/// A list.
#[derive(Clone, Debug)]
pub struct List<T> {
    /// What could be read, in the order of the file.
    pub items: Vec<At<T>>,
    /// True when an item was reported and left out.
    pub incomplete: bool,
}

impl<T: Shape> Shape for List<T> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let help = match node.scalar() {
                Some(scalar) if !scalar.text.contains('\n') => {
                    format!("write `[{}]`", scalar.shown())
                }
                _ => "the items of a list start with `- `".to_owned(),
            };
            reader.wrong_type(node, path, "a list", &help);
            return None;
        };
        let read = |(index, item): (usize, &Node)| {
            let name = item
                .get("name")
                .and_then(Node::scalar)
                .map(|scalar| scalar.text.as_str());
            At::read(item, path.item(index, name), reader)
        };
        let read: Vec<At<T>> = items.iter().enumerate().filter_map(read).collect();
        Some(Self {
            incomplete: read.len() < items.len(),
            items: read,
        })
    }

    fn schema(book: &mut Book) -> Json {
        json!({ "type": "array", "items": T::schema(book) })
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub Vec<At<T>>);

impl<T: Shape> Shape for OneOrMany<T> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            Value::List(_) => List::read(node, path, reader).map(|list| Self(list.items)),
            Value::Map(_) | Value::Scalar(_) => {
                At::read(node, path, reader).map(|one| Self(vec![one]))
            }
        }
    }

    fn schema(book: &mut Book) -> Json {
        json!({ "anyOf": [T::schema(book), List::<T>::schema(book)] })
    }
}

/// A value, or `none`.
#[derive(Clone, Debug)]
pub struct OrNone<T>(pub Option<T>);

impl<T: Shape> Shape for OrNone<T> {
    const READS_NULL: bool = true;

    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.is_null()
            || node
                .scalar()
                .is_some_and(|scalar| scalar.kind == Kind::Text && scalar.text == "none")
        {
            return Some(Self(None));
        }
        T::read(node, path, reader).map(|value| Self(Some(value)))
    }

    fn schema(book: &mut Book) -> Json {
        json!({ "anyOf": [T::schema(book), { "const": "none" }, { "type": "null" }] })
    }
}

/// What can be a key of a [`Dictionary`].
pub trait Key: Clone + Eq + std::hash::Hash {
    /// Reads a key. `Err` says what is wrong with it, and what helps.
    ///
    /// # Errors
    ///
    /// When the text cannot be such a key.
    fn parse(text: &str) -> Result<Self, (Code, String, String)>;
}

impl Key for String {
    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        Ok(text.to_owned())
    }
}

/// A map with free keys, in the order of the file.
#[derive(Clone, Debug)]
pub struct Dictionary<K, V>(pub Vec<(K, V)>);

impl<K: Key, V: Shape> Shape for Dictionary<K, V> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut pairs: Vec<(K, V)> = Vec::new();
        let mut seen = HashSet::new();
        for entry in reader.map(node, path)? {
            let key = match K::parse(&entry.key) {
                Ok(key) => key,
                Err((code, message, help)) => {
                    reader.refuse(code, &entry.position, path, message, &help);
                    continue;
                }
            };
            if !seen.insert(key.clone()) {
                let message = format!("{} is written twice", quoted(&entry.key));
                reader.refuse(
                    Code::DuplicateKey,
                    &entry.position,
                    path,
                    message,
                    "upper and lower case are the same",
                );
                continue;
            }
            if entry.value.is_null() && !V::READS_NULL {
                continue;
            }
            if let Some(value) = V::read(&entry.value, path.key(&entry.key), reader) {
                pairs.push((key, value));
            }
        }
        Some(Self(pairs))
    }

    fn schema(book: &mut Book) -> Json {
        let value = V::schema(book);
        json!({ "type": "object", "additionalProperties": { "anyOf": [value, { "type": "null" }] } })
    }
}
