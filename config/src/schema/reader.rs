//! Collects problems while nodes are read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Severity, did_you_mean, quoted};
use crate::load::SourceFile;
use crate::model::Position;
use crate::node::{Entry, Kind, Node, Scalar, Value};

/// The way from the top of the file to a value, for messages: `routes[2] (resnet).split[0].weight`.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Item(usize, Option<&'a str>),
}

impl<'a> Path<'a> {
    /// The top of the file.
    pub const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    /// Returns the path of a key of this map.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    /// Returns the path of an item of this list; `name` is shown behind the index.
    pub fn item(&'a self, index: usize, name: Option<&'a str>) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Item(index, name),
        }
    }

    /// Writes what leads a message: the path and `: `, or nothing at the top of the file.
    pub fn lead(&self) -> String {
        match self.step {
            Step::Root => String::new(),
            Step::Key(_) | Step::Item(..) => format!("{self}: "),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) => {
                let dot = if self
                    .parent
                    .is_some_and(|parent| !matches!(parent.step, Step::Root))
                {
                    "."
                } else {
                    ""
                };
                write!(f, "{dot}{key}")
            }
            Step::Item(index, None) => write!(f, "[{index}]"),
            Step::Item(index, Some(name)) => write!(f, "[{index}] ({name})"),
        }
    }
}

/// Collects problems while nodes are read. The same message about the same place is kept once: a default is
/// read for every route.
#[derive(Debug)]
pub struct Reader<'a> {
    directories: HashMap<Arc<str>, &'a std::path::Path>,
    findings: Vec<Diagnostic>,
    seen: HashSet<(Position, Code, String)>,
    failures: usize,
    partial: bool,
}

impl<'a> Reader<'a> {
    /// Makes a reader of `files`.
    pub fn new(files: &'a [SourceFile]) -> Self {
        Self {
            directories: files
                .iter()
                .map(|file| (Arc::clone(&file.name), file.directory.as_path()))
                .collect(),
            findings: Vec::new(),
            seen: HashSet::new(),
            failures: 0,
            partial: false,
        }
    }

    /// Reports a finding.
    pub fn report(&mut self, finding: Diagnostic) {
        let text = finding.message.clone();
        self.keep(finding, text);
    }

    /// Reports an error; `message` follows the path of the value.
    pub fn refuse(
        &mut self,
        code: Code,
        position: &Position,
        path: Path<'_>,
        message: impl fmt::Display,
        help: &str,
    ) {
        let text = message.to_string();
        let finding = Diagnostic::new(code, position, format!("{}{text}", path.lead()));
        self.keep(
            if help.is_empty() {
                finding
            } else {
                finding.help(help)
            },
            text,
        );
    }

    /// Keeps a finding unless `text`, its message without the path, was reported about this place.
    fn keep(&mut self, finding: Diagnostic, text: String) {
        if finding.code.severity() == Severity::Error {
            self.failures += 1;
        }
        if self
            .seen
            .insert((finding.position.clone(), finding.code, text))
        {
            self.findings.push(finding);
        }
    }

    /// Reports a value that cannot be read as what its key wants.
    pub fn bad_value(&mut self, node: &Node, path: Path<'_>, wanted: &str, help: &str) {
        let message = format!("{} is not {wanted}", node.describe());
        self.refuse(Code::BadValue, &node.position, path, message, help);
    }

    /// Reports a value of a wrong type.
    pub fn wrong_type(&mut self, node: &Node, path: Path<'_>, wanted: &str, help: &str) {
        let message = format!("expected {wanted}, found {}", node.describe());
        self.refuse(Code::WrongType, &node.position, path, message, help);
    }

    /// Returns the keys of a map, or reports that it is none.
    pub fn map<'n>(&mut self, node: &'n Node, path: Path<'_>) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            Value::List(_) | Value::Scalar(_) => {
                self.wrong_type(
                    node,
                    path,
                    "a map",
                    "a map is written as `key: value` lines or `{key: value}`",
                );
                None
            }
        }
    }

    /// Returns a scalar that is not `null`, or reports what is there instead.
    pub fn scalar<'n>(
        &mut self,
        node: &'n Node,
        path: Path<'_>,
        wanted: &str,
    ) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) if scalar.kind != Kind::Null => Some(scalar),
            Value::Scalar(_) | Value::Map(_) | Value::List(_) => {
                self.wrong_type(node, path, wanted, "");
                None
            }
        }
    }

    /// Reports a key that is not one of `keys`; one of `later` is known and not built yet. Returns the key that was
    /// probably meant.
    pub fn unknown_key(
        &mut self,
        entry: &Entry,
        path: Path<'_>,
        keys: &[&'static str],
        later: &[&'static str],
    ) -> Option<&'static str> {
        if later.contains(&entry.key.as_str()) {
            self.not_built(&entry.position, path, &entry.key);
            return None;
        }
        let near = did_you_mean(&entry.key, keys.iter().chain(later).copied());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", listed(keys)),
        };
        self.refuse(
            Code::UnknownKey,
            &entry.position,
            path,
            format!("unknown key {}", quoted(&entry.key)),
            &help,
        );
        near
    }

    /// Reports something that is known and not built yet.
    pub fn not_built(&mut self, position: &Position, path: Path<'_>, what: &str) {
        let message =
            format!("`{what}` is not built yet: this version of forebay does not have the feature");
        self.refuse(
            Code::NotBuilt,
            position,
            path,
            message,
            "remove it, or wait for a version that has it",
        );
    }

    /// Reports a key that must be there.
    pub fn missing(&mut self, position: &Position, path: Path<'_>, key: &str) {
        if !self.partial {
            self.refuse(
                Code::MissingKey,
                position,
                path,
                format!("the key `{key}` is missing"),
                "",
            );
        }
    }

    /// Reads `defaults`, where no key must be there.
    pub fn partially<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.partial = true;
        let result = read(self);
        self.partial = false;
        result
    }

    /// Returns how many errors were met so far, repeated ones included.
    pub fn failures(&self) -> usize {
        self.failures
    }

    /// Returns the directory of the file that holds `position`.
    pub fn directory(&self, position: &Position) -> &std::path::Path {
        self.directories
            .get(&position.file)
            .copied()
            .unwrap_or(std::path::Path::new(""))
    }

    /// Ends reading; returns the findings in the order they were met.
    pub fn finish(self) -> Vec<Diagnostic> {
        self.findings
    }
}

/// Writes keys for a message.
pub(super) fn listed(keys: &[&str]) -> String {
    keys.iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
