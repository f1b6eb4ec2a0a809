//! `proxy` of a model: where its process listens.

use std::net::IpAddr;

/// Where a process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// `address:port`; `None`: on the port it is given.
    pub(super) address: Option<String>,
    /// The host to name in TLS; `None`: without TLS.
    pub(super) tls: Option<String>,
    /// It is given a port, and is not on this host's loopback.
    pub(super) elsewhere: bool,
    /// The path that requests get in front of theirs.
    pub(super) path: bool,
}

/// A URL in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'t> {
    /// `https`.
    pub(super) tls: bool,
    /// The host, without brackets.
    pub(super) host: &'t str,
    /// The port, as it is written, or the usual one.
    pub(super) port: &'t str,
    /// The path with what follows it; empty when it is `/`.
    pub(super) path: &'t str,
}

/// Takes a URL apart.
///
/// # Errors
///
/// It is none, or asks for what is not done.
pub(super) fn url(text: &str) -> Result<Url<'_>, String> {
    let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("it is no URL with `http://` or `https://`".to_owned()),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err("a name and a password are not sent".to_owned());
    }
    let bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[bracket..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(bracket + colon);
            (host, &port[1..])
        }
        None if tls => (authority, "443"),
        None => (authority, "80"),
    };
    Ok(Url {
        tls,
        host: host.trim_start_matches('[').trim_end_matches(']'),
        port,
        path: path.trim_end_matches('/'),
    })
}

/// Reads where a process listens from a URL.
///
/// # Errors
///
/// Why no process can be reached there.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let Url {
        tls,
        host: bare,
        port,
        path,
    } = url(text)?;
    let address: Option<IpAddr> = match bare {
        "localhost" => Some([127, 0, 0, 1].into()),
        bare => bare.parse().ok(),
    };
    let mut place = Place {
        tls: tls.then(|| bare.to_owned()),
        path: !path.is_empty(),
        ..Place::default()
    };
    if port == "${PORT}" {
        let here = |address: IpAddr| address.is_loopback() || address.is_unspecified();
        place.elsewhere = !address.is_some_and(here);
        return Ok(place);
    }
    let port: u16 = match port.parse() {
        Ok(port) if port > 0 => port,
        _ => return Err(format!("`{port}` is no port")),
    };
    let Some(address) = address else {
        return Err(format!(
            "a process is reached by an IP address, not by the name `{bare}`"
        ));
    };
    place.address = Some(match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    });
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::{Place, place};

    #[test]
    fn urls_say_where_processes_listen() {
        let at = |address: &str| Place {
            address: Some(address.to_owned()),
            ..Place::default()
        };
        for (url, expected) in [
            ("http://localhost:${PORT}", Place::default()),
            ("http://127.0.0.1:8999", at("127.0.0.1:8999")),
            ("http://localhost:8999/", at("127.0.0.1:8999")),
            ("http://[::1]:8999", at("[::1]:8999")),
            ("http://10.0.0.7", at("10.0.0.7:80")),
        ] {
            assert_eq!(place(url), Ok(expected), "{url}");
        }
        let secured = place("https://10.0.0.7/v1").unwrap();
        assert_eq!(secured.address.as_deref(), Some("10.0.0.7:443"));
        assert!(secured.path && secured.tls.is_some());
        assert!(place("http://box:${PORT}").unwrap().elsewhere);
        for bad in [
            "",
            "box",
            "ftp://a",
            "http://box:80",
            "http://1.2.3.4:0",
            "http://1.2.3.4:x",
            "http://a@1.2.3.4:1",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
