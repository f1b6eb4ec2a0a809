//! What entries say about each other: names, references, tcp listeners, routes that nothing reaches.

use std::collections::{HashMap, HashSet};

use super::Named;
use super::route::Draft;
use crate::diagnostic::{Code, Diagnostic, did_you_mean, quoted};
use crate::model::{Action, Cluster, Listener, ListenerProtocol, Match, Position};
use crate::schema::{At, List, Path, Reader};

/// Reports names of clusters and listeners that do not exist.
///
/// * `listeners`, `clusters`: the names there are; `None`: not all of them could be read
pub(super) fn references(
    drafts: &[Draft],
    listeners: Option<&HashSet<&str>>,
    clusters: Option<&HashSet<&str>>,
    reader: &mut Reader<'_>,
) {
    for draft in drafts {
        let routes = Path::ROOT.key("routes");
        let path = routes.item(draft.index, Some(&draft.route.name));
        for at in &draft.listeners {
            known("listener", at, listeners, path.key("listeners"), reader);
        }
        for at in &draft.clusters {
            known("cluster", at, clusters, path, reader);
        }
        for reference in &draft.mirrored {
            reference.check(clusters, path, reader);
        }
    }
}

/// Reports a name that nothing has.
///
/// * `names`: the names there are; `None`: not all of them could be read
pub(super) fn known(
    what: &str,
    at: &At<String>,
    names: Option<&HashSet<&str>>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let Some(names) = names else { return };
    if names.contains(&*at.value) {
        return;
    }
    let help = match did_you_mean(&at.value, sorted(names)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("there is no {what} at all"),
        None => {
            let some: Vec<String> = sorted(names)
                .into_iter()
                .take(8)
                .map(|name| format!("`{name}`"))
                .collect();
            format!(
                "there is {}{}",
                some.join(", "),
                if names.len() > 8 { ", …" } else { "" }
            )
        }
    };
    let message = format!("unknown {what} {}", quoted(&at.value));
    reader.refuse(Code::UnknownReference, &at.position, path, message, &help);
}

fn sorted<'a>(names: &HashSet<&'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.iter().copied().collect();
    names.sort_unstable();
    names
}

/// Checks that each tcp listener has the one route that says where its bytes go.
pub(super) fn tcp(drafts: &[Draft], listeners: &[Listener], reader: &mut Reader<'_>) {
    let is_tcp = |listener: &&Listener| listener.protocol == ListenerProtocol::Tcp;
    let tcp: HashSet<&str> = listeners
        .iter()
        .filter(is_tcp)
        .map(|listener| &*listener.name)
        .collect();
    let mut routed: HashMap<&str, &str> = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        let routes = Path::ROOT.key("routes");
        let path = routes.item(index, Some(&draft.route.name));
        for at in draft.listeners.iter().filter(|at| tcp.contains(&*at.value)) {
            let listener = &at.value;
            let mut refuse = |position: &Position, message: String, help: &str| {
                reader.refuse(Code::Tcp, position, path, message, help);
            };
            if let Some(matches) = &draft.matches {
                let message = format!(
                    "the tcp listener `{listener}` has no requests that `match` could look at"
                );
                refuse(
                    matches,
                    message,
                    "remove `match`, or make two routes of this one",
                );
            }
            for (key, position) in &draft.http_only {
                let message = format!(
                    "`{key}` is about HTTP requests, and the tcp listener `{listener}` has none"
                );
                let help = format!("remove `{key}`, or write `{key}: null` if it is a default");
                refuse(position, message, &help);
            }
            if !matches!(draft.route.action, Action::Forward(_)) {
                let message = format!("the tcp listener `{listener}` can only forward");
                refuse(&at.position, message, "use `cluster` or `split`");
            }
            if let Some(first) = routed.insert(listener, &draft.route.name) {
                let message =
                    format!("the tcp listener `{listener}` has the route `{first}` already");
                refuse(
                    &at.position,
                    message,
                    "one route says where its bytes go; a `split` divides connections",
                );
            }
        }
    }
    for (index, listener) in listeners
        .iter()
        .enumerate()
        .filter(|(_, listener)| is_tcp(listener))
    {
        if !routed.contains_key(&*listener.name) {
            let list = Path::ROOT.key("listeners");
            let path = list.item(index, Some(&listener.name));
            let help = format!(
                "add a route with `listeners: [{}]` and a cluster",
                listener.name
            );
            let message = "a tcp listener needs one route that names it";
            reader.refuse(Code::Tcp, &listener.position, path, message, &help);
        }
    }
}

/// Reports what is legal and does nothing.
pub(super) fn warnings(
    drafts: &[Draft],
    listeners: &[Listener],
    clusters: &[Cluster],
    reader: &mut Reader<'_>,
) {
    let by_model = drafts.iter().any(|draft| draft.by_model.is_some());
    let forwarded = drafts.iter().flat_map(|draft| &draft.clusters);
    let mirrored = drafts.iter().flat_map(|draft| &draft.mirrored);
    let used: HashSet<&str> = forwarded
        .chain(mirrored.map(|reference| &reference.cluster))
        .map(|at| &*at.value)
        .collect();
    for (index, cluster) in clusters
        .iter()
        .enumerate()
        .filter(|(_, cluster)| !used.contains(&*cluster.name))
        .filter(|(_, cluster)| !by_model || cluster.models.is_empty())
    {
        let list = Path::ROOT.key("clusters");
        let message = format!(
            "{}: no route names this cluster",
            list.item(index, Some(&cluster.name))
        );
        reader.report(Diagnostic::new(
            Code::UnusedCluster,
            &cluster.position,
            message,
        ));
    }
    unreachable(drafts, listeners, reader);
}

/// Reports entries of a top-level list that no route names.
///
/// * `what`: one of them, for the message
pub(super) fn unused<K: Named>(
    list: Option<&At<List<K>>>,
    key: &'static str,
    what: &str,
    used: &HashSet<&str>,
    reader: &mut Reader<'_>,
) {
    let items = list.map_or(&[][..], |list| &list.value.items);
    for (index, item) in items.iter().enumerate() {
        let name = item.value.name();
        if name.is_some_and(|name| !used.contains(name)) {
            let list = Path::ROOT.key(key);
            let message = format!("{}: no route names this {what}", list.item(index, name));
            reader.report(Diagnostic::new(Code::NoEffect, &item.position, message));
        }
    }
}

/// Conditions, in a spelling that is equal exactly when they are.
type Conditions = (Vec<String>, String);

/// Reports routes that another one always wins against: by the same conditions, or by no conditions and a higher
/// priority.
fn unreachable(drafts: &[Draft], listeners: &[Listener], reader: &mut Reader<'_>) {
    let keys: Vec<Vec<Conditions>> = drafts.iter().map(conditions).collect();
    let mut best: HashMap<&Conditions, usize> = HashMap::new();
    for (index, conditions) in keys.iter().enumerate() {
        for key in conditions {
            let winner = best.entry(key).or_insert(index);
            if drafts[index].route.priority > drafts[*winner].route.priority {
                *winner = index;
            }
        }
    }
    let catch_all = catch_alls(drafts, listeners);
    let everywhere = listeners
        .iter()
        .filter(|listener| listener.protocol == ListenerProtocol::Http);
    let everywhere = everywhere
        .map(|listener| catch_all.get(&*listener.name).copied())
        .min()
        .flatten();
    for (index, draft) in drafts.iter().enumerate() {
        let route = &draft.route;
        let above = match draft.listeners.is_empty() {
            true => everywhere,
            false => draft
                .listeners
                .iter()
                .map(|at| catch_all.get(&*at.value).copied())
                .min()
                .flatten(),
        };
        let winner = match above {
            Some((priority, winner)) if priority > route.priority => Some(winner),
            _ if keys[index]
                .iter()
                .all(|key| best.get(key).is_some_and(|winner| *winner != index)) =>
            {
                keys[index].first().and_then(|key| best.get(key).copied())
            }
            _ => None,
        };
        let Some(winner) = winner else { continue };
        let winner = &drafts[winner].route;
        let list = Path::ROOT.key("routes");
        let path = list.item(index, Some(&route.name));
        let message = format!(
            "{path}: no request reaches this route, `{}` always wins",
            winner.name
        );
        let help = format!("it is at {}:{}", winner.position.file, winner.position.line);
        reader.report(Diagnostic::new(Code::Unreachable, &route.position, message).help(help));
    }
}

/// Returns, for each listener that has one, its catch-all of the highest priority.
fn catch_alls<'a>(
    drafts: &'a [Draft],
    listeners: &'a [Listener],
) -> HashMap<&'a str, (i32, usize)> {
    let mut found: HashMap<&str, (i32, usize)> = HashMap::new();
    let everything = |one: &Match| conditions_of(one) == conditions_of(&Match::default());
    for (index, draft) in drafts.iter().enumerate() {
        let matches = &draft.route.matches;
        if !matches.is_empty() && !matches.iter().any(everything) {
            continue;
        }
        let mut catch = |name: &'a str| {
            let entry = found.entry(name).or_insert((draft.route.priority, index));
            if draft.route.priority > entry.0 {
                *entry = (draft.route.priority, index);
            }
        };
        match draft.listeners.is_empty() {
            true => listeners.iter().for_each(|listener| catch(&listener.name)),
            false => draft.listeners.iter().for_each(|at| catch(&at.value)),
        }
    }
    found
}

fn conditions(draft: &Draft) -> Vec<Conditions> {
    let mut listeners: Vec<String> = draft.listeners.iter().map(|at| at.value.clone()).collect();
    listeners.sort_unstable();
    let key = |one: &Match| (listeners.clone(), conditions_of(one));
    match draft.route.matches.is_empty() {
        true => vec![key(&Match::default())],
        false => draft.route.matches.iter().map(key).collect(),
    }
}

fn conditions_of(one: &Match) -> String {
    let Match {
        hosts,
        path,
        methods,
        headers,
        query,
        cookies,
        model,
        position: _,
    } = one;
    let mut hosts: Vec<String> = hosts.iter().map(|host| format!("{host:?}")).collect();
    hosts.sort_unstable();
    let mut methods: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
    methods.sort_unstable();
    let path = path.as_ref().filter(
        |path| !matches!(path, crate::model::PathMatch::Prefix(prefix) if prefix.is_empty()),
    );
    format!("{hosts:?} {path:?} {methods:?} {headers:?} {query:?} {cookies:?} {model:?}")
}
