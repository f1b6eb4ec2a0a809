//! Endpoints: a host and where it listens.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value as Json, json};

use super::keys::EndpointKeys;
use super::{At, Book, Path, Reader, Shape};
use crate::canonical::canonical_host;
use crate::node::{Kind, Node, Value};

/// A host to connect to, and its port where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or IP literal, lower case, IPv6 without brackets.
    pub host: String,
    /// 1 … 65535; `None`: the one that such servers have.
    pub port: Option<u16>,
}

impl Shape for HostPort {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "an endpoint")?;
        let text = scalar.text.as_str();
        let help = match host_port(text) {
            Some(endpoint) if scalar.kind != Kind::Bool => return Some(endpoint),
            _ if text.starts_with("https://") => {
                "drop the scheme and give the cluster `tls: {}`".to_owned()
            }
            _ if text.contains("://") => {
                "drop the scheme; TLS is switched on with `tls: {}` in the cluster".to_owned()
            }
            _ if text.contains('/') => {
                "drop the path; a route's `rewrite` changes paths".to_owned()
            }
            _ if text.parse::<Ipv6Addr>().is_ok() => {
                format!("brackets and a port: `[{text}]:8080`?")
            }
            _ if text.parse::<u16>().is_ok() => {
                format!("a host in front of the port: `127.0.0.1:{text}`?")
            }
            _ => {
                "a host and a port, as in `10.0.0.1:8080`, `models.internal:80` or `[fd00::1]:8080`"
                    .to_owned()
            }
        };
        reader.bad_value(node, path, "an endpoint", &help);
        None
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern(r"^([^/:\[\] ]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$")
    }
}

/// Reads `host`, `host:port`, `[address]` or `[address]:port`. An IPv6 address without brackets is refused, because it
/// is not clear whether its last group is a port; so is a number alone, which is one rather than a host.
fn host_port(text: &str) -> Option<HostPort> {
    let (host, port) = match text.find(']') {
        Some(close) if text.starts_with('[') => {
            let (host, rest) = text.split_at(close + 1);
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':')?)),
            }
        }
        _ => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return None,
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host = canonical_host(host).ok()?;
    let port = match port {
        None if no_name(&host) => return None,
        None => None,
        Some(port) => Some(number(port)?),
    };
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    Some(HostPort { host, port })
}

/// True for what ends like an IPv4 address and is none: `8080`, `10.0.0`.
fn no_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    last.bytes().all(|byte| byte.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err()
}

fn number(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|number| digits && *number > 0)
}

/// One entry of `endpoints:`: an address, or a map.
#[derive(Clone, Debug)]
pub struct EndpointShape(pub EndpointKeys);

impl Shape for EndpointShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Map(_) = node.value {
            return EndpointKeys::read(node, path, reader).map(Self);
        }
        let address = At::read(node, path, reader)?;
        let position = node.position.clone();
        Some(Self(EndpointKeys {
            position,
            broken: false,
            top_broken: false,
            address: Some(address),
            weight: None,
            labels: None,
        }))
    }

    fn schema(book: &mut Book) -> Json {
        json!({ "anyOf": [HostPort::schema(book), EndpointKeys::schema(book)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port() {
        for (text, host, port) in [
            ("h", "h", None),
            ("H.Example.", "h.example", None),
            ("h:1", "h", Some(1)),
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
            ("[FD00::1]", "fd00::1", None),
            ("[fd00:0:0::1]:80", "fd00::1", Some(80)),
            ("[::ffff:10.0.0.1]", "::ffff:10.0.0.1", None),
            ("m-1", "m-1", None),
            ("7b", "7b", None),
        ] {
            let read = host_port(text).map(|read| (read.host, read.port));
            assert_eq!(read, Some((host.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            ":",
            ":1",
            "h:",
            "h:0",
            "h:65536",
            "h:+1",
            "h:1:2",
            "h:x",
            "::1",
            "fd00::1:8080",
            "[",
            "[]",
            "[]:1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:",
            "[::1]:0",
            "[::1]1",
            "[h]",
            "[h]:1",
            "[::1%eth0]:1",
            "8080",
            "10.0.0",
            "10.0.0.256",
            "1.2.3.4.5",
            "a.1",
            "a b",
            "a/b",
            "a@b",
            "*",
            ".",
            "http://h",
            "h]",
            "h]:1",
        ] {
            assert_eq!(host_port(text), None, "{text}");
        }
    }
}
