//! Files in, configuration or findings out: the one function behind start, `validate`, reload and the API.

mod defaults;
mod environment;
mod imported;
mod merge;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Diagnostics, Severity};
use crate::import::{Options, is_kubernetes};
use crate::model::{Config, Position};
use crate::node::{self, Node, Value};
use crate::schema::keys::{DefaultsKeys, FileKeys};
use crate::schema::{Path, Reader, Shape};
use crate::validate::validate;

/// The most bytes that all files of a configuration may have together.
pub const SIZE_MAX: usize = 64 << 20;

/// One file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// What messages call it; ends with `.json` when the text must be JSON.
    pub name: Arc<str>,
    /// What relative paths inside it are relative to.
    pub directory: PathBuf,
    /// What it holds.
    pub text: String,
}

/// A legal configuration, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, ordered by file and place.
    pub warnings: Vec<Diagnostic>,
}

/// Loads a configuration from `files`, which are merged in the order given; `env` looks up environment variables.
/// Objects of Kubernetes among them are translated; see [`load_with`].
///
/// # Errors
///
/// Every problem of every file at once, warnings included. Only a file that is no YAML hides what else is wrong in it.
pub fn load(
    files: &[SourceFile],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Diagnostics> {
    load_with(files, env, &Options::default())
}

/// Loads a configuration as [`load`] does, with what is to be known for objects of Kubernetes among the files: their
/// native tree is merged behind the native files. `options.format`, `wanted` and `verbose` are not looked at.
///
/// # Errors
///
/// Those of [`load`], and what is lost of an object and protects somebody; what else is lost is a warning.
pub fn load_with(
    files: &[SourceFile],
    env: &dyn Fn(&str) -> Option<String>,
    options: &Options,
) -> Result<Loaded, Diagnostics> {
    let mut reader = Reader::new(files);
    let config = read(files, env, options, &mut reader);
    let mut findings = reader.finish();
    let order: HashMap<&str, usize> = files
        .iter()
        .enumerate()
        .map(|(index, file)| (&*file.name, index))
        .collect();
    findings.sort_by_key(|finding| {
        let Position { file, line, column } = &finding.position;
        (order.get(&**file).copied(), *line, *column)
    });
    match config {
        Some(config)
            if findings
                .iter()
                .all(|finding| finding.severity == Severity::Warning) =>
        {
            Ok(Loaded {
                config,
                warnings: findings,
            })
        }
        _ => Err(Diagnostics(findings)),
    }
}

fn read(
    files: &[SourceFile],
    env: &dyn Fn(&str) -> Option<String>,
    options: &Options,
    reader: &mut Reader<'_>,
) -> Option<Config> {
    if let Some(first) = files.first()
        && files.iter().map(|file| file.text.len()).sum::<usize>() > SIZE_MAX
    {
        let position = Position {
            file: Arc::clone(&first.name),
            line: 1,
            column: 1,
        };
        reader.report(Diagnostic::new(
            Code::Document,
            &position,
            "the configuration is larger than 64 MiB",
        ));
        return None;
    }
    let mut trees: Vec<Node> = Vec::new();
    let mut objects: Vec<Node> = Vec::new();
    let mut complete = true;
    for file in files {
        let (documents, problems) = node::parse_documents(file);
        problems
            .into_iter()
            .for_each(|problem| reader.report(problem));
        complete &= documents.is_some();
        let documents = documents.into_iter().flatten();
        let (foreign, native): (Vec<Node>, Vec<Node>) = documents.partition(is_kubernetes);
        if let Some(second) = native.get(1) {
            reader.report(node::several(&second.position));
            complete = false;
        } else {
            trees.extend(native);
        }
        objects.extend(foreign);
    }
    for tree in &mut trees {
        environment::expand(tree, env, reader);
    }
    for tree in &trees {
        refuse_open_allow(tree, reader);
    }
    if !objects.is_empty() {
        trees.push(imported::translate(&objects, &trees, options, reader));
    }
    let mut root = merge::merge(trees, reader);
    if let Some(defaults) = defaults::take(&mut root) {
        let read = |reader: &mut Reader<'_>| {
            DefaultsKeys::read(&defaults, Path::ROOT.key("defaults"), reader)
        };
        reader.partially(read);
        defaults::apply(&defaults, &mut root, reader);
    }
    let keys = FileKeys::read(&root, Path::ROOT, reader)?;
    validate(keys, complete, reader)
}

/// Reports an `allow:` with nothing behind it, as when its last entry was commented out: everybody would come in.
fn refuse_open_allow(tree: &Node, reader: &mut Reader<'_>) {
    let items = |key: &str| match tree.get(key).map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().collect(),
        _ => Vec::new(),
    };
    let routes = items("routes")
        .into_iter()
        .filter_map(|route| route.get("access"));
    for access in routes.chain(items("access_lists")) {
        if let Some(allow) = access.get("allow").filter(|allow| allow.is_null()) {
            let message = "`allow` has no entries, which would let everybody in";
            let finding = Diagnostic::new(Code::MissingKey, &allow.position, message);
            reader.report(finding.help("write `allow: []` for nobody, or leave the key out"));
        }
    }
}

/// Makes the position of a tree that no file has.
fn nowhere() -> Position {
    Position {
        file: Arc::from("built-in"),
        line: 1,
        column: 1,
    }
}

/// Returns the entries of a map, or nothing.
fn entries_mut(node: &mut Node) -> Option<&mut Vec<node::Entry>> {
    match &mut node.value {
        Value::Map(entries) => Some(entries),
        Value::List(_) | Value::Scalar(_) => None,
    }
}
