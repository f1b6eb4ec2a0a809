//! What translators have made so far, and the native tree of it.

use std::collections::{HashMap, HashSet};

use super::native::{Cluster, Gpu, Listener, Part, RateLimitPolicy, Route};
use super::{Leaf, nowhere, order};
use crate::node::{Entry, Node, Value};

/// Parts of the native tree. Nothing but listeners, routes, clusters, shared limits and devices for processes can be in it.
#[derive(Debug, Default)]
pub struct Output {
    /// Sockets.
    pub listeners: Vec<Listener>,
    /// Routes in the order they were added, which is the last tie-break.
    pub routes: Vec<Route>,
    /// Devices that local processes share.
    pub gpus: Vec<Gpu>,
    /// Limits that several routes share.
    pub limits: Vec<RateLimitPolicy>,
    clusters: Vec<Cluster>,
    origins: HashMap<String, Origin>,
}

/// What a cluster was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Full name of the service, lower case.
    pub host: String,
    /// Its port, as clients use it.
    pub port: u16,
    /// The subset of its endpoints.
    pub subset: Option<String>,
}

impl Output {
    /// Returns the clusters, each with what it was made for; for policies that come later, such as Istio's
    /// DestinationRules.
    pub fn clusters_mut(&mut self) -> impl Iterator<Item = (Option<&Origin>, &mut Cluster)> {
        let origins = &self.origins;
        self.clusters.iter_mut().map(|cluster| {
            let origin = cluster
                .name
                .as_ref()
                .and_then(|name| origins.get(name.as_str()));
            (origin, cluster)
        })
    }

    /// Returns a cluster by its name.
    pub fn cluster_mut(&mut self, name: &str) -> Option<&mut Cluster> {
        let mut clusters = self.clusters.iter_mut();
        clusters.find(|cluster| {
            let own = cluster.name.as_ref();
            own.is_some_and(|own| own.as_str() == name)
        })
    }

    /// True when there is such a cluster that was made for a service.
    pub(super) fn has(&self, name: &str) -> bool {
        self.origins.contains_key(name)
    }

    /// Adds a cluster of a service.
    pub(super) fn serve(
        &mut self,
        cluster: Cluster,
        name: &str,
        (host, port, subset): (&str, u16, Option<&str>),
    ) {
        let origin = Origin {
            host: host.to_owned(),
            port,
            subset: subset.map(str::to_owned),
        };
        self.origins.insert(name.to_owned(), origin);
        self.clusters.push(cluster);
    }

    /// Adds a cluster that is not made for a service.
    pub fn add_cluster(&mut self, cluster: Cluster) {
        self.clusters.push(cluster);
    }

    /// Makes the native tree: names are unique, priorities given.
    pub(super) fn tree(self) -> Node {
        let mut taken: HashSet<String> = HashSet::new();
        let routes = order::ranked(&self)
            .into_iter()
            .map(|(mut route, priority)| {
                route.name = unique(&route.name, &mut taken);
                route.node(priority)
            });
        let routes: Vec<Node> = routes.collect();
        let list = |items: Vec<Node>| {
            let position = items.first()?.position.clone();
            let value = Value::List(items);
            Some(Node { position, value })
        };
        let nodes = |parts: &mut dyn Iterator<Item = &dyn Part>| {
            list(parts.map(|part| part.whole(&nowhere())).collect())
        };
        let listeners = nodes(&mut self.listeners.iter().map(|one| one as &dyn Part));
        let clusters = nodes(&mut self.clusters.iter().map(|one| one as &dyn Part));
        let gpus = nodes(&mut self.gpus.iter().map(|one| one as &dyn Part));
        let limits = nodes(&mut self.limits.iter().map(|one| one as &dyn Part));
        let lists = [
            ("rate_limit_policies", limits),
            ("listeners", listeners),
            ("routes", list(routes)),
            ("clusters", clusters),
            ("gpus", gpus),
        ];
        let entries = lists.into_iter().filter_map(|(key, value)| {
            let value = value?;
            Some(Entry {
                key: key.to_owned(),
                position: value.position.clone(),
                value,
            })
        });
        let entries: Vec<Entry> = entries.collect();
        let position = entries
            .first()
            .map_or_else(nowhere, |entry| entry.position.clone());
        Node {
            position,
            value: Value::Map(entries),
        }
    }
}

/// Puts a number behind a name that is taken.
fn unique(name: &Leaf, taken: &mut HashSet<String>) -> Leaf {
    let mut number = 1;
    let mut text = name.as_str().to_owned();
    while !taken.insert(text.clone()) {
        number += 1;
        text = format!("{name}-{number}");
    }
    name.with(text)
}
