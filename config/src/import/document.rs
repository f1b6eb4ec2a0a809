//! Which documents there are: objects of Kubernetes, lists of them taken apart.

use super::coverage::Kind;
use super::{Audit, Fields};
use crate::model::Position;
use crate::node::{Node, Value};

/// One object of Kubernetes.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Kind as written.
    pub kind: &'a str,
    /// Its namespace, or the one of the options.
    pub namespace: &'a str,
    /// Its name; empty when it has none.
    pub name: &'a str,
    pub(super) node: &'a Node,
    pub(super) table: Option<&'static Kind>,
}

impl<'a> Document<'a> {
    /// Returns the whole document for reading.
    pub fn fields(&self, audit: &'a Audit) -> Fields<'a> {
        Fields::new(audit, self.node, self.table.is_some_and(|kind| kind.proto))
    }

    /// Returns where its kind was written.
    pub fn at(&self) -> &'a Position {
        self.node
            .get("kind")
            .map_or(&self.node.position, |kind| &kind.position)
    }

    /// Returns `metadata.creationTimestamp`; RFC 3339 in UTC sorts as text.
    pub fn created(&self) -> Option<&'a str> {
        text(self.node.get("metadata")?, "creationTimestamp")
    }

    /// Returns the kind and `namespace/name`, for messages.
    pub fn title(&self) -> String {
        match (self.kind, self.name) {
            ("", _) => "document".to_owned(),
            (kind, "") => kind.to_owned(),
            (kind, name) => format!("{kind} {}/{name}", self.namespace),
        }
    }
}

/// True for an object of Kubernetes: it has `apiVersion` and `kind`, which no native file has.
pub fn is_kubernetes(node: &Node) -> bool {
    text(node, "apiVersion").is_some() && text(node, "kind").is_some()
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.get(key)?.scalar().map(|scalar| scalar.text.as_str())
}

/// Takes a document apart into objects, those of lists included. What is no object in a list is returned as well:
/// its kind is empty.
pub(super) fn objects<'a>(
    node: &'a Node,
    namespace: &'a str,
    kinds: &dyn Fn(&str, &str) -> Option<&'static Kind>,
    found: &mut Vec<Document<'a>>,
) {
    let api = text(node, "apiVersion").unwrap_or_default();
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let kind = text(node, "kind").unwrap_or_default();
    if kind.ends_with("List")
        && let Some(Value::List(items)) = node.get("items").map(|items| &items.value)
    {
        for item in items {
            objects(item, namespace, kinds, found);
        }
        return;
    }
    let metadata = |key| {
        node.get("metadata")
            .and_then(|metadata| text(metadata, key))
    };
    found.push(Document {
        group,
        version,
        kind,
        namespace: metadata("namespace")
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or(namespace),
        name: metadata("name").unwrap_or_default(),
        node,
        table: kinds(group, kind),
    });
}
