//! Whatever stands in a document, what it becomes can be loaded.

use forebay_config::import::{to_yaml, translate};
use forebay_config::node::{Kind, Node, Scalar, Value};

use crate::istio_support::options;
use crate::support::{loaded, parsed};

/// What a value is replaced with.
fn odd(node: &Node) -> Vec<Node> {
    let scalar = |kind, text: &str| {
        Value::Scalar(Scalar {
            kind,
            text: text.to_owned(),
            unexpanded: None,
        })
    };
    let values = [
        scalar(Kind::Text, ""),
        scalar(Kind::Text, "* (/..\u{e9}%2F$1"),
        scalar(Kind::Integer, "-99999999999999999999"),
        scalar(Kind::Integer, "0"),
        scalar(Kind::Bool, "true"),
        Value::List(Vec::new()),
        Value::Map(Vec::new()),
    ];
    let make = |value| Node {
        position: node.position.clone(),
        value,
    };
    values.map(make).into()
}

/// Returns how many values there are in a tree.
fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
        Value::List(items) => items.iter().map(count).sum(),
        Value::Scalar(_) => 0,
    }
}

/// Replaces the value with this number, and returns the rest of the number.
fn replace(node: &mut Node, number: usize, with: usize) -> Option<usize> {
    let Some(mut number) = number.checked_sub(1) else {
        *node = odd(node).swap_remove(with);
        return None;
    };
    match &mut node.value {
        Value::Map(entries) => {
            for entry in entries {
                number = replace(&mut entry.value, number, with)?;
            }
        }
        Value::List(items) => {
            for item in items {
                number = replace(item, number, with)?;
            }
        }
        Value::Scalar(_) => {}
    }
    Some(number)
}

#[test]
fn odd_values_make_findings_and_never_a_configuration_that_is_refused() {
    let rules = include_str!("corpus/istio_rules.yaml");
    let policies = include_str!("corpus/istio_policies.yaml");
    let (rule, rest) = policies.split_once("---").unwrap();
    let used = rest.split("---").filter(|text| text.contains("machines"));
    let policies: Vec<&str> = std::iter::once(rule).chain(used).collect();
    for text in [rules, &policies.join("---")] {
        let documents = parsed(text);
        for (index, document) in documents.iter().enumerate() {
            // A part of all: whatever goes wrong goes wrong in many places.
            for number in (index..count(document)).step_by(5) {
                let with = (number / 5) % 7;
                let mut changed = documents.clone();
                replace(&mut changed[index], number, with);
                let translation = translate(&changed, &options());
                let printed = to_yaml(&translation.root);
                if let Err(problems) = loaded(&[("b.yaml", &printed)]) {
                    panic!("document {index}, value {number}, {with}: {problems}\n{printed}");
                }
            }
        }
    }
}
