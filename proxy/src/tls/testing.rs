//! Certificates on disk and handshakes in memory, for tests.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use forebay_config::{CertificateFiles, ClientTls, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// A certificate authority that writes what it issues into a directory of its own.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().display().to_string(); // two authorities must not look like one
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, dir };
        authority.write("ca.crt", authority.issuer.pem());
        authority
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(super) fn write(&self, file: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(file);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Returns the PEM of a certificate for `names` (DNS names or IP addresses) and of its key.
    pub(super) fn pems(&self, names: &[&str], key: KeyPair) -> (String, String) {
        let params = params(names);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes `stem.crt` and `stem.key`, whether or not they exist.
    pub(super) fn issue(&self, stem: &str, names: &[&str]) -> CertificateFiles {
        self.issue_for(stem, names, KeyPair::generate().unwrap())
    }

    pub(super) fn issue_for(&self, stem: &str, names: &[&str], key: KeyPair) -> CertificateFiles {
        let (certificate, key) = self.pems(names, key);
        CertificateFiles {
            certificate: self.write(&format!("{stem}.crt"), certificate),
            key: self.write(&format!("{stem}.key"), key),
        }
    }

    /// A client that trusts this authority and shows nothing.
    pub(super) fn client(&self) -> ClientTls {
        ClientTls {
            ca: Some(self.path("ca.crt")),
            ..ClientTls::default()
        }
    }

    /// A client that trusts this authority and shows `pair`.
    pub(super) fn client_with(&self, pair: &CertificateFiles) -> ClientTls {
        ClientTls {
            certificate: Some(pair.certificate.clone()),
            key: Some(pair.key.clone()),
            ..self.client()
        }
    }
}

pub(super) fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

/// Parameters of a certificate whose validity ended long ago.
pub(super) fn expired(names: &[&str]) -> CertificateParams {
    let mut params = params(names);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    params
}

pub(super) fn serving(certificates: Vec<CertificateFiles>) -> ServerTls {
    ServerTls {
        certificates,
        client_ca: None,
    }
}

/// Seconds since 1970.
pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

/// Both ends of a connection over which one byte went each way.
pub(super) struct Met {
    pub(super) client: client::TlsStream<DuplexStream>,
    pub(super) server: server::TlsStream<DuplexStream>,
}

impl Met {
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.client.get_ref().1.alpn_protocol()
    }

    pub(super) fn resumed(&self) -> bool {
        self.client.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Tells whether the server showed the first certificate in this file, as it is now.
    pub(super) fn saw(&self, pair: &CertificateFiles) -> bool {
        let pem = fs::read(&pair.certificate).unwrap();
        let expected = super::files::certificates(&pair.certificate, &pem).unwrap();
        self.client.get_ref().1.peer_certificates().unwrap()[0] == expected[0]
    }

    /// Sends a byte each way. In TLS 1.3 this is when a client learns of a refused certificate and gets its ticket.
    pub(super) async fn ping(&mut self) -> std::io::Result<()> {
        self.client.write_u8(1).await?;
        self.client.flush().await?;
        self.server.read_u8().await?;
        self.server.write_u8(2).await?;
        self.server.flush().await?;
        self.client.read_u8().await.map(|_| ())
    }
}

/// Connects over memory; an error of either side is its text.
pub(super) async fn meet(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<Met, String> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (server, client) = tokio::join!(
        async { TlsAcceptor::from(server).accept(near).await },
        async { TlsConnector::from(client).connect(name, far).await }
    );
    let mut met = match (server, client) {
        (Ok(server), Ok(client)) => Met { client, server },
        (server, client) => {
            let (server, client) = (server.err(), client.err());
            return Err(format!("server: {server:?}, client: {client:?}"));
        }
    };
    met.ping().await.map_err(|error| error.to_string())?;
    Ok(met)
}
