//! Configurations of llama-swap in, native trees out.

use forebay_config::import::{Format, Options, Translation, to_yaml, translate};
use forebay_config::node::{Node, Value};

use crate::support::parsed;

/// Files with every key.
pub(crate) const CORPUS: [&str; 4] = [
    include_str!("corpus/llama-swap.yaml"),
    include_str!("corpus/llama-swap-matrix.yaml"),
    include_str!("corpus/llama-swap-routing.yaml"),
    include_str!("corpus/llama-swap-routing-matrix.yaml"),
];

/// Translates a text as the command line does, and tells of everything.
pub(crate) fn swapped(text: &str) -> Translation {
    let options = Options {
        format: Some(Format::LlamaSwap),
        verbose: true,
        ..Options::default()
    };
    translate(&parsed(text), &options)
}

/// The native file.
pub(crate) fn printed(text: &str) -> String {
    to_yaml(&swapped(text).root)
}

/// The value at a path such as `clusters.0.scale.idle`, as text; empty when there is none.
pub(crate) fn at(root: &Node, path: &str) -> String {
    let mut node = root;
    for step in path.split('.') {
        let next = match &node.value {
            Value::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
            Value::Map(_) | Value::Scalar(_) => node.get(step),
        };
        let Some(next) = next else {
            return String::new();
        };
        node = next;
    }
    match &node.value {
        Value::Scalar(scalar) => scalar.text.clone(),
        Value::List(items) => {
            let items = items.iter().filter_map(Node::scalar);
            let items: Vec<&str> = items.map(|scalar| &*scalar.text).collect();
            items.join(" ")
        }
        Value::Map(_) => "{}".to_owned(),
    }
}

/// One model `m` with these keys.
pub(crate) fn model(keys: &str) -> String {
    format!("models: {{m: {{{keys}}}}}\n")
}

/// A usual command.
pub(crate) const CMD: &str = "cmd: 'llama-server --port ${PORT}'";

/// Models of these names with a usual command, and more keys of the file.
pub(crate) fn models(names: &[&str], more: &str) -> String {
    let models: Vec<String> = names
        .iter()
        .map(|name| format!("  {name}: {{{CMD}}}\n"))
        .collect();
    format!("models:\n{}{more}", models.concat())
}
