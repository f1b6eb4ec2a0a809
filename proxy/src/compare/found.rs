//! What two answers differ in.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::Tree;

/// Fields named in one comparison.
pub const MOST_FIELDS: usize = 200;
/// Characters of an example's value.
pub const MOST_EXAMPLE: usize = 200;
/// Bytes of a field's name, about.
const MOST_NAME: usize = 500;

/// More fields differ than are named.
pub const FIELDS_CUT: &str = "fields_cut";
/// An array was too long, or there were too many, to be compared as a bag: it was compared in order.
pub const ORDERED: &str = "array_ordered";

/// How one field differs; values are cut to 200 characters, `None`: absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What the primary has.
    pub primary: Option<String>,
    /// What the other one has.
    pub mirror: Option<String>,
}

/// How far two bodies could be held against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bodies {
    /// To the end.
    #[default]
    Compared,
    /// Not: one is larger than what is kept.
    TooLarge,
    /// Not: one was cut.
    Incomplete,
}

/// What two answers differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// By name: `status`, `header:NAME`, `content-encoding`, `body` (bytes, or the document itself), or a JSON pointer
    /// with `*` for every array index; the first difference under that name.
    pub fields: BTreeMap<String, Difference>,
    /// Whether the bodies were looked at.
    pub bodies: Bodies,
    /// What should be known of the way they were compared, such as [`ORDERED`].
    pub notes: BTreeSet<&'static str>,
}

impl Differences {
    /// Adds one, unless the name is known. Beyond 200 names only those that `also` has are added.
    pub(super) fn add(
        &mut self,
        name: String,
        also: Option<&Self>,
        values: impl FnOnce() -> Difference,
    ) {
        if self.fields.contains_key(&name) {
            return;
        }
        if self.fields.len() >= MOST_FIELDS
            && !also.is_some_and(|also| also.fields.contains_key(&name))
        {
            self.notes.insert(FIELDS_CUT);
            return;
        }
        self.fields.insert(name, values());
    }
}

/// One step into a document.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'t> {
    /// Into the member of this name.
    Member(&'t str),
    /// Into the element at this index.
    Index(usize),
    /// Into some element of a bag.
    Element,
}

impl Step<'_> {
    /// True when a pointer's token means this step.
    pub(super) fn is(self, token: &str) -> bool {
        token == "*"
            || match self {
                Self::Member(name) => token == name,
                Self::Index(index) => token == index.to_string(),
                Self::Element => false,
            }
    }
}

/// The name of the field at `path`.
pub(super) fn name(path: &[Step<'_>]) -> String {
    if path.is_empty() {
        return "body".to_owned();
    }
    let mut name = String::new();
    for step in path {
        name.push('/');
        let Step::Member(member) = step else {
            name.push('*');
            continue;
        };
        for character in member.chars() {
            if name.len() >= MOST_NAME {
                return name;
            }
            match character {
                '~' => name.push_str("~0"),
                '/' => name.push_str("~1"),
                other => name.push(other),
            }
        }
    }
    name
}

/// What is shown of a value.
pub(super) fn shown(tree: Option<&Tree<'_>>) -> Option<String> {
    tree.map(|tree| tree.excerpt(MOST_EXAMPLE))
}
