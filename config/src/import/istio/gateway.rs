//! Gateway: which listeners there are, and for which hosts.

use std::collections::{BTreeMap, BTreeSet};

use super::place::host;
use crate::import::coverage::{Field, Kind};
use crate::import::native::{Action, Match, Order, Redirect, Route, ServerTls};
use crate::import::{Certificate, Document, Fields, Format, Leaf, Work};

/// What becomes of its fields.
pub(super) const KIND: Kind = Kind {
    group: "networking.istio.io",
    name: "Gateway",
    versions: &["v1", "v1beta1", "v1alpha3"],
    format: Some(Format::Istio),
    proto: true,
    fields: &[
        Field::harmless("spec.selector", "there is one proxy"),
        Field::harmless("spec.servers[].name", "for people"),
        Field::ok("spec.servers[].port.number"),
        Field::ok("spec.servers[].port.protocol"),
        Field::harmless("spec.servers[].port.name", "for people"),
        Field::harmless("spec.servers[].port.targetPort", "no longer used"),
        Field::ok("spec.servers[].hosts"),
        Field::ok("spec.servers[].bind"),
        Field::lost(
            "spec.servers[].defaultEndpoint",
            "routes say where requests go",
        ),
        Field::ok("spec.servers[].tls.mode"),
        Field::ok("spec.servers[].tls.httpsRedirect"),
        Field::ok("spec.servers[].tls.credentialName").secure(),
        Field::ok("spec.servers[].tls.credentialNames").secure(),
        Field::approximated(
            "spec.servers[].tls.minProtocolVersion",
            "TLS 1.2 is the oldest version",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.maxProtocolVersion",
            "TLS 1.3 is always spoken",
        ),
        Field::lost(
            "spec.servers[].tls.cipherSuites",
            "only strong ones are spoken, and none can be chosen",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.serverCertificate",
            "documents name no files; use `credentialName`",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.privateKey",
            "documents name no files; use `credentialName`",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.caCertificates",
            "documents name no files; use `tls: {client_ca: …}` of a native listener",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.caCrl",
            "lists of revoked certificates are not read",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.subjectAltNames",
            "names in certificates of clients are not checked",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.verifyCertificateSpki",
            "certificates of clients are not pinned",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.verifyCertificateHash",
            "certificates of clients are not pinned",
        )
        .secure(),
        Field::lost(
            "spec.servers[].tls.tlsCertificates",
            "documents name no files; use `credentialNames`",
        )
        .secure(),
    ],
};

/// A server of a Gateway that became, or can become, a listener.
#[derive(Debug)]
pub(super) struct Server {
    gateway: String,
    /// Its port.
    pub(super) port: u16,
    /// It has TLS.
    pub(super) tls: bool,
    /// It takes connections, not requests.
    pub(super) tcp: bool,
    redirects: bool,
    /// From which namespace only, and the host: empty for any.
    pub(super) hosts: Vec<(Option<String>, Leaf)>,
    /// Name of its listener; for connections, the listener is made when a route needs it.
    pub(super) listener: Leaf,
}

/// All Gateways.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    names: BTreeSet<String>,
    servers: Vec<Server>,
}

impl Gateways {
    /// True without any Gateway among the documents: listeners are native, and rules hold on all of them.
    pub(super) fn none(&self) -> bool {
        self.names.is_empty()
    }

    /// True when the gateway is described.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Writes the name of a gateway as `namespace/name`.
    pub(super) fn name(written: &str, namespace: &str) -> String {
        if written.contains('/') || written == "mesh" {
            return written.to_owned();
        }
        match written.split('.').collect::<Vec<_>>()[..] {
            [name, namespace, "svc", ..] => format!("{namespace}/{name}"),
            _ => format!("{namespace}/{written}"),
        }
    }

    /// Returns the servers of these gateways that take requests and do not just redirect them.
    pub(super) fn serving(&self, names: &BTreeSet<String>) -> impl Iterator<Item = &Server> {
        let of = self.of(names);
        of.filter(|server| !server.tcp && !server.redirects)
    }

    /// Returns the servers of these gateways.
    pub(super) fn of(&self, names: &BTreeSet<String>) -> impl Iterator<Item = &Server> {
        let servers = self.servers.iter();
        servers.filter(|server| names.contains(&server.gateway))
    }
}

/// Makes the listeners of all Gateways, and the routes of servers that redirect to `https`.
pub(super) fn translate(work: &mut Work<'_>) -> Gateways {
    let mut gateways = Gateways::default();
    let mut certificates: BTreeMap<String, Vec<Certificate>> = BTreeMap::new();
    for document in work.documents(KIND.group, KIND.name) {
        let name = format!("{}/{}", document.namespace, document.name);
        gateways.names.insert(name.clone());
        let Some(spec) = document.fields(work.audit).map("spec") else {
            continue;
        };
        for (index, fields) in spec.maps("servers").into_iter().enumerate() {
            match server(work, &document, &fields, &gateways.servers) {
                Ok((server, own)) => {
                    let listener = server.listener.as_str().to_owned();
                    let all = certificates.entry(listener).or_default();
                    all.extend(own);
                    if server.redirects {
                        let name = work.name(&document, index, fields.at());
                        work.output.routes.push(redirect(&server, name));
                    }
                    let gateway = name.clone();
                    gateways.servers.push(Server { gateway, ..server });
                }
                Err(note) if note.is_empty() => {}
                Err(note) => fields.lost_here(note),
            }
        }
    }
    for listener in &mut work.output.listeners {
        let name = listener.name.as_ref().map_or("", Leaf::as_str);
        if let Some(own) = certificates.remove(name).filter(|own| !own.is_empty()) {
            listener.tls = Some(ServerTls::new(own));
        }
    }
    gateways
}

/// Reads a server and makes its listener. `Err` says why there is none; empty: it was said already.
fn server(
    work: &mut Work<'_>,
    document: &Document<'_>,
    fields: &Fields<'_>,
    others: &[Server],
) -> Result<(Server, Vec<Certificate>), String> {
    let port = fields.map("port").ok_or("`port` is missing")?;
    let number = port.whole("number", 1..=65_535);
    let protocol = port.text("protocol");
    let number = number.and_then(|number| u16::try_from(number.whole()?).ok());
    let number = number.ok_or("`port.number` is missing")?;
    let protocol = protocol.map_or_else(|| "HTTP".to_owned(), |word| word.as_str().to_uppercase());
    let hosts = served(fields, document);
    let tls = fields.map("tls");
    let redirects = tls.is_some_and(|tls| tls.flag("httpsRedirect") == Some(true));
    let (kind, certificates) = match protocol.as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => ("http", Vec::new()),
        "HTTPS" => ("https", terminated(work, document, fields, tls)?),
        "TCP" | "MONGO" | "MYSQL" | "REDIS" => ("tcp", Vec::new()),
        "TLS" => {
            if let Some(tls) = tls {
                tls.accept("mode");
            }
            return Err("connections with TLS are not told apart by their server name".to_owned());
        }
        other => return Err(format!("the protocol `{other}` is not served")),
    };
    if kind != "https"
        && let Some(tls) = tls
        && tls.text("mode").is_some()
    {
        tls.lost_security("mode", format!("servers of {protocol} have no TLS"));
        return Err(String::new());
    }
    if hosts.is_empty() {
        return Err("there is no host that requests can have".to_owned());
    }
    let clash = others
        .iter()
        .find(|one| one.port == number && (one.tls, one.tcp) != (kind == "https", kind == "tcp"));
    if let Some(clash) = clash {
        let note = format!("`{}` has the port {number} already", clash.listener);
        return Err(note);
    }
    let at = fields.place("port");
    let listener = match kind {
        "tcp" => Leaf::text(at, format!("tcp-{number}")),
        kind => work.listener(number, kind, at),
    };
    if kind != "tcp" {
        bind(work, fields, &listener, number);
    }
    let server = Server {
        gateway: String::new(),
        port: number,
        tls: kind == "https",
        tcp: kind == "tcp",
        redirects: redirects && kind == "http",
        hosts,
        listener,
    };
    Ok((server, certificates))
}

/// Reads the hosts of a server, each perhaps for one namespace only.
fn served(fields: &Fields<'_>, document: &Document<'_>) -> Vec<(Option<String>, Leaf)> {
    let mut hosts = Vec::new();
    for written in fields.texts("hosts") {
        let (from, name) = match written.as_str().split_once('/') {
            None | Some(("*", _)) => (None, written.as_str()),
            Some((".", _)) => (Some(document.namespace), written.as_str()),
            Some((namespace, _)) => (Some(namespace), written.as_str()),
        };
        let name = name.split_once('/').map_or(name, |(_, name)| name);
        match host(&written.with(name)) {
            Ok(host) => hosts.push((from.map(str::to_owned), host)),
            Err(note) => fields.lost("hosts", note),
        }
    }
    hosts
}

/// Puts the address of a server into its listener.
fn bind(work: &mut Work<'_>, fields: &Fields<'_>, listener: &Leaf, port: u16) {
    let Some(address) = fields.text("bind") else {
        return;
    };
    let Ok(ip) = address.as_str().parse::<std::net::IpAddr>() else {
        return fields.lost("bind", "only IP addresses can be bound");
    };
    let mut listeners = work.output.listeners.iter_mut();
    let same = |name: &Leaf| name.as_str() == listener.as_str();
    if let Some(own) = listeners.find(|one| one.name.as_ref().is_some_and(same)) {
        own.address = Some(address.with(std::net::SocketAddr::new(ip, port).to_string()));
    }
}

/// Reads TLS of a server that has certificates. `Err`: it was said, and nothing may listen without.
fn terminated(
    work: &Work<'_>,
    document: &Document<'_>,
    fields: &Fields<'_>,
    tls: Option<Fields<'_>>,
) -> Result<Vec<Certificate>, String> {
    let Some(tls) = tls else {
        fields.lost_here("HTTPS needs `tls`");
        return Err(String::new());
    };
    let mode = tls.text("mode");
    let mode = mode.as_ref().map_or("SIMPLE", Leaf::as_str);
    match mode {
        "SIMPLE" => {}
        "PASSTHROUGH" | "AUTO_PASSTHROUGH" => {
            tls.lost(
                "mode",
                "connections with TLS are not told apart by their server name",
            );
            return Err(String::new());
        }
        _ => {
            let note = "certificates of clients: use `tls: {client_ca: …}` of a native listener";
            tls.lost_security("mode", note);
            return Err(String::new());
        }
    }
    if let Some(oldest) = tls.text("minProtocolVersion")
        && oldest.as_str() == "TLSV1_3"
    {
        tls.lost_security("minProtocolVersion", "TLS 1.2 is always spoken");
    }
    let single = tls
        .text("credentialName")
        .map(|name| ("credentialName", name));
    let several = tls.texts("credentialNames").into_iter();
    let several = several.map(|name| ("credentialNames", name));
    let mut certificates = Vec::new();
    for (key, name) in single.into_iter().chain(several) {
        let secret = name.as_str();
        let secret = secret
            .split_once("://")
            .map_or(secret, |(_, secret)| secret);
        let (namespace, secret) = secret
            .split_once('/')
            .unwrap_or((document.namespace, secret));
        match work.certificate(namespace, secret, name.at()) {
            Some(certificate) => certificates.push(certificate),
            None => {
                let note = format!(
                    "no certificate was given for the Secret `{namespace}/{secret}`, and nothing listens without"
                );
                tls.lost_security(key, note);
            }
        }
    }
    if certificates.is_empty() {
        let named = ["credentialName", "credentialNames", "serverCertificate"];
        if !named.iter().any(|key| tls.has(key)) {
            fields.lost_here("HTTPS needs `tls: {credentialName: …}`");
        }
        return Err(String::new());
    }
    Ok(certificates)
}

/// Makes the route of a server that sends everybody to `https`.
fn redirect(server: &Server, name: Leaf) -> Route {
    let at = name.at().clone();
    let to = Redirect {
        scheme: Some(name.with("https")),
        status: Some(Leaf::number(&at, 301)),
        ..Redirect::default()
    };
    let mut route = Route::new(&at, name, Action::Redirect(Box::new(to)));
    route.order = Order::FirstMatch;
    route.listeners.push(server.listener.clone());
    let hosts: Vec<Leaf> = server.hosts.iter().map(|(_, host)| host.clone()).collect();
    route.matches = super::rule::spread(&Match::default(), &hosts);
    route
}
