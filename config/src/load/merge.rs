//! Several files become one tree.

use std::collections::HashMap;

use super::nowhere;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::Position;
use crate::node::{Entry, Node, Value};
use crate::schema::{Path, Reader};

/// Top-level keys whose lists are put together.
const LISTS: &[&str] = &[
    "listeners",
    "routes",
    "clusters",
    "access_lists",
    "rate_limit_policies",
];

/// Merges the trees in their order: lists are put together, any other key may be in one file only.
pub(super) fn merge(trees: Vec<Node>, reader: &mut Reader<'_>) -> Node {
    let position = trees
        .first()
        .map_or_else(nowhere, |tree| tree.position.clone());
    let mut merged: Vec<Entry> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for tree in trees {
        let Value::Map(entries) = tree.value else {
            reader.wrong_type(
                &tree,
                Path::ROOT,
                "a map at the top of the file",
                "it starts with a key such as `routes:`",
            );
            continue;
        };
        for entry in entries {
            let Some(&place) = places.get(&entry.key) else {
                places.insert(entry.key.clone(), merged.len());
                merged.push(entry);
                continue;
            };
            let first = &mut merged[place];
            if first.value.is_null() {
                *first = entry;
            } else if !entry.value.is_null() {
                join(first, entry, reader);
            }
        }
    }
    Node {
        position,
        value: Value::Map(merged),
    }
}

fn join(first: &mut Entry, second: Entry, reader: &mut Reader<'_>) {
    let joinable = LISTS.contains(&&*second.key);
    match (&mut first.value.value, second.value.value) {
        (Value::List(items), Value::List(more)) if joinable => items.extend(more),
        (_, value) if joinable => {
            let wrong = match first.value.value {
                Value::List(_) => Node {
                    position: second.value.position,
                    value,
                },
                Value::Map(_) | Value::Scalar(_) => std::mem::replace(
                    &mut first.value,
                    Node {
                        position: second.value.position,
                        value,
                    },
                ),
            };
            let path = Path::ROOT.key(&second.key);
            reader.wrong_type(
                &wrong,
                path,
                "a list",
                "the items of a list start with `- `",
            );
        }
        _ => {
            let Position { file, line, .. } = &first.position;
            let message = format!("the key `{}` is set in {file} as well", second.key);
            let finding = Diagnostic::new(Code::TwoFiles, &second.position, message);
            reader.report(finding.help(format!("it is at {file}:{line}; keep one of the two")));
        }
    }
}
