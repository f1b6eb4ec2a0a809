//! Wanted places as a tree, compiled when the configuration loads.

use crate::pointer::Pointer;

/// The places whose values are wanted, compiled once and shared by every document that is searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    wanted: Vec<Pointer>,
    nodes: Vec<Node>, // the first is the document; none: nothing is wanted
    any_case: bool,
}

/// A place that is wanted or contains one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    children: Vec<Child>,
    slot: Option<usize>, // in `wanted`
    below: Vec<usize>,   // slots of this place and all it contains
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Child {
    token: String,
    index: Option<u64>, // what `token` means in an array
    node: usize,
}

impl Places {
    /// Compiles a list of places; `*` is a name like any other here.
    pub fn new(wanted: &[Pointer]) -> Self {
        let mut places = Self {
            wanted: wanted.to_vec(),
            nodes: Vec::new(),
            any_case: false,
        };
        for (slot, pointer) in wanted.iter().enumerate() {
            if places.slot(pointer) == Some(slot) {
                places.add(slot, pointer);
            }
        }
        places
    }

    fn add(&mut self, slot: usize, pointer: &Pointer) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut node = 0;
        self.nodes[node].below.push(slot);
        for token in &pointer.tokens {
            node = match self.named(node, token) {
                Some(child) => child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[node].children.push(Child {
                        token: token.clone(),
                        index: array_index(token),
                        node: child,
                    });
                    child
                }
            };
            self.nodes[node].below.push(slot);
        }
        self.nodes[node].slot = Some(slot);
    }

    /// The same places under names in whatever ASCII case.
    #[must_use]
    pub(super) fn in_any_case(self) -> Self {
        Self {
            any_case: true,
            ..self
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Where in the list the place stands first.
    pub(super) fn slot(&self, pointer: &Pointer) -> Option<usize> {
        self.wanted.iter().position(|wanted| wanted == pointer)
    }

    /// The slot that the value at this node is wanted for.
    pub(super) fn wanted_at(&self, node: usize) -> Option<usize> {
        self.nodes[node].slot
    }

    /// The slots of this node and all it contains.
    pub(super) fn below(&self, node: usize) -> &[usize] {
        &self.nodes[node].below
    }

    /// True when something inside this node is wanted.
    pub(super) fn has_children(&self, node: usize) -> bool {
        !self.nodes[node].children.is_empty()
    }

    /// The member of an object.
    pub(super) fn named(&self, node: usize, token: &str) -> Option<usize> {
        let mut children = self.nodes[node].children.iter();
        let child = match self.any_case {
            false => children.find(|child| child.token == token),
            true => children.find(|child| child.token.eq_ignore_ascii_case(token)),
        };
        Some(child?.node)
    }

    /// The element of an array.
    pub(super) fn numbered(&self, node: usize, index: u64) -> Option<usize> {
        let mut children = self.nodes[node].children.iter();
        let child = children.find(|child| child.index == Some(index))?;
        Some(child.node)
    }

    /// The last element of the array at this node in which anything is wanted.
    pub(super) fn last_numbered(&self, node: usize) -> Option<u64> {
        let children = self.nodes[node].children.iter();
        children.filter_map(|child| child.index).max()
    }
}

/// Reads an index as RFC 6901 writes it: decimal without leading zeros.
fn array_index(token: &str) -> Option<u64> {
    let plain = token.bytes().all(|b| b.is_ascii_digit());
    let canonical = token == "0" || !token.starts_with('0');
    (plain && canonical).then(|| token.parse().ok()).flatten()
}
