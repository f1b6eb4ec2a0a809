//! Peers: servers elsewhere, each with models of its own.

use super::Taken;
use super::macros::Macros;
use super::place::{Url, url};
use super::settings::Timeouts;
use crate::import::native::{
    Action, ClientTls, Cluster, Edits, Endpoint, Keepalive, Match, PathRule, Route,
};
use crate::import::{Fields, Leaf, Work};

/// Makes a cluster and a route of each peer.
pub(super) fn translate(
    root: &Fields<'_>,
    macros: &Macros,
    taken: &mut Taken,
    work: &mut Work<'_>,
) {
    for (id, peer) in root.named("peers") {
        if let Some((route, cluster)) = read(&id, &peer, macros, taken) {
            work.output.routes.push(route);
            work.output.add_cluster(cluster);
        }
    }
}

fn read(
    id: &Leaf,
    peer: &Fields<'_>,
    macros: &Macros,
    taken: &mut Taken,
) -> Option<(Route, Cluster)> {
    for key in ["proxy", "models"] {
        if !peer.has(key) {
            peer.lost_here(format!("`{key}` is missing"));
            return None;
        }
    }
    // Looked into, so that each of them is found to be lost.
    let _filters = peer.map("filters");
    let written = macros.text(peer, "proxy", &[])?;
    let place = url(written.as_str()).and_then(legal);
    let (
        Url {
            tls, path, host, ..
        },
        port,
    ) = match place {
        Ok(place) => place,
        Err(note) => {
            peer.lost("proxy", format!("{note}; the peer is left out"));
            return None;
        }
    };
    let mut models = Vec::new();
    for model in peer.texts("models") {
        let text = model.as_str();
        let legal = !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control);
        match legal && taken.model(text) {
            true => models.push(model.with(text)),
            false => peer.lost("models", "another model has the name, or nobody can"),
        }
    }
    if models.is_empty() {
        peer.lost_here("no model is left that it could be asked for");
        return None;
    }
    let at = written.at();
    let leaf = |text: &str| Some(Leaf::text(at, text));
    let timeouts = Timeouts::read(peer);
    let name = id.with(taken.cluster(id.as_str()));
    let address = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let cluster = Cluster {
        at: Some(id.at().clone()),
        name: Some(name.clone()),
        endpoints: vec![Endpoint {
            address: leaf(&address),
            ..Endpoint::default()
        }],
        tls: tls.then(|| ClientTls {
            server_name: leaf(host),
            ..ClientTls::default()
        }),
        connect_timeout: timeouts.connect,
        keepalive: Keepalive {
            idle: timeouts.idle,
            ..Keepalive::default()
        },
        ..Cluster::default()
    };
    let title = id.with(format!("llama-swap/{name}"));
    let mut route = Route::new(id.at(), title, Action::Cluster(name));
    let each = models.into_iter().map(|model| Match {
        model: Some(model),
        path: (!path.is_empty()).then(|| PathRule::Prefix(Leaf::text(at, "/"))),
        ..Match::default()
    });
    route.matches = each.collect();
    route.rewrite.host = leaf(host);
    route.rewrite.prefix = leaf(path).filter(|path| !path.as_str().is_empty());
    route.timeouts = super::patient(id.at());
    if timeouts.first_byte.is_some() {
        route.timeouts.first_byte = timeouts.first_byte;
    }
    route.request_headers = key(peer, macros);
    Some((route, cluster))
}

/// Checks that requests can be sent to a URL; returns its port as well.
fn legal(url: Url<'_>) -> Result<(Url<'_>, u16), String> {
    let port = match url.port.parse() {
        Ok(port) if port > 0 => port,
        _ => return Err("its port is no number".to_owned()),
    };
    let label = |label: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(legal)
    };
    let named = url.host.len() <= 253 && url.host.split('.').all(label);
    if !named && url.host.parse::<std::net::IpAddr>().is_err() {
        return Err("its host is none".to_owned());
    }
    if url
        .path
        .contains(|c: char| !c.is_ascii_graphic() || "?#%{}\\".contains(c))
    {
        return Err("its path is not plain".to_owned());
    }
    Ok((url, port))
}

/// Reads `apiKey`: the peer gets it instead of the client's.
fn key(peer: &Fields<'_>, macros: &Macros) -> Edits {
    let mut edits = Edits::default();
    let Some(key) = macros.text(peer, "apiKey", &[]) else {
        return edits;
    };
    let legal = |c: char| c.is_ascii_graphic() || c == ' ';
    if !key.as_str().chars().all(legal) {
        peer.lost("apiKey", "it cannot be a header");
    } else if !key.as_str().is_empty() {
        let bearer = key.with(format!("Bearer {key}"));
        for (header, value) in [("authorization", &bearer), ("x-api-key", &key)] {
            edits.set.add(key.with(header), macros.native(value));
        }
    }
    edits
}
