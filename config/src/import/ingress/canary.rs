//! Canaries: some requests of a location go elsewhere, by header, else by cookie, else by weight.

use super::annotations::Annotations;
use super::legal;
use crate::import::Leaf;
use crate::import::native::{Action, Match, Member, ValueRule};
use crate::schema::{CookieName, MatchHeader, Pattern};

/// A part of a location's requests: what they have besides host and path, and what is done with them.
pub(super) struct Variant {
    /// Headers and cookies only.
    pub(super) condition: Match,
    pub(super) action: Action,
}

/// Divides the requests of a location; the first that fits counts.
///
/// * `main`, `canary`: names of clusters; `None`: it cannot be said, and its share is answered by `instead`
pub(super) fn variants(
    notes: Annotations<'_>,
    main: Option<&Leaf>,
    canary: Option<&Leaf>,
    instead: &Action,
) -> Vec<Variant> {
    let to = |cluster: Option<&Leaf>| match cluster {
        Some(cluster) => Action::Cluster(cluster.clone()),
        None => instead.clone(),
    };
    let mut variants = Vec::new();
    let mut add = |condition: Match, cluster: Option<&Leaf>| {
        variants.push(Variant {
            condition,
            action: to(cluster),
        });
    };
    for (condition, chosen) in headers(notes).into_iter().chain(cookies(notes)) {
        add(condition, if chosen { canary } else { main });
    }
    let (weight, total) = weights(notes);
    let share = match (main, canary) {
        _ if weight == 0 => to(main),
        _ if weight >= total => to(canary),
        (Some(main), Some(canary)) => {
            let at = notes.place("canary-weight").unwrap_or(canary.at());
            let member = |cluster: &Leaf, weight: i64| Member {
                cluster: Some(cluster.clone()),
                weight: Some(Leaf::number(at, weight)),
                ..Member::default()
            };
            Action::Split(vec![member(main, total - weight), member(canary, weight)])
        }
        (main, _) => {
            notes.lost(
                "canary-weight",
                "a backend cannot be said: the main one has all",
            );
            to(main)
        }
    };
    variants.push(Variant {
        condition: Match::default(),
        action: share,
    });
    variants
}

/// Returns conditions on the header, and whether the canary has those requests.
fn headers(notes: Annotations<'_>) -> Vec<(Match, bool)> {
    let name = notes.word("canary-by-header");
    let value = notes.word("canary-by-header-value");
    let pattern = notes.word("canary-by-header-pattern");
    let Some(name) = name else {
        for other in ["canary-by-header-value", "canary-by-header-pattern"] {
            if notes.has(other) {
                notes.approximated(other, "nginx ignores it without `canary-by-header`");
            }
        }
        return Vec::new();
    };
    let name = name.with(name.as_str().to_ascii_lowercase());
    if !legal::is_key::<MatchHeader>(&name) {
        notes.lost("canary-by-header", "it is no header that can be matched");
        return Vec::new();
    }
    let with = |rule: ValueRule| {
        let mut one = Match::default();
        one.headers.add(name.clone(), rule);
        one
    };
    match (value, pattern) {
        (Some(value), pattern) => {
            if pattern.is_some() {
                let note = "`canary-by-header-value` counts instead";
                notes.approximated("canary-by-header-pattern", note);
            }
            vec![(with(ValueRule::Equals(value)), true)]
        }
        (None, Some(pattern)) => {
            // Anywhere in the value; an expression with an anchor of its own is looked for.
            let anywhere = pattern.with(format!("^.*(?:{pattern})"));
            if legal::is::<Pattern>(&anywhere) && legal::is::<Pattern>(&pattern) {
                return vec![(with(ValueRule::Regex(anywhere)), true)];
            }
            let note = "the regular expression is not understood";
            notes.lost("canary-by-header-pattern", note);
            Vec::new()
        }
        (None, None) => vec![
            (with(ValueRule::Equals(name.with("always"))), true),
            (with(ValueRule::Equals(name.with("never"))), false),
        ],
    }
}

/// Returns conditions on the cookie, and whether the canary has those requests.
fn cookies(notes: Annotations<'_>) -> Vec<(Match, bool)> {
    let Some(name) = notes.word("canary-by-cookie") else {
        return Vec::new();
    };
    if !legal::is_key::<CookieName>(&name) {
        notes.lost("canary-by-cookie", "it is no name of a cookie");
        return Vec::new();
    }
    let with = |value: &str| {
        let mut one = Match::default();
        let rule = ValueRule::Equals(name.with(value));
        one.cookies.add(name.clone(), rule);
        one
    };
    vec![(with("always"), true), (with("never"), false)]
}

/// Returns the canary's weight and that of both. nginx takes a total below 100 for 100.
fn weights(notes: Annotations<'_>) -> (i64, i64) {
    let number = |name| {
        let leaf = notes.number(name, 0..=1_000_000);
        leaf.as_ref().and_then(Leaf::whole)
    };
    let total = number("canary-weight-total").unwrap_or(100).max(100);
    (number("canary-weight").unwrap_or(0).min(total), total)
}
