//! Backends: which cluster one is, or why it is none, and what becomes of its share.

use super::filters::{self, Filters};
use super::grants::Grants;
use super::legal;
use crate::import::native::{Action, Cluster, Edits, Endpoint, Member, Respond};
use crate::import::{Document, Fields, Leaf, PortRef, Target, Work};
use crate::schema::{HostName, Name};

/// The cluster that has no endpoint.
const NOBODY: &str = "invalid-backend";

/// The route that refers to backends.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Its document.
    pub(super) document: &'a Document<'a>,
    /// Who may refer to what.
    pub(super) grants: &'a Grants,
}

/// A backend of a rule.
struct Backend<'a> {
    fields: Fields<'a>,
    weight: i64,
    cluster: Result<Leaf, String>,
    filters: Filters<'a>,
}

/// Finds the cluster of a backend.
///
/// # Errors
///
/// Why it is invalid.
pub(super) fn target(
    backend: Fields<'_>,
    source: &Source<'_>,
    work: &mut Work<'_>,
) -> Result<Leaf, String> {
    let own = source.document;
    let group = backend.text("group");
    let kind = backend.text("kind");
    let namespace = backend.text("namespace");
    let namespace = namespace.as_ref().map_or(own.namespace, Leaf::as_str);
    let port = backend
        .whole("port", 1..=65_535)
        .and_then(|leaf| leaf.whole());
    let name = backend.text("name").ok_or("`name` is missing")?;
    if !legal::readable(backend, &["group", "kind", "namespace"]) {
        return Err("what it refers to cannot be read".to_owned());
    }
    let group = group.as_ref().map_or("", Leaf::as_str);
    let kind = kind.as_ref().map_or("Service", Leaf::as_str);
    if (group, kind) != ("", "Service") {
        return Err(format!("a backend is a Service, not a {kind}"));
    }
    if !source.grants.allow(
        (own.kind, own.namespace),
        ("", "Service", namespace, name.as_str()),
    ) {
        return Err(format!(
            "no ReferenceGrant lets this {} use Services of `{namespace}`",
            own.kind
        ));
    }
    let port = port.and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or("a Service needs a `port` from 1 to 65535")?;
    let suffix = format!(".{namespace}.svc.{}", work.options.cluster_domain);
    let host = format!("{name}{suffix}").to_ascii_lowercase();
    legal::value::<HostName>(&name.with(host.as_str()))?;
    legal::value::<Name>(&name.with(format!("{namespace}/{name}:{port}")))?;
    if work.services.find(&host).is_none() && work.services.any_below(&suffix) {
        return Err(format!(
            "no document describes the Service `{namespace}/{name}`, while others of its namespace are there"
        ));
    }
    work.cluster(&Target {
        host: &host,
        namespace,
        port: PortRef::Number(port),
        subset: None,
        at: backend.at(),
    })
}

/// Reads the backends of a rule and decides what it does. What filters of an only backend say besides headers is
/// added to `rule_filters`.
///
/// * `prefixed`: all matches of the rule are prefixes
pub(super) fn action<'a>(
    rule: Fields<'a>,
    prefixed: bool,
    rule_filters: &mut Filters<'a>,
    source: &Source<'_>,
    work: &mut Work<'_>,
) -> Action {
    let list = rule.maps("backendRefs");
    let alone = list.len() == 1;
    let mut backends: Vec<Backend<'a>> = Vec::new();
    for fields in list {
        let mut weight = 1;
        if fields.has("weight") {
            let written = fields.whole("weight", 0..=1_000_000);
            weight = written.and_then(|leaf| leaf.whole()).unwrap_or(1);
        }
        let mut cluster = target(fields, source, work);
        let filters = filters::read(fields, prefixed, source, work);
        let mut backend = Backend {
            fields,
            weight,
            cluster: Err(String::new()),
            filters,
        };
        if backend.filters.broken {
            cluster = cluster.and(Err("one of its filters cannot be done".to_owned()));
        } else if alone {
            lift(&mut backend.filters, rule_filters);
        } else if let Some(why) = backend.alone() {
            cluster = cluster.and(Err(why));
        }
        backend.cluster = cluster;
        backends.push(backend);
    }
    choose(rule, &backends, source, work)
}

/// Moves what only rules can do from an only backend to its rule.
fn lift<'a>(own: &mut Filters<'a>, rule: &mut Filters<'a>) {
    rule.mirrors.append(&mut own.mirrors);
    rule.copying.append(&mut own.copying);
    rule.redirect = rule.redirect.take().or(own.redirect.take());
    rule.cors = rule.cors.take().or(own.cors.take());
    let rewrite = std::mem::take(&mut own.rewrite);
    let known = &mut rule.rewrite;
    known.at = known.at.take().or(rewrite.at);
    known.host = known.host.take().or(rewrite.host);
    if known.path.is_none() && known.prefix.is_none() {
        (known.path, known.prefix) = (rewrite.path, rewrite.prefix);
    }
}

impl Backend<'_> {
    /// Says why it is invalid among several, when its filters do what only rules can do; smaller things are lost.
    fn alone(&self) -> Option<String> {
        let Filters {
            mirrors,
            redirect,
            rewrite,
            cors,
            ..
        } = &self.filters;
        if !mirrors.is_empty() || cors.is_some() {
            let note = "mirrors and CORS are those of a rule, unless it has one backend only";
            self.fields.lost("filters", note);
        }
        let whole = redirect.is_some() || *rewrite != Default::default();
        let why = "redirects and rewrites are those of a rule, unless it has one backend only";
        whole.then(|| why.to_owned())
    }

    fn member(&self, cluster: &Leaf, several: bool) -> Member {
        let at = self.fields.at();
        let weight = Leaf::number(self.fields.place("weight"), self.weight);
        Member {
            at: Some(at.clone()),
            cluster: Some(cluster.clone()),
            weight: several.then_some(weight),
            request_headers: self.filters.request.clone(),
            response_headers: self.filters.response.clone(),
        }
    }
}

/// Decides between a cluster, a split and an answer that says that nobody is there.
fn choose(
    rule: Fields<'_>,
    backends: &[Backend<'_>],
    source: &Source<'_>,
    work: &mut Work<'_>,
) -> Action {
    let works = |one: &&Backend<'_>| one.weight > 0 && one.cluster.is_ok();
    let some = backends.iter().find(works).is_some();
    for backend in backends {
        let Err(why) = &backend.cluster else { continue };
        let share = match (some, backend.weight) {
            (_, 0) => "it has no share",
            (true, _) => "its share is answered 503 `no_endpoint`, not 500 `invalid_backend`",
            (false, _) => "its share is answered 500",
        };
        backend.fields.lost_here(format!("{why}; {share}"));
    }
    let sum: i64 = backends.iter().map(|one| one.weight).sum();
    if sum > i64::from(u32::MAX) {
        rule.lost(
            "backendRefs",
            "the sum of the weights is too large; the rule answers 500",
        );
        return refuse(rule, source);
    }
    if !some {
        return refuse(rule, source);
    }
    let mut members = Vec::new();
    let several = backends.len() > 1;
    for backend in backends {
        match &backend.cluster {
            Ok(cluster) => members.push(backend.member(cluster, several)),
            Err(_) if backend.weight > 0 => {
                let nobody = nobody(backend.fields, work);
                members.push(backend.member(&nobody, several));
            }
            Err(_) => {}
        }
    }
    let plain = |member: &Member| {
        member.request_headers == Edits::default() && member.response_headers == Edits::default()
    };
    match members.as_mut_slice() {
        [only] => {
            only.weight = None;
            match &only.cluster {
                Some(cluster) if plain(only) => Action::Cluster(cluster.clone()),
                _ => Action::Split(members),
            }
        }
        _ => Action::Split(members),
    }
}

/// Answers as the specification asks for requests that no valid backend is there for: 500, or UNAVAILABLE of gRPC.
pub(super) fn refuse(rule: Fields<'_>, source: &Source<'_>) -> Action {
    let at = rule.at();
    let mut respond = Respond {
        at: Some(at.clone()),
        ..Respond::default()
    };
    if source.document.kind == super::GRPC {
        respond.status = Some(Leaf::number(at, 200));
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "14")] {
            let (name, value) = (Leaf::text(at, name), Leaf::text(at, value));
            respond.headers.add(name, value);
        }
    } else {
        respond.status = Some(Leaf::number(at, 500));
    }
    Action::Respond(Box::new(respond))
}

/// Returns the cluster that stands for invalid backends: its only endpoint lacks the label that is asked for.
fn nobody(backend: Fields<'_>, work: &mut Work<'_>) -> Leaf {
    let at = backend.at();
    let leaf = |text: &str| Leaf::text(at, text);
    if work.output.cluster_mut(NOBODY).is_none() {
        let mut cluster = Cluster {
            at: Some(at.clone()),
            name: Some(leaf(NOBODY)),
            endpoints: vec![Endpoint {
                address: Some(leaf("127.0.0.1:1")),
                ..Endpoint::default()
            }],
            ..Cluster::default()
        };
        cluster.subset.add(leaf("valid"), leaf("never"));
        work.output.add_cluster(cluster);
    }
    leaf(NOBODY)
}
