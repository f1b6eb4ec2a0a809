//! A host becomes routes, in the order in which nginx looks at its locations.

use super::Context;
use super::backend::{self, Upstream};
use super::canary::{self, Variant};
use super::collect::{Location, Server};
use super::path::{self, PathKind};
use super::policy;
use crate::import::native::{Action, Match, Order, PathRule, Redirect, Rewrite, Route};
use crate::import::{Leaf, Work};
use crate::model::Position;
use crate::schema::PathText;

/// Routes of a host by what nginx looks at first.
#[derive(Default)]
struct Parts {
    /// Whole paths.
    exact: Vec<Route>,
    /// Beginnings, the longest first, with the length of the path.
    middle: Vec<Route>,
    /// Beginnings that end within a segment, where no shorter path is in their way.
    tail: Vec<Route>,
    /// Every path.
    last: Vec<Route>,
}

/// Adds the routes of a host.
pub(super) fn translate(work: &mut Work<'_>, server: &Server<'_>, context: &mut Context<'_>) {
    let hosts = server.hosts();
    let expressions = by_expressions(server, context);
    let mut parts = Parts::default();
    for location in &server.locations {
        app_root(work, context, location, &hosts, &mut parts.exact);
    }
    // nginx sends to the root before it sends to TLS.
    work.output.routes.append(&mut parts.exact);
    let secure = |location: &Location<'_>| {
        let ingress = &context.ingresses[location.ingress];
        context.listeners.redirects(ingress, &server.host).cloned()
    };
    let listeners: Vec<Option<(Leaf, Leaf)>> = server.locations.iter().map(secure).collect();
    let all = listeners.iter().all(Option::is_some);
    if let (true, Some(Some((plain, _))), Some(first)) =
        (all, listeners.first(), server.locations.first())
    {
        let route = to_tls(work, context, first, plain, vec![condition(&hosts, None)]);
        work.output.routes.push(route);
    }
    for (location, listeners) in server.locations.iter().zip(&listeners) {
        let rules = rules(server, location, expressions);
        let rules = match rules {
            Ok(rules) => rules,
            Err(note) => {
                if let Some(entry) = location.entry {
                    entry.lost("path", note);
                }
                continue;
            }
        };
        let (base, variants) = variants(work, context, location);
        for rule in rules {
            let mut routes = Vec::new();
            if let (false, Some((plain, _))) = (all, listeners) {
                let matches = vec![condition(&hosts, rule.clone())];
                routes.push(to_tls(work, context, location, plain, matches));
            }
            for variant in &variants {
                let mut route = base.clone();
                route.name = context.name(work, location.ingress, &base.at);
                route.listeners = listeners.iter().map(|(_, tls)| tls.clone()).collect();
                match &variant.action {
                    Action::Redirect(_) | Action::Respond(_) => {
                        policy::bare(&mut route, variant.action.clone());
                    }
                    action => route.action = action.clone(),
                }
                route.matches = vec![Match {
                    headers: variant.condition.headers.clone(),
                    cookies: variant.condition.cookies.clone(),
                    ..condition(&hosts, rule.clone())
                }];
                routes.push(route);
            }
            place(&mut parts, &rule, location, server, expressions, routes);
        }
        slash(
            work,
            context,
            location,
            server,
            &hosts,
            expressions,
            &mut parts.exact,
        );
    }
    let Parts {
        exact,
        middle,
        tail,
        last,
    } = parts;
    let routes = [exact, middle, tail, last].into_iter().flatten();
    work.output.routes.extend(routes);
}

/// True when nginx takes all paths of a host for expressions: one Ingress of it has `use-regex`, or rewrites.
fn by_expressions(server: &Server<'_>, context: &Context<'_>) -> bool {
    server.locations.iter().any(|location| {
        let notes = context.ingresses[location.ingress].notes;
        let target = notes.word("rewrite-target");
        let rewrites = target.is_some_and(|target| target.as_str() != location.path.as_str());
        rewrites || notes.flag("use-regex").unwrap_or_default()
    })
}

/// Returns the conditions on the path that stand for a location; `None` is every path.
fn rules(
    server: &Server<'_>,
    location: &Location<'_>,
    expressions: bool,
) -> Result<Vec<Option<PathRule>>, String> {
    if expressions {
        return Ok(vec![path::expression(&location.path)?]);
    }
    let path::Rules { main, beyond } = path::plain(location.kind, &location.path)?;
    let mut rules = vec![main];
    rules.extend(beyond.map(Some));
    // Natively `/x/` has `/x` too, which is that of this location.
    let path = location.path.as_str();
    let longer = server.has(&[PathKind::Raw, PathKind::Prefix], &format!("{path}/"));
    if longer && location.kind != PathKind::Exact && !server.has(&[PathKind::Exact], path) {
        rules.push(Some(PathRule::Exact(location.path.clone())));
    }
    Ok(rules)
}

/// Puts the routes of a location where nginx would come to them.
fn place(
    parts: &mut Parts,
    rule: &Option<PathRule>,
    location: &Location<'_>,
    server: &Server<'_>,
    expressions: bool,
    routes: Vec<Route>,
) {
    let path = location.path.as_str();
    match rule {
        None => parts.last.extend(routes),
        Some(PathRule::Exact(_)) => parts.exact.extend(routes),
        Some(PathRule::Prefix(_)) => parts.middle.extend(routes),
        Some(PathRule::Regex(_)) if expressions => parts.middle.extend(routes),
        Some(PathRule::Regex(_)) => {
            // Native prefixes come before expressions: one that is shorter must not have these requests.
            let shorter = |other: &&Location<'_>| {
                let short = other.path.as_str();
                other.kind != PathKind::Exact
                    && short != "/"
                    && short.len() < path.len()
                    && path.starts_with(short)
                    && path.as_bytes()[short.trim_end_matches('/').len()] == b'/'
            };
            let below = server.locations.iter().find(shorter);
            match below {
                None => parts.tail.extend(routes),
                // Those of shorter paths are added later, behind these.
                Some(_) => parts.middle.extend(routes),
            }
        }
    }
}

fn condition(hosts: &[Leaf], path: Option<PathRule>) -> Match {
    Match {
        hosts: hosts.to_vec(),
        path,
        ..Match::default()
    }
}

/// Makes what all routes of a location have in common, and their differences.
fn variants(
    work: &mut Work<'_>,
    context: &mut Context<'_>,
    location: &Location<'_>,
) -> (Route, Vec<Variant>) {
    let index = location.ingress;
    let at = location.path.at().clone();
    let template = &context.templates[index];
    let mut base = template.route.clone();
    base.at = at.clone();
    base.order = Order::FirstMatch;
    let single = |action: Action| {
        vec![Variant {
            condition: Match::default(),
            action,
        }]
    };
    if template.answers {
        match location.entry {
            Some(entry) => entry.accept("backend"),
            None => context.ingresses[index].spec.accept("defaultBackend"),
        }
        let action = base.action.clone();
        return (base, single(action));
    }
    let instead = policy::unavailable(&at);
    let ingress = &context.ingresses[index];
    let upstream = context.upstreams[index].clone();
    let cluster = backend::cluster(
        work,
        ingress,
        location.backend,
        (index, &upstream),
        &mut context.wishes,
    );
    match rewrite(context, location) {
        Ok(rewrite) => {
            let host = base.rewrite.host.take();
            base.rewrite = Rewrite { host, ..rewrite };
        }
        Err(note) => {
            let note = format!("{note}; requests of `{}` are answered 503", location.path);
            ingress.notes.lost("rewrite-target", note);
            return (base, single(instead));
        }
    }
    let Some((other, backend)) = location.canary else {
        let action = cluster.map_or(instead, Action::Cluster);
        return (base, single(action));
    };
    let canary = &context.ingresses[other];
    let upstream: Upstream = upstream.balanced_by(canary.notes);
    let second = backend::cluster(
        work,
        canary,
        backend,
        (other, &upstream),
        &mut context.wishes,
    );
    let variants = canary::variants(canary.notes, cluster.as_ref(), second.as_ref(), &instead);
    (base, variants)
}

fn rewrite(context: &Context<'_>, location: &Location<'_>) -> Result<Rewrite, String> {
    let target = context.ingresses[location.ingress]
        .notes
        .word("rewrite-target");
    match target {
        Some(target) if target.as_str() != location.path.as_str() => {
            path::rewrite(&location.path, &target)
        }
        _ => Ok(Rewrite::default()),
    }
}

/// Makes the route that sends requests without TLS to where there is TLS.
fn to_tls(
    work: &Work<'_>,
    context: &mut Context<'_>,
    location: &Location<'_>,
    plain: &Leaf,
    matches: Vec<Match>,
) -> Route {
    let at = location.path.at();
    let redirect = Redirect {
        scheme: Some(Leaf::text(at, "https")),
        status: Some(Leaf::number(at, 308)),
        ..Redirect::default()
    };
    let mut route = sent(work, context, location.ingress, at, redirect);
    route.listeners = vec![plain.clone()];
    route.matches = matches;
    route
}

fn sent(
    work: &Work<'_>,
    context: &mut Context<'_>,
    ingress: usize,
    at: &Position,
    redirect: Redirect,
) -> Route {
    let name = context.name(work, ingress, at);
    let mut route = Route::new(at, name, Action::Redirect(Box::new(redirect)));
    route.order = Order::FirstMatch;
    route
}

/// Adds the redirect of `/` to `app-root`, once per host.
fn app_root(
    work: &Work<'_>,
    context: &mut Context<'_>,
    location: &Location<'_>,
    hosts: &[Leaf],
    routes: &mut Vec<Route>,
) {
    let notes = context.ingresses[location.ingress].notes;
    let Some(root) = notes.word("app-root") else {
        return;
    };
    if super::legal::read::<PathText>(&root).is_err() || root.as_str() == "/" {
        return notes.lost("app-root", "it is no path to be sent to");
    }
    if !routes.is_empty() {
        return;
    }
    let redirect = Redirect {
        status: Some(Leaf::number(root.at(), 302)),
        path: Some(root.clone()),
        ..Redirect::default()
    };
    let mut route = sent(work, context, location.ingress, root.at(), redirect);
    let path = PathRule::Exact(root.with("/"));
    route.matches = vec![condition(hosts, Some(path))];
    routes.push(route);
}

/// nginx sends `/x` to `/x/` when only the latter is a location.
fn slash(
    work: &Work<'_>,
    context: &mut Context<'_>,
    location: &Location<'_>,
    server: &Server<'_>,
    hosts: &[Leaf],
    expressions: bool,
    routes: &mut Vec<Route>,
) {
    let path = location.path.as_str();
    let bare = path.trim_end_matches('/');
    let kinds = [PathKind::Exact, PathKind::Prefix, PathKind::Raw];
    let answers = context.templates[location.ingress].answers;
    let needed = !expressions && location.kind == PathKind::Raw && path.ends_with('/');
    if !needed || bare.is_empty() || answers || server.has(&kinds, bare) {
        return;
    }
    let at = location.path.at();
    let redirect = Redirect {
        status: Some(Leaf::number(at, 301)),
        path: Some(location.path.clone()),
        ..Redirect::default()
    };
    let mut route = sent(work, context, location.ingress, at, redirect);
    let exact = PathRule::Exact(location.path.with(bare));
    route.matches = vec![condition(hosts, Some(exact))];
    routes.push(route);
}
