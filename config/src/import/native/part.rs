//! From typed parts to nodes.

use crate::import::Leaf;
use crate::model::Position;
use crate::node::{Entry, Node, Value};

/// Something that becomes a node of the native tree.
pub(in crate::import) trait Part {
    /// Makes the node; `at` is the place of the part around it. `None`: there is nothing to say.
    fn part(&self, at: &Position) -> Option<Node>;

    /// Makes the node even when it is empty.
    fn whole(&self, at: &Position) -> Node {
        self.part(at).unwrap_or_else(|| Node {
            position: at.clone(),
            value: Value::Map(Vec::new()),
        })
    }
}

impl Part for Leaf {
    fn part(&self, _: &Position) -> Option<Node> {
        Some(self.node())
    }
}

impl<T: Part> Part for Option<T> {
    fn part(&self, at: &Position) -> Option<Node> {
        self.as_ref().map(|part| part.whole(at))
    }
}

impl<T: Part> Part for Vec<T> {
    fn part(&self, at: &Position) -> Option<Node> {
        (!self.is_empty()).then(|| self.whole(at))
    }

    fn whole(&self, at: &Position) -> Node {
        let items: Vec<Node> = self.iter().map(|item| item.whole(at)).collect();
        let position = items.first().map_or(at, |item| &item.position).clone();
        Node {
            position,
            value: Value::List(items),
        }
    }
}

impl<T: Part> Part for Box<T> {
    fn part(&self, at: &Position) -> Option<Node> {
        self.as_ref().part(at)
    }

    fn whole(&self, at: &Position) -> Node {
        self.as_ref().whole(at)
    }
}

/// A map whose keys are chosen by users, such as headers; no key twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs<T>(Vec<(Leaf, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Pairs<T> {
    /// Adds a value. False: the key is there already, and its first value stays.
    pub fn add(&mut self, key: Leaf, value: T) -> bool {
        let new = self.find(key.as_str()).is_none();
        if new {
            self.0.push((key, value));
        }
        new
    }

    /// Returns the value of `key`.
    pub fn find(&self, key: &str) -> Option<&T> {
        let mut pairs = self.0.iter();
        pairs
            .find(|(known, _)| known.as_str() == key)
            .map(|(_, value)| value)
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the values in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&Leaf, &T)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<T: Part> Part for Pairs<T> {
    fn part(&self, _: &Position) -> Option<Node> {
        let position = self.0.first()?.0.at().clone();
        let entries = self.0.iter().map(|(key, value)| Entry {
            key: key.as_str().to_owned(),
            position: key.at().clone(),
            value: value.whole(key.at()),
        });
        Some(Node {
            position,
            value: Value::Map(entries.collect()),
        })
    }
}

/// Collects the entries of a map with fixed keys.
pub(super) fn push(entries: &mut Vec<Entry>, key: &str, value: Option<Node>) {
    if let Some(value) = value {
        entries.push(Entry {
            key: key.to_owned(),
            position: value.position.clone(),
            value,
        });
    }
}

/// Makes a map of the given keys.
pub(super) fn map<const N: usize>(at: &Position, keys: [(&str, Option<Node>); N]) -> Node {
    let mut entries = Vec::new();
    for (key, value) in keys {
        push(&mut entries, key, value);
    }
    Node {
        position: at.clone(),
        value: Value::Map(entries),
    }
}

/// Declares a part with fixed keys: each line is a field, its type and its key in the native file.
macro_rules! part {
    ($(#[$about:meta])+ $name:ident { $( $(#[$doc:meta])+ $field:ident: $type:ty = $key:literal, )+ }) => {
        $(#[$about])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            /// Where it was written; `None`: where the part around it was.
            pub at: Option<crate::model::Position>,
            $( $(#[$doc])+ pub $field: $type, )+
        }

        impl $crate::import::native::Part for $name {
            fn part(&self, at: &crate::model::Position) -> Option<crate::node::Node> {
                let mut entries = Vec::new();
                let place = self.at.as_ref().unwrap_or(at);
                $( $crate::import::native::part::push(
                    &mut entries,
                    $key,
                    $crate::import::native::Part::part(&self.$field, place),
                ); )+
                (!entries.is_empty()).then(|| crate::node::Node {
                    position: place.clone(),
                    value: crate::node::Value::Map(entries),
                })
            }

            fn whole(&self, at: &crate::model::Position) -> crate::node::Node {
                let position = self.at.as_ref().unwrap_or(at);
                self.part(at).unwrap_or_else(|| crate::node::Node {
                    position: position.clone(),
                    value: crate::node::Value::Map(Vec::new()),
                })
            }
        }
    };
}

pub(super) use part;
