//! Which listeners a route is attached to, and the hosts it gets there.

use std::collections::{BTreeMap, BTreeSet};

use super::gateway::Places;
use super::grants::Grants;
use super::hosts::{Host, intersection};
use super::{GROUP, GRPC, HTTP, legal};
use crate::import::{Document, Fields, Leaf};
use crate::schema::HostRule;

/// Where a route is.
pub(super) enum Attached {
    /// On these listeners.
    At(Vec<Group>),
    /// On none.
    Nowhere,
}

/// Native listeners on which a route has the same hosts.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    /// Names; empty: all http listeners.
    pub(super) listeners: Vec<Leaf>,
    /// Hosts; an empty one is any.
    pub(super) hosts: Vec<Host>,
}

/// A reference to a listener, or to all of a Gateway.
struct Parent<'a> {
    fields: Fields<'a>,
    name: Leaf,
    namespace: Option<Leaf>,
    section: Option<Leaf>,
    port: Option<i64>,
}

/// Finds the places of a route.
pub(super) fn attach(
    document: &Document<'_>,
    spec: Fields<'_>,
    places: &mut Places,
    grants: &Grants,
) -> Attached {
    let parents = spec.maps("parentRefs");
    let Some(hostnames) = hostnames(spec) else {
        return Attached::Nowhere;
    };
    let mut found: BTreeMap<String, (Leaf, BTreeSet<Host>)> = BTreeMap::new();
    let mut everywhere = false;
    for parent in parents.into_iter().filter_map(parent) {
        let namespace = parent.namespace.as_ref();
        let namespace = namespace.map_or(document.namespace, Leaf::as_str);
        let name = parent.name.as_str();
        if let Some(known) = places.of(namespace, name) {
            let known = known.to_vec();
            for (native, host) in parent.hosts(&known, &hostnames, (document, grants), places) {
                let key = native.as_str().to_owned();
                let entry = found.entry(key);
                let (_, hosts) = entry.or_insert_with(|| (native, BTreeSet::new()));
                hosts.insert(host);
            }
        } else if places.none() {
            let note = "no document describes a Gateway: the route is on every HTTP listener";
            parent.fields.approximated_here(note);
            everywhere = true;
        } else {
            let note = format!("no document describes the Gateway `{namespace}/{name}`");
            parent.fields.lost_here(note);
        }
    }
    if everywhere {
        return Attached::At(vec![Group {
            listeners: Vec::new(),
            hosts: hostnames,
        }]);
    }
    let mut groups: Vec<Group> = Vec::new();
    for (native, hosts) in found.into_values() {
        let hosts: Vec<Host> = hosts.into_iter().collect();
        match groups.iter_mut().find(|group| group.hosts == hosts) {
            Some(group) => group.listeners.push(native),
            None => groups.push(Group {
                listeners: vec![native],
                hosts,
            }),
        }
    }
    match groups.is_empty() {
        true => Attached::Nowhere,
        false => Attached::At(groups),
    }
}

/// Reads a reference; `None`: it is not to a Gateway, or cannot be read, and a finding says so.
fn parent(fields: Fields<'_>) -> Option<Parent<'_>> {
    let words = ["group", "kind", "namespace", "sectionName"];
    let readable = legal::readable(fields, &words);
    let port = fields
        .whole("port", 1..=65_535)
        .and_then(|leaf| leaf.whole());
    let Some(name) = fields.text("name") else {
        fields.lost_here("`name` is missing");
        return None;
    };
    let is = |key: &str, wanted: &str| fields.text(key).is_none_or(|word| word.as_str() == wanted);
    if !is("group", GROUP) || !is("kind", "Gateway") {
        fields.lost_here("routes are attached to Gateways only");
        return None;
    }
    let complete = readable && (port.is_some() || !fields.has("port"));
    complete.then(|| Parent {
        fields,
        name,
        namespace: fields.text("namespace"),
        section: fields.text("sectionName"),
        port,
    })
}

/// Reads the hostnames of a route, sorted, one empty for any; `None`: it has some, and all of them are lost.
fn hostnames(spec: Fields<'_>) -> Option<Vec<Host>> {
    if !spec.has("hostnames") {
        return Some(vec![Host::new()]);
    }
    let written = spec.texts("hostnames");
    let mut hosts: BTreeSet<Host> = BTreeSet::new();
    for leaf in &written {
        match legal::value::<HostRule>(leaf) {
            Ok(()) => {
                let host = leaf.as_str().trim_end_matches('.').to_ascii_lowercase();
                hosts.insert(host);
            }
            Err(why) => spec.lost("hostnames", why),
        }
    }
    if spec.count("hostnames") == Some(0) {
        hosts.insert(Host::new());
    }
    (!hosts.is_empty()).then(|| hosts.into_iter().collect())
}

impl Parent<'_> {
    /// Returns the hosts on each listener that takes the route; when none does, says why.
    fn hosts(
        &self,
        known: &[usize],
        hostnames: &[Host],
        (document, grants): (&Document<'_>, &Grants),
        places: &mut Places,
    ) -> Vec<(Leaf, Host)> {
        let section = self.section.as_ref().map(Leaf::as_str);
        let chosen = known.iter().copied().filter(|index| {
            let place = &places.all[*index];
            section.is_none_or(|name| place.section == name)
                && self.port.is_none_or(|port| i64::from(place.port) == port)
        });
        let chosen: Vec<usize> = chosen.collect();
        let mut found = Vec::new();
        let mut why = None;
        for index in chosen {
            match attached(index, hostnames, document, grants, places) {
                Ok(hosts) => found.extend(hosts),
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        if found.is_empty() {
            let nothing = "the Gateway has no such listener, or it is lost".to_owned();
            self.fields.lost_here(why.unwrap_or(nothing));
        }
        found
    }
}

/// Attaches a route to one place.
///
/// # Errors
///
/// Why it cannot be.
fn attached(
    index: usize,
    hostnames: &[Host],
    document: &Document<'_>,
    grants: &Grants,
    places: &mut Places,
) -> Result<Vec<(Leaf, Host)>, String> {
    let place = &places.all[index];
    if let Some(why) = place.admission.refuses(&place.section, document, grants) {
        return Err(why);
    }
    let common = hostnames.iter();
    let common = common.filter_map(|host| intersection(&place.hostname, host));
    let common: Vec<Host> = common.collect();
    if common.is_empty() {
        return Err(format!(
            "no hostname is one of `{}`, which has `{}`",
            place.section, place.hostname
        ));
    }
    let native = place.native.as_str();
    let own = |host: &Host| places.isolating(native, host).as_ref() == Some(&place.hostname);
    let hosts: Vec<Host> = common.into_iter().filter(own).collect();
    if hosts.is_empty() {
        let section = &place.section;
        return Err(format!(
            "another listener has a more specific hostname than `{section}`"
        ));
    }
    let (own, other) = match document.kind {
        GRPC => (GRPC, HTTP),
        _ => (HTTP, GRPC),
    };
    let others = place.taken.get(other);
    let owner = others.and_then(|taken| hosts.iter().find_map(|host| taken.owner(host)));
    if let Some(owner) = owner {
        return Err(format!(
            "its hosts belong to {owner}: of both kinds of routes the older one has them"
        ));
    }
    let native = place.native.clone();
    let title = document.title();
    if let Some(taken) = places.all[index].taken.get_mut(own) {
        hosts.iter().for_each(|host| taken.add(host, &title));
    }
    Ok(hosts
        .into_iter()
        .map(|host| (native.clone(), host))
        .collect())
}
