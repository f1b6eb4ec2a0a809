//! The native tree as YAML.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::node::{Kind, Node, Scalar, Value};

/// Writes a native tree as YAML; loading that gives the same tree but for the places. Comments are not kept.
pub fn to_yaml(root: &Node) -> String {
    serde_saphyr::to_string(&Printed(root))
        .expect("strings, numbers, lists and maps with strings for keys have a YAML spelling")
}

struct Printed<'a>(&'a Node);

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.value {
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for entry in entries {
                    map.serialize_entry(&entry.key, &Printed(&entry.value))?;
                }
                map.end()
            }
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Printed(item))?;
                }
                list.end()
            }
            Value::Scalar(scalar) => print(scalar, serializer),
        }
    }
}

/// A number that does not fit is written as the string it is.
fn print<S: Serializer>(scalar: &Scalar, serializer: S) -> Result<S::Ok, S::Error> {
    let text = scalar.text.as_str();
    if let Some(written) = &scalar.unexpanded {
        return serializer.serialize_str(written);
    }
    match scalar.kind {
        Kind::Null => serializer.serialize_unit(),
        Kind::Bool => serializer.serialize_bool(text.eq_ignore_ascii_case("true")),
        Kind::Integer if text.parse::<i64>().is_ok_and(|n| n.to_string() == text) => {
            serializer.serialize_i64(text.parse().unwrap_or_default())
        }
        // A plain value that ends with a quote is refused as one whose partner was forgotten.
        Kind::Integer | Kind::Float | Kind::Text if text.ends_with(['"', '\'']) => {
            serde_saphyr::DoubleQuoted(&*guarded(text)).serialize(serializer)
        }
        Kind::Integer | Kind::Float | Kind::Text => serializer.serialize_str(&guarded(text)),
    }
}

/// Keeps what looks like an environment variable in an imported text from being expanded when the YAML is loaded.
fn guarded(text: &str) -> std::borrow::Cow<'_, str> {
    match text.contains("${env:") || text.contains("$${") {
        true => text.replace("${", "$${").into(),
        false => text.into(),
    }
}
