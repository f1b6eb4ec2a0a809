//! Reading documents so that no field is dropped silently: whatever a translator does not read is found afterwards.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::{Leaf, Level};
use crate::model::Position;
use crate::node::{Entry, Node, Value};

/// What translators read and said of the fields of all documents.
///
/// Nodes are known by their addresses: the trees are borrowed for as long as this lives.
#[derive(Debug, Default)]
pub struct Audit {
    read: RefCell<HashSet<usize>>,
    said: RefCell<HashMap<usize, Said>>,
}

/// What a translator said of one field.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) level: Level,
    pub(super) security: bool,
    pub(super) note: String,
}

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node) as usize
}

impl Audit {
    pub(super) fn mark(&self, node: &Node) {
        self.read.borrow_mut().insert(address(node));
    }

    /// Marks a node and all that is in it.
    fn mark_all(&self, node: &Node) {
        self.mark(node);
        match &node.value {
            Value::Map(entries) => entries.iter().for_each(|entry| self.mark_all(&entry.value)),
            Value::List(items) => items.iter().for_each(|item| self.mark_all(item)),
            Value::Scalar(_) => {}
        }
    }

    pub(super) fn was_read(&self, node: &Node) -> bool {
        self.read.borrow().contains(&address(node))
    }

    pub(super) fn said(&self, node: &Node) -> Option<Said> {
        self.said.borrow().get(&address(node)).cloned()
    }

    /// Keeps the worst of what is said of a node, and the notes of that level.
    fn say(&self, node: &Node, level: Level, security: bool, note: String) {
        self.mark_all(node);
        let mut said = self.said.borrow_mut();
        let entry = said.entry(address(node)).or_insert_with(|| Said {
            level,
            security,
            note: String::new(),
        });
        if level > entry.level {
            (entry.level, entry.note) = (level, String::new());
        }
        entry.security |= security;
        if level == entry.level && !entry.note.contains(&note) {
            let separator = if entry.note.is_empty() { "" } else { "; " };
            entry.note.push_str(separator);
            entry.note.push_str(&note);
        }
    }
}

/// A map of a document. Each method that returns a value marks it as read; `null` is as good as absent. A value of a
/// wrong type is found to be lost, and the method returns what it returns for an absent one.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    audit: &'a Audit,
    node: &'a Node,
    proto: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(audit: &'a Audit, node: &'a Node, proto: bool) -> Self {
        audit.mark(node);
        Self { audit, node, proto }
    }

    /// Returns where the map was written.
    pub fn at(&self) -> &'a Position {
        &self.node.position
    }

    /// Returns the entries that are not `null`, without marking them.
    fn entries(&self) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::List(_) | Value::Scalar(_) => &[],
        };
        entries.iter().filter(|entry| !entry.value.is_null())
    }

    fn find(&self, key: &str) -> Option<&'a Entry> {
        let proto = self.proto;
        let same = |entry: &&Entry| entry.key == key || proto && camel(&entry.key) == key;
        self.entries().find(same)
    }

    fn wrong(&self, node: &Node, wanted: &str) {
        let note = format!("expected {wanted}, found {}", node.describe());
        self.audit.say(node, Level::Lost, false, note);
    }

    /// True when the key is there; it is not marked as read.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Returns how many items a list has, wrong ones included; `None`: there is no such list. It is not marked as read.
    pub fn count(&self, key: &str) -> Option<usize> {
        match &self.find(key)?.value.value {
            Value::List(items) => Some(items.len()),
            Value::Map(_) | Value::Scalar(_) => None,
        }
    }

    /// Returns the keys that are there, in their order; none is marked as read.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.entries().map(|entry| entry.key.as_str())
    }

    /// Returns where the value of a key was written, else where the map was.
    pub fn place(&self, key: &str) -> &'a Position {
        self.find(key)
            .map_or(&self.node.position, |entry| &entry.value.position)
    }

    /// Returns any scalar: a string, a number or a boolean.
    pub fn scalar(&self, key: &str) -> Option<Leaf> {
        let entry = self.find(key)?;
        self.leaf(&entry.value, "a string")
    }

    fn leaf(&self, node: &Node, wanted: &str) -> Option<Leaf> {
        self.audit.mark(node);
        let leaf = Leaf::of(node);
        if leaf.is_none() {
            self.wrong(node, wanted);
        }
        leaf
    }

    /// Returns a string. Kubernetes refuses numbers and booleans here, and so does this.
    pub fn text(&self, key: &str) -> Option<Leaf> {
        let entry = self.find(key)?;
        let leaf = self.leaf(&entry.value, "a string")?;
        if !leaf.is_text() {
            self.wrong(&entry.value, "a string");
            return None;
        }
        Some(leaf)
    }

    /// Returns a whole number within `range`; protobuf and annotations may have it in quotes.
    pub fn whole(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<Leaf> {
        let entry = self.find(key)?;
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let leaf = self.leaf(&entry.value, &wanted)?;
        match leaf.whole() {
            Some(number) if range.contains(&number) => Some(Leaf::number(leaf.at(), number)),
            _ => {
                self.wrong(&entry.value, &wanted);
                None
            }
        }
    }

    /// Returns a number, with where it was written.
    pub fn float(&self, key: &str) -> Option<(f64, Leaf)> {
        let entry = self.find(key)?;
        let leaf = self.leaf(&entry.value, "a number")?;
        let number = leaf.as_str().parse().ok().filter(|f: &f64| f.is_finite());
        if number.is_none() {
            self.wrong(&entry.value, "a number");
        }
        Some((number?, leaf))
    }

    /// Returns a boolean.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let entry = self.find(key)?;
        let truth = self.leaf(&entry.value, "`true` or `false`")?.truth();
        if truth.is_none() {
            self.wrong(&entry.value, "`true` or `false`");
        }
        truth
    }

    /// Returns a duration as Go, Kubernetes and protobuf write it, in native spelling; see
    /// [`duration`](super::duration).
    pub fn duration(&self, key: &str) -> Option<Leaf> {
        let entry = self.find(key)?;
        let leaf = self.leaf(&entry.value, "a duration")?;
        let duration = super::duration(leaf.as_str());
        if duration.is_none() {
            self.wrong(&entry.value, "a duration such as `1.5s`");
        }
        Some(leaf.with(duration?))
    }

    /// Returns a map with fixed keys.
    pub fn map(&self, key: &str) -> Option<Fields<'a>> {
        self.inner(&self.find(key)?.value)
    }

    fn inner(&self, node: &'a Node) -> Option<Fields<'a>> {
        let Value::Map(_) = &node.value else {
            self.wrong(node, "a map");
            return None;
        };
        Some(Fields::new(self.audit, node, self.proto))
    }

    fn items(&self, key: &str) -> &'a [Node] {
        let Some(entry) = self.find(key) else {
            return &[];
        };
        self.audit.mark(&entry.value);
        match &entry.value.value {
            Value::List(items) => items,
            Value::Map(_) | Value::Scalar(_) => {
                self.wrong(&entry.value, "a list");
                &[]
            }
        }
    }

    /// Returns the items of a list of maps; a wrong item is found to be lost and left out.
    pub fn maps(&self, key: &str) -> Vec<Fields<'a>> {
        let items = self.items(key).iter();
        items.filter_map(|item| self.inner(item)).collect()
    }

    /// True for a list without items; it is not marked as read.
    pub fn is_empty_list(&self, key: &str) -> bool {
        self.find(key).is_some_and(
            |entry| matches!(&entry.value.value, Value::List(items) if items.is_empty()),
        )
    }

    /// Returns the items of a list of scalars; a wrong item is found to be lost and left out.
    pub fn texts(&self, key: &str) -> Vec<Leaf> {
        let items = self.items(key).iter();
        items
            .filter_map(|item| self.leaf(item, "a string"))
            .collect()
    }

    /// Returns a map of names that users choose to scalars, such as headers to set.
    pub fn pairs(&self, key: &str) -> Vec<(Leaf, Leaf)> {
        let Some(map) = self.map(key) else {
            return Vec::new();
        };
        let pair = |entry: &'a Entry| {
            let key = Leaf::text(&entry.position, entry.key.as_str());
            Some((key, self.leaf(&entry.value, "a string")?))
        };
        map.entries().filter_map(pair).collect()
    }

    /// Returns a map of names that users choose to maps, such as header matches.
    pub fn named(&self, key: &str) -> Vec<(Leaf, Fields<'a>)> {
        let Some(map) = self.map(key) else {
            return Vec::new();
        };
        let pair = |entry: &'a Entry| {
            let key = Leaf::text(&entry.position, entry.key.as_str());
            Some((key, self.inner(&entry.value)?))
        };
        map.entries().filter_map(pair).collect()
    }

    /// Says that a field differs in its effect from what it meant there; it and all in it count as read.
    pub fn approximated(&self, key: &str, note: impl Into<String>) {
        self.say(key, Level::Approximated, false, note.into());
    }

    /// Says that a field has no effect in this document; it and all in it count as read. That a loss weakens security
    /// comes from the table too.
    pub fn lost(&self, key: &str, note: impl Into<String>) {
        self.say(key, Level::Lost, false, note.into());
    }

    /// Says that a field has no effect, and that without it somebody may get what they should not.
    pub fn lost_security(&self, key: &str, note: impl Into<String>) {
        self.say(key, Level::Lost, true, note.into());
    }

    /// Says of the whole map, such as an item of a list, that it has no effect.
    pub fn lost_here(&self, note: impl Into<String>) {
        self.audit.say(self.node, Level::Lost, false, note.into());
    }

    /// Says of the whole map that its effect differs.
    pub fn approximated_here(&self, note: impl Into<String>) {
        self.audit
            .say(self.node, Level::Approximated, false, note.into());
    }

    /// Marks a field and all in it as read, when reading it has no further use.
    pub fn accept(&self, key: &str) {
        if let Some(entry) = self.find(key) {
            self.audit.mark_all(&entry.value);
        }
    }

    fn say(&self, key: &str, level: Level, security: bool, note: String) {
        if let Some(entry) = self.find(key) {
            self.audit.say(&entry.value, level, security, note);
        }
    }
}

/// Writes `asThis` what protobuf also lets be written `as_this`.
pub(super) fn camel(key: &str) -> String {
    let mut upper = false;
    let mut out = String::with_capacity(key.len());
    for c in key.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}
