//! The macros that turn a table of keys into a type, its reader and its description.

/// Declares a map with fixed keys. Each line is a key, its field and its shape; `[required]` keys must be there, and
/// the keys behind `later` are known to the contract and not to this build.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $([$need:ident])? $key:literal $field:ident: $shape:ty, )+
        }
        later [$($later:literal),*]
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $name {
            /// Where the map starts.
            pub position: $crate::model::Position,
            /// True when something in it was reported: what is missing may just be unreadable.
            pub broken: bool,
            /// True when one of its own keys is unknown or not built: what that key would have brought is missing.
            pub top_broken: bool,
            $( $(#[doc = $doc])+ pub $field: Option<$crate::schema::At<$shape>>, )+
        }

        impl $name {
            const KEYS: &'static [&'static str] = &[$($key),+];
            const LATER: &'static [&'static str] = &[$($later),*];
            const REQUIRED: &'static [&'static str] = &[$($($crate::schema::section::required!($need $key),)?)+];
        }

        impl $crate::schema::Shape for $name {
            fn read(
                node: &$crate::node::Node,
                path: $crate::schema::Path<'_>,
                reader: &mut $crate::schema::Reader<'_>,
            ) -> Option<Self> {
                let failures = reader.failures();
                let entries = reader.map(node, path)?;
                let mut section = Self { position: node.position.clone(), broken: false, top_broken: false, $($field: None,)+ };
                let mut met: Vec<&'static str> = Vec::new();
                for entry in entries {
                    match entry.key.as_str() {
                        $($key => {
                            section.$field = $crate::schema::At::optional(&entry.value, path.key($key), reader);
                            if !entry.value.is_null() {
                                met.push($key);
                            }
                        })+
                        _ => {
                            section.top_broken = true;
                            met.extend(reader.unknown_key(entry, path, Self::KEYS, Self::LATER));
                        }
                    }
                }
                for key in Self::REQUIRED.iter().filter(|key| !met.contains(key)) {
                    reader.missing(&node.position, path, key);
                }
                section.broken = reader.failures() > failures;
                Some(section)
            }

            fn schema(book: &mut $crate::schema::Book) -> serde_json::Value {
                book.define(stringify!($name).trim_end_matches("Keys"), |book| {
                    let mut properties = serde_json::Map::new();
                    $(
                        let schema = <$shape as $crate::schema::Shape>::schema(book);
                        let text = concat!($($doc),+).trim();
                        let required = Self::REQUIRED.contains(&$key);
                        properties.insert($key.to_owned(), $crate::schema::section::property(schema, text, required));
                    )+
                    serde_json::json!({
                        "description": concat!($($about),+).trim(),
                        "type": "object",
                        "properties": properties,
                        "additionalProperties": false,
                    })
                })
            }
        }
    };
}

/// The key of a `[required]` line.
macro_rules! required {
    (required $key:literal) => {
        $key
    };
}

/// Declares how the variants of an enum are written.
macro_rules! choice {
    ($name:ty, $wanted:literal, $(later [$($later:literal),*],)? { $($text:literal => $value:expr,)+ }) => {
        impl $crate::schema::Shape for $name {
            fn read(
                node: &$crate::node::Node,
                path: $crate::schema::Path<'_>,
                reader: &mut $crate::schema::Reader<'_>,
            ) -> Option<Self> {
                const WORDS: &[&str] = &[$($text),+];
                let scalar = reader.scalar(node, path, $wanted)?;
                match scalar.text.as_str() {
                    $($text => return Some($value),)+
                    $($($later => reader.not_built(&node.position, path, $later),)*)?
                    other => $crate::schema::section::unknown_word(other, WORDS, $wanted, node, path, reader),
                }
                None
            }

            fn schema(book: &mut $crate::schema::Book) -> serde_json::Value {
                book.or_environment(serde_json::json!({ "enum": [$($text),+] }))
            }
        }
    };
}

pub(super) use {choice, required, section};

use serde_json::{Value, json};

use super::reader::listed;
use super::{Path, Reader};
use crate::diagnostic::did_you_mean;
use crate::node::Node;

/// Reports a word that is none of `words`.
pub(super) fn unknown_word(
    word: &str,
    words: &[&str],
    wanted: &str,
    node: &Node,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let help = match did_you_mean(word, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", listed(words)),
    };
    reader.bad_value(node, path, wanted, &help);
}

/// Describes one key: its shape with a description; `null` is allowed where the key may be left out.
pub(super) fn property(schema: Value, description: &str, required: bool) -> Value {
    let schema = if required {
        schema
    } else {
        json!({ "anyOf": [schema, { "type": "null" }] })
    };
    let mut property = json!({ "description": description });
    if let (Value::Object(fields), Value::Object(schema)) = (&mut property, schema) {
        fields.extend(schema.into_iter().filter(|(key, _)| key != "description"));
    }
    property
}
