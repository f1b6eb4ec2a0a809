//! Names to addresses: hosts file, `localhost`, then the name servers, with the records' own time to live.
//!
//! Nothing is cached here: a [`follow`] task per name asks when its last answer runs out, and whoever needs the
//! addresses reads what it found last.

mod files;
mod follow;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as AnswerError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use thiserror::Error;

pub use follow::{Resolution, follow};

/// Bounds of [`Answer::valid_for`].
const MIN_VALID: Duration = Duration::from_secs(1);
const MAX_VALID: Duration = Duration::from_secs(300);
/// What is missing, half missing or read from a file is looked at again this soon.
const SHORT_VALID: Duration = Duration::from_secs(5);
/// The longest a lookup takes, over all search domains, servers and attempts.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a name could not be looked up. What was known of it before is still the best guess.
#[derive(Clone, Debug, Error)]
pub enum DnsError {
    /// Not a host name.
    #[error("{0:?} is not a host name")]
    BadName(String),
    /// A name server answered with an error, for example SERVFAIL.
    #[error("{name}: the name server answered {code}")]
    Refused {
        /// The name asked.
        name: String,
        /// What it answered.
        code: String,
    },
    /// No name server answered.
    #[error("{name}: no answer from the name servers: {cause}")]
    Unreachable {
        /// The name asked.
        name: String,
        /// What happened instead.
        cause: String,
    },
    /// The configuration of the name servers cannot be used.
    #[error("cannot use the name server configuration: {0}")]
    Setup(String),
}

/// One of the two address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Sorted, without doubles; empty when there is no such name or it has no address.
    pub addresses: Vec<IpAddr>,
    /// The records' time to live, within 1 s … 5 min; at most 5 s when something is missing or came from a file.
    pub valid_for: Duration,
    /// The family whose question failed while the other one's was answered.
    pub failed: Option<Family>,
}

/// Looks names up. Clones share their name servers.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    servers: Servers,
    hosts: PathBuf,
    overrides: HashMap<(String, u16), SocketAddr>,
}

#[derive(Debug)]
enum Servers {
    Fixed(Arc<Client>),
    /// From resolv.conf, set up again when its content changes.
    File {
        path: PathBuf,
        current: Mutex<Option<(Vec<u8>, Arc<Client>)>>,
    },
}

impl Clone for Servers {
    fn clone(&self) -> Self {
        match self {
            Self::Fixed(client) => Self::Fixed(Arc::clone(client)),
            Self::File { path, .. } => Self::File {
                path: path.clone(),
                current: Mutex::default(),
            },
        }
    }
}

impl Resolver {
    /// Uses `/etc/resolv.conf` and `/etc/hosts` as they are at each lookup; without a name server in the former, the
    /// one on 127.0.0.1, as libc does.
    ///
    /// Errors: `/etc/resolv.conf` cannot be used now. Reads it, so it is for start-up.
    pub fn system() -> Result<Self, DnsError> {
        Self::from_files("/etc/resolv.conf".into(), "/etc/hosts".into())
    }

    fn from_files(path: PathBuf, hosts: PathBuf) -> Result<Self, DnsError> {
        let text = std::fs::read(&path).unwrap_or_default();
        let client = Arc::new(Client::parse(&text)?);
        let servers = Servers::File {
            path,
            current: Mutex::new(Some((text, client))),
        };
        Ok(Self(Arc::new(Inner {
            servers,
            hosts,
            overrides: HashMap::new(),
        })))
    }

    /// Asks only this name server, without search domains.
    pub fn with_server(server: SocketAddr) -> Result<Self, DnsError> {
        let client = Client::new(
            ResolverConfig::from_name_servers(vec![name_server(server)]),
            {
                let mut options = ResolverOpts::default();
                options.timeout = Duration::from_secs(1);
                options
            },
        )?;
        let servers = Servers::Fixed(Arc::new(client));
        Ok(Self(Arc::new(Inner {
            servers,
            hosts: "/etc/hosts".into(),
            overrides: HashMap::new(),
        })))
    }

    /// Pins names with their ports to addresses, for `--resolve NAME:PORT=ADDR`. Only `resolve` and
    /// [`follow`] know a port and honour it.
    #[must_use]
    pub fn with_overrides(self, overrides: HashMap<(String, u16), SocketAddr>) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.overrides = overrides
            .into_iter()
            .map(|((name, port), address)| ((plain(&name), port), address))
            .collect();
        Self(Arc::new(inner))
    }

    /// Looks a name up with a port. The flag says that the result can never change.
    ///
    /// Errors: as [`Resolver::lookup`].
    pub(crate) async fn resolve(
        &self,
        name: &str,
        port: u16,
    ) -> Result<(Answer, Vec<SocketAddr>, bool), DnsError> {
        if let Some(pinned) = self.0.overrides.get(&(plain(name), port)) {
            let answer = Answer {
                addresses: vec![pinned.ip()],
                valid_for: MAX_VALID,
                failed: None,
            };
            return Ok((answer, vec![*pinned], true));
        }
        let answer = self.lookup(name).await?;
        let addresses = answer
            .addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, port))
            .collect();
        Ok((answer, addresses, literal(name).is_some()))
    }

    /// Looks a name up: an IP literal is itself, then the hosts file, `localhost`, and the name servers over the
    /// search domains, A and AAAA at once. No such name and no address are empty answers, not errors.
    ///
    /// Errors: a bad name; an error answer or none, when no address is known from the other family. Takes 15 s at most.
    pub async fn lookup(&self, name: &str) -> Result<Answer, DnsError> {
        if let Some(ip) = literal(name) {
            return Ok(Answer {
                addresses: vec![ip],
                valid_for: MAX_VALID,
                failed: None,
            });
        }
        let plain = plain(name);
        let asked = Name::from_str_relaxed(name).map_err(|_| DnsError::BadName(name.to_owned()))?;
        if plain.is_empty() {
            return Err(DnsError::BadName(name.to_owned()));
        }
        let files = self.0.read(plain.clone()).await;
        let mut addresses = files.hosts;
        if addresses.is_empty() && (plain == "localhost" || plain.ends_with(".localhost")) {
            addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if !addresses.is_empty() {
            return Ok(Answer {
                addresses: tidy(addresses),
                valid_for: SHORT_VALID,
                failed: None,
            });
        }
        let client = self.0.client(files.resolv_conf)?;
        match tokio::time::timeout(PATIENCE, client.lookup(asked)).await {
            Ok(answer) => answer,
            Err(_) => Err(DnsError::Unreachable {
                name: name.to_owned(),
                cause: format!("none within {} s", PATIENCE.as_secs()),
            }),
        }
    }
}

impl Inner {
    async fn read(&self, name: String) -> files::Files {
        let resolv_conf = match &self.servers {
            Servers::File { path, .. } => Some(path.clone()),
            Servers::Fixed(_) => None,
        };
        let hosts = self.hosts.clone();
        let read = move || files::Files::read(&hosts, &name, resolv_conf.as_deref());
        tokio::task::spawn_blocking(read).await.unwrap_or_default() // lost only when the runtime shuts down
    }

    fn client(&self, resolv_conf: Option<Vec<u8>>) -> Result<Arc<Client>, DnsError> {
        let current = match &self.servers {
            Servers::Fixed(client) => return Ok(Arc::clone(client)),
            Servers::File { current, .. } => current,
        };
        let text = resolv_conf.unwrap_or_default();
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*current
            && *known == text
        {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Client::parse(&text)?);
        *current = Some((text, Arc::clone(&client)));
        Ok(client)
    }
}

/// Name servers with their search domains.
struct Client {
    dns: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("search", &self.search)
            .finish_non_exhaustive()
    }
}

impl Client {
    fn parse(resolv_conf: &[u8]) -> Result<Self, DnsError> {
        let (config, options) = files::resolv_conf(resolv_conf)?;
        Self::new(config, options)
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, DnsError> {
        options.cache_size = 0; // a refresh must reach the server even if an old answer is still valid
        options.use_hosts_file = ResolveHosts::Never; // ours is read anew each time
        let (domain, search, servers) = config.into_parts();
        let search = if search.is_empty() {
            domain.into_iter().collect()
        } else {
            search
        };
        let ndots = options.ndots;
        let config = ResolverConfig::from_name_servers(servers);
        let dns = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| DnsError::Setup(error.to_string()))?;
        Ok(Self { dns, search, ndots })
    }

    /// Tries the search domains as libc does: the next one after a negative answer or an error answer, none after
    /// silence. An error on the way makes "no such name" at the end uncertain, hence an error.
    async fn lookup(&self, name: Name) -> Result<Answer, DnsError> {
        let mut error = None;
        let mut valid_for = SHORT_VALID;
        for name in self.candidates(name) {
            let (v4, v6) = tokio::join!(
                self.records(&name, RecordType::A),
                self.records(&name, RecordType::AAAA)
            );
            match combine(v4, v6) {
                Ok(answer) if answer.addresses.is_empty() => {
                    valid_for = valid_for.min(answer.valid_for)
                }
                Ok(answer) => return Ok(answer),
                Err(refused @ DnsError::Refused { .. }) => error = error.or(Some(refused)),
                Err(silence) => return Err(silence),
            }
        }
        match error {
            Some(error) => Err(error),
            None => Ok(Answer {
                addresses: Vec::new(),
                valid_for,
                failed: None,
            }),
        }
    }

    fn candidates(&self, name: Name) -> Vec<Name> {
        let absolute = name.is_fqdn();
        let mut alone = name.clone();
        alone.set_fqdn(true);
        if absolute {
            return vec![alone];
        }
        let mut names: Vec<Name> = Vec::new();
        let searched = self.search.iter().filter_map(|domain| {
            let mut name = name.clone().append_domain(domain).ok()?; // too long: there is no such name
            name.set_fqdn(true);
            Some(name)
        });
        names.extend(searched);
        let first = usize::from(name.num_labels()) > self.ndots;
        names.insert(if first { 0 } else { names.len() }, alone);
        names
    }

    async fn records(&self, name: &Name, family: RecordType) -> Records {
        self.dns.clear_lookup_cache(name.clone(), family);
        match self.dns.lookup(name.clone(), family).await {
            Ok(lookup) => {
                let found = lookup.answers();
                let ttl = found
                    .iter()
                    .map(|record| record.ttl)
                    .min()
                    .unwrap_or_default();
                let addresses = found
                    .iter()
                    .filter_map(|record| record.data.ip_addr())
                    .collect();
                Records::Found(addresses, Duration::from_secs(ttl.into()))
            }
            Err(NetError::Dns(AnswerError::NoRecordsFound(none)))
                if matches!(
                    none.response_code,
                    ResponseCode::NoError | ResponseCode::NXDomain
                ) =>
            {
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(u32::MAX).into());
                Records::Empty {
                    unknown_name: none.response_code == ResponseCode::NXDomain,
                    ttl,
                }
            }
            Err(error) => Records::Failed(failure(name, &error)),
        }
    }
}

/// What one family's question brought.
enum Records {
    Found(Vec<IpAddr>, Duration),
    Empty { unknown_name: bool, ttl: Duration },
    Failed(DnsError),
}

fn failure(name: &Name, error: &NetError) -> DnsError {
    let name = name.to_string();
    match error {
        NetError::Dns(AnswerError::ResponseCode(code)) => DnsError::Refused {
            name,
            code: code.to_string(),
        },
        NetError::Dns(AnswerError::NoRecordsFound(none)) => DnsError::Refused {
            name,
            code: none.response_code.to_string(),
        },
        other => DnsError::Unreachable {
            name,
            cause: other.to_string(),
        },
    }
}

fn combine(v4: Records, v6: Records) -> Result<Answer, DnsError> {
    let failed = match (&v4, &v6) {
        (Records::Failed(_), _) => Some(Family::V4),
        (_, Records::Failed(_)) => Some(Family::V6),
        _ => None,
    };
    let (addresses, valid_for) = match (v4, v6) {
        (Records::Found(mut v4, a), Records::Found(v6, b)) => {
            v4.extend(v6);
            (v4, a.min(b))
        }
        (Records::Found(found, ttl), Records::Empty { .. } | Records::Failed(_))
        | (Records::Empty { .. } | Records::Failed(_), Records::Found(found, ttl)) => (found, ttl),
        (Records::Empty { ttl: a, .. }, Records::Empty { ttl: b, .. }) => {
            (Vec::new(), a.min(b).min(SHORT_VALID))
        }
        // A name that does not exist has no records of the other family either.
        (
            Records::Empty {
                unknown_name: true,
                ttl,
            },
            Records::Failed(_),
        )
        | (
            Records::Failed(_),
            Records::Empty {
                unknown_name: true,
                ttl,
            },
        ) => {
            let valid_for = ttl.clamp(MIN_VALID, SHORT_VALID);
            return Ok(Answer {
                addresses: Vec::new(),
                valid_for,
                failed: None,
            });
        }
        (Records::Failed(error), _) | (_, Records::Failed(error)) => return Err(error),
    };
    let longest = if failed.is_some() {
        SHORT_VALID
    } else {
        MAX_VALID
    };
    Ok(Answer {
        addresses: tidy(addresses),
        valid_for: valid_for.clamp(MIN_VALID, longest),
        failed,
    })
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

/// The address a name already is, with or without IPv6 brackets.
fn literal(name: &str) -> Option<IpAddr> {
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    IpAddr::from_str(bare).ok()
}

/// The form in which names are compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn tidy(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
