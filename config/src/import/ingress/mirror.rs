//! `mirror-target`.

use super::collect::Ingress;
use crate::import::native::{ClientTls, Cluster, Endpoint, Mirror};
use crate::import::{Leaf, PortRef, Target, Work};
use crate::schema::HostPort;

use super::legal;

const NAME: &str = "mirror-target";

/// Translates where copies go: to a service, or to any host.
pub(super) fn mirror(work: &mut Work<'_>, ingress: &Ingress<'_>) -> Option<Mirror> {
    let target = ingress.notes.word(NAME)?;
    match cluster(work, ingress, &target) {
        Ok(cluster) => Some(Mirror {
            at: Some(target.at().clone()),
            cluster: Some(cluster),
            ..Mirror::default()
        }),
        Err(note) => {
            ingress.notes.lost(NAME, note);
            None
        }
    }
}

fn cluster(work: &mut Work<'_>, ingress: &Ingress<'_>, target: &Leaf) -> Result<Leaf, String> {
    let (scheme, rest) = target
        .as_str()
        .split_once("://")
        .ok_or("the target is no URL")?;
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err("copies go to http or https".to_owned()),
    };
    let end = rest.find(['/', '$', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !matches!(path, "$request_uri" | "/$request_uri") {
        return Err("copies keep path and query: the target ends with `$request_uri`".to_owned());
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse::<u16>().map_err(|_| "the port is no number")?;
            (host, port)
        }
        _ => (authority, usual),
    };
    let host = host.to_ascii_lowercase();
    let service = Target {
        host: &host,
        namespace: ingress.document.namespace,
        port: PortRef::Number(port),
        subset: None,
        at: target.at(),
    };
    let inside = !host.contains('.') || host.contains(".svc");
    let name = match work.cluster(&service) {
        Ok(name) => name,
        Err(note) if inside => return Err(note),
        Err(_) => {
            let address = target.with(format!("{host}:{port}"));
            legal::read::<HostPort>(&address)?;
            if work.output.cluster_mut(address.as_str()).is_none() {
                work.output.add_cluster(Cluster {
                    at: Some(target.at().clone()),
                    name: Some(address.clone()),
                    endpoints: vec![Endpoint {
                        address: Some(address.clone()),
                        ..Endpoint::default()
                    }],
                    ..Cluster::default()
                });
            }
            address
        }
    };
    if scheme == "https"
        && let Some(cluster) = work.output.cluster_mut(name.as_str())
    {
        cluster.tls.get_or_insert_with(|| ClientTls {
            at: Some(target.at().clone()),
            server_name: None,
        });
    }
    Ok(name)
}
