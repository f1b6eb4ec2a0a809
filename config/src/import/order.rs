//! Priorities that keep the order of formats where the first match wins.

use std::collections::{BTreeMap, HashMap};

use super::native::{Action, Match, Order, PathRule, Respond, Route};
use super::{Leaf, Output};

/// How specific a match is by the native rules, once its host is found: greater wins.
type Rank = (u8, usize, bool, usize, usize, bool);

/// How specific a host is: greater is more.
type Class = (u8, usize);

/// What is known of one host while its routes are walked from the last to the first.
#[derive(Clone, Copy)]
struct Height {
    priority: i32,
    best: Option<Rank>,
}

/// A host that others cover: what none of its routes takes is answered 404.
struct Fence<'h> {
    host: &'h str,
    /// The last of its routes.
    last: usize,
    priority: i32,
    /// Those that its routes are on; none: all.
    listeners: Vec<Leaf>,
}

/// Returns the listeners that any of the routes is on; none: all.
fn listeners<'r>(routes: impl Iterator<Item = &'r Route>) -> Vec<Leaf> {
    let mut all: Vec<Leaf> = Vec::new();
    for route in routes {
        if route.listeners.is_empty() {
            return Vec::new();
        }
        for name in &route.listeners {
            if !all.iter().any(|known| known.as_str() == name.as_str()) {
                all.push(name.clone());
            }
        }
    }
    all
}

/// True when the wide list of listeners has all of the narrow one; an empty list is all there are.
fn includes(wide: &[Leaf], narrow: &[Leaf]) -> bool {
    let has = |name: &Leaf| wide.iter().any(|known| known.as_str() == name.as_str());
    wide.is_empty() || !narrow.is_empty() && narrow.iter().all(has)
}

/// Gives each route of a first-match format the smallest priority that keeps the order within each of its hosts, and
/// keeps a more specific host above those that cover it. A route whose hosts need several priorities is taken apart.
/// Returns the routes in the order they were added.
///
/// Such formats choose a host before they look at anything else, and never another one. So a host that others cover
/// gets a last route that answers 404.
pub(super) fn ranked(output: &Output) -> Vec<(Route, i32)> {
    let first: Vec<usize> = (0..output.routes.len())
        .filter(|index| output.routes[*index].order == Order::FirstMatch)
        .collect();
    let mut classes: BTreeMap<Class, Vec<(&str, Vec<usize>)>> = BTreeMap::new();
    let mut places: HashMap<&str, (Class, usize)> = HashMap::new();
    for index in first {
        for host in hosts(&output.routes[index]) {
            let class = class(host);
            let hosts = classes.entry(class).or_default();
            let (_, place) = *places.entry(host).or_insert_with(|| {
                hosts.push((host, Vec::new()));
                (class, hosts.len() - 1)
            });
            if hosts[place].1.last() != Some(&index) {
                hosts[place].1.push(index);
            }
        }
    }
    let mut heights: HashMap<&str, Height> = HashMap::new();
    let mut priorities: HashMap<usize, BTreeMap<i32, Vec<&str>>> = HashMap::new();
    let mut fences: Vec<Fence<'_>> = Vec::new();
    for hosts in classes.values() {
        for (host, routes) in hosts {
            let covers = covering(host);
            let below = covers
                .iter()
                .filter_map(|cover| heights.get(cover.as_str()));
            let below = below.map(|height| height.priority).max();
            let last = *routes.last().unwrap_or(&0);
            let listeners = listeners(routes.iter().map(|index| &output.routes[*index]));
            let closed = catches_all(&output.routes[last], host)
                && includes(&output.routes[last].listeners, &listeners);
            if let Some(priority) = below.filter(|_| !closed) {
                fences.push(Fence {
                    host,
                    last,
                    priority,
                    listeners,
                });
            }
            let start = Height {
                priority: below.unwrap_or(0),
                best: None,
            };
            heights.insert(host, start);
        }
        let mut members: Vec<(usize, &str)> = hosts
            .iter()
            .flat_map(|(host, routes)| routes.iter().map(|index| (*index, *host)))
            .collect();
        members.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for group in members.chunk_by(|a, b| a.0 == b.0) {
            let index = group[0].0;
            let priority = climb(&output.routes[index], group, &mut heights);
            let hosts = priorities.entry(index).or_default();
            hosts
                .entry(priority)
                .or_default()
                .extend(group.iter().map(|(_, host)| *host));
        }
    }
    assemble(output, &priorities, &fences)
}

/// Finds the priority of a route among those behind it on the same hosts, and notes it.
fn climb<'h>(
    route: &Route,
    group: &[(usize, &'h str)],
    heights: &mut HashMap<&'h str, Height>,
) -> i32 {
    let (worst, best) = ranks(route);
    let needed = group.iter().filter_map(|(_, host)| heights.get(host));
    let needed = needed.map(|height| match height.best {
        Some(best) if worst < best => height.priority.saturating_add(1),
        _ => height.priority,
    });
    let priority = needed.max().unwrap_or(0);
    for (_, host) in group {
        let height = heights.entry(host).or_insert(Height {
            priority,
            best: None,
        });
        let same = height.priority == priority;
        height.best = Some(best).max(height.best.filter(|_| same));
        height.priority = priority;
    }
    priority
}

fn assemble(
    output: &Output,
    priorities: &HashMap<usize, BTreeMap<i32, Vec<&str>>>,
    fences: &[Fence<'_>],
) -> Vec<(Route, i32)> {
    let mut routes = Vec::with_capacity(output.routes.len() + fences.len());
    for (index, route) in output.routes.iter().enumerate() {
        let Some(parts) = priorities.get(&index).filter(|parts| parts.len() > 1) else {
            let parts = priorities.get(&index).and_then(|parts| parts.keys().next());
            routes.push((route.clone(), parts.copied().unwrap_or(0)));
            continue;
        };
        for (priority, hosts) in parts.iter().rev() {
            let mut part = route.clone();
            part.matches.retain_mut(|one| {
                if one.hosts.is_empty() {
                    return hosts.contains(&"");
                }
                one.hosts.retain(|host| hosts.contains(&host.as_str()));
                !one.hosts.is_empty()
            });
            routes.push((part, *priority));
        }
    }
    let mut closed: BTreeMap<(usize, i32, Vec<&str>), Vec<Leaf>> = BTreeMap::new();
    for fence in fences {
        let at = &output.routes[fence.last].at;
        let names = fence.listeners.iter().map(Leaf::as_str).collect();
        let hosts = closed.entry((fence.last, fence.priority, names));
        hosts.or_default().push(Leaf::text(at, fence.host));
    }
    for ((last, priority, listeners), hosts) in closed {
        let like = &output.routes[last];
        let respond = Respond {
            status: Some(Leaf::number(&like.at, 404)),
            ..Respond::default()
        };
        let name = like.name.with(format!("{}/no-match", like.name));
        let mut fence = Route::new(&like.at, name, Action::Respond(Box::new(respond)));
        let listeners = listeners.into_iter();
        fence.listeners = listeners.map(|name| like.name.with(name)).collect();
        fence.matches.push(Match {
            hosts,
            ..Match::default()
        });
        routes.push((fence, priority));
    }
    routes
}

/// Returns the hosts of a route; an empty one stands for any.
fn hosts(route: &Route) -> Vec<&str> {
    let mut hosts: Vec<&str> = Vec::new();
    for one in &route.matches {
        match one.hosts.as_slice() {
            [] => hosts.push(""),
            some => hosts.extend(some.iter().map(Leaf::as_str)),
        }
    }
    if route.matches.is_empty() {
        hosts.push("");
    }
    hosts
}

/// Orders hosts: any, wildcards by length, exact ones.
fn class(host: &str) -> Class {
    match host {
        "" => (0, 0),
        host if host.starts_with("*.") => (1, host.len()),
        _ => (2, 0),
    }
}

/// Returns the wider hosts that a host is covered by.
fn covering(host: &str) -> Vec<String> {
    let mut covers = Vec::new();
    let mut rest = host.strip_prefix("*.").unwrap_or(host);
    while let Some((_, wider)) = rest.split_once('.') {
        covers.push(format!("*.{wider}"));
        rest = wider;
    }
    if !host.is_empty() {
        covers.push(String::new());
    }
    covers
}

/// True when a route takes every request to `host`.
fn catches_all(route: &Route, host: &str) -> bool {
    let bare = |one: &Match| {
        let anywhere = one.hosts.is_empty() || one.hosts.iter().any(|leaf| leaf.as_str() == host);
        anywhere && rank(one) == Rank::default()
    };
    route.matches.is_empty() || route.matches.iter().any(bare)
}

/// Returns the lowest and the highest rank of a route's matches.
fn ranks(route: &Route) -> (Rank, Rank) {
    let ranks = || route.matches.iter().map(rank);
    (
        ranks().min().unwrap_or_default(),
        ranks().max().unwrap_or_default(),
    )
}

fn rank(one: &Match) -> Rank {
    let (kind, length) = match &one.path {
        Some(PathRule::Exact(_)) => (3, 0),
        Some(PathRule::Prefix(prefix)) if prefix.as_str() == "/" => (0, 0),
        Some(PathRule::Prefix(prefix)) => (2, prefix.as_str().trim_end_matches('/').len()),
        Some(PathRule::Regex(_)) => (1, 0),
        None => (0, 0),
    };
    (
        kind,
        length,
        !one.methods.is_empty(),
        one.headers.len() + one.cookies.len(),
        one.query.len(),
        one.model.is_some(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Position;

    fn at() -> Position {
        Position {
            file: Arc::from("a.yaml"),
            line: 1,
            column: 1,
        }
    }

    fn route(name: &str, host: &str, path: Option<PathRule>) -> Route {
        let leaf = |text: &str| Leaf::text(&at(), text);
        let mut route = Route::new(&at(), leaf(name), Action::Cluster(leaf("c")));
        route.order = Order::FirstMatch;
        let hosts = host.split(' ').filter(|host| !host.is_empty());
        route.matches.push(Match {
            hosts: hosts.map(leaf).collect(),
            path,
            ..Match::default()
        });
        route
    }

    fn prefix(path: &str) -> Option<PathRule> {
        Some(PathRule::Prefix(Leaf::text(&at(), path)))
    }

    fn exact(path: &str) -> Option<PathRule> {
        Some(PathRule::Exact(Leaf::text(&at(), path)))
    }

    fn given(routes: Vec<Route>) -> Vec<(String, i32)> {
        let mut output = Output::default();
        output.routes = routes;
        let ranked = ranked(&output).into_iter();
        ranked
            .map(|(route, priority)| (route.name.as_str().to_owned(), priority))
            .collect()
    }

    fn wanted(names: &[(&str, i32)]) -> Vec<(String, i32)> {
        let names = names.iter();
        names.map(|(name, p)| ((*name).to_owned(), *p)).collect()
    }

    #[test]
    fn what_is_in_native_order_needs_no_priority() {
        let routes = vec![
            route("a", "h", exact("/x/y")),
            route("b", "h", prefix("/x/y")),
            route("c", "h", prefix("/x")),
            route("d", "h", None),
        ];
        assert_eq!(
            given(routes),
            wanted(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)])
        );
    }

    #[test]
    fn a_wide_route_before_a_narrow_one_gets_a_priority() {
        let routes = vec![
            route("a", "h", prefix("/x")),
            route("b", "h", exact("/x/y")),
            route("c", "h", prefix("/x/y")),
            route("d", "i", exact("/x")),
        ];
        assert_eq!(
            given(routes),
            wanted(&[("a", 1), ("b", 0), ("c", 0), ("d", 0)])
        );
    }

    #[test]
    fn a_more_specific_host_stays_above_and_is_closed() {
        let routes = vec![
            route("a", "*.h.com", None),
            route("b", "*.h.com", exact("/x")),
            route("c", "a.h.com", prefix("/y")),
        ];
        assert_eq!(
            given(routes),
            wanted(&[("a", 1), ("b", 0), ("c", 1), ("c/no-match", 1)])
        );
    }

    #[test]
    fn a_route_whose_hosts_need_several_priorities_is_taken_apart() {
        let routes = vec![
            route("a", "*.com a.h.com", None),
            route("b", "*.com", exact("/x")),
            route("c", "b.h.com", None),
            route("d", "a.i.org", None),
        ];
        assert_eq!(
            given(routes),
            wanted(&[("a", 1), ("b", 0), ("c", 1), ("d", 0)])
        );
        let routes = vec![
            route("a", "*.com a.org", None),
            route("b", "*.com", exact("/x")),
        ];
        assert_eq!(given(routes), wanted(&[("a", 1), ("a", 0), ("b", 0)]));
    }
}
