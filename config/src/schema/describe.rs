//! The JSON Schema of the configuration, put together from the shapes.

use serde_json::{Map, Value, json};

use super::Shape;
use super::keys::FileKeys;

/// The schemas that are used in several places, by name.
#[derive(Debug, Default)]
pub struct Book {
    definitions: Map<String, Value>,
}

impl Book {
    /// Returns a reference to the definition `name`, which is made when it is first asked for.
    pub fn define(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.definitions.contains_key(name) {
            self.definitions.insert(name.to_owned(), Value::Null);
            let schema = make(self);
            self.definitions.insert(name.to_owned(), schema);
        }
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    /// Returns a schema that allows an environment variable in the place of a scalar that is not just any string.
    pub fn or_environment(&mut self, schema: Value) -> Value {
        let variable = self.define("environment", |_| {
            json!({
                "description": "A string with ${env:NAME} or ${env:NAME:-default} in it.",
                "type": "string",
                "pattern": r"\$\{env:[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
            })
        });
        json!({ "anyOf": [schema, variable] })
    }

    /// Returns a schema of strings that match a regular expression, or hold an environment variable.
    pub fn pattern(&mut self, pattern: &str) -> Value {
        self.or_environment(json!({ "type": "string", "pattern": pattern }))
    }
}

/// Returns the JSON Schema (draft 2020-12) of a configuration file. It accepts every file that
/// [`load`](crate::load::load) accepts on its own; references, clashes and the like are beyond it.
pub fn json_schema() -> Value {
    let mut book = Book::default();
    let root = FileKeys::schema(&mut book);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Forebay configuration",
    });
    if let Value::Object(fields) = &mut schema {
        // The file itself stands at the top, where editors and people look for it.
        let name = root.get("$ref").and_then(Value::as_str);
        let name = name.and_then(|reference| reference.strip_prefix("#/$defs/"));
        let root = name
            .and_then(|name| book.definitions.remove(name))
            .unwrap_or(root);
        if let Value::Object(root) = root {
            fields.extend(root);
        }
        fields.insert("$defs".to_owned(), Value::Object(book.definitions));
    }
    schema
}
