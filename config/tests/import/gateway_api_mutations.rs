//! Whatever stands in a document, what it becomes can be loaded, but for listeners whose certificates are lost.

use forebay_config::diagnostic::{Code, Severity};
use forebay_config::import::{to_yaml, translate};
use forebay_config::node::{Kind, Node, Scalar, Value};

use crate::gateway_api::{CORPUS, options};
use crate::support::{loaded, parsed};

/// What values are replaced with.
fn odd() -> Vec<Value> {
    let scalar = |kind, text: &str| {
        Value::Scalar(Scalar {
            kind,
            text: text.to_owned(),
            unexpanded: None,
        })
    };
    vec![
        scalar(Kind::Text, ""),
        scalar(Kind::Text, "* (/..\u{e9}%2F$1"),
        scalar(Kind::Integer, "-99999999999999999999"),
        scalar(Kind::Integer, "0"),
        scalar(Kind::Bool, "true"),
        Value::List(Vec::new()),
        Value::Map(Vec::new()),
    ]
}

/// Replaces each value of a tree in turn by the next of some, looks at the whole, and puts it back.
fn each(
    root: &mut Node,
    steps: &mut Vec<usize>,
    with: &mut dyn Iterator<Item = Value>,
    look: &mut dyn FnMut(&Node),
) {
    let count = match &at(root, steps).value {
        Value::Map(entries) => entries.len(),
        Value::List(items) => items.len(),
        Value::Scalar(_) => 0,
    };
    if let Some(value) = with.next() {
        let kept = std::mem::replace(&mut at(root, steps).value, value);
        look(root);
        at(root, steps).value = kept;
    }
    for index in 0..count {
        steps.push(index);
        each(root, steps, with, look);
        steps.pop();
    }
}

fn at<'n>(root: &'n mut Node, steps: &[usize]) -> &'n mut Node {
    steps.iter().fold(root, |node, step| match &mut node.value {
        Value::Map(entries) => &mut entries[*step].value,
        Value::List(items) => &mut items[*step],
        Value::Scalar(_) => panic!("a scalar has no values"),
    })
}

#[test]
fn odd_values_make_findings_and_never_a_configuration_that_is_refused() {
    let documents = parsed(CORPUS);
    let options = options();
    let mut values = odd().into_iter().cycle();
    for (index, document) in documents.iter().enumerate() {
        let mut document = document.clone();
        each(
            &mut document,
            &mut Vec::new(),
            &mut values,
            &mut |changed| {
                let mut all = documents.clone();
                all[index] = changed.clone();
                let translation = translate(&all, &options);
                let printed = to_yaml(&translation.root);
                let Err(problems) = loaded(&[("a.yaml", &printed)]) else {
                    return;
                };
                let wrong = problems.0.iter().filter(|one| {
                    one.code.severity() == Severity::Error && one.code != Code::UnknownReference
                });
                let wrong: Vec<String> = wrong.map(ToString::to_string).collect();
                let lost = translation.findings.iter().any(|finding| finding.security);
                assert!(lost && wrong.is_empty(), "{problems}\n{printed}");
            },
        );
    }
}
