//! Clusters and their endpoints.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::endpoint::{all_ports, endpoints, odd_ports};
use super::health::{health, never_ejects, outlier};
use super::listener::unpaired;
use super::models;
use super::scale::{odd, odd_queue, queue, scale};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{
    Balance, Breaker, ClientTls, Cluster, Discover, EndpointConfig, Gpu, HashKey, Keepalive,
    ServerKind, UpstreamProtocol,
};
use crate::schema::keys::{
    BalanceKeys, BreakerKeys, ClientTlsKeys, ClusterKeys, DiscoverKeys, KeepaliveKeys,
};
use crate::schema::{At, BalanceShape, Dictionary, Path, PlainText, Reader};

/// Reads an entry of `clusters`.
///
/// * `gpus`: the devices that are written
pub(super) fn cluster(
    keys: &ClusterKeys,
    gpus: &[Gpu],
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Cluster> {
    let server = keys.server.as_ref();
    let server = server.map_or(ServerKind::Generic, |at| at.value);
    let models = models::names(keys.models.as_ref(), path, reader);
    let endpoints = endpoints(keys, server, path, reader);
    odd_ports(keys, path, reader);
    let discover = keys
        .discover
        .as_ref()
        .and_then(|at| discover(&at.value, path.key("discover"), reader));
    let started = keys
        .scale
        .as_ref()
        .is_some_and(|at| at.value.webhook.is_none() && at.value.observe.is_none());
    let written = keys.endpoints.as_ref();
    let none = written.is_none_or(|list| list.value.items.is_empty());
    if none && keys.discover.is_none() && !started && !keys.broken {
        let help = "add `endpoints: [\"127.0.0.1:8080\"]`";
        let message = "a cluster needs `endpoints` or `discover`";
        reader.refuse(Code::Endpoints, &keys.position, path, message, help);
    }
    let subset = keys
        .subset
        .as_ref()
        .map(|at| labels(&at.value))
        .unwrap_or_default();
    let has = |endpoint: &&EndpointConfig| {
        let mut wanted = subset.iter();
        wanted.all(|(key, value)| endpoint.labels.get(key) == Some(value))
    };
    let serving = || endpoints.iter().filter(has);
    if let Some(at) = &keys.subset
        && keys.discover.is_none()
        && !keys.broken
        && serving().next().is_none()
    {
        let message = format!("{path}.subset: no endpoint has these labels, so none serves");
        reader.report(Diagnostic::new(Code::EmptySubset, &at.position, message));
    }
    let health = keys
        .health
        .as_ref()
        .map(|at| health(&at.value, server, path.key("health"), reader));
    let outlier = keys.outlier.as_ref().map(|at| {
        let path = path.key("outlier");
        let outlier = outlier(&at.value, path, reader);
        never_ejects(keys, &outlier, serving(), path, reader);
        outlier
    });
    let concurrency = keys.concurrency.as_ref();
    let concurrency = concurrency.and_then(|at| NonZeroU32::new(at.value.narrow()));
    let scale = keys
        .scale
        .as_ref()
        .and_then(|at| scale(at, keys, gpus, path, reader));
    odd(keys, path, reader);
    odd_queue(keys, path, reader);
    let tls = keys
        .tls
        .as_ref()
        .map(|at| client_tls(&at.value, path.key("tls"), reader));
    let balance = keys.balance.as_ref().and_then(|at| match &at.value {
        BalanceShape::Plain(balance) => Some(balance.clone()),
        BalanceShape::Keyed(keys) => hash(keys, path.key("balance"), reader),
    });
    Some(Cluster {
        name: keys.name.as_ref()?.value.0.clone(),
        server,
        models,
        ports: all_ports(keys, server),
        endpoints,
        discover,
        subset,
        protocol: keys
            .protocol
            .as_ref()
            .map_or(UpstreamProtocol::Auto, |at| at.value),
        tls,
        balance: balance.unwrap_or_default(),
        connect_timeout: keys
            .connect_timeout
            .as_ref()
            .map_or(Duration::from_secs(5), |at| at.value.0),
        keepalive: keys
            .keepalive
            .as_ref()
            .map_or_else(Keepalive::default, |at| keepalive(&at.value)),
        breaker: keys
            .breaker
            .as_ref()
            .map_or_else(Breaker::default, |at| breaker(&at.value)),
        health,
        outlier,
        concurrency,
        queue: keys.queue.as_ref().map(|at| queue(&at.value)),
        scale,
        position: keys.position.clone(),
    })
}

pub(super) fn labels(pairs: &Dictionary<String, PlainText>) -> BTreeMap<String, String> {
    pairs
        .0
        .iter()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

fn discover(keys: &DiscoverKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Discover> {
    let Some(At { value: dns, .. }) = &keys.dns else {
        if !keys.broken {
            let help = "`dns: {name: models.internal, port: 8080}`";
            reader.refuse(
                Code::MissingKey,
                &keys.position,
                path,
                "the key `dns` is missing",
                help,
            );
        }
        return None;
    };
    Some(Discover::Dns {
        name: dns.name.as_ref()?.value.0.clone(),
        port: u16::try_from(dns.port.as_ref()?.value.0).ok()?,
        refresh: dns
            .refresh
            .as_ref()
            .map_or(Duration::from_secs(5), |at| at.value.0),
    })
}

fn client_tls(keys: &ClientTlsKeys, path: Path<'_>, reader: &mut Reader<'_>) -> ClientTls {
    let certificate = keys.certificate.as_ref();
    let key = keys.key.as_ref();
    unpaired(
        certificate.map(|at| &at.position),
        key.map(|at| &at.position),
        keys.broken,
        path,
        reader,
    );
    ClientTls {
        server_name: keys.server_name.as_ref().map(|at| at.value.0.clone()),
        ca: keys.ca.as_ref().map(|at| at.value.0.clone()),
        certificate: certificate.map(|at| at.value.0.clone()),
        key: key.map(|at| at.value.0.clone()),
    }
}

fn hash(keys: &BalanceKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Balance> {
    let Some(At { value: hash, .. }) = &keys.hash else {
        if !keys.broken {
            reader.refuse(
                Code::MissingKey,
                &keys.position,
                path,
                "the key `hash` is missing",
                "",
            );
        }
        return None;
    };
    let mut found: Vec<HashKey> = Vec::new();
    found.extend(
        hash.header
            .as_ref()
            .map(|at| HashKey::Header(at.value.0.clone())),
    );
    found.extend(
        hash.cookie
            .as_ref()
            .map(|at| HashKey::Cookie(at.value.0.clone())),
    );
    found.extend(
        hash.client_ip
            .as_ref()
            .filter(|on| on.value)
            .map(|_| HashKey::ClientIp),
    );
    if found.len() == 1 {
        return found.pop().map(Balance::Hash);
    }
    if !hash.broken {
        let message = "expected exactly one of `header`, `cookie` and `client_ip: true`";
        reader.refuse(
            Code::Conflict,
            &hash.position,
            path.key("hash"),
            message,
            "",
        );
    }
    None
}

fn keepalive(keys: &KeepaliveKeys) -> Keepalive {
    let default = Keepalive::default();
    Keepalive {
        idle: keys.idle.as_ref().map_or(default.idle, |at| at.value.0),
        max_idle: keys
            .max_idle
            .as_ref()
            .map_or(default.max_idle, |at| at.value.narrow()),
    }
}

fn breaker(keys: &BreakerKeys) -> Breaker {
    let default = Breaker::default();
    let bound = |at: &At<crate::schema::OrNone<crate::schema::Whole<1, 1_000_000>>>| {
        at.value.0.map(|n| n.narrow())
    };
    Breaker {
        connections: keys.connections.as_ref().map_or(default.connections, bound),
        requests: keys.requests.as_ref().map_or(default.requests, bound),
    }
}
