//! What a listener shows: certificates by SNI, client certificates, and reload without a gap.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use forebay_config::ServerTls;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, SignatureScheme};
use webpki::EndEntityCert;

use super::files::{self, Reader, Validity};
use super::{TlsError, owned, provider};

/// Sessions of TLS 1.2 clients without ticket support that a listener remembers; everybody else gets tickets.
const SESSIONS: usize = 1024;

/// The TLS of one listener, shared by all workers and swapped whole.
#[derive(Debug)]
pub struct ServerTlsState {
    current: ArcSwap<Loaded>,
    alpn: Vec<Vec<u8>>,
}

impl ServerTlsState {
    /// Reads and checks every file of `tls`. Offers `alpn`, preferred first; a client that offers only others is
    /// refused, one that offers none is taken.
    ///
    /// Errors name the file and what is wrong with it. An expired certificate is no error, see [`Loaded::warnings`].
    pub fn load(tls: &ServerTls, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let alpn = owned(alpn);
        let loaded = Loaded::read(tls, &alpn, None)?;
        Ok(Self {
            current: ArcSwap::from_pointee(loaded),
            alpn,
        })
    }

    /// Reads the files again and tells what would be shown; `None` when nothing changed. Shows nothing new yet, so
    /// that several listeners can be checked before any is changed by [`Self::commit`].
    pub fn prepare(&self, tls: &ServerTls) -> Result<Option<Arc<Loaded>>, TlsError> {
        let current = self.current.load();
        let next = Loaded::read(tls, &self.alpn, Some(&current))?;
        Ok((next.fingerprint != current.fingerprint).then(|| Arc::new(next)))
    }

    /// Shows `next` to connections that start from now on; older ones keep what they have.
    pub fn commit(&self, next: Arc<Loaded>) {
        self.current.store(next);
    }

    /// Reads the files again and swaps when all of them are valid and something changed. Returns whether it did.
    /// On an error the listener keeps what it had. For one caller at a time.
    pub fn reload(&self, tls: &ServerTls) -> Result<bool, TlsError> {
        let next = self.prepare(tls)?;
        let changed = next.is_some();
        if let Some(next) = next {
            self.commit(next);
        }
        Ok(changed)
    }

    /// Returns what is shown now. A connection keeps the one it was accepted with, for [`Loaded::covers`].
    pub fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// Returns the configuration for the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Returns the files to watch, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        self.current.load().files.clone()
    }

    /// Returns the earliest end of validity among the listener's own certificates (not their issuers').
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.current.load().expires_at()
    }
}

/// One valid reading of a listener's files.
#[derive(Debug)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    files: Vec<PathBuf>,
    fingerprint: u64,
    /// Contents of the file, empty without one. Compared byte by byte since it decides who may resume.
    client_ca: Vec<u8>,
    expiries: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Loaded {
    /// Reads everything. Sessions of `previous` can be resumed only if the same client CAs were asked for, because
    /// rustls does not look at a client's certificate again when it resumes.
    fn read(tls: &ServerTls, alpn: &[Vec<u8>], previous: Option<&Self>) -> Result<Self, TlsError> {
        let mut reader = Reader::default();
        let mut keys = Vec::with_capacity(tls.certificates.len());
        let mut expiries = Vec::with_capacity(tls.certificates.len());
        for pair in &tls.certificates {
            let key = files::certified_key(&mut reader, &pair.certificate, &pair.key)?;
            expiries.push((pair.certificate.clone(), files::not_after(&key.cert[0])));
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(TlsError::other("no certificate is configured"));
        }
        let certificates = Arc::new(Certificates::new(keys));

        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::other(error.to_string()))?;
        let mut client_ca = Vec::new();
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                client_ca = reader.read(path)?;
                builder.with_client_cert_verifier(client_verifier(path, &client_ca)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = alpn.to_vec();
        match previous.filter(|previous| previous.client_ca == client_ca) {
            Some(previous) => {
                config.ticketer = Arc::clone(&previous.config.ticketer);
                config.session_storage = Arc::clone(&previous.config.session_storage);
            }
            None => {
                config.ticketer = rustls::crypto::ring::Ticketer::new()
                    .map_err(|error| TlsError::other(format!("no ticket key: {error}")))?;
                config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS);
            }
        }
        Ok(Self {
            config: Arc::new(config),
            certificates,
            files: files_of(tls),
            fingerprint: reader.fingerprint(),
            client_ca,
            expiries,
        })
    }

    /// Returns the configuration for handshakes.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Returns the earliest end of validity among the listener's own certificates.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expiries.iter().filter_map(|(_, end)| *end).min()
    }

    /// Returns a sentence for every certificate that clients will not accept at `now` because of its dates.
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let now = unix_time(now);
        let verdicts = self.certificates.keys.iter().zip(&self.expiries);
        verdicts
            .filter_map(|(key, (path, _))| {
                let path = path.display();
                let days = |time: SystemTime| {
                    let then = time.duration_since(SystemTime::UNIX_EPOCH);
                    let then = then.unwrap_or_default().as_secs();
                    Duration::from_secs(then.abs_diff(now.as_secs())).as_secs() / 86_400
                };
                match files::validity(&key.cert[0], now) {
                    Validity::Now => None,
                    Validity::Until(end) => Some(format!(
                        "{path}: the certificate expired {} days ago",
                        days(end)
                    )),
                    Validity::From(start) => Some(format!(
                        "{path}: the certificate is not valid yet, only in {} days",
                        days(start)
                    )),
                    Validity::Never => {
                        Some(format!("{path}: the certificate's dates cannot be read"))
                    }
                }
            })
            .collect()
    }

    /// Tells whether a request for `host` may come over a connection that asked for `sni`; if not it is answered
    /// 421 `misdirected`.
    ///
    /// It may when both are the same name, or when the certificate that was shown for `sni` is good for `host` too
    /// (browsers then share one HTTP/2 connection). Without SNI the default certificate must be good for it, or
    /// `host` is an IP literal, for which clients send no SNI.
    ///
    /// * `host`: canonical as routing sees it: lower case, no port, IPv6 in brackets
    pub fn covers(&self, sni: Option<&str>, host: &str) -> bool {
        if sni.is_some_and(|sni| undotted(sni).eq_ignore_ascii_case(host)) {
            return true;
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let bare = bare.unwrap_or(host);
        if sni.is_none() && bare.parse::<IpAddr>().is_ok() {
            return true;
        }
        let Ok(name) = ServerName::try_from(bare) else {
            return false;
        };
        // Certificates with other key types may stand for the same name; which one was shown is not kept.
        self.certificates
            .candidates(sni)
            .all(|key| is_valid_for(&key.cert[0], &name))
    }
}

/// Tells whether the certificate that the client showed, now or in the session that it resumed, is within its dates;
/// true when no certificate was asked for. To be called after each handshake: rustls does not look at the dates again
/// when it resumes, and a resumed session gets a new ticket, so that without this an expired client stays for ever.
pub fn client_is_current(connection: &ServerConnection, now: SystemTime) -> bool {
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    shown.is_none_or(|leaf| files::validity(leaf, unix_time(now)) == Validity::Now)
}

fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

/// Returns every file of `tls` once.
pub fn files_of(tls: &ServerTls) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    let pairs = tls
        .certificates
        .iter()
        .flat_map(|pair| [&pair.certificate, &pair.key]);
    for path in pairs.chain(&tls.client_ca) {
        if !files.contains(path) {
            files.push(path.clone());
        }
    }
    files
}

fn client_verifier(
    path: &Path,
    pem: &[u8],
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let roots = Arc::new(files::roots(path, pem)?);
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsError::file(path, error.to_string()))
}

fn is_valid_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    EndEntityCert::try_from(certificate)
        .is_ok_and(|parsed| parsed.verify_is_valid_for_subject_name(name).is_ok())
}

fn undotted(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Certificates by the names in them, never empty.
#[derive(Debug)]
struct Certificates {
    /// In the order of the configuration.
    keys: Vec<Arc<CertifiedKey>>,
    /// Lower-case names, as indexes into `keys` in order.
    exact: HashMap<String, Vec<usize>>,
    /// What follows the `*` of a wildcard name, leading dot included.
    wildcard: HashMap<String, Vec<usize>>,
}

impl Certificates {
    fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut exact: HashMap<String, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, key) in keys.iter().enumerate() {
            let Ok(parsed) = EndEntityCert::try_from(&key.cert[0]) else {
                continue; // `keys_match` parsed it before; without names it can still be the default
            };
            for name in parsed.valid_dns_names() {
                let name = undotted(name).to_ascii_lowercase();
                let indexes = match name.strip_prefix('*') {
                    Some(parent) => wildcard.entry(parent.to_owned()).or_default(),
                    None => exact.entry(name).or_default(),
                };
                if indexes.last() != Some(&index) {
                    indexes.push(index);
                }
            }
        }
        Self {
            keys,
            exact,
            wildcard,
        }
    }

    /// Returns the certificates that stand for `sni`, at least one: those with the exact name, else those with a
    /// wildcard for its first label, else the first of all.
    fn candidates(&self, sni: Option<&str>) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let named = sni.and_then(|sni| {
            let name = undotted(sni).to_ascii_lowercase();
            let parent = name.find('.').map(|dot| &name[dot..]);
            self.exact.get(&name).or_else(|| self.wildcard.get(parent?))
        });
        let indexes = named.map_or(&[0][..], Vec::as_slice);
        indexes.iter().map(|&index| &self.keys[index])
    }

    /// Returns the first candidate whose key the client can verify, else the first.
    fn choose(&self, sni: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.candidates(sni)
            .find(|key| key.key.choose_scheme(schemes).is_some())
            .or_else(|| self.candidates(sni).next())
            .cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
