//! Gateways: the ports that are listened on, and the places where routes may be attached.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::admission::Admission;
use super::grants::Grants;
use super::hosts::{Host, Taken, wider};
use super::{GROUP, GRPC, HTTP, legal};
use crate::import::native::{Action, Match, Respond, Route, ServerTls};
use crate::import::{Certificate, Document, Fields, Leaf, Work};
use crate::model::Position;
use crate::schema::HostRule;

/// A listener of a Gateway.
#[derive(Debug)]
pub(super) struct Place {
    /// Its name, which routes may name.
    pub(super) section: String,
    /// Its port.
    pub(super) port: u16,
    /// Its hostname, empty for any.
    pub(super) hostname: Host,
    /// The native listener of its port.
    pub(super) native: Leaf,
    /// Hosts of attached routes by their kind: one host is never of both.
    pub(super) taken: HashMap<&'static str, Taken>,
    /// Which routes it takes.
    pub(super) admission: Admission,
    name: Leaf,
    at: Position,
}

/// All places.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The places themselves.
    pub(super) all: Vec<Place>,
    gateways: HashMap<(String, String), Vec<usize>>,
    hostnames: HashMap<String, HashSet<Host>>, // by native listener
}

impl Places {
    /// Reads all Gateways and makes the listeners of their ports.
    pub(super) fn read(work: &mut Work<'_>, grants: &Grants) -> Self {
        for document in work.documents(GROUP, "GatewayClass") {
            let _read = document.fields(work.audit).map("spec");
        }
        let mut reading = Reading::default();
        for document in work.documents(GROUP, "Gateway") {
            let fields = document.fields(work.audit);
            let key = (document.namespace.to_owned(), document.name.to_owned());
            reading.places.gateways.insert(key, Vec::new());
            let Some(spec) = fields.map("spec") else {
                continue;
            };
            spec.accept("addresses");
            let listeners = spec.maps("listeners");
            let basics: Vec<Result<Basics, String>> =
                listeners.iter().map(|listener| basics(*listener)).collect();
            let mut counts: HashMap<(u16, Host), usize> = HashMap::new();
            for one in basics.iter().flatten() {
                *counts.entry((one.port, one.hostname.clone())).or_default() += 1;
            }
            for (index, (listener, basics)) in listeners.into_iter().zip(basics).enumerate() {
                match basics {
                    Ok(one) if counts.get(&(one.port, one.hostname.clone())) != Some(&1) => {
                        let note =
                            "another listener has its port and hostname: none of them counts";
                        listener.lost_here(note);
                    }
                    Ok(one) => reading.listener((&document, index), listener, one, work, grants),
                    Err(why) => listener.lost_here(why),
                }
            }
        }
        reading.serve_tls(work);
        reading.places
    }

    /// True when no document describes any Gateway.
    pub(super) fn none(&self) -> bool {
        self.gateways.is_empty()
    }

    /// Returns the places of a Gateway; `None`: no document describes it.
    pub(super) fn of(&self, namespace: &str, name: &str) -> Option<&[usize]> {
        let key = (namespace.to_owned(), name.to_owned());
        self.gateways.get(&key).map(Vec::as_slice)
    }

    /// Returns the most specific hostname on a native listener that all of a host belongs to.
    pub(super) fn isolating(&self, native: &str, host: &str) -> Option<Host> {
        let wider = std::iter::once(host.to_owned()).chain(wider(host));
        self.first(native, wider)
    }

    /// Returns the first of some hostnames that a listener has on a native listener.
    fn first(&self, native: &str, hosts: impl IntoIterator<Item = Host>) -> Option<Host> {
        let known = self.hostnames.get(native)?;
        hosts.into_iter().find(|host| known.contains(host))
    }

    /// Adds routes that keep requests of a listener from those with a wider hostname on its port.
    pub(super) fn fence(&self, work: &mut Work<'_>) {
        let mut done: HashSet<(&str, &str)> = HashSet::new();
        for place in &self.all {
            let key = (place.native.as_str(), place.hostname.as_str());
            let covered = self.first(key.0, wider(key.1)).is_some();
            if !covered || !done.insert(key) {
                continue;
            }
            let respond = Respond {
                status: Some(Leaf::number(&place.at, 404)),
                ..Respond::default()
            };
            let name = place.name.with(format!("{}/no-match", place.name));
            let mut route = Route::new(&place.at, name, Action::Respond(Box::new(respond)));
            route.listeners.push(place.native.clone());
            route.matches.push(Match {
                hosts: vec![Leaf::text(&place.at, place.hostname.as_str())],
                ..Match::default()
            });
            work.output.routes.push(route);
        }
    }
}

/// Places while they are read, and what their ports need.
#[derive(Default)]
struct Reading {
    places: Places,
    ports: BTreeMap<u16, Port>,
    hostnames: HashMap<(u16, Host), String>, // and the first listener that has them
}

/// A port of some Gateways.
struct Port {
    protocol: &'static str,
    certificates: Vec<Certificate>,
    at: Position,
}

impl Reading {
    fn listener(
        &mut self,
        (document, index): (&Document<'_>, usize),
        listener: Fields<'_>,
        basics: Basics,
        work: &mut Work<'_>,
        grants: &Grants,
    ) {
        let Some(admission) = Admission::read(listener, document.namespace) else {
            return listener.lost_here("which namespaces are meant cannot be read");
        };
        let Basics { port, protocol, .. } = basics;
        let known = self.ports.entry(port).or_insert_with(|| Port {
            protocol,
            certificates: Vec::new(),
            at: listener.at().clone(),
        });
        if known.protocol != protocol {
            return listener.lost_here(format!("port {port} speaks {} already", known.protocol));
        }
        let native = match protocol {
            "http" => work.listener(port, protocol, listener.at()),
            _ => {
                let certificates = certificates(document, listener, work, grants);
                known.certificates.extend(certificates);
                Leaf::text(listener.at(), format!("{protocol}-{port}"))
            }
        };
        let key = (port, basics.hostname.clone());
        let title = format!(
            "{}/{}/{}",
            document.namespace, document.name, basics.section
        );
        if let Some(first) = self.hostnames.get(&key) {
            let note = format!("port and hostname are shared with `{first}`");
            listener.approximated("port", note);
        }
        self.hostnames.entry(key).or_insert(title);
        let key = (document.namespace.to_owned(), document.name.to_owned());
        let gateway = self.places.gateways.entry(key).or_default();
        gateway.push(self.places.all.len());
        let hostnames = self.places.hostnames.entry(native.as_str().to_owned());
        hostnames.or_default().insert(basics.hostname.clone());
        self.places.all.push(Place {
            section: basics.section,
            port,
            hostname: basics.hostname,
            native,
            taken: HashMap::from([(HTTP, Taken::default()), (GRPC, Taken::default())]),
            admission,
            name: work.name(document, index, listener.at()),
            at: listener.at().clone(),
        });
    }

    /// Makes the listeners with TLS. Without any certificate there is none: it would have to speak in the clear.
    fn serve_tls(&mut self, work: &mut Work<'_>) {
        for (port, known) in std::mem::take(&mut self.ports) {
            if known.certificates.is_empty() {
                continue;
            }
            let name = work.listener(port, known.protocol, &known.at);
            let mut listeners = work.output.listeners.iter_mut();
            let own = |name: &Leaf, other: &Option<Leaf>| {
                other
                    .as_ref()
                    .is_some_and(|other| other.as_str() == name.as_str())
            };
            if let Some(listener) = listeners.find(|one| own(&name, &one.name)) {
                listener.tls = Some(ServerTls::new(known.certificates));
            }
        }
    }
}

/// What every listener needs.
struct Basics {
    section: String,
    port: u16,
    protocol: &'static str,
    hostname: Host,
}

/// Reads what a listener needs.
///
/// # Errors
///
/// Why it has no effect.
fn basics(listener: Fields<'_>) -> Result<Basics, String> {
    let protocol = listener.text("protocol");
    let (Some(section), Some(protocol)) = (listener.text("name"), protocol) else {
        return Err("a listener needs `name` and `protocol`".to_owned());
    };
    let port = listener.whole("port", 1..=65_535);
    let port = port.and_then(|leaf| leaf.whole()?.try_into().ok());
    let port = port.ok_or("a listener needs a `port` from 1 to 65535")?;
    if !legal::readable(listener, &["hostname"]) {
        return Err("the hostname cannot be read".to_owned());
    }
    let hostname = listener.text("hostname");
    let hostname = match hostname.filter(|leaf| !leaf.as_str().is_empty()) {
        None => Host::new(),
        Some(leaf) => {
            legal::value::<HostRule>(&leaf)?;
            leaf.as_str().trim_end_matches('.').to_ascii_lowercase()
        }
    };
    let protocol = match protocol.as_str() {
        "HTTP" => "http",
        "HTTPS" => "https",
        _ => return Err("only HTTP and HTTPS are translated".to_owned()),
    };
    Ok(Basics {
        section: section.as_str().to_owned(),
        port,
        protocol,
        hostname,
    })
}

/// Reads the certificates of a listener; what cannot be had is found to be lost.
fn certificates(
    document: &Document<'_>,
    listener: Fields<'_>,
    work: &Work<'_>,
    grants: &Grants,
) -> Vec<Certificate> {
    let Some(tls) = listener.map("tls") else {
        listener.lost_security("protocol", "without `tls` there is no certificate");
        return Vec::new();
    };
    if tls
        .text("mode")
        .is_some_and(|mode| mode.as_str() != "Terminate")
    {
        tls.lost_security("mode", "TLS is always terminated here");
    }
    let mut found = Vec::new();
    let references = tls.maps("certificateRefs");
    if references.is_empty() {
        listener.lost_security(
            "protocol",
            "without `certificateRefs` there is no certificate",
        );
    }
    for reference in references {
        let group = reference.text("group");
        let kind = reference.text("kind");
        let namespace = reference.text("namespace");
        let namespace = namespace.as_ref().map_or(document.namespace, Leaf::as_str);
        let Some(name) = reference.text("name") else {
            reference.lost_here("`name` is missing");
            continue;
        };
        let secret = group.is_none_or(|group| group.as_str().is_empty())
            && kind.is_none_or(|kind| kind.as_str() == "Secret");
        let target = ("", "Secret", namespace, name.as_str());
        if !secret {
            reference.lost_security("kind", "only Secrets hold certificates");
        } else if !grants.allow(("Gateway", document.namespace), target) {
            let note = format!("no ReferenceGrant lets this Gateway use Secrets of `{namespace}`");
            reference.lost_security("name", note);
        } else {
            match work.certificate(namespace, name.as_str(), reference.at()) {
                Some(certificate) => found.push(certificate),
                None => {
                    let note = format!("no files are given for the Secret `{namespace}/{name}`");
                    reference.lost_security("name", note);
                }
            }
        }
    }
    found
}
