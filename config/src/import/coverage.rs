//! What is translated of each kind, as data: it drives the reader, the findings and the table for users.

use std::collections::{HashMap, HashSet};

use super::{Format, Level};

/// A kind of documents and its fields.
///
/// A field is a path of keys: `[]` stands for the items of a list, `*` for a key that users choose, `PREFIX/*` for
/// such keys with a prefix, as in `metadata.annotations.nginx.ingress.kubernetes.io/*`. The most specific path counts.
/// Maps on the way to a listed field need no line of their own.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// The kind.
    pub name: &'static str,
    /// Versions that are understood.
    pub versions: &'static [&'static str],
    /// The format of the command line it belongs to; `None`: to several.
    pub format: Option<Format>,
    /// Keys may be written `as_this` for `asThis`, as protobuf allows.
    pub proto: bool,
    /// Its fields, without those that all kinds have.
    pub fields: &'static [Field],
}

/// A field and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its path.
    pub path: &'static str,
    /// What becomes of it at best; a translator may say worse for one document.
    pub level: Level,
    /// What differs, or why it is lost.
    pub note: &'static str,
    /// Losing it, or anything in it, weakens access, authentication or TLS.
    pub security: bool,
    /// It says nothing about traffic: no translator has to read it.
    pub harmless: bool,
}

impl Field {
    const fn new(path: &'static str, level: Level, note: &'static str) -> Self {
        Self {
            path,
            level,
            note,
            security: false,
            harmless: false,
        }
    }

    /// Means the same here.
    pub const fn ok(path: &'static str) -> Self {
        Self::new(path, Level::Ok, "")
    }

    /// Has an effect, and `note` says what differs.
    pub const fn approximated(path: &'static str, note: &'static str) -> Self {
        Self::new(path, Level::Approximated, note)
    }

    /// Has no effect, and `note` says why, or what to do instead; all that is in it is lost with it.
    pub const fn lost(path: &'static str, note: &'static str) -> Self {
        Self::new(path, Level::Lost, note)
    }

    /// Says nothing about traffic, nor does anything in it; `note` says why.
    pub const fn harmless(path: &'static str, note: &'static str) -> Self {
        Self {
            harmless: true,
            ..Self::new(path, Level::Ok, note)
        }
    }

    /// Marks a field that protects somebody.
    pub const fn secure(self) -> Self {
        Self {
            security: true,
            ..self
        }
    }
}

/// What all kinds have.
const COMMON: &[Field] = &[
    Field::ok("apiVersion"),
    Field::ok("kind"),
    Field::ok("metadata.name"),
    Field::ok("metadata.namespace"),
    Field::harmless("metadata.*", "for Kubernetes"),
    Field::harmless("metadata.annotations.*", "for other programs"),
    Field::harmless("status", "written by a controller"),
];

/// A kind's fields, ready to be looked up.
pub(super) struct Table {
    fields: HashMap<&'static str, Field>,
    above: HashSet<&'static str>,
}

impl Table {
    /// Prepares the fields of a kind; an unknown kind only has what all have.
    pub(super) fn new(kind: Option<&Kind>) -> Self {
        let own = kind.map_or(&[][..], |kind| kind.fields);
        let mut table = Self {
            fields: HashMap::new(),
            above: HashSet::new(),
        };
        let common = match kind.and_then(|kind| kind.format) {
            Some(Format::LlamaSwap) => &[],
            _ => COMMON,
        };
        for field in common.iter().chain(own) {
            table.fields.insert(field.path, *field);
            let ends = field.path.match_indices(['.', '[']).map(|(end, _)| end);
            table.above.extend(ends.map(|end| &field.path[..end]));
        }
        table
    }

    /// Returns the line of a path.
    pub(super) fn find(&self, path: &str) -> Option<&Field> {
        self.fields.get(path)
    }

    /// Returns the path in this table of `key` under `parent`: the most specific one that is listed, or leads to a
    /// listed one; else the key itself.
    pub(super) fn path(&self, parent: &str, key: &str) -> String {
        let known =
            |path: &String| self.fields.contains_key(&**path) || self.above.contains(&**path);
        let under = |key: &str| match parent {
            "" => key.to_owned(),
            _ => format!("{parent}.{key}"),
        };
        let exact = under(key);
        let prefixed = || Some(under(&format!("{}/*", key.rsplit_once('/')?.0))).filter(known);
        match known(&exact) {
            true => exact,
            false => prefixed()
                .or_else(|| Some(under("*")).filter(known))
                .unwrap_or(exact),
        }
    }

    /// True for a field with listed ones in it.
    pub(super) fn leads(&self, path: &str) -> bool {
        self.above.contains(path)
    }

    /// True for a field that is listed, or that leads to a listed one.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.fields.contains_key(path) || self.above.contains(path)
    }
}

/// Writes the table for users, in Markdown.
pub fn markdown(kinds: &[Kind]) -> String {
    let mut text = String::new();
    for kind in kinds {
        let group = match kind.group {
            "" => "core",
            group => group,
        };
        let versions = kind.versions.join(", ");
        text.push_str(&format!("\n## {} ({group}: {versions})\n\n", kind.name));
        text.push_str("| field | becomes | note |\n|---|---|---|\n");
        for field in kind.fields {
            let level = match field.harmless {
                true => "no traffic",
                false => field.level.as_str(),
            };
            let mut note = field.note.replace('|', "\\|");
            if field.security {
                let separator = if note.is_empty() { "" } else { "; " };
                note.push_str(&format!("{separator}a loss refuses the load"));
            }
            text.push_str(&format!("| `{}` | {level} | {note} |\n", field.path));
        }
    }
    text
}
