//! Endpoints and ports of a cluster.

use std::collections::HashSet;

use super::cluster::labels;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{EndpointConfig, Ports, ServerKind};
use crate::schema::keys::{ClusterKeys, Port};
use crate::schema::{At, Path, Reader};

/// Reads `endpoints` of a cluster.
///
/// * `path`: that of the cluster
pub(super) fn endpoints(
    keys: &ClusterKeys,
    server: ServerKind,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Vec<EndpointConfig> {
    let list = path.key("endpoints");
    let usual = ports(keys).http.or(server.ports().http);
    let mut endpoints = Vec::new();
    let mut seen = HashSet::new();
    let items = keys.endpoints.iter().flat_map(|list| &list.value.items);
    for (index, item) in items.enumerate() {
        let keys_here = &item.value.0;
        let Some(At {
            value: address,
            position,
        }) = &keys_here.address
        else {
            continue;
        };
        let item = list.item(index, None);
        let Some(port) = address.port.or(usual) else {
            // What is spoilt may be what would have said the port.
            if !keys.broken {
                let message = format!(
                    "this endpoint has no port, and `{}` servers have no usual one",
                    server.as_str()
                );
                let help = format!("write it: `{}:8080`?", bracketed(&address.host));
                reader.refuse(Code::Endpoints, position, item, message, &help);
            }
            continue;
        };
        if !seen.insert((&address.host, port)) {
            let message = "this endpoint is in the list twice";
            let help = "give it a larger `weight` instead";
            reader.refuse(Code::Endpoints, position, item, message, help);
            continue;
        }
        endpoints.push(EndpointConfig {
            host: address.host.clone(),
            port,
            weight: keys_here.weight.as_ref().map_or(1, |at| at.value.narrow()),
            labels: keys_here
                .labels
                .as_ref()
                .map(|at| labels(&at.value))
                .unwrap_or_default(),
        });
    }
    endpoints
}

/// Writes a host as it stands in front of a port.
fn bracketed(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// The ports of a cluster's servers: as written; where no endpoint is written with a port and neither port is, they
/// are the usual ones of such servers, gRPC's included.
pub(super) fn all_ports(keys: &ClusterKeys, server: ServerKind) -> Ports {
    let written = ports(keys);
    let mut addresses = keys
        .endpoints
        .iter()
        .flat_map(|list| &list.value.items)
        .filter_map(|item| item.value.0.address.as_ref())
        .peekable();
    let usual = addresses.peek().is_some()
        && written.http.is_none()
        && addresses.all(|at| at.value.port.is_none());
    Ports {
        grpc: written.grpc.or(server.ports().grpc.filter(|_| usual)),
        ..written
    }
}

/// Reads `ports` of a cluster.
fn ports(keys: &ClusterKeys) -> Ports {
    let number = |at: &Option<At<Port>>| u16::try_from(at.as_ref()?.value.0).ok();
    keys.ports
        .as_ref()
        .map_or_else(Ports::default, |At { value: keys, .. }| Ports {
            http: number(&keys.http),
            grpc: number(&keys.grpc),
            metrics: number(&keys.metrics),
        })
}

/// Reports ports that nothing asks for, and those that several processes cannot all have.
///
/// * `path`: that of the cluster
pub(super) fn odd_ports(keys: &ClusterKeys, path: Path<'_>, reader: &mut Reader<'_>) {
    let Some(At { value: ports, .. }) = &keys.ports else {
        return;
    };
    let path = path.key("ports");
    let addresses = keys
        .endpoints
        .iter()
        .flat_map(|list| &list.value.items)
        .filter_map(|item| item.value.0.address.as_ref());
    let mut addresses = addresses.map(|at| &at.value);
    if let Some(at) = &ports.http
        && !keys.broken
        && addresses.all(|address| address.port.is_some())
    {
        let message =
            format!("{path}.http: has no effect, because no endpoint is written without a port");
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message));
    }
    let scale = keys.scale.as_ref().map(|at| &at.value);
    let Some(scale) = scale.filter(|scale| scale.process.is_some()) else {
        return;
    };
    let min = scale.min.as_ref().map_or(1, |at| at.value.0);
    let max = scale.max.as_ref().map_or(min, |at| at.value.0);
    for (key, at) in [("grpc", &ports.grpc), ("metrics", &ports.metrics)] {
        let Some(at) = at.as_ref().filter(|_| max > 1) else {
            continue;
        };
        let message = format!("{max} replicas on one host cannot all listen on one port");
        let help = "leave it out, and serve everything on `${PORT}`; or write `max: 1` in `scale`";
        reader.refuse(Code::Conflict, &at.position, path.key(key), message, help);
    }
}
