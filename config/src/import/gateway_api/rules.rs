//! Rules of routes become native routes.

use super::attach::Group;
use super::backends::{self, Source};
use super::filters::{self, Filters};
use super::grants::Grants;
use super::{GRPC, clocks, matches};
use crate::import::native::{Action, Match, Mirror, PathRule, Route};
use crate::import::{Document, Fields, Leaf, Work};

/// Translates all rules of a route, which is attached to `groups`.
pub(super) fn translate(
    document: &Document<'_>,
    spec: Fields<'_>,
    groups: &[Group],
    grants: &Grants,
    work: &mut Work<'_>,
) {
    let source = Source { document, grants };
    let rules = spec.maps("rules");
    if rules.is_empty() && document.kind != GRPC && !spec.has("rules") {
        // The default: one rule that takes everything and has no backend.
        let name = work.name(document, 0, document.at());
        let route = Route::new(document.at(), name, backends::refuse(spec, &source));
        place(route, &[Match::default()], groups, work);
    }
    for (index, rule) in rules.into_iter().enumerate() {
        one(rule, index, groups, &source, work);
    }
}

fn one(rule: Fields<'_>, index: usize, groups: &[Group], source: &Source<'_>, work: &mut Work<'_>) {
    let document = source.document;
    let matches = match document.kind {
        GRPC => matches::grpc(rule),
        _ => matches::http(rule),
    };
    let Some(mut matches) = matches else {
        for key in ["filters", "backendRefs", "timeouts", "retry"] {
            rule.lost(key, "no match of the rule is left");
        }
        return;
    };
    let prefixed = matches
        .iter()
        .all(|one| matches!(one.path, Some(PathRule::Prefix(_))));
    let mut filters = filters::read(rule, prefixed, source, work);
    if filters.redirect.is_some() && rule.count("backendRefs").is_some_and(|count| count > 0) {
        rule.lost("backendRefs", "the rule redirects");
    }
    let action = backends::action(rule, prefixed, &mut filters, source, work);
    let name = work.name(document, index, rule.at());
    let mut route = Route::new(rule.at(), name, action);
    let timeouts = clocks::timeouts(rule);
    let retry = clocks::retry(rule, &timeouts);
    let Filters {
        request,
        response,
        mirrors,
        redirect,
        rewrite,
        cors,
        broken,
        copying,
        answering,
    } = filters;
    if broken {
        route.action = backends::refuse(rule, source);
    } else if let Some(redirect) = redirect {
        route.action = Action::Redirect(Box::new(redirect));
    }
    let note = "nothing is forwarded, so nothing is copied";
    match route.action {
        Action::Redirect(_) => {
            copying.iter().for_each(|filter| filter.lost_here(note));
            let note = "the headers of a redirect are not edited";
            answering.iter().for_each(|filter| filter.lost_here(note));
        }
        Action::Respond(_) => {
            copying.iter().for_each(|filter| filter.lost_here(note));
            route.response_headers = response;
        }
        _ => route.response_headers = response,
    }
    route.cors = cors;
    if matches!(route.action, Action::Cluster(_) | Action::Split(_)) {
        route.request_headers = request;
        route.mirrors = distinct(mirrors);
        route.rewrite = rewrite;
        route.timeouts = timeouts;
        route.retry = retry;
    }
    if route.rewrite.prefix.is_none() {
        matches.iter_mut().for_each(bare);
    }
    place(route, &matches, groups, work);
}

/// Leaves out the prefix `/`, which every path has: expressions come before a match without a path.
fn bare(one: &mut Match) {
    if matches!(&one.path, Some(PathRule::Prefix(prefix)) if prefix.as_str() == "/") {
        one.path = None;
    }
}

/// Gives mirrors of the same cluster different names.
fn distinct(mut mirrors: Vec<Mirror>) -> Vec<Mirror> {
    for index in 1..mirrors.len() {
        let (before, rest) = mirrors.split_at_mut(index);
        let Some(cluster) = rest[0].cluster.clone() else {
            continue;
        };
        let same = before.iter().filter(|one| {
            one.cluster
                .as_ref()
                .is_some_and(|own| own.as_str() == cluster.as_str())
        });
        let number = same.count();
        if number > 0 {
            rest[0].name = Some(cluster.with(format!("{cluster}-{}", number + 1)));
        }
    }
    mirrors
}

/// Adds a route for each group of listeners.
fn place(route: Route, matches: &[Match], groups: &[Group], work: &mut Work<'_>) {
    for group in groups {
        let mut route = route.clone();
        route.listeners = group.listeners.clone();
        let named = group.hosts.iter().filter(|host| !host.is_empty());
        let hosts: Vec<Leaf> = named
            .map(|host| Leaf::text(&route.at, host.as_str()))
            .collect();
        for one in matches {
            if hosts.len() < group.hosts.len() {
                route.matches.push(one.clone());
            }
            if !hosts.is_empty() {
                let mut one = one.clone();
                one.hosts = hosts.clone();
                route.matches.push(one);
            }
        }
        let everything = |one: &Match| {
            Match {
                at: None,
                ..one.clone()
            } == Match::default()
        };
        if route.matches.iter().any(everything) {
            // One that takes everything alone is written as no match at all.
            let only = route.matches.len() == 1;
            route.matches.retain(|one| !only || !everything(one));
        }
        work.output.routes.push(route);
    }
}
