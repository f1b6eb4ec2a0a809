//! Which routes a listener takes: by their kinds and the labels of their namespaces.

use super::GROUP;
use super::grants::{Grants, NAME_LABEL};
use crate::import::{Document, Fields};

/// Which routes a listener takes.
#[derive(Debug)]
pub(super) struct Admission {
    namespaces: Admits,
    kinds: Option<Vec<(String, String)>>, // group and kind
    own: String,                          // namespace of the Gateway
}

/// Routes of which namespaces may be attached.
#[derive(Debug)]
enum Admits {
    Same,
    All,
    Nobody,
    Labels(Vec<Requirement>),
}

/// A condition on the label of a namespace.
#[derive(Debug)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Admission {
    /// Reads what the listener of a Gateway in `namespace` says; `None`: it cannot be told.
    pub(super) fn read(listener: Fields<'_>, namespace: &str) -> Option<Self> {
        let allowed = listener.map("allowedRoutes");
        Some(Self {
            kinds: allowed.and_then(kinds),
            namespaces: allowed.map_or(Some(Admits::Same), admits)?,
            own: namespace.to_owned(),
        })
    }

    /// Says why a route may not be attached.
    ///
    /// * `section`: name of the listener
    pub(super) fn refuses(
        &self,
        section: &str,
        document: &Document<'_>,
        grants: &Grants,
    ) -> Option<String> {
        let known = |(group, kind): &(String, String)| group == GROUP && kind == document.kind;
        if self
            .kinds
            .as_ref()
            .is_some_and(|kinds| !kinds.iter().any(known))
        {
            return Some(format!("`{}` takes no {}", section, document.kind));
        }
        let namespace = document.namespace;
        let admitted = match &self.namespaces {
            Admits::All => true,
            Admits::Nobody => false,
            Admits::Same => namespace == self.own,
            Admits::Labels(requirements) => {
                let mut all = requirements.iter();
                let told = |key: &str| key == NAME_LABEL || !grants.unknown(namespace);
                all.all(|one| told(&one.key) && one.holds(grants.label(namespace, &one.key)))
            }
        };
        let labels = matches!(self.namespaces, Admits::Labels(_));
        match admitted {
            true => None,
            false if labels && grants.unknown(namespace) => Some(format!(
                "`{}` asks for labels, and no document describes the Namespace `{namespace}`",
                section
            )),
            false => Some(format!(
                "`{}` takes no routes of the namespace `{namespace}`",
                section
            )),
        }
    }
}

impl Requirement {
    fn holds(&self, label: Option<&str>) -> bool {
        let among = label.is_some_and(|label| self.values.iter().any(|value| value == label));
        match self.operator {
            Operator::In => among,
            Operator::NotIn => !among,
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

/// Reads which namespaces are let in; `None`: that cannot be told.
fn admits(allowed: Fields<'_>) -> Option<Admits> {
    if !allowed.has("namespaces") {
        return Some(Admits::Same);
    }
    let namespaces = allowed.map("namespaces")?;
    if !namespaces.has("from") {
        return Some(Admits::Same);
    }
    match namespaces.text("from")?.as_str() {
        "Same" => Some(Admits::Same),
        "All" => Some(Admits::All),
        "None" => Some(Admits::Nobody),
        "Selector" => {
            let selector = namespaces.map("selector")?;
            let requirements = requirements(selector)?;
            Some(Admits::Labels(requirements))
        }
        _ => None,
    }
}

/// Reads a selector; `None`: a part of it cannot be read, and the rest would let in more than was meant.
fn requirements(selector: Fields<'_>) -> Option<Vec<Requirement>> {
    let mut found = Vec::new();
    if selector.has("matchLabels") {
        let labels = selector.map("matchLabels")?;
        for key in labels.keys() {
            found.push(Requirement {
                key: key.to_owned(),
                operator: Operator::In,
                values: vec![labels.text(key)?.as_str().to_owned()],
            });
        }
    }
    let expressions = selector.maps("matchExpressions");
    let all = |fields: Fields<'_>, key: &str, read: usize| {
        !fields.has(key) || fields.count(key) == Some(read)
    };
    let mut complete = all(selector, "matchExpressions", expressions.len());
    for expression in expressions {
        let values = expression.texts("values");
        complete &= all(expression, "values", values.len());
        found.push(Requirement {
            key: expression.text("key")?.as_str().to_owned(),
            operator: operator(expression.text("operator")?.as_str())?,
            values: values.iter().map(ToString::to_string).collect(),
        });
    }
    complete.then_some(found)
}

fn operator(word: &str) -> Option<Operator> {
    match word {
        "In" => Some(Operator::In),
        "NotIn" => Some(Operator::NotIn),
        "Exists" => Some(Operator::Exists),
        "DoesNotExist" => Some(Operator::DoesNotExist),
        _ => None,
    }
}

/// Reads which kinds of routes are let in; `None`: those that the protocol has.
fn kinds(allowed: Fields<'_>) -> Option<Vec<(String, String)>> {
    let kinds = allowed.maps("kinds");
    let pairs = kinds.iter().map(|kind| {
        let group = kind.text("group");
        let group = group.map_or_else(|| GROUP.to_owned(), |group| group.as_str().to_owned());
        let name = kind.text("kind");
        (
            group,
            name.map_or_else(String::new, |name| name.as_str().to_owned()),
        )
    });
    (!kinds.is_empty()).then(|| pairs.collect())
}
