//! Where rules hold: hosts, and the listeners that gateways become.

use std::collections::{BTreeMap, BTreeSet};

use super::gateway::{Gateways, Server};
use crate::import::Leaf;
use crate::schema::HostRule;

use super::text::shaped;

/// Listeners, none for all, and hosts, none for any.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) listeners: Vec<Leaf>,
    pub(super) hosts: Vec<Leaf>,
    /// True when all of its listeners have TLS, false when none has; `None`: it is not known.
    pub(super) tls: Option<bool>,
}

/// The hosts of all VirtualServices, and which of them gets the requests to a host that only a condition names.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    named: BTreeMap<String, BTreeSet<String>>,
}

impl Hosts {
    /// * `hosts`: hosts of VirtualServices, as [`host`] returns them
    /// * `authorities`: names in conditions, in lower case
    pub(super) fn new(hosts: &BTreeSet<String>, authorities: &BTreeSet<String>) -> Self {
        let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for authority in authorities {
            let covering = hosts.iter().filter(|host| covers(host, authority));
            if let Some(best) = covering.max_by_key(|host| (*host == authority, host.len())) {
                let names = named.entry(best.clone()).or_default();
                names.insert(authority.clone());
            }
        }
        Self { named }
    }

    /// Returns the host and the names that conditions single out of it: rules for the host are for these as well.
    pub(super) fn spread(&self, host: &Leaf) -> Vec<Leaf> {
        let names = self.named.get(host.as_str()).into_iter().flatten();
        let others = names.filter(|name| *name != host.as_str());
        let others = others.map(|name| host.with(name.as_str()));
        std::iter::once(host.clone()).chain(others).collect()
    }

    /// True when requests to `authority` are those of `host`.
    pub(super) fn owns(&self, host: &str, authority: &str) -> bool {
        let names = self.named.get(host);
        names.is_some_and(|names| names.contains(authority))
    }
}

/// Writes a host in lower case, empty for `*`. `Err` says why no request has it.
pub(super) fn host(leaf: &Leaf) -> Result<Leaf, String> {
    let lower = leaf.with(leaf.as_str().to_ascii_lowercase());
    match lower.as_str() {
        "*" => Ok(leaf.with("")),
        _ => shaped::<HostRule>(&lower).map(|_| lower),
    }
}

/// True when each name that `narrow` stands for is one of `wide`.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_prefix('*') {
        _ if wide.is_empty() || wide == narrow => true,
        Some(suffix) => {
            narrow.trim_start_matches('*').len() >= suffix.len() && narrow.ends_with(suffix)
        }
        None => false,
    }
}

/// What a condition asks of a listener.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// The port.
    pub(super) port: Option<u16>,
    /// With TLS, or without.
    pub(super) tls: Option<bool>,
}

/// Finds where a rule holds.
///
/// * `names`: the gateways it is for, as [`Gateways::name`] returns them
/// * `namespace`: that of the VirtualService
///
/// # Errors
///
/// Why it holds nowhere.
pub(super) fn places(
    gateways: &Gateways,
    names: &BTreeSet<String>,
    namespace: &str,
    hosts: &[Leaf],
    asked: Asked,
) -> Result<Vec<Place>, String> {
    if gateways.none() {
        if asked.port.is_some() || asked.tls.is_some() {
            let note = "no document describes a Gateway, so that ports and schemes of listeners are not known";
            return Err(note.to_owned());
        }
        return Ok(vec![Place {
            listeners: Vec::new(),
            hosts: hosts.to_vec(),
            tls: None,
        }]);
    }
    let mut places: Vec<Place> = Vec::new();
    for server in gateways.serving(names) {
        let fits = asked.port.is_none_or(|port| port == server.port)
            && asked.tls.is_none_or(|tls| tls == server.tls);
        let common = common(hosts, server, namespace);
        if !fits || common.is_empty() {
            continue;
        }
        let same = |place: &&mut Place| place.hosts == common && place.tls == Some(server.tls);
        match places.iter_mut().find(same) {
            Some(place) if place.listeners.contains(&server.listener) => {}
            Some(place) => place.listeners.push(server.listener.clone()),
            None => places.push(Place {
                listeners: vec![server.listener.clone()],
                hosts: common,
                tls: Some(server.tls),
            }),
        }
    }
    match places.is_empty() {
        true => Err("no server of its gateways takes such requests".to_owned()),
        false => Ok(places),
    }
}

/// Joins places that differ in their listeners only.
pub(super) fn joined(places: Vec<Place>) -> Vec<Place> {
    let mut joined: Vec<Place> = Vec::new();
    for place in places {
        match joined.iter_mut().find(|one| one.hosts == place.hosts) {
            Some(one) => {
                one.listeners.extend(place.listeners);
                one.tls = None;
            }
            None => joined.push(place),
        }
    }
    joined
}

/// Returns the hosts that both a VirtualService and a server have.
fn common(hosts: &[Leaf], server: &Server, namespace: &str) -> Vec<Leaf> {
    let mut common: Vec<Leaf> = Vec::new();
    for host in hosts {
        for (from, own) in &server.hosts {
            let own = own.as_str();
            if from.as_ref().is_some_and(|from| from != namespace) {
                continue;
            }
            let both = match (covers(own, host.as_str()), covers(host.as_str(), own)) {
                (true, _) => host.clone(),
                (false, true) => host.with(own),
                (false, false) => continue,
            };
            if !common.contains(&both) {
                common.push(both);
            }
        }
    }
    common
}
