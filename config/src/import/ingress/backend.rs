//! Services become clusters, and annotations say how they are spoken to.

use std::collections::HashMap;

use super::annotations::Annotations;
use super::collect::Ingress;
use super::{legal, policy};
use crate::import::native::{Balance, ClientTls, Cluster, Key};
use crate::import::{Fields, Leaf, PortRef, Target, Work};
use crate::schema::{CookieName, HostName, MatchHeader};

/// What an Ingress says of the clusters of its backends.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Upstream {
    tls: Option<ClientTls>,
    protocol: Option<Leaf>,
    connect: Option<Leaf>,
    balance: Option<Balance>,
    /// A protocol that nobody speaks here.
    foreign: bool,
}

/// What Ingresses say of each cluster, by its name: their places and words.
pub(super) type Wishes = HashMap<String, Vec<(usize, Upstream)>>;

impl Upstream {
    /// Reads the annotations.
    pub(super) fn of(notes: Annotations<'_>) -> Self {
        let mut own = Self::default();
        let protocol = notes.word("backend-protocol");
        let name = notes.word("proxy-ssl-name");
        let word = protocol
            .as_ref()
            .map(|word| word.as_str().to_ascii_uppercase());
        match (word.as_deref(), &protocol) {
            (Some("HTTPS" | "GRPCS"), Some(at)) => {
                own.tls = Some(ClientTls {
                    at: Some(at.at().clone()),
                    server_name: None,
                });
            }
            (None | Some("HTTP" | "GRPC"), _) => {}
            _ => {
                notes.lost(
                    "backend-protocol",
                    "it is not spoken; requests are answered 503",
                );
                own.foreign = true;
            }
        }
        if let (Some("GRPC" | "GRPCS"), Some(at)) = (word.as_deref(), &protocol) {
            own.protocol = Some(at.with("http2"));
        }
        match (name, &mut own.tls) {
            (Some(name), Some(tls)) if legal::is::<HostName>(&name) => tls.server_name = Some(name),
            (Some(_), Some(_)) => notes.lost_security("proxy-ssl-name", "it is no constant host"),
            (Some(_), None) => notes.approximated("proxy-ssl-name", "there is no TLS upstream"),
            (None, _) => {}
        }
        if let Some(word) = notes.word("proxy-ssl-verify")
            && word.as_str() != "on"
        {
            notes.approximated("proxy-ssl-verify", "certificates are always verified");
        }
        own.connect = policy::seconds(notes, "proxy-connect-timeout")
            .map(|leaf| leaf.with(format!("{leaf}s")));
        own.balance = balance(notes);
        own
    }

    /// Takes the loads of a canary from its own Ingress, all else from the main one.
    pub(super) fn balanced_by(&self, canary: Annotations<'_>) -> Self {
        let own = balance(canary);
        Self {
            balance: own.or_else(|| self.balance.clone()),
            ..self.clone()
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn balance(notes: Annotations<'_>) -> Option<Balance> {
    let word = notes.word("load-balance");
    let hash = hash(notes);
    if let Some(cookie) = policy::cookie(notes) {
        if notes.has("upstream-hash-by") {
            notes.approximated("upstream-hash-by", "`affinity` comes first");
        }
        return Some(Balance::Hash(Key::Cookie(cookie)));
    }
    let word = word.and_then(|word| match word.as_str() {
        "round_robin" => Some(Balance::Word(word)),
        "ewma" | "least_conn" => Some(Balance::Word(word.with("least_requests"))),
        _ => {
            notes.lost("load-balance", "the word is not known");
            None
        }
    });
    hash.map(Balance::Hash).or(word)
}

fn hash(notes: Annotations<'_>) -> Option<Key> {
    let key = notes.word("upstream-hash-by")?;
    let text = key.as_str();
    let inner = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'));
    let variable = inner.or_else(|| text.strip_prefix('$'));
    let plain = |name: &&str| name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let name = variable.filter(plain).unwrap_or_default();
    let found = match name {
        "remote_addr" | "binary_remote_addr" | "http_x_forwarded_for" => {
            Some(Key::Word(key.with("client_ip")))
        }
        name => {
            let header = name
                .strip_prefix("http_")
                .map(|rest| key.with(rest.replace('_', "-")));
            let cookie = name.strip_prefix("cookie_").map(|rest| key.with(rest));
            let header = header.filter(legal::is::<MatchHeader>).map(Key::Header);
            header.or_else(|| cookie.filter(legal::is::<CookieName>).map(Key::Cookie))
        }
    };
    if found.is_none() {
        notes.lost(
            "upstream-hash-by",
            "one header, one cookie or the client's address can be a key",
        );
    }
    found
}

/// Finds or makes the cluster of a backend. `None`: it refers to nothing, which was found to be lost.
///
/// * `owner`: the Ingress that says how it is spoken to
pub(super) fn cluster(
    work: &mut Work<'_>,
    ingress: &Ingress<'_>,
    backend: Option<Fields<'_>>,
    (owner, upstream): (usize, &Upstream),
    wishes: &mut Wishes,
) -> Option<Leaf> {
    let backend = backend?;
    let Some(service) = backend.map("service") else {
        if !backend.has("resource") {
            backend.lost_here("it names no service");
        }
        return None;
    };
    let name = service.text("name");
    let port = service.map("port");
    let number = port.and_then(|port| port.whole("number", 1..=65_535));
    let word = port.and_then(|port| port.text("name"));
    let Some(name) = name.filter(|name| !name.as_str().is_empty() && !name.as_str().contains('.'))
    else {
        backend.lost_here("it names no service; its requests are answered 503");
        return None;
    };
    let small = number
        .as_ref()
        .and_then(Leaf::whole)
        .and_then(|number| u16::try_from(number).ok());
    let port = match (small, &word) {
        (Some(number), _) => PortRef::Number(number),
        (None, Some(word)) => PortRef::Name(word.as_str()),
        (None, None) => {
            backend.lost_here("it names no port; its requests are answered 503");
            return None;
        }
    };
    let target = Target {
        host: name.as_str(),
        namespace: ingress.document.namespace,
        port,
        subset: None,
        at: name.at(),
    };
    if upstream.foreign {
        return None;
    }
    match work.cluster(&target) {
        Ok(cluster) => {
            let known = wishes.entry(cluster.as_str().to_owned()).or_default();
            if !upstream.is_empty() && !known.iter().any(|(one, _)| *one == owner) {
                known.push((owner, upstream.clone()));
            }
            Some(cluster)
        }
        Err(note) => {
            backend.lost_here(format!("{note}; its requests are answered 503"));
            None
        }
    }
}

/// Says how clusters are spoken to. nginx says it for each path; here the oldest Ingress that says anything decides.
pub(super) fn settle(work: &mut Work<'_>, mut wishes: Wishes, ingresses: &[Ingress<'_>]) {
    for (_, cluster) in work.output.clusters_mut() {
        let name = cluster.name.as_ref().map(Leaf::as_str).unwrap_or_default();
        let mut known = wishes.remove(name).unwrap_or_default();
        known.sort_by_key(|(owner, _)| *owner);
        for (owner, upstream) in known {
            wish(cluster, upstream, ingresses[owner].notes);
        }
    }
}

fn wish(cluster: &mut Cluster, upstream: Upstream, notes: Annotations<'_>) {
    const NOTE: &str = "another document says otherwise of the same service";
    let Upstream {
        tls,
        protocol,
        connect,
        balance,
        ..
    } = upstream;
    let name = |tls: &ClientTls| tls.server_name.as_ref().map(Leaf::to_string);
    match (&cluster.tls, tls) {
        (None, tls) => cluster.tls = tls,
        (Some(known), Some(tls)) if name(known) != name(&tls) => {
            notes.lost_security("proxy-ssl-name", NOTE);
        }
        _ => {}
    }
    if differs(&mut cluster.protocol, protocol, Leaf::to_string) {
        notes.lost("backend-protocol", NOTE);
    }
    if differs(&mut cluster.connect_timeout, connect, Leaf::to_string) {
        notes.lost("proxy-connect-timeout", NOTE);
    }
    if differs(&mut cluster.balance, balance, shown) {
        for name in ["affinity", "upstream-hash-by", "load-balance"] {
            notes.lost(name, NOTE);
        }
    }
}

/// Sets what nobody said before; true when somebody said something else.
fn differs<T>(known: &mut Option<T>, wanted: Option<T>, shown: impl Fn(&T) -> String) -> bool {
    match (known.as_ref(), wanted) {
        (_, None) => false,
        (Some(first), Some(second)) => shown(first) != shown(&second),
        (None, wanted) => {
            *known = wanted;
            false
        }
    }
}

fn shown(balance: &Balance) -> String {
    match balance {
        Balance::Word(word) => word.to_string(),
        Balance::Hash(Key::Word(word)) => format!("by {word}"),
        Balance::Hash(Key::Header(name)) => format!("by header {name}"),
        Balance::Hash(Key::Cookie(name)) => format!("by cookie {name}"),
    }
}
