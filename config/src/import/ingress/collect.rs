//! From Ingresses to servers: which locations a host has, and whose they are.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::annotations::Annotations;
use super::kind::KIND;
use super::legal;
use super::path::PathKind;
use crate::import::{Document, Fields, Leaf, Work};
use crate::model::Position;
use crate::schema::HostRule;

/// An Ingress.
pub(super) struct Ingress<'a> {
    pub(super) document: Document<'a>,
    pub(super) spec: Fields<'a>,
    pub(super) notes: Annotations<'a>,
    /// It only adds to the locations of others.
    pub(super) canary: bool,
    /// How many routes have its name.
    pub(super) routes: usize,
}

/// A location of a host.
pub(super) struct Location<'a> {
    /// Whose it is.
    pub(super) ingress: usize,
    pub(super) kind: PathKind,
    pub(super) path: Leaf,
    /// The entry of `paths`; `None`: `spec.defaultBackend`.
    pub(super) entry: Option<Fields<'a>>,
    pub(super) backend: Option<Fields<'a>>,
    /// A canary's Ingress, and its backend.
    pub(super) canary: Option<(usize, Option<Fields<'a>>)>,
}

/// What nginx calls a server: a host and its locations. The host of no name is for every other one.
pub(super) struct Server<'a> {
    /// Lower case.
    pub(super) host: String,
    pub(super) at: Position,
    /// Further names.
    pub(super) aliases: Vec<Leaf>,
    /// The longest path first, as nginx looks at them.
    pub(super) locations: Vec<Location<'a>>,
    known: HashMap<(PathKind, String), usize>,
}

impl Server<'_> {
    /// Returns the names it has; none: every host.
    pub(super) fn hosts(&self) -> Vec<Leaf> {
        let own = (!self.host.is_empty()).then(|| Leaf::text(&self.at, self.host.as_str()));
        own.into_iter()
            .chain(self.aliases.iter().cloned())
            .collect()
    }

    /// True when a location has this path.
    pub(super) fn has(&self, kinds: &[PathKind], path: &str) -> bool {
        let mut kinds = kinds.iter();
        kinds.any(|kind| self.known.contains_key(&(*kind, path.to_owned())))
    }
}

/// Returns the Ingresses, the oldest first.
pub(super) fn ingresses<'a>(work: &Work<'a>) -> Vec<Ingress<'a>> {
    let mut documents: Vec<Document<'a>> = work.documents(KIND.group, KIND.name).collect();
    documents.sort_by_key(|one| {
        let created = one.created();
        (created.is_none(), created, one.namespace, one.name)
    });
    let read = |document: Document<'a>| {
        let fields = document.fields(work.audit);
        let notes = Annotations::of(fields);
        let spec = fields.map("spec")?;
        let class = spec.scalar("ingressClassName").or_else(|| notes.class());
        if class.is_some_and(|class| class.as_str() != "nginx") {
            spec.approximated("ingressClassName", "read as that of ingress-nginx");
        }
        Some(Ingress {
            document,
            spec,
            notes,
            canary: notes.flag("canary").unwrap_or_default(),
            routes: 0,
        })
    };
    documents.into_iter().filter_map(read).collect()
}

/// Returns the servers by their hosts.
pub(super) fn servers<'a>(ingresses: &[Ingress<'a>]) -> BTreeMap<String, Server<'a>> {
    let mut servers = BTreeMap::new();
    for (index, ingress) in ingresses.iter().enumerate() {
        if !ingress.canary {
            main(&mut servers, index, ingress);
        }
    }
    for (index, ingress) in ingresses.iter().enumerate() {
        if ingress.canary {
            canary(&mut servers, index, ingress);
        }
    }
    aliases(&mut servers, ingresses);
    for server in servers.values_mut() {
        // As ingress-nginx writes them: the longest first, of equal ones the last by the alphabet.
        server.locations.sort_by(|a, b| {
            let (a, b) = (a.path.as_str(), b.path.as_str());
            b.len().cmp(&a.len()).then_with(|| b.cmp(a))
        });
    }
    servers
}

fn main<'a>(servers: &mut BTreeMap<String, Server<'a>>, index: usize, ingress: &Ingress<'a>) {
    let spec = ingress.spec;
    let default = spec.map("defaultBackend");
    let rules = spec.maps("rules");
    let slash = |at: &Position| Leaf::text(at, "/");
    let mut fresh: Vec<(String, Position)> = Vec::new();
    for rule in &rules {
        let Some((host, at)) = host(*rule) else {
            continue;
        };
        let new = !servers.contains_key(&host);
        let server = server(servers, &host, &at);
        if new {
            fresh.push((host, at));
        }
        for (kind, path, entry) in paths(*rule) {
            let known = server.locations.len();
            if server.known.contains_key(&(kind, path.as_str().to_owned())) {
                entry.lost_here("another Ingress, which is older, or an earlier path has the same host and path");
                continue;
            }
            server.known.insert((kind, path.as_str().to_owned()), known);
            server.locations.push(Location {
                ingress: index,
                kind,
                path,
                backend: entry.map("backend"),
                entry: Some(entry),
                canary: None,
            });
        }
    }
    let Some(default) = default else { return };
    // nginx's default of a host is that of the Ingress which names it first; without rules it is for other hosts.
    if rules.is_empty() {
        fresh.push((String::new(), default.at().clone()));
    }
    let mut used = false;
    for (host, at) in fresh {
        let server = server(servers, &host, &at);
        let key = |kind| (kind, "/".to_owned());
        if server.has(&[PathKind::Prefix, PathKind::Raw], "/") {
            continue;
        }
        used = true;
        server
            .known
            .insert(key(PathKind::Prefix), server.locations.len());
        server.locations.push(Location {
            ingress: index,
            kind: PathKind::Prefix,
            path: slash(default.at()),
            entry: None,
            backend: Some(default),
            canary: None,
        });
    }
    if !used {
        spec.lost(
            "defaultBackend",
            "other backends take all requests of its hosts",
        );
    }
}

fn canary<'a>(servers: &mut BTreeMap<String, Server<'a>>, index: usize, ingress: &Ingress<'a>) {
    let mut paired = false;
    for rule in ingress.spec.maps("rules") {
        let Some((host, _)) = host(rule) else {
            continue;
        };
        for (kind, path, entry) in paths(rule) {
            let backend = entry.map("backend");
            let server = servers.get_mut(&host);
            let location = server.and_then(|server| {
                let found = server.known.get(&(kind, path.as_str().to_owned()))?;
                server.locations.get_mut(*found)
            });
            match location {
                None => entry.lost_here("no Ingress without `canary` has the same host and path"),
                Some(location) if location.canary.is_some() => {
                    entry.lost_here("the path has a canary already");
                }
                Some(location) => {
                    location.canary = Some((index, backend));
                    paired = true;
                }
            }
        }
    }
    if !paired {
        ingress
            .notes
            .lost("canary", "it is paired with no other Ingress");
    }
}

fn server<'s, 'a>(
    servers: &'s mut BTreeMap<String, Server<'a>>,
    host: &str,
    at: &Position,
) -> &'s mut Server<'a> {
    servers.entry(host.to_owned()).or_insert_with(|| Server {
        host: host.to_owned(),
        at: at.clone(),
        aliases: Vec::new(),
        locations: Vec::new(),
        known: HashMap::new(),
    })
}

/// Reads the host of a rule; empty: every host.
fn host(rule: Fields<'_>) -> Option<(String, Position)> {
    let Some(host) = rule.text("host") else {
        // One of a wrong type must not become every host.
        return (!rule.has("host")).then(|| (String::new(), rule.at().clone()));
    };
    let name = host.as_str().to_ascii_lowercase();
    if !name.is_empty() && !legal::is::<HostRule>(&host.with(name.as_str())) {
        rule.lost_here(format!("no request has the host `{host}`"));
        return None;
    }
    Some((name, host.at().clone()))
}

/// Reads the paths of a rule.
fn paths<'a>(rule: Fields<'a>) -> Vec<(PathKind, Leaf, Fields<'a>)> {
    let entries = rule.map("http").map(|http| http.maps("paths"));
    let read = |entry: Fields<'a>| {
        let path = entry.text("path").filter(|path| !path.as_str().is_empty());
        let path = match path {
            None if entry.has("path") && entry.text("path").is_none() => {
                entry.lost_here("the path is no string");
                return None;
            }
            path => path.unwrap_or_else(|| Leaf::text(entry.at(), "/")),
        };
        if !path.as_str().starts_with('/') {
            entry.lost_here("a path begins with a slash");
            return None;
        }
        let kind = entry.text("pathType");
        let kind = match kind.as_ref().map(Leaf::as_str) {
            Some("Exact") => PathKind::Exact,
            Some("Prefix") => PathKind::Prefix,
            Some("ImplementationSpecific") | None => PathKind::Raw,
            Some(_) => {
                entry.lost_here("`pathType` is Exact, Prefix or ImplementationSpecific");
                return None;
            }
        };
        Some((kind, path, entry))
    };
    entries.into_iter().flatten().filter_map(read).collect()
}

/// Adds `server-alias`, unless a host has that name.
fn aliases(servers: &mut BTreeMap<String, Server<'_>>, ingresses: &[Ingress<'_>]) {
    let mut taken: HashSet<String> = servers.keys().cloned().collect();
    for ingress in ingresses.iter().filter(|one| !one.canary) {
        for alias in ingress.notes.list("server-alias") {
            let name = alias.with(alias.as_str().to_ascii_lowercase());
            if !legal::is::<HostRule>(&name) {
                ingress
                    .notes
                    .lost("server-alias", format!("`{alias}` is no host"));
                continue;
            }
            let mut hosts = ingress.spec.maps("rules").into_iter().filter_map(host);
            let own = hosts.find(|(host, _)| !host.is_empty() && servers.contains_key(host));
            let Some(server) = own.and_then(|(host, _)| servers.get_mut(&host)) else {
                ingress
                    .notes
                    .lost("server-alias", "the Ingress has no host");
                continue;
            };
            match taken.insert(name.as_str().to_owned()) {
                true => server.aliases.push(name),
                false
                    if server
                        .aliases
                        .iter()
                        .any(|one| one.as_str() == name.as_str()) => {}
                false => {
                    let note = format!("another Ingress has the host `{name}`");
                    ingress.notes.lost("server-alias", note);
                }
            }
        }
    }
}
