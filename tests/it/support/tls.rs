//! Certificates on disk, and both sides of TLS.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::h2::soon;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate authority with a directory for what it issues.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    /// One like no other; its certificate is `ca.crt`.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = tempfile::tempdir().unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, dir.path().display().to_string());
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    /// A file in the directory.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// PEM of a new certificate for `names`, and of its key.
    pub fn pems(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.issuer);
        (certificate.unwrap().pem(), key.serialize_pem())
    }

    /// Writes `stem.crt` and `stem.key`, over what is there.
    pub fn issue(&self, stem: &str, names: &[&str]) {
        let (certificate, key) = self.pems(names);
        fs::write(self.path(&format!("{stem}.crt")), certificate).unwrap();
        fs::write(self.path(&format!("{stem}.key")), key).unwrap();
    }

    /// `{certificate: …, key: …}` of what was issued as `stem`.
    pub fn pair(&self, stem: &str) -> String {
        let path = |extension| {
            self.path(&format!("{stem}.{extension}"))
                .display()
                .to_string()
        };
        format!("certificate: '{}', key: '{}'", path("crt"), path("key"))
    }

    /// The leaf in `stem.crt`, as a peer shows it.
    pub fn leaf(&self, stem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{stem}.crt"))).unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.leaf("ca")).unwrap();
        roots
    }

    fn identity(&self, stem: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{stem}.key"))).unwrap();
        (vec![self.leaf(stem)], key)
    }

    /// A client that trusts this authority and shows what was issued as `identity`, if any.
    pub fn client(&self, alpn: &[&str], identity: Option<&str>) -> Arc<ClientConfig> {
        self.client_showing(alpn, identity.map(|stem| (self, stem)))
    }

    /// A client that trusts this authority and shows a certificate of another.
    pub fn client_showing(
        &self,
        alpn: &[&str],
        identity: Option<(&Self, &str)>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((authority, stem)) => {
                let (chain, key) = authority.identity(stem);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::disabled(); // each handshake shows a certificate
        Arc::new(config)
    }

    /// A server that shows `stem`; `mutual`: and wants a certificate of this authority.
    pub fn acceptor(&self, stem: &str, alpn: &[&str], mutual: bool) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match mutual {
            false => builder.with_no_client_auth(),
            true => {
                let roots = Arc::new(self.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (chain, key) = self.identity(stem);
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Connects; `name` goes into SNI unless it is an address.
pub async fn connect(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    soon("a TLS handshake", connector.connect(name, socket)).await
}

/// The leaf that the server showed.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// One GET on an open connection: status and everything that came, head first.
///
/// # Errors
///
/// The connection failed or ended before the head and the declared length.
pub async fn ask<T>(stream: &mut T, host: &str) -> io::Result<(u16, String)>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap_or("0");
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if body.len() >= length {
                return Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), text));
            }
        }
        let mut block = [0u8; 4096];
        match soon("an answer", stream.read(&mut block)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => got.extend_from_slice(&block[..n]),
        }
    }
}

/// An endpoint that answers every request over TLS with 200 and `secure`.
pub struct TlsUpstream {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl TlsUpstream {
    /// Listens.
    pub async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let mut got = Vec::new();
                    while stream.read_buf(&mut got).await.is_ok_and(|n| n > 0) {
                        if got.ends_with(b"\r\n\r\n") {
                            got.clear();
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure";
                            let _ = stream.write_all(answer).await;
                        }
                    }
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for TlsUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
