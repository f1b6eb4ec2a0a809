//! Who may refer to objects of other namespaces, and what labels namespaces have.

use std::collections::{HashMap, HashSet};

use super::GROUP;
use crate::import::{Fields, Work};

/// The label that every namespace has.
pub(super) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// All ReferenceGrants and Namespaces.
#[derive(Debug, Default)]
pub(super) struct Grants {
    allowed: HashSet<Allowed>,
    labels: HashMap<String, HashMap<String, String>>,
}

/// From a kind in a namespace to a kind in another; the name is empty for all of that kind.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Allowed {
    from: (String, String, String),
    to: (String, String, String, String),
}

/// An object that refers to another: its kind, of the group of Gateway API, and its namespace.
pub(super) type From<'a> = (&'a str, &'a str);

impl Grants {
    /// Reads the documents.
    pub(super) fn read(work: &Work<'_>) -> Self {
        let mut grants = Self::default();
        for document in work.documents(GROUP, "ReferenceGrant") {
            let Some(spec) = document.fields(work.audit).map("spec") else {
                continue;
            };
            let to: Vec<(String, String, String)> =
                spec.maps("to").into_iter().filter_map(to).collect();
            for from in spec.maps("from").into_iter().map(from) {
                for (group, kind, name) in to.iter().cloned() {
                    grants.allowed.insert(Allowed {
                        from: from.clone(),
                        to: (group, kind, document.namespace.to_owned(), name),
                    });
                }
            }
        }
        for document in work.documents("", "Namespace") {
            let metadata = document.fields(work.audit).map("metadata");
            let pairs = metadata.map(|metadata| metadata.pairs("labels"));
            let pairs = pairs.into_iter().flatten();
            let labels = pairs.map(|(key, value)| (key.to_string(), value.to_string()));
            grants
                .labels
                .insert(document.name.to_owned(), labels.collect());
        }
        grants
    }

    /// True when an object may refer to another: in the same namespace always.
    ///
    /// * `to`: group, kind, namespace and name
    pub(super) fn allow(&self, from: From<'_>, to: (&str, &str, &str, &str)) -> bool {
        let (group, kind, namespace, name) = to;
        let asked = |name: &str| Allowed {
            from: (GROUP.to_owned(), from.0.to_owned(), from.1.to_owned()),
            to: (
                group.to_owned(),
                kind.to_owned(),
                namespace.to_owned(),
                name.to_owned(),
            ),
        };
        from.1 == namespace
            || self.allowed.contains(&asked(name))
            || self.allowed.contains(&asked(""))
    }

    /// True when no document describes a namespace.
    pub(super) fn unknown(&self, namespace: &str) -> bool {
        !self.labels.contains_key(namespace)
    }

    /// Returns a label of a namespace.
    pub(super) fn label<'a>(&'a self, namespace: &'a str, key: &str) -> Option<&'a str> {
        let written = self.labels.get(namespace).and_then(|all| all.get(key));
        match key {
            NAME_LABEL => Some(namespace),
            _ => written.map(String::as_str),
        }
    }
}

fn word(fields: Fields<'_>, key: &str) -> String {
    fields
        .text(key)
        .map_or_else(String::new, |leaf| leaf.as_str().to_owned())
}

fn from(fields: Fields<'_>) -> (String, String, String) {
    (
        word(fields, "group"),
        word(fields, "kind"),
        word(fields, "namespace"),
    )
}

/// Without a name all objects of the kind are meant, but not with one that cannot be read.
fn to(fields: Fields<'_>) -> Option<(String, String, String)> {
    let all = !fields.has("name");
    let name = word(fields, "name");
    let readable = all || !name.is_empty();
    readable.then(|| (word(fields, "group"), word(fields, "kind"), name))
}
