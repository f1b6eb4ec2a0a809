//! Two documents, walked together field by field.

use std::cmp::Ordering;

use forebay_config::Compare;

use super::found::{Difference, Differences, Step, name, shown};
use super::number;
use super::tree::Tree;

/// Comparisons of values in one walk beyond which arrays are no longer taken as bags.
const MOST_STEPS: usize = 8_000_000;

/// Pointers to what is ignored, as far as they lead below the place that is looked at; none is at its end.
pub(super) type Live<'c> = Vec<&'c [String]>;

/// A walk through two documents.
pub(super) struct Walk<'t> {
    pub(super) config: &'t Compare,
    /// Names that are added however many there are.
    also: Option<&'t Differences>,
    pub(super) found: &'t mut Differences,
    path: Vec<Step<'t>>,
    /// What is left of the effort that bags may cost.
    pub(super) steps: usize,
    /// Only whether there is a difference is asked; the first one ends the walk.
    pub(super) quiet: bool,
    pub(super) differs: bool,
}

/// Adds to `found` what two documents differ in.
pub(super) fn walk<'t>(
    left: &'t Tree<'t>,
    right: &'t Tree<'t>,
    config: &'t Compare,
    also: Option<&'t Differences>,
    found: &'t mut Differences,
) {
    let live: Live<'_> = config
        .ignore
        .iter()
        .map(|pointer| pointer.tokens.as_slice())
        .collect();
    if live.iter().any(|tokens| tokens.is_empty()) {
        return;
    }
    let path = Vec::new();
    let (steps, quiet, differs) = (MOST_STEPS, false, false);
    Walk {
        config,
        also,
        found,
        path,
        steps,
        quiet,
        differs,
    }
    .values(left, right, &live);
}

impl<'t> Walk<'t> {
    fn values(&mut self, left: &'t Tree<'t>, right: &'t Tree<'t>, live: &Live<'t>) {
        self.steps = self.steps.saturating_sub(1);
        match (left, right) {
            (Tree::Null, Tree::Null) => {}
            (Tree::Bool(left), Tree::Bool(right)) if left == right => {}
            (Tree::Number(left), Tree::Number(right))
                if number::near(left, right, self.config.tolerance) => {}
            (Tree::Text(left), Tree::Text(right)) if left == right => {}
            (Tree::List(left), Tree::List(right)) => {
                if self.config.array_order || !self.bags(left, right, live) {
                    self.lists(left, right, live);
                }
            }
            (Tree::Record(left), Tree::Record(right)) => self.records(left, right, live),
            _ => self.differ(Some(left), Some(right)),
        }
    }

    fn lists(&mut self, left: &'t [Tree<'t>], right: &'t [Tree<'t>], live: &Live<'t>) {
        for index in 0..left.len().max(right.len()) {
            if self.is_over() {
                return;
            }
            self.step(Step::Index(index), left.get(index), right.get(index), live);
        }
    }

    fn records(&mut self, left: &'t [Member<'t>], right: &'t [Member<'t>], live: &Live<'t>) {
        let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
        while !self.is_over() {
            let order = match (left.peek(), right.peek()) {
                (Some((left, _)), Some((right, _))) => left.cmp(right),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let left = if order.is_le() { left.next() } else { None };
            let right = if order.is_ge() { right.next() } else { None };
            if let Some((key, _)) = left.or(right) {
                let value = |member: &'t Member<'t>| &member.1;
                self.step(Step::Member(key), left.map(value), right.map(value), live);
            }
        }
    }

    /// Compares what is one step below, unless it is ignored.
    pub(super) fn step(
        &mut self,
        step: Step<'t>,
        left: Option<&'t Tree<'t>>,
        right: Option<&'t Tree<'t>>,
        live: &Live<'t>,
    ) {
        let Some(live) = below(live, step) else {
            return;
        };
        self.path.push(step);
        match (left, right) {
            (Some(left), Some(right)) => self.values(left, right, &live),
            (left, right) => self.differ(left, right),
        }
        self.path.pop();
    }

    /// True when two values are equal; `live` are the pointers below their place.
    pub(super) fn same(
        &mut self,
        left: &'t Tree<'t>,
        right: &'t Tree<'t>,
        live: &Live<'t>,
    ) -> bool {
        let quiet = std::mem::replace(&mut self.quiet, true);
        let differs = std::mem::replace(&mut self.differs, false);
        self.values(left, right, live);
        self.quiet = quiet;
        !std::mem::replace(&mut self.differs, differs)
    }

    fn differ(&mut self, left: Option<&Tree<'_>>, right: Option<&Tree<'_>>) {
        self.differs = true;
        if !self.quiet {
            let values = || Difference {
                primary: shown(left),
                mirror: shown(right),
            };
            self.found.add(name(&self.path), self.also, values);
        }
    }

    fn is_over(&self) -> bool {
        self.quiet && self.differs
    }
}

type Member<'t> = (std::borrow::Cow<'t, str>, Tree<'t>);

/// The pointers that lead further below `step`. `None`: one ends there, all of it is ignored.
pub(super) fn below<'c>(live: &Live<'c>, step: Step<'_>) -> Option<Live<'c>> {
    let mut further = Vec::new();
    for tokens in live {
        match tokens.split_first() {
            Some((token, rest)) if step.is(token) => match rest {
                [] => return None,
                rest => further.push(rest),
            },
            _ => {}
        }
    }
    Some(further)
}
