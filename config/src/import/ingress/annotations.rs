//! Reading annotations.

use crate::import::{Fields, Leaf};
use crate::model::Position;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Names of unknown annotations that may protect somebody have one of these in them.
const PROTECTING: &[&str] = &[
    "auth",
    "allow",
    "deny",
    "whitelist",
    "waf",
    "modsecurity",
    "ssl-verify",
];

/// The annotations of an Ingress; names are without their prefix.
#[derive(Clone, Copy)]
pub(super) struct Annotations<'a>(Option<Fields<'a>>);

impl<'a> Annotations<'a> {
    pub(super) fn of(document: Fields<'a>) -> Self {
        let metadata = document.map("metadata");
        Self(
            metadata
                .filter(|one| one.has("annotations"))
                .and_then(|one| one.map("annotations")),
        )
    }

    /// Returns the class that old documents name.
    pub(super) fn class(self) -> Option<Leaf> {
        self.0?.scalar("kubernetes.io/ingress.class")
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.0.is_some_and(|fields| fields.has(&full(name)))
    }

    /// Returns a value without spaces around it.
    pub(super) fn text(self, name: &str) -> Option<Leaf> {
        let leaf = self.0?.scalar(&full(name))?;
        Some(leaf.with(leaf.as_str().trim()))
    }

    /// Returns a value; an empty one is as good as none.
    pub(super) fn word(self, name: &str) -> Option<Leaf> {
        self.text(name).filter(|leaf| !leaf.as_str().is_empty())
    }

    /// Returns a boolean as Go reads it.
    pub(super) fn flag(self, name: &str) -> Option<bool> {
        let leaf = self.text(name)?;
        match leaf.as_str() {
            "true" | "True" | "TRUE" | "1" | "t" | "T" => Some(true),
            "false" | "False" | "FALSE" | "0" | "f" | "F" => Some(false),
            _ => {
                self.lost(name, "expected `true` or `false`");
                None
            }
        }
    }

    /// Returns a whole number.
    pub(super) fn number(self, name: &str, range: std::ops::RangeInclusive<i64>) -> Option<Leaf> {
        let leaf = self.text(name)?;
        match leaf.whole() {
            Some(number) if range.contains(&number) => Some(Leaf::number(leaf.at(), number)),
            _ => {
                let (least, most) = (range.start(), range.end());
                self.lost(
                    name,
                    format!("expected a whole number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// Returns the items of a list with commas, without empty ones.
    pub(super) fn list(self, name: &str) -> Vec<Leaf> {
        let Some(leaf) = self.text(name) else {
            return Vec::new();
        };
        let items = leaf.as_str().split(',').map(str::trim);
        let items = items.filter(|item| !item.is_empty());
        items.map(|item| leaf.with(item)).collect()
    }

    pub(super) fn place(self, name: &str) -> Option<&'a Position> {
        self.0.map(|fields| fields.place(&full(name)))
    }

    pub(super) fn accept(self, name: &str) {
        if let Some(fields) = self.0 {
            fields.accept(&full(name));
        }
    }

    pub(super) fn approximated(self, name: &str, note: impl Into<String>) {
        if let Some(fields) = self.0 {
            fields.approximated(&full(name), note);
        }
    }

    pub(super) fn lost(self, name: &str, note: impl Into<String>) {
        if let Some(fields) = self.0 {
            fields.lost(&full(name), note);
        }
    }

    pub(super) fn lost_security(self, name: &str, note: impl Into<String>) {
        if let Some(fields) = self.0 {
            fields.lost_security(&full(name), note);
        }
    }

    /// Returns the names there are.
    pub(super) fn names(self) -> impl Iterator<Item = &'a str> {
        let keys = self.0.into_iter().flat_map(|fields| fields.keys());
        keys.filter_map(|key| key.strip_prefix(PREFIX))
    }

    /// Says of annotations that nobody knows which of them may have protected somebody.
    pub(super) fn unknown(self, known: impl Fn(&str) -> bool) {
        for name in self.names().filter(|name| !known(name)) {
            if PROTECTING.iter().any(|part| name.contains(part)) {
                self.lost_security(name, "nobody knows it here");
            }
        }
    }
}

fn full(name: &str) -> String {
    format!("{PREFIX}{name}")
}
