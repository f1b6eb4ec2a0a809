//! Objects of Kubernetes among the files.

use std::collections::BTreeSet;

use crate::diagnostic::{Code, Diagnostic};
use crate::import::{self, Level, Options};
use crate::node::{Node, Value};
use crate::schema::Reader;

/// Translates objects to a native tree. What is lost is reported: an error when it protects somebody.
///
/// * `native`: the trees of native files, whose routes may name services of the objects
pub(super) fn translate(
    objects: &[Node],
    native: &[Node],
    options: &Options,
    reader: &mut Reader<'_>,
) -> Node {
    let mut wanted = BTreeSet::new();
    for tree in native {
        named(tree, &mut wanted);
    }
    let options = Options {
        format: None,
        wanted: Some(wanted),
        verbose: false,
        ..options.clone()
    };
    let translation = import::translate(objects, &options);
    let lost = translation.findings.iter();
    for finding in lost.filter(|finding| finding.level == Level::Lost) {
        let code = match finding.security {
            true => Code::Unprotected,
            false => Code::NotTranslated,
        };
        let message = format!("lost: {}", finding.what());
        let problem = Diagnostic::new(code, &finding.position, message);
        reader.report(match finding.security {
            true => problem.help("say it in a native file, and remove it from the document"),
            false => problem,
        });
    }
    translation.root
}

/// Collects the clusters that a tree names.
fn named(node: &Node, found: &mut BTreeSet<String>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                if let ("cluster" | "noise", Some(name)) = (&*entry.key, entry.value.scalar()) {
                    found.insert(name.text.clone());
                }
                named(&entry.value, found);
            }
        }
        Value::List(items) => items.iter().for_each(|item| named(item, found)),
        Value::Scalar(_) => {}
    }
}
