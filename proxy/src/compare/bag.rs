//! Arrays as bags: equal when their elements can be paired off, whatever their order.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::found::{MOST_EXAMPLE, ORDERED, Step};
use super::number;
use super::tree::Tree;
use super::walk::{Live, Walk, below};

/// Longer arrays are compared in order.
const MOST_ELEMENTS: usize = 1000;

type Elements<'t> = Vec<&'t Tree<'t>>;

impl<'t> Walk<'t> {
    /// Compares two arrays as bags. Only `*` means their elements in a pointer: they have no index. False, and nothing
    /// reported: they are too long, or the walk has cost too much already, and must be compared in order.
    pub(super) fn bags(
        &mut self,
        left: &'t [Tree<'t>],
        right: &'t [Tree<'t>],
        live: &Live<'t>,
    ) -> bool {
        let Some(inner) = below(live, Step::Element) else {
            return true;
        };
        self.steps = self.steps.saturating_sub(left.len() + right.len());
        let paired = if left.len().max(right.len()) > MOST_ELEMENTS || self.steps == 0 {
            None
        } else {
            self.unpaired(left, right, &inner)
        };
        let Some((left, right)) = paired else {
            self.found.notes.insert(ORDERED);
            return false;
        };
        if self.quiet {
            self.differs |= !left.is_empty() || !right.is_empty();
            return true;
        }
        for index in 0..left.len().max(right.len()) {
            let (left, right) = (left.get(index).copied(), right.get(index).copied());
            self.step(Step::Element, left, right, live);
        }
        true
    }

    /// The elements that find no partner, those likely to belong together at the same index. `None`: too much effort.
    fn unpaired(
        &mut self,
        left: &'t [Tree<'t>],
        right: &'t [Tree<'t>],
        live: &Live<'t>,
    ) -> Option<(Elements<'t>, Elements<'t>)> {
        let (left_plain, left_deep) = left
            .iter()
            .partition::<Elements<'t>, _>(|tree| is_plain(tree));
        let (right_plain, right_deep) = right
            .iter()
            .partition::<Elements<'t>, _>(|tree| is_plain(tree));
        let (mut left, mut right) = self.plain(left_plain, right_plain);
        if self.quiet && !(left.is_empty() && right.is_empty()) {
            return Some((left, right));
        }
        let (left_deep, right_deep) = self.deep(left_deep, right_deep, live)?;
        left.extend(left_deep);
        right.extend(right_deep);
        left.sort_by_cached_key(|tree| tree.excerpt(MOST_EXAMPLE));
        right.sort_by_cached_key(|tree| tree.excerpt(MOST_EXAMPLE));
        Some((left, right))
    }

    /// Pairs off what has no elements. In sorted order, what a number is near to is one stretch that only moves up, so
    /// that taking the first fit leaves as few as can be.
    fn plain(
        &self,
        mut left: Elements<'t>,
        mut right: Elements<'t>,
    ) -> (Elements<'t>, Elements<'t>) {
        left.sort_by(|left, right| order(left, right));
        right.sort_by(|left, right| order(left, right));
        let (mut lefts, mut rights) = (left.into_iter().peekable(), right.into_iter().peekable());
        let mut unpaired = (Vec::new(), Vec::new());
        while let (Some(&left), Some(&right)) = (lefts.peek(), rights.peek()) {
            let near = match (left, right) {
                (Tree::Number(left), Tree::Number(right)) => {
                    number::near(left, right, self.config.tolerance)
                }
                _ => left == right,
            };
            if near {
                lefts.next();
                rights.next();
            } else if order(left, right).is_lt() {
                unpaired.0.extend(lefts.next());
            } else {
                unpaired.1.extend(rights.next());
            }
        }
        unpaired.0.extend(lefts);
        unpaired.1.extend(rights);
        unpaired
    }

    /// Pairs off arrays and objects: a largest matching, found by augmenting paths.
    fn deep(
        &mut self,
        left: Elements<'t>,
        right: Elements<'t>,
        live: &Live<'t>,
    ) -> Option<(Elements<'t>, Elements<'t>)> {
        let mut known: Vec<Option<bool>> = vec![None; left.len() * right.len()];
        let mut mates: Vec<Option<usize>> = vec![None; left.len()];
        let mut owners: Vec<Option<usize>> = vec![None; right.len()];
        let mut same = |walk: &mut Self, one: usize, other: usize| {
            walk.steps = walk.steps.checked_sub(1)?;
            let known = &mut known[one * right.len() + other];
            Some(*known.get_or_insert_with(|| walk.same(left[one], right[other], live)))
        };
        for start in 0..left.len() {
            // Nearly always the order is the same.
            if start < right.len() && owners[start].is_none() && same(self, start, start)? {
                owners[start] = Some(start);
                mates[start] = Some(start);
                continue;
            }
            let mut reached: Vec<Option<usize>> = vec![None; right.len()];
            let mut queue = VecDeque::from([start]);
            'search: while let Some(one) = queue.pop_front() {
                for other in 0..right.len() {
                    if reached[other].is_some() || !same(self, one, other)? {
                        continue;
                    }
                    reached[other] = Some(one);
                    match owners[other] {
                        Some(owner) => queue.push_back(owner),
                        None => {
                            augment(other, &reached, &mut mates, &mut owners);
                            break 'search;
                        }
                    }
                }
            }
        }
        let unpaired = |elements: Elements<'t>, partners: &[Option<usize>]| {
            let pairs = elements.into_iter().zip(partners);
            pairs
                .filter(|(_, partner)| partner.is_none())
                .map(|(element, _)| element)
                .collect()
        };
        Some((unpaired(left, &mates), unpaired(right, &owners)))
    }
}

/// Gives `end` to the one that reached it, what that one had to the one that reached it, and so on to the start.
fn augment(
    end: usize,
    reached: &[Option<usize>],
    mates: &mut [Option<usize>],
    owners: &mut [Option<usize>],
) {
    let mut next = Some(end);
    while let Some(other) = next {
        owners[other] = reached[other];
        next = reached[other].and_then(|one| mates[one].replace(other));
    }
}

fn is_plain(tree: &Tree<'_>) -> bool {
    !matches!(tree, Tree::List(_) | Tree::Record(_))
}

/// Orders what has no elements: by kind, then by value.
fn order(left: &Tree<'_>, right: &Tree<'_>) -> Ordering {
    let kind = |tree: &Tree<'_>| match tree {
        Tree::Null => 0,
        Tree::Bool(_) => 1,
        Tree::Number(_) => 2,
        Tree::Text(_) => 3,
        Tree::List(_) | Tree::Record(_) => 4,
    };
    match (left, right) {
        (Tree::Bool(left), Tree::Bool(right)) => left.cmp(right),
        (Tree::Number(left), Tree::Number(right)) => number::order(left, right),
        (Tree::Text(left), Tree::Text(right)) => left.cmp(right),
        _ => kind(left).cmp(&kind(right)),
    }
}
