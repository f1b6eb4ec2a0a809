//! The two files of the system's resolver.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::system_conf::parse_resolv_conf;

use super::{DnsError, name_server};

/// What a lookup wants to know from files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Addresses of the name in the hosts file.
    pub(super) hosts: Vec<IpAddr>,
    /// The whole resolv.conf, if it was asked for and can be read.
    pub(super) resolv_conf: Option<Vec<u8>>,
}

impl Files {
    /// Reads them; blocks. A missing file is an empty one.
    pub(super) fn read(hosts: &Path, name: &str, resolv_conf: Option<&Path>) -> Self {
        let text = std::fs::read(hosts).unwrap_or_default();
        Self {
            hosts: addresses(&String::from_utf8_lossy(&text), name),
            resolv_conf: resolv_conf.and_then(|path| std::fs::read(path).ok()),
        }
    }
}

/// The addresses a hosts file gives to `name`.
fn addresses(hosts: &str, name: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        let named = |word: &str| {
            word.strip_suffix('.')
                .unwrap_or(word)
                .eq_ignore_ascii_case(name)
        };
        words.any(named).then_some(address)
    };
    hosts.lines().filter_map(address).collect()
}

/// Understands a resolv.conf. Without a name server in it the one on 127.0.0.1 is meant, as for libc.
pub(super) fn resolv_conf(text: &[u8]) -> Result<(ResolverConfig, ResolverOpts), DnsError> {
    let lines = text.split(|byte| *byte == b'\n');
    let named = |line: &[u8]| line.trim_ascii_start().starts_with(b"nameserver");
    let (text, local) = match lines.into_iter().any(named) {
        true => (text.to_vec(), false),
        false => ([text, b"\nnameserver 127.0.0.1\n"].concat(), true),
    };
    if local {
        tracing::warn!("no name server is configured, the one on 127.0.0.1 is asked");
    }
    match parse_resolv_conf(&text) {
        Ok(parsed) => Ok(parsed),
        Err(error) if local => {
            tracing::warn!(%error, "the resolver configuration is not understood");
            let server = name_server(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
            Ok((
                ResolverConfig::from_name_servers(vec![server]),
                ResolverOpts::default(),
            ))
        }
        Err(error) => Err(DnsError::Setup(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_names_several_addresses_and_comments_do_not_count() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.9 gpu\n10.0.0.1\tgpu GPU.lan # 10.0.0.8 gpu\nfd00::1 gpu.\nbad gpu\n";
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(addresses(hosts, "gpu"), expected);
        assert_eq!(addresses(hosts, "gpu.lan"), expected[..1]);
        assert!(addresses(hosts, "other").is_empty());
    }

    #[test]
    fn without_a_name_server_the_local_one_is_asked() {
        for text in ["", "search a.example\n", "# nameserver 10.0.0.1\n"] {
            let (config, _) = resolv_conf(text.as_bytes()).unwrap();
            let servers: Vec<_> = config
                .name_servers()
                .iter()
                .map(|server| server.ip)
                .collect();
            assert_eq!(servers, [IpAddr::from(Ipv4Addr::LOCALHOST)], "{text:?}");
        }
    }
}
