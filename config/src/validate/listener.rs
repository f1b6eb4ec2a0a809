//! Listeners, the admin API, and the sockets they want.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::{built_in, each};
use crate::diagnostic::Code;
use crate::model::{
    Admin, CertificateFiles, Limits, Listener, ListenerProtocol, PathOptions, Position, ServerTls,
};
use crate::schema::keys::{AdminKeys, LimitKeys, ListenerKeys, PathOptionKeys, ServerTlsKeys};
use crate::schema::policy::unmapped;
use crate::schema::{At, List, Path, Reader};

/// Where the admin API is unless it is said.
const ADMIN_PORT: u16 = 9901;
/// Where the only listener is when there is none.
const LISTENER_PORT: u16 = 9900;

/// The sockets that are taken and their owners, to find two that want the same address. What is not an address is
/// whether it is IPv6, and a port.
pub(super) struct Sockets {
    exact: HashMap<SocketAddr, String>,
    wildcards: HashMap<(bool, u16), String>,
    ports: HashMap<(bool, u16), String>,
}

impl Sockets {
    /// Starts with the sockets of the admin API, which were checked against each other.
    pub(super) fn of_admin(admin: Option<&Admin>) -> Self {
        let mut sockets = Self {
            exact: HashMap::new(),
            wildcards: HashMap::new(),
            ports: HashMap::new(),
        };
        if let Some(admin) = admin {
            sockets.take(admin.address, "admin.address");
            admin
                .probes
                .and_then(|probes| sockets.take(probes, "admin.probes"));
        }
        sockets
    }

    /// Takes an address; returns who has it already, or has one that overlaps.
    fn take(&mut self, address: SocketAddr, owner: &str) -> Option<String> {
        if address.port() == 0 {
            return None;
        }
        let place = (address.is_ipv6(), address.port());
        let mut taken = self
            .exact
            .get(&address)
            .or_else(|| self.wildcards.get(&place))
            .cloned();
        if address.ip().is_unspecified() {
            taken = taken.or_else(|| self.ports.get(&place).cloned());
            self.wildcards
                .entry(place)
                .or_insert_with(|| owner.to_owned());
        }
        self.exact
            .entry(address)
            .or_insert_with(|| owner.to_owned());
        self.ports.entry(place).or_insert_with(|| owner.to_owned());
        taken
    }
}

fn clash(
    address: SocketAddr,
    owner: &str,
    position: &Position,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let message = format!("{address} is taken by {owner}");
    reader.refuse(
        Code::AddressClash,
        position,
        path,
        message,
        "choose another port, or port 0 for any free one",
    );
}

pub(super) fn admin(
    keys: Option<&At<AdminKeys>>,
    top: &Position,
    reader: &mut Reader<'_>,
) -> Option<Admin> {
    let path = Path::ROOT.key("admin");
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
    let Some(At { value: keys, .. }) = keys else {
        return Some(Admin {
            address: default,
            probes: None,
            token: None,
            tls: None,
            hosts: Vec::new(),
        });
    };
    let address = keys.address.as_ref().map_or(default, |at| at.value.0);
    let tls = keys
        .tls
        .as_ref()
        .and_then(|tls| server_tls(&tls.value, path.key("tls"), reader));
    let guarded = keys.token.is_some() || tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !address.ip().is_loopback() && !guarded && !keys.broken {
        let position = keys.address.as_ref().map_or(top, |at| &at.position);
        let message =
            "the admin API is not on loopback and has neither `token` nor `tls` with `client_ca`";
        let help = "set `admin.token`, for example to `${env:FOREBAY_TOKEN}`";
        reader.refuse(Code::Exposed, position, path.key("address"), message, help);
    }
    let probes = keys.probes.as_ref();
    if let Some(probes) = probes {
        let alone = Admin {
            address,
            probes: None,
            token: None,
            tls: None,
            hosts: Vec::new(),
        };
        if let Some(owner) = Sockets::of_admin(Some(&alone)).take(probes.value.0, "admin.probes") {
            clash(
                probes.value.0,
                &owner,
                &probes.position,
                path.key("probes"),
                reader,
            );
        }
    }
    Some(Admin {
        address,
        probes: probes.map(|probes| probes.value.0),
        token: keys.token.as_ref().map(|token| token.value.0.clone()),
        tls,
        hosts: keys
            .hosts
            .iter()
            .flat_map(|hosts| &hosts.value.items)
            .map(|host| host.value.0.clone())
            .collect(),
    })
}

/// Reads all listeners; without the key there is one.
pub(super) fn listeners(
    list: Option<&At<List<ListenerKeys>>>,
    mut sockets: Sockets,
    reader: &mut Reader<'_>,
) -> Vec<Listener> {
    let Some(at) = list else {
        return vec![Listener {
            name: "default".to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, LISTENER_PORT)),
            protocol: ListenerProtocol::Http,
            tls: None,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            path: PathOptions::default(),
            limits: Limits::default(),
            position: built_in(),
        }];
    };
    if at.value.items.is_empty() && !at.value.incomplete {
        let help = "leave `listeners` out for one on 127.0.0.1:9900";
        reader.refuse(
            Code::BadValue,
            &at.position,
            Path::ROOT.key("listeners"),
            "the list is empty",
            help,
        );
    }
    each(list, "listeners", reader, |keys, path, reader| {
        listener(keys, &mut sockets, path, reader)
    })
}

fn listener(
    keys: &ListenerKeys,
    sockets: &mut Sockets,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Listener> {
    let tls = keys
        .tls
        .as_ref()
        .and_then(|tls| server_tls(&tls.value, path.key("tls"), reader));
    let trusted = keys.trusted_proxies.as_ref();
    let trusted_proxies: Vec<_> = trusted
        .iter()
        .flat_map(|nets| &nets.value.items)
        .map(|net| unmapped(net.value))
        .collect();
    let proxy_protocol = keys.proxy_protocol.as_ref().filter(|on| on.value);
    if let Some(on) = proxy_protocol
        && trusted_proxies.is_empty()
        && !keys.broken
    {
        let message = "`proxy_protocol` needs `trusted_proxies`: nobody is believed otherwise";
        let help = "add `trusted_proxies` with the address block of the load balancer, such as `[10.0.0.0/8]`";
        reader.refuse(
            Code::MissingKey,
            &on.position,
            path.key("proxy_protocol"),
            message,
            help,
        );
    }
    let name = keys.name.as_ref()?.value.0.clone();
    let address = keys.address.as_ref()?;
    if let Some(owner) = sockets.take(address.value.0, &path.to_string()) {
        clash(
            address.value.0,
            &owner,
            &address.position,
            path.key("address"),
            reader,
        );
    }
    Some(Listener {
        name,
        address: address.value.0,
        protocol: keys
            .protocol
            .as_ref()
            .map_or(ListenerProtocol::Http, |protocol| protocol.value),
        tls,
        proxy_protocol: proxy_protocol.is_some(),
        trusted_proxies,
        path: keys
            .path
            .as_ref()
            .map_or_else(PathOptions::default, |path| path_options(&path.value)),
        limits: keys
            .limits
            .as_ref()
            .map_or_else(Limits::default, |limits| self::limits(&limits.value)),
        position: keys.position.clone(),
    })
}

fn path_options(keys: &PathOptionKeys) -> PathOptions {
    let default = PathOptions::default();
    PathOptions {
        encoded_slash: keys
            .encoded_slash
            .as_ref()
            .map_or(default.encoded_slash, |at| at.value),
        merge_slashes: keys
            .merge_slashes
            .as_ref()
            .map_or(default.merge_slashes, |at| at.value),
    }
}

fn limits(keys: &LimitKeys) -> Limits {
    let default = Limits::default();
    Limits {
        connections: keys
            .connections
            .as_ref()
            .map_or(default.connections, |at| at.value.narrow()),
        headers: keys
            .headers
            .as_ref()
            .map_or(default.headers, |at| at.value.narrow()),
        header_bytes: keys
            .header_bytes
            .as_ref()
            .map_or(default.header_bytes, |at| at.value.narrow()),
        header_timeout: keys
            .header_timeout
            .as_ref()
            .map_or(default.header_timeout, |at| at.value.0),
        idle: super::clock(&keys.idle, default.idle),
        write_stall: super::clock(&keys.write_stall, default.write_stall),
        h2_streams: keys
            .h2_streams
            .as_ref()
            .map_or(default.h2_streams, |at| at.value.narrow()),
    }
}

/// Reads TLS of a listener in either form.
fn server_tls(keys: &ServerTlsKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<ServerTls> {
    let mut certificates = Vec::new();
    match (&keys.certificate, &keys.key) {
        (Some(certificate), Some(key)) => certificates.push(CertificateFiles {
            certificate: certificate.value.0.clone(),
            key: key.value.0.clone(),
        }),
        (None, None) => {}
        (one, other) => unpaired(
            one.as_ref().map(|at| &at.position),
            other.as_ref().map(|at| &at.position),
            keys.broken,
            path,
            reader,
        ),
    }
    if let Some(list) = &keys.certificates {
        if let Some(short) = keys.certificate.as_ref().or(keys.key.as_ref()) {
            let message = "`certificate` and `key` cannot stand beside `certificates`";
            reader.refuse(
                Code::Conflict,
                &short.position,
                path,
                message,
                "move the pair into the list",
            );
        }
        for item in &list.value.items {
            if let (Some(certificate), Some(key)) = (&item.value.certificate, &item.value.key) {
                certificates.push(CertificateFiles {
                    certificate: certificate.value.0.clone(),
                    key: key.value.0.clone(),
                });
            }
        }
    }
    if certificates.is_empty() {
        if !keys.broken && keys.certificate.is_none() && keys.key.is_none() {
            let message = "a listener with TLS needs `certificate` and `key`, or `certificates`";
            reader.refuse(Code::MissingKey, &keys.position, path, message, "");
        }
        return None;
    }
    Some(ServerTls {
        certificates,
        client_ca: keys.client_ca.as_ref().map(|file| file.value.0.clone()),
    })
}

/// Reports a certificate without its key, or a key without its certificate.
pub(super) fn unpaired(
    certificate: Option<&Position>,
    key: Option<&Position>,
    broken: bool,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let (written, missing, position) = match (certificate, key) {
        (Some(position), None) => ("certificate", "key", position),
        (None, Some(position)) => ("key", "certificate", position),
        (Some(_), Some(_)) | (None, None) => return,
    };
    if !broken {
        let message = format!("`{written}` needs `{missing}` beside it");
        reader.refuse(Code::TlsPair, position, path, message, "");
    }
}
