//! Routes: conditions, action and edits.

use super::access::{Lists, access};
use super::action::action;
use super::clock;
use super::limits::{Policies, limits};
use super::mirror::Reference;
use super::models::matched;
use super::rewrite::rewrite;
use super::sharing::{cors, route_auth, sticky};
use super::traffic::{bodiless, no_bodies, traffic, written};
use crate::diagnostic::Code;
use crate::model::{HeaderEdits, Match, PathMatch, Position, Route, Timeouts};
use crate::schema::keys::{HeaderEditKeys, MatchKeys, PathMatchKeys, RouteKeys, TimeoutKeys};
use crate::schema::{At, Dictionary, EditableHeader, HeaderText, List, Path, Reader};

/// A route, and where the names in it were written.
pub(super) struct Draft {
    /// Its place in the list.
    pub(super) index: usize,
    /// The route.
    pub(super) route: Route,
    /// The listeners it names.
    pub(super) listeners: Vec<At<String>>,
    /// The clusters it names.
    pub(super) clusters: Vec<At<String>>,
    /// The clusters that its mirrors name.
    pub(super) mirrored: Vec<Reference>,
    /// Where its `by_model` is.
    pub(super) by_model: Option<Position>,
    /// The models that its `match` names.
    pub(super) models: Vec<At<String>>,
    /// Where its `wake: false` is.
    pub(super) asleep: Option<Position>,
    /// Where its `match` is.
    pub(super) matches: Option<Position>,
    /// Its keys that look at requests, which a tcp listener has not, and where they are.
    pub(super) http_only: Vec<(&'static str, Position)>,
}

/// What routes refer to besides listeners and clusters.
pub(super) struct Named<'a> {
    /// Access lists.
    pub(super) lists: Lists<'a>,
    /// Policies, and whether requests have an identity.
    pub(super) policies: Policies<'a>,
}

pub(super) fn route(
    keys: &RouteKeys,
    index: usize,
    named: &Named<'_>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Draft> {
    let matches = matches(keys, path, reader);
    let action = action(keys, path, reader);
    let rewrite = rewrite(keys, &matches, action.as_ref(), path, reader);
    let listeners = listeners(keys, path, reader);
    let access = keys
        .access
        .as_ref()
        .and_then(|at| access(at, &named.lists, path.key("access"), reader));
    let auth = keys.auth.as_ref().map(|at| {
        let identity = named.policies.identity;
        route_auth(&at.value, identity, path.key("auth"), reader)
    });
    let rate_limits = keys
        .rate_limits
        .as_ref()
        .map(|at| limits(&at.value, &named.policies, path.key("rate_limits"), reader));
    let cors = keys
        .cors
        .as_ref()
        .and_then(|at| cors(&at.value, path.key("cors"), reader));
    let sticky = keys.sticky.as_ref().and_then(|at| {
        let split = keys.split.as_ref();
        sticky(at, split, action.as_ref(), path.key("sticky"), reader)
    });
    if bodiless(&matches) {
        no_bodies(keys, rate_limits.as_deref(), path, reader);
    }
    let timeouts = keys
        .timeouts
        .as_ref()
        .map_or_else(Timeouts::default, |at| timeouts(&at.value));
    let traffic = traffic(keys, action.as_ref(), &timeouts, path, reader);
    let members = keys
        .split
        .iter()
        .flat_map(|split| &split.value.items)
        .filter_map(|at| at.value.cluster.as_ref());
    let clusters = keys.cluster.iter().chain(members);
    let clusters = clusters
        .map(|at| At {
            value: at.value.0.clone(),
            position: at.position.clone(),
        })
        .collect();
    Some(Draft {
        index,
        route: Route {
            name: keys.name.as_ref()?.value.0.clone(),
            listeners: listeners.iter().map(|at| at.value.clone()).collect(),
            matches,
            priority: keys.priority.as_ref().map_or(0, |at| at.value.0),
            action: action?,
            timeouts,
            rewrite,
            request_headers: edits(&keys.request_headers),
            response_headers: edits(&keys.response_headers),
            body_max: keys
                .body
                .as_ref()
                .and_then(|at| at.value.max.as_ref()?.value.0.map(|bytes| bytes.0)),
            access,
            auth: auth.unwrap_or_default(),
            rate_limits: rate_limits.unwrap_or_default(),
            cors,
            sticky,
            cutover: traffic.cutover,
            mirrors: traffic.mirrors,
            record: traffic.record,
            retry: traffic.retry,
            replace: traffic.replace,
            wake: keys.wake.as_ref().is_none_or(|at| at.value),
            position: keys.position.clone(),
        },
        listeners,
        clusters,
        mirrored: traffic.mirrored,
        by_model: keys.by_model.as_ref().map(|at| at.position.clone()),
        models: matched(keys),
        asleep: keys
            .wake
            .as_ref()
            .filter(|at| !at.value)
            .map(|at| at.position.clone()),
        matches: keys.matches.as_ref().map(|at| at.position.clone()),
        http_only: http_only(keys),
    })
}

fn http_only(keys: &RouteKeys) -> Vec<(&'static str, Position)> {
    let limits = keys.rate_limits.as_ref();
    let limits = limits.filter(|at| !at.value.items.is_empty());
    let all = [
        ("access", keys.access.as_ref().map(|at| &at.position)),
        ("auth", keys.auth.as_ref().map(|at| &at.position)),
        ("rate_limits", limits.map(|at| &at.position)),
        ("cors", keys.cors.as_ref().map(|at| &at.position)),
        ("sticky", keys.sticky.as_ref().map(|at| &at.position)),
    ];
    all.into_iter()
        .filter_map(|(key, position)| Some((key, position?)))
        .chain(written(keys))
        .map(|(key, position)| (key, position.clone()))
        .collect()
}

fn listeners(keys: &RouteKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Vec<At<String>> {
    let Some(list) = &keys.listeners else {
        return Vec::new();
    };
    not_empty(
        list,
        "leave `listeners` out for all http listeners",
        path.key("listeners"),
        reader,
    );
    let mut named: Vec<At<String>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for at in &list.value.items {
        if seen.insert(&at.value) {
            named.push(At {
                value: at.value.0.clone(),
                position: at.position.clone(),
            });
        }
    }
    named
}

/// Refuses an empty list, which would read as "nothing" and mean "everything".
pub(super) fn not_empty<T>(
    list: &At<List<T>>,
    help: &str,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    if list.value.items.is_empty() && !list.value.incomplete {
        reader.refuse(
            Code::BadValue,
            &list.position,
            path,
            "the list is empty",
            help,
        );
    }
}

fn matches(keys: &RouteKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Vec<Match> {
    let Some(at) = &keys.matches else {
        return Vec::new();
    };
    let path = path.key("match");
    if at.value.0.is_empty() && !keys.broken {
        let help = "leave `match` out to match everything";
        reader.refuse(
            Code::BadValue,
            &at.position,
            path,
            "the list is empty",
            help,
        );
    }
    let several = at.value.0.len() > 1;
    let read = |(index, one): (usize, &At<MatchKeys>)| {
        let item = path.item(index, None);
        single(&one.value, if several { item } else { path }, reader)
    };
    at.value.0.iter().enumerate().map(read).collect()
}

fn single(keys: &MatchKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Match {
    if let Some(list) = &keys.hosts {
        not_empty(
            list,
            "leave `hosts` out to match every host",
            path.key("hosts"),
            reader,
        );
    }
    if let Some(list) = &keys.methods {
        not_empty(
            list,
            "leave `methods` out to match every method",
            path.key("methods"),
            reader,
        );
    }
    let hosts = keys.hosts.iter().flat_map(|list| &list.value.items);
    let methods = keys.methods.iter().flat_map(|list| &list.value.items);
    let headers = keys.headers.iter().flat_map(|at| &at.value.0);
    let query = keys.query.iter().flat_map(|at| &at.value.0);
    let cookies = keys.cookies.iter().flat_map(|at| &at.value.0);
    Match {
        hosts: hosts.map(|at| at.value.0.clone()).collect(),
        path: keys
            .path
            .as_ref()
            .and_then(|at| path_match(&at.value, path.key("path"), reader)),
        methods: methods.map(|at| at.value.clone()).collect(),
        headers: headers
            .map(|(name, value)| (name.0.clone(), value.0.clone()))
            .collect(),
        query: query
            .map(|(name, value)| (name.clone(), value.0.clone()))
            .collect(),
        cookies: cookies
            .map(|(name, value)| (name.0.clone(), value.0.clone()))
            .collect(),
        model: keys.model.as_ref().map(|at| at.value.0.clone()),
        position: Some(keys.position.clone()),
    }
}

fn path_match(keys: &PathMatchKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<PathMatch> {
    let mut found: Vec<PathMatch> = Vec::new();
    found.extend(
        keys.exact
            .as_ref()
            .map(|at| PathMatch::Exact(at.value.0.clone())),
    );
    found.extend(
        keys.prefix
            .as_ref()
            .map(|at| PathMatch::Prefix(at.value.0.trim_end_matches('/').to_owned())),
    );
    found.extend(
        keys.regex
            .as_ref()
            .map(|at| PathMatch::Regex(at.value.anchored.clone())),
    );
    if found.len() != 1 && !keys.broken {
        let message = "expected exactly one of `exact`, `prefix` and `regex`";
        reader.refuse(Code::Conflict, &keys.position, path, message, "");
    }
    found.pop()
}

fn timeouts(keys: &TimeoutKeys) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        first_byte: clock(&keys.first_byte, default.first_byte),
        idle: clock(&keys.idle, default.idle),
        request_body: clock(&keys.request_body, default.request_body),
        total: clock(&keys.total, default.total),
        tunnel: clock(&keys.tunnel, default.tunnel),
    }
}

pub(super) fn edits(keys: &Option<At<HeaderEditKeys>>) -> HeaderEdits {
    let Some(At { value: keys, .. }) = keys else {
        return HeaderEdits::default();
    };
    HeaderEdits {
        set: keys
            .set
            .as_ref()
            .map(|at| pairs(&at.value))
            .unwrap_or_default(),
        add: keys
            .add
            .as_ref()
            .map(|at| pairs(&at.value))
            .unwrap_or_default(),
        remove: keys
            .remove
            .iter()
            .flat_map(|at| &at.value.items)
            .map(|at| at.value.0.clone())
            .collect(),
    }
}

pub(super) fn pairs(
    headers: &Dictionary<EditableHeader, HeaderText>,
) -> Vec<(http::HeaderName, http::HeaderValue)> {
    headers
        .0
        .iter()
        .map(|(name, value)| (name.0.clone(), value.0.clone()))
        .collect()
}
