//! Names of services become clusters.

use std::collections::HashMap;

use super::native::{Cluster, Discover, Endpoint};
use super::{Leaf, Options, Output};
use crate::model::Position;

/// A service that a document describes: a Service of Kubernetes, or a host of a ServiceEntry.
#[derive(Clone, Debug)]
pub struct Service {
    /// Full name, lower case: `name.namespace.svc.DOMAIN`, or the host itself.
    pub host: String,
    /// What its clusters are called in front of `:PORT`: `namespace/name`, or the host.
    pub title: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Where its endpoints are.
    pub backing: Backing,
    /// Where it was written.
    pub at: Position,
}

/// A port of a service.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name, may be empty.
    pub name: String,
    /// As clients use it.
    pub number: u16,
    /// As endpoints listen on it; `None`: it is not known by number.
    pub target: Option<u16>,
    /// `http2` or `http1` when the port says what is spoken.
    pub protocol: Option<&'static str>,
}

/// Where the endpoints of a service are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Behind one address that balances by itself, found by this name; clients use the port of the service.
    Name(String),
    /// The addresses of this name are the endpoints themselves; clients use the target port.
    Headless(String),
    /// Fixed endpoints.
    Fixed(Vec<FixedEndpoint>),
}

/// A fixed endpoint of a service.
#[derive(Clone, Debug)]
pub struct FixedEndpoint {
    /// Address or name.
    pub address: Leaf,
    /// Its port for ports of the service by their names; else the target port counts.
    pub ports: Vec<(String, u16)>,
    /// Its share.
    pub weight: Option<Leaf>,
    /// Its labels.
    pub labels: Vec<(Leaf, Leaf)>,
}

/// Which port of a service is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRef<'t> {
    /// By number.
    Number(u16),
    /// By name; needs the Service among the documents.
    Name(&'t str),
    /// The only one; needs the Service among the documents.
    Only,
}

/// A service, a port and a subset that a document refers to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// `name`, `name.namespace.svc.DOMAIN` or any other host.
    pub host: &'t str,
    /// Namespace of short names.
    pub namespace: &'t str,
    /// Which port.
    pub port: PortRef<'t>,
    /// Name of a subset.
    pub subset: Option<&'t str>,
    /// Where it was written.
    pub at: &'t Position,
}

/// All services that are known.
#[derive(Debug, Default)]
pub struct Services {
    known: HashMap<String, Service>,
    titles: HashMap<String, String>,
}

impl Services {
    /// Adds a service. False: one with that host is there already and stays.
    pub fn add(&mut self, service: Service) -> bool {
        let new = !self.known.contains_key(&service.host);
        if new {
            self.titles
                .insert(service.title.clone(), service.host.clone());
            self.known.insert(service.host.clone(), service);
        }
        new
    }

    /// Returns a service by its full name.
    pub fn find(&self, host: &str) -> Option<&Service> {
        self.known.get(host)
    }

    /// Fills in the target ports, by the names of ports, that a service has no numbers for.
    pub(super) fn learn(&mut self, host: &str, ports: &[(String, u16)]) {
        let service = self.known.get_mut(host).into_iter();
        let unknown = service.flat_map(|service| &mut service.ports);
        for port in unknown.filter(|port| port.target.is_none()) {
            let found = ports.iter().find(|(name, _)| *name == port.name);
            port.target = found.map(|(_, number)| *number);
        }
    }

    /// True when the name of any service ends with `suffix`.
    pub(super) fn any_below(&self, suffix: &str) -> bool {
        self.known.keys().any(|host| host.ends_with(suffix))
    }

    /// Returns the full names of all services, sorted.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.known.keys().cloned().collect();
        hosts.sort_unstable();
        hosts
    }

    /// Returns the full name of the service that `TITLE` of a cluster `TITLE:PORT` stands for.
    pub(super) fn titled(&self, title: &str) -> Option<&str> {
        self.titles.get(title).map(String::as_str)
    }

    /// Writes the full name of a host, lower case: a name without dots is one of `namespace`, `name.namespace` and
    /// `name.namespace.svc` are completed when no other service has that name.
    pub fn full_name(&self, host: &str, namespace: &str, options: &Options) -> String {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if self.known.contains_key(&host) {
            return host;
        }
        let domain = &options.cluster_domain;
        match host.split('.').collect::<Vec<_>>()[..] {
            [name] => format!("{name}.{namespace}.svc.{domain}"),
            [_, _, "svc"] => format!("{host}.{domain}"),
            [_, _] if self.known.contains_key(&format!("{host}.svc.{domain}")) => {
                format!("{host}.svc.{domain}")
            }
            _ => host,
        }
    }
}

/// Finds or makes the cluster of a target and returns its name: `namespace/name:port` or `host:port`, and `/subset`.
///
/// # Errors
///
/// Why it refers to nothing, for a finding.
pub(super) fn cluster(
    services: &Services,
    options: &Options,
    output: &mut Output,
    target: &Target<'_>,
) -> Result<Leaf, String> {
    let host = services.full_name(target.host, target.namespace, options);
    let suffix = format!(".svc.{}", options.cluster_domain);
    let object = host
        .strip_suffix(&suffix)
        .and_then(|rest| rest.split_once('.'))
        .filter(|(name, namespace)| !name.is_empty() && !namespace.contains('.'));
    let service = services.find(&host);
    if service.is_none() && object.is_none() {
        return Err(format!(
            "no document describes `{host}`: it is neither a Service nor the host of a ServiceEntry"
        ));
    }
    let title = match (service, object) {
        (Some(service), _) => service.title.clone(),
        (None, Some((name, namespace))) => format!("{namespace}/{name}"),
        (None, None) => host.clone(),
    };
    let port = port(service, &title, target.port)?;
    let mut name = format!("{title}:{}", port.number);
    if let Some(subset) = target.subset {
        name.push_str(&format!("/{subset}"));
    }
    let leaf = Leaf::text(target.at, name.as_str());
    if output.has(&name) {
        return Ok(leaf);
    }
    let at = service.map_or(target.at, |service| &service.at);
    let mut cluster = Cluster {
        at: Some(at.clone()),
        name: Some(Leaf::text(at, name.as_str())),
        protocol: port.protocol.map(|protocol| Leaf::text(at, protocol)),
        ..Cluster::default()
    };
    let pin = options.pin(&[&host, &title], target.subset, port.number);
    match pin {
        Some(address) => cluster.endpoints.push(Endpoint {
            address: Some(Leaf::text(at, address)),
            ..Endpoint::default()
        }),
        None => find(&mut cluster, service, (&host, object), &port, options)
            .map_err(|note| format!("{note} of `{title}`"))?,
    }
    output.serve(cluster, &name, (&host, port.number, target.subset));
    Ok(leaf)
}

fn port(service: Option<&Service>, title: &str, wanted: PortRef<'_>) -> Result<Port, String> {
    let bare = |number| Port {
        name: String::new(),
        number,
        target: Some(number),
        protocol: None,
    };
    let Some(service) = service else {
        return match wanted {
            PortRef::Number(number) => Ok(bare(number)),
            PortRef::Name(_) | PortRef::Only => Err(format!(
                "the number of the port is unknown without the Service `{title}`"
            )),
        };
    };
    let mut ports = service.ports.iter();
    let found = match wanted {
        PortRef::Number(number) => ports.find(|port| port.number == number),
        PortRef::Name(name) => ports.find(|port| port.name == name),
        PortRef::Only => ports.next().filter(|_| service.ports.len() == 1),
    };
    found.cloned().ok_or_else(|| match wanted {
        PortRef::Number(number) => format!("`{title}` has no port {number}"),
        PortRef::Name(name) => format!("`{title}` has no port `{name}`"),
        PortRef::Only => format!("`{title}` has several ports or none: one must be named"),
    })
}

/// Says where the endpoints of a cluster are found: here a pod would ask Kubernetes instead.
fn find(
    cluster: &mut Cluster,
    service: Option<&Service>,
    (host, _object): (&str, Option<(&str, &str)>),
    port: &Port,
    options: &Options,
) -> Result<(), String> {
    let at = cluster.at.clone().unwrap_or_else(super::nowhere);
    let dns = |name: &str, port: u16| Discover::Dns {
        name: Leaf::text(&at, name),
        port: Leaf::number(&at, port),
    };
    let target = || {
        let unknown = || format!("the number of the target port `{}` is unknown", port.name);
        port.target.ok_or_else(unknown)
    };
    match service.map(|service| &service.backing) {
        None => cluster.discover = Some(dns(host, port.number)),
        Some(Backing::Name(name)) => cluster.discover = Some(dns(name, port.number)),
        Some(Backing::Headless(name)) => cluster.discover = Some(dns(name, target()?)),
        Some(Backing::Fixed(endpoints)) => {
            for endpoint in endpoints {
                let own = endpoint.ports.iter().find(|(name, _)| *name == port.name);
                let number = match own {
                    Some((_, number)) => *number,
                    None => target()?,
                };
                cluster
                    .endpoints
                    .push(fixed(endpoint, number, &at, options));
            }
        }
    }
    Ok(())
}

fn fixed(endpoint: &FixedEndpoint, port: u16, at: &Position, options: &Options) -> Endpoint {
    let host = endpoint.address.as_str();
    let address = match options.pin(&[host], None, port) {
        Some(pinned) => pinned.to_owned(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    };
    let mut part = Endpoint {
        at: Some(at.clone()),
        address: Some(endpoint.address.with(address)),
        weight: endpoint.weight.clone(),
        ..Endpoint::default()
    };
    for (key, value) in &endpoint.labels {
        part.labels.add(key.clone(), value.clone());
    }
    part
}
